// SPDX-License-Identifier: Apache-2.0
//
// identity and cast on a device. See identity.cpp and cast.cpp for what they write.
#include "codec/elements.cuh"

namespace terse::inline v0_1 {
namespace {

template <class T, class A>
__global__ void divide_elements(T* values, std::uint64_t count, Divisor<A> divisor) {
  for_elements(std::uint64_t{blockIdx.x} * kUnit, count, [&](std::uint32_t, std::uint64_t i) {
    const A value = widened(values[i]);
    values[i] = rounded<T>(value == value ? divisor(value) : quieted(value));
  });
}

class DeviceIdentity final : public DeviceCodec {
 public:
  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, const RandomKey&, std::byte* payload,
              DeviceReport*) const override {
    for (const Fragment& fragment : fragments) {
      queue.copy(payload, fragment.values.data, fragment.values.bytes());
      payload += fragment.values.bytes();
    }
  }
  void undo(DeviceQueue&, std::span<const Fragment>, const std::byte*) const override {}
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport*) const override {
    if (to.empty()) return;
    if (into == Into::add || factor != 1.0) {
      with_element_type(to.front().dtype,
                        [&]<class T>(T) { decode_to<T, T>(queue, payload, to, into, factor); });
      return;
    }
    for (const View& view : to) {
      queue.copy(view.data, payload, view.bytes());
      payload += view.bytes();
    }
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments, const RandomKey&,
              std::byte* payload, DeviceReport*) const override {
    if (fragments.empty()) return;
    with_element_type(fragments.front().values.dtype, [&]<class T>(T) {
      using A = AccumulatorOf<T>;
      for_each_launch_of<T>(fragments, part_of_fragment, [&](const Parts& parts) {
        launch(queue, encode_elements<ElementMessages<T>, T, A>, kThreads * parts.units[0],
               ElementMessages<T>(sum), parts, payload, Received<A>(1.0), nullptr);
      });
    });
  }
  void undo_reduce(DeviceQueue&, const DeviceSum&, std::span<const Fragment>,
                   const std::byte*) const override {}
};

// Of f32 tensors, to H.
template <class H>
class DeviceCast final : public DeviceCodec {
 public:
  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, const RandomKey&, std::byte* payload,
              DeviceReport* report) const override {
    encode_from<H>(queue, ElementValues<float>(), fragments, payload, Received<float>(1.0), report);
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    undo_from<H>(queue, ElementValues<float>(), fragments, payload, Received<float>(1.0));
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport*) const override {
    decode_to<H, float>(queue, payload, to, into, factor);
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments, const RandomKey&,
              std::byte* payload, DeviceReport* report) const override {
    encode_from<H>(queue, ElementMessages<H>(sum), fragments, payload, Received<float>(sum.factor), report);
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    undo_from<H>(queue, ElementMessages<H>(sum), fragments, payload, Received<float>(sum.factor));
  }
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_identity(std::span<const std::byte>) {
  return std::make_unique<DeviceIdentity>();
}

std::unique_ptr<const DeviceCodec> make_device_cast(std::span<const std::byte> format) {
  if (format_of<DType>(format) == DType::f16) return std::make_unique<DeviceCast<float16>>();
  return std::make_unique<DeviceCast<bfloat16>>();
}

void divide_on_device(DeviceQueue& queue, View values, double divisor) {
  if (divisor == 1.0) return;
  with_element_type(values.dtype, [&]<class T>(T) {
    launch(queue, divide_elements<T, AccumulatorOf<T>>, kThreads * units_of(values.count),
           static_cast<T*>(values.data), static_cast<std::uint64_t>(values.count),
           Divisor<AccumulatorOf<T>>(divisor));
  });
}

}  // namespace terse::inline v0_1

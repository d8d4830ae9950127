// SPDX-License-Identifier: Apache-2.0
//
// identity and cast on a device: element by element, a thread each. See identity.cpp and cast.cpp for what
// they write.
#include "codec/device_parts.cuh"

namespace terse::inline v0_1 {
namespace {

// What is encoded: elements in memory.
template <class T>
struct Values {
  using A = AccumulatorOf<T>;
  TERSE_DEVICE A at(const Part& part, std::uint64_t i) const {
    return widened(static_cast<const T*>(part.in)[i]);
  }
};

// What is encoded: the sum of all ranks' messages, whose elements are of type H, divided.
template <class H>
struct Messages {
  using A = AccumulatorOf<H>;
  TERSE_DEVICE A at(const Part& part, std::uint64_t i) const {
    A sum{};
    for (int rank = 0; rank < ranks; ++rank) {
      const std::byte* payload = payloads + static_cast<std::size_t>(rank) * stride + part.payload;
      const A value = widened(reinterpret_cast<const H*>(payload)[i]);
      sum = rank == 0 ? value : sum + value;
    }
    return divides ? divisor(sum) : sum;
  }

  explicit Messages(const DeviceSum& sum)
      : payloads(sum.payloads),
        stride(sum.stride),
        ranks(sum.ranks),
        divides(sum.divisor != 1.0),
        divisor(sum.divisor) {}
  const std::byte* payloads;
  std::size_t stride;
  int ranks;
  bool divides;
  Divisor<A> divisor;
};

// What receivers will hold of an encoded value, over the factor by which they multiply.
template <class A>
struct Received {
  explicit Received(double by) : factor(static_cast<A>(by)), scales(by != 1.0), divisor(by) {}
  TERSE_DEVICE A operator()(A value) const {
    if (!scales) return value;
    const A held = value * factor;
    return is_finite(held) ? divisor(held) : held;
  }
  A factor;
  bool scales;
  Divisor<A> divisor;
};

// H: the type in the payload; E: of residuals.
template <class Source, class H, class E, class A>
__global__ void encode_elements(Source source, Parts parts, std::byte* payload, Received<A> received,
                                DeviceReport* report) {
  const std::uint64_t unit = thread_number();
  if (unit >= parts.units[0]) return;
  const Part& part = parts.find(unit, 0);
  const std::uint64_t i = unit - part.first[0];
  A v = source.at(part, i);
  if constexpr (!std::is_same_v<E, NoResidual>) v += widened(static_cast<const E*>(part.residual)[i]);
  const H encoded = rounded<H>(v);
  reinterpret_cast<H*>(payload + part.payload)[i] = encoded;
  if (report == nullptr) return;  // lossless: whatever it is
  const A held = received(widened(encoded));
  if (!is_finite(held)) return tell(report->non_finite, 1);
  if constexpr (!std::is_same_v<E, NoResidual>) static_cast<E*>(part.residual)[i] = kept<E>(v - held);
}

template <class Source, class H, class E, class A>
__global__ void undo_elements(Source source, Parts parts, const std::byte* payload, Received<A> received) {
  const std::uint64_t unit = thread_number();
  if (unit >= parts.units[0]) return;
  const Part& part = parts.find(unit, 0);
  const std::uint64_t i = unit - part.first[0];
  const A held = received(widened(reinterpret_cast<const H*>(payload + part.payload)[i]));
  if (!is_finite(held)) return;
  E& e = static_cast<E*>(part.residual)[i];
  e = kept<E>((held + widened(e)) - source.at(part, i));
}

template <class H, class T, bool kAdds, class A>
__global__ void decode_elements(Parts parts, const std::byte* payload, A factor) {
  const std::uint64_t unit = thread_number();
  if (unit >= parts.units[0]) return;
  const Part& part = parts.find(unit, 0);
  const std::uint64_t i = unit - part.first[0];
  T& out = static_cast<T*>(part.out)[i];
  const A value = widened(reinterpret_cast<const H*>(payload + part.payload)[i]) * factor;
  out = rounded<T>(kAdds ? widened(out) + value : value);
}

template <class T, class A>
__global__ void divide_elements(T* values, std::uint64_t count, Divisor<A> divisor) {
  const std::uint64_t i = thread_number();
  if (i < count) values[i] = rounded<T>(divisor(widened(values[i])));
}

template <class H, class Fragments, class PartOf, class Visit>
void for_each_launch_of(const Fragments& fragments, PartOf&& part_of, Visit&& visit) {
  for_each_launch(
      fragments, part_of, [](std::uint64_t count) { return count * sizeof(H); },
      [](std::uint64_t count) {
        return std::array<std::uint64_t, 3>{count, 0, 0};
      },
      visit);
}

// T: the tensor's type, H: the payload's.
template <class T, class H, class Source, class A>
void encode_from(DeviceQueue& queue, const Source& source, std::span<const Fragment> fragments,
                 std::byte* payload, const Received<A>& received, DeviceReport* report) {
  with_residual_type<A>(fragments, [&]<class E>(E) {
    for_each_launch_of<H>(fragments, part_of_fragment, [&](const Parts& parts) {
      launch(queue, encode_elements<Source, H, E, A>, parts.units[0], source, parts, payload, received,
             report);
    });
  });
}

template <class T, class H, class Source, class A>
void undo_from(DeviceQueue& queue, const Source& source, std::span<const Fragment> fragments,
               const std::byte* payload, const Received<A>& received) {
  with_residual_type<A>(fragments, [&]<class E>(E) {
    if constexpr (!std::is_same_v<E, NoResidual>) {
      for_each_launch_of<H>(fragments, part_of_fragment, [&](const Parts& parts) {
        launch(queue, undo_elements<Source, H, E, A>, parts.units[0], source, parts, payload, received);
      });
    }
  });
}

// H: the payload's type, T: the tensor's.
template <class H, class T>
void decode_to(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
               double factor) {
  using A = AccumulatorOf<T>;
  const auto kernel = into == Into::add ? decode_elements<H, T, true, A> : decode_elements<H, T, false, A>;
  for_each_launch_of<H>(to, part_of_output, [&](const Parts& parts) {
    launch(queue, kernel, parts.units[0], parts, payload, static_cast<A>(factor));
  });
}

class DeviceIdentity final : public DeviceCodec {
 public:
  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, std::byte* payload,
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
      with_dtype(to.front().dtype, [&]<class T>(T) { decode_to<T, T>(queue, payload, to, into, factor); });
      return;
    }
    for (const View& view : to) {
      queue.copy(view.data, payload, view.bytes());
      payload += view.bytes();
    }
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              std::byte* payload, DeviceReport*) const override {
    if (fragments.empty()) return;
    with_dtype(fragments.front().values.dtype, [&]<class T>(T) {
      using A = AccumulatorOf<T>;
      for_each_launch_of<T>(fragments, part_of_fragment, [&](const Parts& parts) {
        launch(queue, encode_elements<Messages<T>, T, NoResidual, A>, parts.units[0], Messages<T>(sum), parts,
               payload, Received<A>(1.0), nullptr);
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
  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, std::byte* payload,
              DeviceReport* report) const override {
    encode_from<float, H>(queue, Values<float>(), fragments, payload, Received<float>(1.0), report);
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    undo_from<float, H>(queue, Values<float>(), fragments, payload, Received<float>(1.0));
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport*) const override {
    decode_to<H, float>(queue, payload, to, into, factor);
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              std::byte* payload, DeviceReport* report) const override {
    encode_from<float, H>(queue, Messages<H>(sum), fragments, payload, Received<float>(sum.factor), report);
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    undo_from<float, H>(queue, Messages<H>(sum), fragments, payload, Received<float>(sum.factor));
  }
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_identity() { return std::make_unique<DeviceIdentity>(); }

std::unique_ptr<const DeviceCodec> make_device_cast(DType to) {
  if (to == DType::f16) return std::make_unique<DeviceCast<float16>>();
  return std::make_unique<DeviceCast<bfloat16>>();
}

void divide_on_device(DeviceQueue& queue, View values, double divisor) {
  if (divisor == 1.0) return;
  with_dtype(values.dtype, [&]<class T>(T) {
    launch(queue, divide_elements<T, AccumulatorOf<T>>, values.count, static_cast<T*>(values.data),
           static_cast<std::uint64_t>(values.count), Divisor<AccumulatorOf<T>>(divisor));
  });
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// identity and cast on a device: element by element, a thread each. See identity.cpp and cast.cpp for what
// they write.
#include "codec/device_parts.cuh"

namespace terse::inline v0_1 {
namespace {

// A NaN says which it is by bits that IEEE 754 leaves to the processor: sums and products of what may be one
// have the host's here. A sum has the first operand's if that is one, else the second's, else the host's own.
template <class A>
TERSE_DEVICE A quieted(A nan) {
  using Bits = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;
  return std::bit_cast<A>(std::bit_cast<Bits>(nan) | Bits{1} << (std::numeric_limits<A>::digits - 2));
}
template <class A>
TERSE_DEVICE A new_nan() {
#if defined(__x86_64__)
  return -std::numeric_limits<A>::quiet_NaN();
#else
  return std::numeric_limits<A>::quiet_NaN();
#endif
}
template <class A>
TERSE_DEVICE A sum_of(A a, A b) {
  const A sum = a + b;
  if (sum == sum) return sum;
  return a != a ? quieted(a) : b != b ? quieted(b) : new_nan<A>();
}
// Finite factors alone: a number makes none.
template <class A>
TERSE_DEVICE A product_of(A a, A factor) {
  return a == a ? a * factor : quieted(a);
}

// What is encoded: elements in memory.
template <class T>
struct Values {
  using A = AccumulatorOf<T>;
  Values from(std::uint64_t) const { return *this; }
  TERSE_DEVICE A at(const Part& part, std::uint64_t i) const {
    return widened(static_cast<const T*>(part.in)[i]);
  }
};

// What is encoded: the sum of all ranks' messages, whose elements are of type H, divided.
template <class H>
struct Messages : GatheredMessages<AccumulatorOf<H>> {
  using A = AccumulatorOf<H>;
  using GatheredMessages<A>::GatheredMessages;
  Messages from(std::uint64_t payload) const {
    Messages later = *this;
    later.payloads += payload;
    return later;
  }
  TERSE_DEVICE A at(const Part& part, std::uint64_t i) const {
    A sum{};
    for (int rank = 0; rank < this->ranks; ++rank) {
      const A value = widened(reinterpret_cast<const H*>(this->payload_of(rank) + part.payload)[i]);
      sum = rank == 0 ? value : sum_of(sum, value);
    }
    return sum == sum ? this->divided(sum) : sum;
  }
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

// A unit is what a block of threads deals with: a thread has several elements under way at once, each beside
// its neighbours'.
constexpr std::uint32_t kEach = 4;
constexpr std::uint32_t kUnit = kEach * kThreads;

template <class Do>
TERSE_DEVICE void for_elements(std::uint64_t first, std::uint64_t count, Do&& each) {
  TERSE_UNROLL
  for (std::uint32_t k = 0; k < kEach; ++k) {
    const std::uint64_t i = first + k * kThreads + threadIdx.x;
    if (i < count) each(k, i);
  }
}

// H: the type in the payload; E: of residuals.
template <class Source, class H, class E, class A>
__global__ void encode_elements(Source source, TERSE_ARGUMENT Parts parts, std::byte* payload,
                                Received<A> received, DeviceReport* report) {
  const Part& part = parts.find(blockIdx.x, 0);
  const std::uint64_t first = (blockIdx.x - part.first[0]) * kUnit;
  A v[kEach];
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) { v[k] = source.at(part, i); });
  if constexpr (!std::is_same_v<E, NoResidual>) {
    for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
      v[k] += widened(static_cast<const E*>(part.residual)[i]);
    });
  }
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
    const H encoded = rounded<H>(v[k]);
    reinterpret_cast<H*>(payload + part.payload)[i] = encoded;
    if (report == nullptr) return;  // lossless: whatever it is
    const A held = received(widened(encoded));
    if (!is_finite(held)) return tell(report->non_finite, 1);
    if constexpr (!std::is_same_v<E, NoResidual>) static_cast<E*>(part.residual)[i] = kept<E>(v[k] - held);
  });
}

template <class Source, class H, class E, class A>
__global__ void undo_elements(Source source, TERSE_ARGUMENT Parts parts, const std::byte* payload,
                              Received<A> received) {
  const Part& part = parts.find(blockIdx.x, 0);
  for_elements((blockIdx.x - part.first[0]) * kUnit, part.count, [&](std::uint32_t, std::uint64_t i) {
    const A held = received(widened(reinterpret_cast<const H*>(payload + part.payload)[i]));
    if (!is_finite(held)) return;
    E& e = static_cast<E*>(part.residual)[i];
    e = kept<E>((held + widened(e)) - source.at(part, i));
  });
}

template <class H, class T, bool kAdds, class A>
__global__ void decode_elements(TERSE_ARGUMENT Parts parts, const std::byte* payload, A factor) {
  const Part& part = parts.find(blockIdx.x, 0);
  const std::uint64_t first = (blockIdx.x - part.first[0]) * kUnit;
  A v[kEach];
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
    v[k] = product_of(widened(reinterpret_cast<const H*>(payload + part.payload)[i]), factor);
    if constexpr (kAdds) v[k] = sum_of(widened(static_cast<const T*>(part.out)[i]), v[k]);
  });
  for_elements(first, part.count,
               [&](std::uint32_t k, std::uint64_t i) { static_cast<T*>(part.out)[i] = rounded<T>(v[k]); });
}

template <class T, class A>
__global__ void divide_elements(T* values, std::uint64_t count, Divisor<A> divisor) {
  for_elements(std::uint64_t{blockIdx.x} * kUnit, count, [&](std::uint32_t, std::uint64_t i) {
    const A value = widened(values[i]);
    values[i] = rounded<T>(value == value ? divisor(value) : quieted(value));
  });
}

std::uint64_t units_of(std::uint64_t count) { return (count + kUnit - 1) / kUnit; }

template <class H, class Fragments, class PartOf, class Visit>
void for_each_launch_of(const Fragments& fragments, PartOf&& part_of, Visit&& visit) {
  for_each_launch(
      fragments, part_of, [](std::uint64_t count) { return count * sizeof(H); },
      [](std::uint64_t count) {
        return std::array<std::uint64_t, 3>{units_of(count), 0, 0};
      },
      visit);
}

template <class H, class Source, class A>
void encode_from(DeviceQueue& queue, const Source& source, std::span<const Fragment> fragments,
                 std::byte* payload, const Received<A>& received, DeviceReport* report) {
  for_each_residual_type<A>(
      fragments, [](std::uint64_t count) { return count * sizeof(H); },
      [&]<class E>(E, std::span<const Fragment> alike, std::uint64_t begin) {
        for_each_launch_of<H>(alike, part_of_fragment, [&](const Parts& parts) {
          launch(queue, encode_elements<Source, H, E, A>, kThreads * parts.units[0], source.from(begin),
                 parts, payload + begin, received, report);
        });
      });
}

template <class H, class Source, class A>
void undo_from(DeviceQueue& queue, const Source& source, std::span<const Fragment> fragments,
               const std::byte* payload, const Received<A>& received) {
  for_each_residual_type<A>(
      fragments, [](std::uint64_t count) { return count * sizeof(H); },
      [&]<class E>(E, std::span<const Fragment> alike, std::uint64_t begin) {
        if constexpr (!std::is_same_v<E, NoResidual>) {
          for_each_launch_of<H>(alike, part_of_fragment, [&](const Parts& parts) {
            launch(queue, undo_elements<Source, H, E, A>, kThreads * parts.units[0], source.from(begin),
                   parts, payload + begin, received);
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
    launch(queue, kernel, kThreads * parts.units[0], parts, payload, static_cast<A>(factor));
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
        launch(queue, encode_elements<Messages<T>, T, NoResidual, A>, kThreads * parts.units[0],
               Messages<T>(sum), parts, payload, Received<A>(1.0), nullptr);
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
    encode_from<H>(queue, Values<float>(), fragments, payload, Received<float>(1.0), report);
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    undo_from<H>(queue, Values<float>(), fragments, payload, Received<float>(1.0));
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport*) const override {
    decode_to<H, float>(queue, payload, to, into, factor);
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              std::byte* payload, DeviceReport* report) const override {
    encode_from<H>(queue, Messages<H>(sum), fragments, payload, Received<float>(sum.factor), report);
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    undo_from<H>(queue, Messages<H>(sum), fragments, payload, Received<float>(sum.factor));
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
    launch(queue, divide_elements<T, AccumulatorOf<T>>, kThreads * units_of(values.count),
           static_cast<T*>(values.data), static_cast<std::uint64_t>(values.count),
           Divisor<AccumulatorOf<T>>(divisor));
  });
}

}  // namespace terse::inline v0_1

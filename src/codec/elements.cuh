// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "codec/device_parts.cuh"

// Codecs that encode each element by itself, as an element of another type: all kernels. A thread has several
// elements under way at once, each beside its neighbours'.

namespace terse::inline v0_1 {

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
struct ElementValues {
  using A = AccumulatorOf<T>;
  TERSE_DEVICE A at(const Part& part, std::uint64_t i) const {
    return widened(static_cast<const T*>(part.in)[i]);
  }
};

// What is encoded: the sum of all ranks' messages, whose elements are of type H, divided.
template <class H>
struct ElementMessages : GatheredMessages<AccumulatorOf<H>> {
  using A = AccumulatorOf<H>;
  using GatheredMessages<A>::GatheredMessages;
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
inline constexpr std::uint32_t kEach = 4;
inline constexpr std::uint32_t kUnit = kEach * kThreads;

template <class Do>
TERSE_DEVICE void for_elements(std::uint64_t first, std::uint64_t count, Do&& each) {
  TERSE_UNROLL
  for (std::uint32_t k = 0; k < kEach; ++k) {
    const std::uint64_t i = first + k * kThreads + threadIdx.x;
    if (i < count) each(k, i);
  }
}

// H: the type in the payload. A codec without report is lossless: it takes every value, and is given every
// one.
template <class Source, class H, class A>
__global__ void encode_elements(Source source, TERSE_ARGUMENT Parts parts, std::byte* payload,
                                Received<A> received, DeviceReport* report) {
  const Part& part = parts.find(blockIdx.x, 0);
  const std::uint64_t first = (blockIdx.x - part.first[0]) * kUnit;
  A v[kEach];
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) { v[k] = source.at(part, i); });
  if (part.residual != nullptr) {
    with_residual_type<A>(part, [&](auto type) {
      for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
        v[k] += widened(static_cast<const decltype(type)*>(part.residual)[i]);
      });
    });
  }
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
    const H encoded = rounded<H>(v[k]);
    reinterpret_cast<H*>(payload + part.payload)[i] = encoded;
    if (report == nullptr) return;
    const A held = received(widened(encoded));
    if (!is_finite(held)) return tell(report->non_finite, 1);
    if (part.residual == nullptr) return;
    with_residual_type<A>(part, [&](auto type) {
      using E = decltype(type);
      static_cast<E*>(part.residual)[i] = kept<E>(v[k] - held);
    });
  });
}

template <class Source, class H, class A>
__global__ void undo_elements(Source source, TERSE_ARGUMENT Parts parts, const std::byte* payload,
                              Received<A> received) {
  const Part& part = parts.find(blockIdx.x, 0);
  if (part.residual == nullptr) return;
  for_elements((blockIdx.x - part.first[0]) * kUnit, part.count, [&](std::uint32_t, std::uint64_t i) {
    const A held = received(widened(reinterpret_cast<const H*>(payload + part.payload)[i]));
    if (!is_finite(held)) return;
    with_residual_type<A>(part, [&](auto type) {
      using E = decltype(type);
      E& e = static_cast<E*>(part.residual)[i];
      e = kept<E>((held + widened(e)) - source.at(part, i));
    });
  });
}

template <class H, class T, class A>
__global__ void decode_elements(TERSE_ARGUMENT Parts parts, const std::byte* payload, bool adds, A factor) {
  const Part& part = parts.find(blockIdx.x, 0);
  const std::uint64_t first = (blockIdx.x - part.first[0]) * kUnit;
  A v[kEach];
  for_elements(first, part.count, [&](std::uint32_t k, std::uint64_t i) {
    const A encoded = widened(reinterpret_cast<const H*>(payload + part.payload)[i]);
    v[k] = product_of(encoded, factor);
    if (adds) v[k] = sum_of(widened(static_cast<const T*>(part.out)[i]), v[k]);
  });
  for_elements(first, part.count,
               [&](std::uint32_t k, std::uint64_t i) { static_cast<T*>(part.out)[i] = rounded<T>(v[k]); });
}

inline std::uint64_t units_of(std::uint64_t count) { return (count + kUnit - 1) / kUnit; }

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
  for_each_launch_of<H>(fragments, part_of_fragment, [&](const Parts& parts) {
    launch(queue, encode_elements<Source, H, A>, kThreads * parts.units[0], source, parts, payload, received,
           report);
  });
}

template <class H, class Source, class A>
void undo_from(DeviceQueue& queue, const Source& source, std::span<const Fragment> fragments,
               const std::byte* payload, const Received<A>& received) {
  if (!has_residual(fragments)) return;
  for_each_launch_of<H>(fragments, part_of_fragment, [&](const Parts& parts) {
    launch(queue, undo_elements<Source, H, A>, kThreads * parts.units[0], source, parts, payload, received);
  });
}

// H: the payload's type, T: the tensor's.
template <class H, class T>
void decode_to(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
               double factor) {
  using A = AccumulatorOf<T>;
  for_each_launch_of<H>(to, part_of_output, [&](const Parts& parts) {
    launch(queue, decode_elements<H, T, A>, kThreads * parts.units[0], parts, payload, into == Into::add,
           static_cast<A>(factor));
  });
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <terse/codec.hpp>
#include <terse/types.hpp>

#include "codec/arithmetic.hpp"
#include "codec/onebit_kernels.hpp"

// What onebit does with an element and with a block, for its kernels on the host and on devices.

namespace terse::inline v0_1 {

// The bits must not depend on the vector length, nor on whether a GPU or a CPU made them. So a block's sum is
// defined as 64 running sums, element i of the block going to sum i mod 64 in order of i, which are then
// added as a tree: sum j and sum j + 32, then j + 16, ... 1. A product is rounded before it is added.
inline constexpr std::size_t kOnebitGroup = 64;
/// Elements of a block that are summed at a stretch, in whole groups: a long block is summed in runs, whose
/// sums are added in double, so that small terms are not lost beside a large sum.
inline constexpr std::size_t kOnebitRun = 8192;

/// What an element adds to its sum.
template <class A>
TERSE_HOST_DEVICE constexpr A onebit_term(A v, OnebitScale scale) noexcept {
  return scale == OnebitScale::l1 ? magnitude_of(v) : v * v;
}

/// A block's scale before it is rounded to the tensor's type, for n elements: `last_run` is the sum of the
/// last run of them, `total` that of all runs.
template <class A>
TERSE_HOST_DEVICE A onebit_scale(A last_run, double total, std::size_t n, OnebitScale scale) noexcept {
  const A mean =
      n <= kOnebitRun ? last_run / static_cast<A>(n) : static_cast<A>(total / static_cast<double>(n));
  return scale == OnebitScale::l1 ? mean : std::sqrt(mean);
}

/// What those who decode will hold of a rounded scale, over `factor`; not finite where they cannot hold it.
template <class A>
TERSE_HOST_DEVICE A onebit_received_scale(A scale, double factor, DType as) noexcept {
  if (factor == 1.0) return scale;
  const A held = rounded_scale(scale * static_cast<A>(factor), as);
  return is_finite(held) ? held / static_cast<A>(factor) : held;
}

template <class A>
TERSE_HOST_DEVICE void store_scale(A scale, DType as, std::byte* out) noexcept {
  with_stored_scale(scale, as, [&](auto stored) { std::memcpy(out, &stored, sizeof stored); });
}

template <class A>
TERSE_HOST_DEVICE A load_scale(const std::byte* in, DType as) noexcept {
  return with_stored_scale(A{}, as, [&](auto stored) {
    std::memcpy(&stored, in, sizeof stored);
    return static_cast<A>(widened(stored));
  });
}

/// Both zeros count as positive.
template <class A>
TERSE_HOST_DEVICE constexpr bool onebit_negative(A v) noexcept {
  return v < 0;
}

/// What block.cuh asks of a codec.
template <class Accumulator>
class OnebitOperations {
 public:
  using A = Accumulator;
  using Format = OnebitFormat;
  using Statistic = A;   // the sum of an element's terms
  using Parameters = A;  // the scale, rounded as it is sent
  static constexpr std::uint32_t kRun = static_cast<std::uint32_t>(kOnebitRun);

  OnebitOperations(const OnebitFormat& format, DType as, const RandomKey&) noexcept
      : format_(format), as_(as) {}

  TERSE_HOST_DEVICE std::uint32_t block() const noexcept { return format_.block; }
  TERSE_HOST_DEVICE DType as() const noexcept { return as_; }

  TERSE_HOST_DEVICE void add(Statistic& sum, A v) const noexcept { sum += onebit_term(v, format_.scale); }
  TERSE_HOST_DEVICE Statistic merged(Statistic a, Statistic b) const noexcept { return a + b; }
  TERSE_HOST_DEVICE Parameters parameters(const Statistic* sums, std::uint64_t runs,
                                          std::uint64_t n) const noexcept {
    double total = 0;
    for (std::uint64_t r = 0; r < runs; ++r) total += static_cast<double>(sums[r]);
    return rounded_scale(onebit_scale(sums[runs - 1], total, n, format_.scale), as_);
  }

  TERSE_HOST_DEVICE std::uint32_t head() const noexcept { return static_cast<std::uint32_t>(size_of(as_)); }
  TERSE_HOST_DEVICE void store(Parameters scale, std::byte* out) const noexcept {
    store_scale(scale, as_, out);
  }
  TERSE_HOST_DEVICE Parameters load(const std::byte* in) const noexcept { return load_scale<A>(in, as_); }
  TERSE_HOST_DEVICE bool is_valid(Parameters scale) const noexcept { return is_block_scale(scale); }
  TERSE_HOST_DEVICE Parameters times(Parameters scale, A factor) const noexcept { return scale * factor; }

  TERSE_HOST_DEVICE std::uint32_t draw(std::uint64_t) const noexcept { return 0; }
  TERSE_HOST_DEVICE unsigned code(A v, Parameters, std::uint32_t) const noexcept {
    return onebit_negative(v) ? 1 : 0;
  }
  TERSE_HOST_DEVICE A value(unsigned code, Parameters scale) const noexcept {
    return code != 0 ? -scale : scale;
  }

  struct Receiver {
    static constexpr bool kMayFail = false;
    A scale;
    TERSE_HOST_DEVICE bool is_valid() const noexcept { return is_finite(scale); }
    TERSE_HOST_DEVICE A operator()(unsigned code) const noexcept { return code != 0 ? -scale : scale; }
  };
  template <class Reception>
  TERSE_HOST_DEVICE Receiver receiver(Parameters scale, const Reception& reception) const noexcept {
    return {onebit_received_scale(scale, reception.factor, as_)};
  }

 private:
  OnebitFormat format_;
  DType as_;
};

}  // namespace terse::inline v0_1

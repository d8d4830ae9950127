// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <terse/codec.hpp>
#include <terse/types.hpp>

#include "codec/arithmetic.hpp"
#include "codec/philox.hpp"
#include "codec/quant_kernels.hpp"

// What quant does with an element and with a block, for its kernels on the host and on devices.

namespace terse::inline v0_1 {

/// The values that a block's codes stand for: (code - zero) * scale, code from 0 to top.
template <class A>
struct QuantGrid {
  A scale = 0;
  A inverse = 0;
  unsigned zero = 0;
  unsigned top = 0;

  /// The largest magnitude among them.
  TERSE_HOST_DEVICE A largest() const noexcept {
    return static_cast<A>(zero > top - zero ? zero : top - zero) * scale;
  }
};

/// The grid of a block whose values, and zero, lie from `low` to `high`, both finite. Rounded to nearest,
/// none is further off than half a scale. For stochastic rounding, both ends lie within the grid. Where the
/// scale would be no normal number, so small are the values, it is 0 and all stand for 0.
template <class A>
TERSE_INTO_CALLER TERSE_HOST_DEVICE QuantGrid<A> quant_grid(A low, A high,
                                                            const QuantFormat& format) noexcept {
  constexpr A kLeast = sizeof(A) == 8 ? static_cast<A>(0x1p-1022) : static_cast<A>(0x1p-126f);
  QuantGrid<A> grid;
  grid.top = format.top();
  if (format.range == QuantRange::symmetric) {
    grid.zero = grid.top / 2;
    grid.scale = (-low > high ? -low : high) / static_cast<A>(grid.zero);
  } else {
    const A steps = static_cast<A>(format.rounding == Rounding::nearest ? grid.top : grid.top - 1);
    grid.scale = high / steps - low / steps;
  }
  if (!(grid.scale >= kLeast)) {
    grid.scale = 0;
    grid.zero = grid.top / 2;
    return grid;
  }
  grid.inverse = 1 / grid.scale;
  if (format.range == QuantRange::minmax) {
    const A at = -low * grid.inverse;
    const auto whole = static_cast<unsigned>(at);
    const A part = at - static_cast<A>(whole);
    const bool up = format.rounding == Rounding::nearest ? part >= static_cast<A>(0.5) : part > 0;
    grid.zero = whole + (up ? 1u : 0u);
    if (grid.zero > grid.top) grid.zero = grid.top;
  }
  return grid;
}

/// Whether a block with this grid can be decoded as a tensor of type `as`; what an encoder writes can be.
template <class A>
TERSE_INTO_CALLER TERSE_HOST_DEVICE bool is_quant_grid(const QuantGrid<A>& grid, DType as) noexcept {
  return is_block_scale(grid.scale) && grid.zero <= grid.top && is_finite(rounded_scale(grid.largest(), as));
}

/// What lies in front of a block's codes.
template <class A>
TERSE_INTO_CALLER TERSE_HOST_DEVICE void store_quant_grid(const QuantGrid<A>& grid, const QuantFormat& format,
                                                          std::byte* out) noexcept {
  std::memcpy(out, &grid.scale, sizeof(A));
  if (format.range == QuantRange::minmax) out[sizeof(A)] = static_cast<std::byte>(grid.zero);
}

template <class A>
TERSE_INTO_CALLER TERSE_HOST_DEVICE QuantGrid<A> load_quant_grid(const std::byte* in,
                                                                 const QuantFormat& format) noexcept {
  QuantGrid<A> grid;
  std::memcpy(&grid.scale, in, sizeof(A));
  grid.inverse = grid.scale == 0 ? A{0} : 1 / grid.scale;
  grid.top = format.top();
  grid.zero = format.range == QuantRange::minmax ? static_cast<unsigned>(in[sizeof(A)]) : grid.top / 2;
  return grid;
}

/// The code of an element, from its random bits where rounding is stochastic.
template <class A>
TERSE_HOST_DEVICE unsigned quant_code(A v, const QuantGrid<A>& grid, Rounding rounding,
                                      std::uint16_t half) noexcept {
  const A least = -static_cast<A>(grid.zero);
  const A most = static_cast<A>(grid.top - grid.zero);
  A step = v * grid.inverse;
  step = step > least ? step : least;
  step = step < most ? step : most;
  if (rounding == Rounding::nearest) {
    step = std::rint(step);
  } else {
    const A below = std::floor(step);
    step = below + (random_unit<A>(half) < step - below ? A{1} : A{0});
  }
  return static_cast<unsigned>(static_cast<int>(step) + static_cast<int>(grid.zero));
}

/// What a code stands for.
template <class A>
TERSE_HOST_DEVICE A quant_value(unsigned code, const QuantGrid<A>& grid) noexcept {
  return (static_cast<A>(code) - static_cast<A>(grid.zero)) * grid.scale;
}

/// What quant's kernels on devices are made from.
struct QuantTwin {
  QuantFormat quant{};
  std::uint32_t block = 0;  ///< elements
};

/// The smallest and the largest of some values and zero; `low` is NaN where one of them is not finite.
template <class A>
struct QuantExtent {
  A low = 0;
  A high = 0;
};

/// What block.cuh asks of a codec.
template <class Accumulator>
class QuantOperations {
 public:
  using A = Accumulator;
  using Format = QuantTwin;
  using Statistic = QuantExtent<A>;
  using Parameters = QuantGrid<A>;
  static constexpr std::uint32_t kRun = 8192;

  QuantOperations(const QuantTwin& twin, DType as, const RandomKey& key) noexcept
      : twin_(twin), as_(as), stream_(key.stream), call_(key.call), position_(key.position) {}

  TERSE_HOST_DEVICE std::uint32_t block() const noexcept { return twin_.block; }
  TERSE_HOST_DEVICE DType as() const noexcept { return as_; }
  TERSE_HOST_DEVICE const QuantFormat& format() const noexcept { return twin_.quant; }

  TERSE_HOST_DEVICE void add(Statistic& extent, A v) const noexcept {
    if (v < extent.low) extent.low = v;
    if (v > extent.high) extent.high = v;
    if (!is_finite(v)) extent.low = v - v;  // NaN, which nothing is less than
  }
  TERSE_HOST_DEVICE Statistic merged(const Statistic& a, const Statistic& b) const noexcept {
    return {b.low < a.low || b.low != b.low ? b.low : a.low, b.high > a.high ? b.high : a.high};
  }
  TERSE_HOST_DEVICE Parameters parameters(const Statistic* extents, std::uint64_t runs,
                                          std::uint64_t) const noexcept {
    Statistic all = extents[0];
    for (std::uint64_t r = 1; r < runs; ++r) all = merged(all, extents[r]);
    Parameters grid = quant_grid(all.low, all.high, twin_.quant);
    if (all.low != all.low) grid.scale = all.low;  // which no encoder sends
    return grid;
  }

  TERSE_HOST_DEVICE std::uint32_t head() const noexcept {
    return static_cast<std::uint32_t>(twin_.quant.head(sizeof(A)));
  }
  TERSE_HOST_DEVICE void store(const Parameters& grid, std::byte* out) const noexcept {
    store_quant_grid(grid, twin_.quant, out);
  }
  TERSE_HOST_DEVICE Parameters load(const std::byte* in) const noexcept {
    return load_quant_grid<A>(in, twin_.quant);
  }
  TERSE_HOST_DEVICE bool is_valid(const Parameters& grid) const noexcept { return is_quant_grid(grid, as_); }
  TERSE_HOST_DEVICE Parameters times(Parameters grid, A factor) const noexcept {
    grid.scale *= factor;
    return grid;
  }

  TERSE_HOST_DEVICE std::uint32_t draw(std::uint64_t position) const noexcept {
    if (twin_.quant.rounding == Rounding::nearest) return 0;
    RandomKey key{.call = call_, .stream = stream_, .position = position_ + position};
    if (key.position % 2 == 0) return random_word(twin_.quant.seed, key);
    const std::uint32_t own = random_half(twin_.quant.seed, key);
    ++key.position;
    return own | static_cast<std::uint32_t>(random_half(twin_.quant.seed, key)) << 16;
  }
  TERSE_HOST_DEVICE unsigned code(A v, const Parameters& grid, std::uint32_t half) const noexcept {
    return quant_code(v, grid, twin_.quant.rounding, static_cast<std::uint16_t>(half));
  }
  TERSE_HOST_DEVICE A value(unsigned code, const Parameters& grid) const noexcept {
    return quant_value(code, grid);
  }

  struct Receiver {
    static constexpr bool kMayFail = true;  // where the factor is more than 1
    Parameters grid;                        // times the factor
    A factor;
    DType as;
    bool rounds, valid;
    TERSE_HOST_DEVICE bool is_valid() const noexcept { return valid; }
    TERSE_HOST_DEVICE A operator()(unsigned code) const noexcept {
      const A value = quant_value(code, grid);
      if (!rounds) return value;
      const A held = rounded_scale(value, as);
      return factor == 1 || !is_finite(held) ? held : held / factor;
    }
  };
  template <class Reception>
  TERSE_HOST_DEVICE Receiver receiver(const Parameters& grid, const Reception& reception) const noexcept {
    const A factor = static_cast<A>(reception.factor);
    return {times(grid, factor), factor, as_, reception.rounds, is_valid(grid)};
  }

 private:
  QuantTwin twin_;
  DType as_;
  std::uint32_t stream_;
  std::uint64_t call_, position_;
};

}  // namespace terse::inline v0_1

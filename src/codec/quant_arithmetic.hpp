// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <terse/types.hpp>

#include "codec/arithmetic.hpp"
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

}  // namespace terse::inline v0_1

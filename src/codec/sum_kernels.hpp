// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/types.hpp>

#include "codec/block_codec.hpp"

namespace terse::inline v0_1 {

/// What codes stand for: code * step, code from -most to most. The numbers are those of the accumulator's
/// type.
struct SumGrid {
  unsigned bits = 8;  ///< of a code: 8 or 4
  int most = 0;
  double step = 0;
  double inverse = 0;
};

/// Bytes of n codes, of whole groups.
constexpr std::size_t sum_code_bytes(std::size_t n, unsigned bits) {
  return groups_of(n) * (kBlockGroup / 8) * bits;
}

// Values of the accumulator's type, in whole groups.

/// The largest magnitude of value + residual (which may be null); NaN where a value is not finite.
double sum_largest(ConstView values, const void* residual) noexcept;
/// Writes the codes of value + residual (which may be null), which takes what they leave out.
void sum_encode(ConstView values, void* residual, const SumGrid& grid, std::byte* out) noexcept;
/// Decodes into (or adds to) `out`, each value times `factor`. Returns the largest magnitude of a code.
int sum_decode(const std::byte* in, const SumGrid& grid, View out, Into into, double factor) noexcept;

}  // namespace terse::inline v0_1

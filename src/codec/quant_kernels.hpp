// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/codec.hpp>

#include "codec/block_codec.hpp"

namespace terse::inline v0_1 {

enum class Rounding : std::uint8_t { nearest, stochastic };
enum class QuantRange : std::uint8_t { symmetric, minmax };

struct QuantFormat {
  unsigned bits = 8;  ///< 8, 6, 4 or 2
  Rounding rounding = Rounding::nearest;
  QuantRange range = QuantRange::minmax;
  std::uint32_t seed = 0;

  /// The largest code; the smallest is 0.
  constexpr unsigned top() const noexcept { return (1u << bits) - (range == QuantRange::symmetric ? 2 : 1); }
  /// Bytes in front of a block's codes, whose accumulator has `size` bytes.
  constexpr std::size_t head(std::size_t size) const noexcept {
    return size + (range == QuantRange::minmax ? 1 : 0);
  }
};

/// The parts of a BlockCodec.
std::size_t quant_encode(ConstView values, void* residual, std::size_t block, DType as,
                         const QuantFormat& format, const RandomKey& key, std::byte* out);
bool quant_decode(const std::byte* in, std::size_t block, DType as, View out, const QuantFormat& format,
                  Into into, double factor);

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/codec.hpp>

#include "codec/block_codec.hpp"
#include "codec/quant_kernels.hpp"

namespace terse::inline v0_1 {

inline constexpr std::size_t kTernaryGroupBytes = 13;  ///< of the codes of a group

struct TernaryFormat {
  std::size_t block = 0;
  Rounding rounding = Rounding::nearest;
  double threshold = 0;  ///< over mean |v|; of nearest
  std::uint32_t seed = 0;
};

/// The parts of a BlockCodec.
std::size_t ternary_encode(ConstView values, std::size_t n, void* residual, DType as,
                           const TernaryFormat& format, const RandomKey& key, std::byte* out);
bool ternary_decode(const std::byte* in, View out, const TernaryFormat& format, Into into, double factor);

}  // namespace terse::inline v0_1

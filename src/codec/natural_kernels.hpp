// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

/// The parts of a BlockCodec.
std::size_t natural_encode(ConstView values, void* residual, std::size_t block, DType as, std::uint32_t seed,
                           const RandomKey& key, std::byte* out);
bool natural_decode(const std::byte* in, std::size_t block, DType as, View out, Into into, double factor);

}  // namespace terse::inline v0_1

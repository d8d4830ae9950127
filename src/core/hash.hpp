// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace terse::inline v0_1 {

/// XXH3 (64 bits) of some bytes, the same on every machine; with another seed another function.
std::uint64_t hash(std::span<const std::byte> bytes, std::uint64_t seed = 0) noexcept;

}  // namespace terse::inline v0_1

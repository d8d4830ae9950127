// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>

namespace terse::inline v0_1 {

// Elements of 1, 2, 4 or 8 bytes, and planes: the first bytes of all of them, the second ones, and so on.

constexpr std::size_t kMostPlanes = 8;

/// Byte k of element i goes to planes[k * count + i].
void shuffle(const std::byte* elements, std::size_t count, std::size_t width, std::byte* planes);

/// Byte k of element i comes from planes[k][i]; as many planes as `width` says are looked at.
void unshuffle(const std::array<const std::byte*, kMostPlanes>& planes, std::size_t count, std::size_t width,
               std::byte* elements);

}  // namespace terse::inline v0_1

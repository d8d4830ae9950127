// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace terse::inline v0_1 {

// Everything that leaves the process is little-endian.
static_assert(
    std::endian::native == std::endian::little,
    "Terse writes its numbers as they lie in memory: a big-endian machine needs swaps in core/bytes.hpp");

/// A number from, or to, memory of any alignment.
template <class T>
requires std::is_trivially_copyable_v<T> T load(const std::byte* from)
noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
requires std::is_trivially_copyable_v<T>
void store(std::byte* to, const T& value) noexcept { std::memcpy(to, &value, sizeof value); }

}  // namespace terse::inline v0_1

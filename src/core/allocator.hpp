// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace terse::inline v0_1 {

/// For memory that is walked over from end to end, call after call: on cache lines, and where it is large on
/// huge pages, so that the processor need not look up the address of every 4 KiB.
template <class T>
struct StreamingAllocator {
  using value_type = T;

  StreamingAllocator() = default;
  template <class U>
  StreamingAllocator(const StreamingAllocator<U>&) noexcept {}

  /// Errors: std::bad_alloc.
  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    void* memory = ::operator new(bytes, alignment(bytes));
#ifdef MADV_HUGEPAGE
    if (bytes >= kLarge) madvise(memory, bytes, MADV_HUGEPAGE);  // advice: no harm where it is not taken
#endif
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    ::operator delete(memory, alignment(count * sizeof(T)));
  }
  template <class U>
  bool operator==(const StreamingAllocator<U>&) const noexcept {
    return true;
  }

 private:
  static constexpr std::size_t kCacheLine = 64;
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static constexpr std::size_t kLarge = 2 * kHugePage;
  static std::align_val_t alignment(std::size_t bytes) noexcept {
    return std::align_val_t{bytes >= kLarge ? kHugePage : kCacheLine};
  }
};

}  // namespace terse::inline v0_1

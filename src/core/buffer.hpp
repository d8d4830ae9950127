// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <string>
#include <terse/error.hpp>
#include <utility>

#include "core/allocator.hpp"

namespace terse::inline v0_1 {

/// Memory on a cache line boundary that is kept until more is asked for. Its contents are not kept.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  /// At least `bytes` bytes. Errors: out_of_memory.
  std::span<std::byte> reserve(std::size_t bytes) {
    if (bytes > size_) {
      release();
      try {
        data_ = StreamingAllocator<std::byte>().allocate(bytes);
      } catch (const std::bad_alloc&) {
        throw Error(ErrorCode::out_of_memory,
                    "no memory for " + std::to_string(bytes) + " bytes of scratch: lower segment_bytes");
      }
      size_ = bytes;
    }
    return {data_, bytes};
  }
  /// Leaves the memory to the end of the process, for those who may still write to it.
  void leak() noexcept {
    data_ = nullptr;
    size_ = 0;
  }
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  void release() noexcept {
    if (data_ != nullptr) StreamingAllocator<std::byte>().deallocate(data_, size_);
    leak();
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace terse::inline v0_1

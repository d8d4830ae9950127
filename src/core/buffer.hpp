// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <terse/error.hpp>

namespace terse::inline v0_1 {

/// Memory on a cache line boundary that is kept until more is asked for. Its contents are not kept.
class Buffer {
 public:
  /// At least `bytes` bytes. Errors: out_of_memory.
  std::span<std::byte> reserve(std::size_t bytes) {
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;
      const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
      if (!memory_) {
        throw Error(ErrorCode::out_of_memory,
                    "no memory for " + std::to_string(bytes) + " bytes of scratch: lower segment_bytes");
      }
      size_ = rounded;
    }
    return {memory_.get(), bytes};
  }
  /// Leaves the memory to the end of the process, for those who may still write to it.
  void leak() noexcept {
    static_cast<void>(memory_.release());
    size_ = 0;
  }
  std::byte* data() const noexcept { return memory_.get(); }
  std::size_t size() const noexcept { return size_; }

 private:
  static constexpr std::size_t kAlignment = 64;
  struct Release {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<std::byte, Release> memory_;
  std::size_t size_ = 0;
};

}  // namespace terse::inline v0_1

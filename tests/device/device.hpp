// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <terse/error.hpp>
#include <terse/types.hpp>
#include <vector>

#include "core/device.hpp"

#ifdef TERSE_EMULATED_CUDA
#include "emulated_cuda.hpp"
#endif

// Tests of what is done on a device are built twice: with CUDA, where this build has it, to run on a machine
// with a device; and with the emulation in support/, to run everywhere.
namespace terse::test {

/// Skips a test where there is no device, and says so.
#define TERSE_NEEDS_DEVICE() \
  if (terse::device_count() == 0) GTEST_SKIP() << "there is no CUDA device on this machine"

inline void require(cudaError_t code) {
  if (code != cudaSuccess) throw Error(ErrorCode::device, cudaGetErrorString(code));
}

/// Whether the host may follow device pointers, as a CUDA-aware MPI can. Tests of that path need it.
#ifdef TERSE_EMULATED_CUDA
inline constexpr bool kEmulated = true;
#else
inline constexpr bool kEmulated = false;
#endif

/// Bytes in device memory, between guards that must stay as they are.
class DeviceBytes {
 public:
  DeviceBytes() = default;
  explicit DeviceBytes(std::size_t bytes, std::size_t offset = 0) : offset_(kGuard + offset), bytes_(bytes) {
    const std::vector<std::byte> pattern(bytes + offset + 2 * kGuard, std::byte{0x5b});
    require(cudaMalloc(&memory_, pattern.size()));
    require(cudaMemcpy(memory_, pattern.data(), pattern.size(), cudaMemcpyDefault));
    settle();
  }
  explicit DeviceBytes(std::span<const std::byte> values, std::size_t offset = 0)
      : DeviceBytes(values.size(), offset) {
    if (!values.empty()) require(cudaMemcpy(data(), values.data(), values.size(), cudaMemcpyDefault));
    settle();
  }
  DeviceBytes(DeviceBytes&& other) noexcept { *this = std::move(other); }
  DeviceBytes& operator=(DeviceBytes&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(offset_, other.offset_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBytes() {
    if (memory_ == nullptr) return;
    EXPECT_TRUE(guards_intact()) << "written beside " << bytes_ << " bytes in device memory";
    cudaFree(memory_);
  }

  std::byte* data() const { return static_cast<std::byte*>(memory_) + offset_; }
  std::size_t size() const { return bytes_; }
  std::vector<std::byte> get() const {
    std::vector<std::byte> values(bytes_);
    if (bytes_ != 0) require(cudaMemcpy(values.data(), data(), bytes_, cudaMemcpyDefault));
    return values;
  }
  void get(void* to) const {
    if (bytes_ != 0) require(cudaMemcpy(to, data(), bytes_, cudaMemcpyDefault));
  }
  bool guards_intact() const {
    std::vector<std::byte> all(offset_ + bytes_ + kGuard);
    require(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDefault));
    for (std::size_t i = 0; i < all.size(); ++i) {
      if ((i < offset_ || i >= offset_ + bytes_) && all[i] != std::byte{0x5b}) return false;
    }
    return true;
  }

 private:
  // A copy from ordinary memory has left that when it returns, and need not have arrived for other streams.
  static void settle() { require(cudaStreamSynchronize(nullptr)); }

  static constexpr std::size_t kGuard = 256;
  void* memory_ = nullptr;
  std::size_t offset_ = 0;
  std::size_t bytes_ = 0;
};

/// The same elements on the device, `offset` of them off a boundary.
inline DeviceBytes on_device(ConstView values, std::size_t offset = 0) {
  return DeviceBytes({static_cast<const std::byte*>(values.data), values.bytes()},
                     offset * size_of(values.dtype));
}

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <terse/error.hpp>

#include "core/device.hpp"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define TERSE_HAS_NVTX
#endif

namespace terse::inline v0_1 {
namespace {

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // what is not fatal is over with this
  const std::string said = std::string(what) + " failed: " + cudaGetErrorString(code);
  if (code == cudaErrorMemoryAllocation) {
    throw Error(ErrorCode::out_of_memory, said + ". Lower segment_bytes, or keep residuals in bf16");
  }
  throw Error(ErrorCode::device, said);
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

void* new_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return event;
}

}  // namespace

bool has_cuda() noexcept { return true; }

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

void OnDevice::enter(int device) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ == device) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  changed_ = true;
}

void OnDevice::leave() noexcept {
  if (changed_ && has_context(before_)) cudaSetDevice(before_);
}

void DeviceMemory::release() noexcept {
  for (const Block& block : blocks_) {
    try {
      const OnDevice current(block.device);
      cudaFree(block.data);
    } catch (...) {
      // at the end of a process the runtime may be gone, and its memory with it
    }
  }
}

std::byte* DeviceMemory::reserve(int device, std::size_t bytes) {
  const bool fits = !blocks_.empty() && blocks_.back().device == device && bytes <= size_;
  if (fits || bytes == 0) return data();
  const OnDevice current(device);
  blocks_.reserve(blocks_.size() + 1);
  bytes = std::max(bytes, size_ + size_ / 2);
  void* data = nullptr;
  check(cudaMalloc(&data, bytes), ("cudaMalloc of " + std::to_string(bytes) + " bytes").c_str());
  blocks_.push_back({static_cast<std::byte*>(data), device});
  size_ = bytes;
  return blocks_.back().data;
}

void PinnedMemory::release() noexcept {
  if (data_ == nullptr) return;
  try {
    const OnDevice current(device_);
    cudaFreeHost(data_);
  } catch (...) {
    // see DeviceMemory
  }
  data_ = nullptr;
  size_ = 0;
}

std::span<std::byte> PinnedMemory::reserve(int device, std::size_t bytes) {
  if (bytes > size_) {
    release();
    const OnDevice current(device);
    void* data = nullptr;
    check(cudaHostAlloc(&data, bytes, cudaHostAllocPortable),
          ("cudaHostAlloc of " + std::to_string(bytes) + " bytes").c_str());
    data_ = static_cast<std::byte*>(data);
    size_ = bytes;
    device_ = device;
  }
  return {data_, bytes};
}

void DeviceQueue::open() {
  const OnDevice current(device_);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  stream_ = stream;
}

void DeviceQueue::close() noexcept {
  try {
    const OnDevice current(device_);
    cudaStreamSynchronize(stream_of(stream_));
    for (void* event : events_) cudaEventDestroy(event_of(event));
    if (followed_ != nullptr) cudaEventDestroy(event_of(followed_));
    cudaStreamDestroy(stream_of(stream_));
  } catch (...) {
    // see DeviceMemory
  }
}

void DeviceQueue::follow(void* stream) {
  const OnDevice current(device_);
  if (followed_ == nullptr) followed_ = new_event();
  check(cudaEventRecord(event_of(followed_), stream_of(stream)),
        "cudaEventRecord on the stream that the call was given");
  check(cudaStreamWaitEvent(stream_of(stream_), event_of(followed_), 0), "cudaStreamWaitEvent");
}

void DeviceQueue::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  const OnDevice current(device_);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream_)), "cudaMemcpyAsync");
}

void DeviceQueue::clear(void* to, std::size_t bytes) {
  if (bytes == 0) return;
  const OnDevice current(device_);
  check(cudaMemsetAsync(to, 0, bytes, stream_of(stream_)), "cudaMemsetAsync");
}

DeviceQueue::Mark DeviceQueue::mark() {
  const OnDevice current(device_);
  if (free_.empty()) {
    free_.reserve(events_.size() + 1);
    events_.reserve(events_.size() + 1);
    free_.push_back(events_.size());
    events_.push_back(new_event());
  }
  const Mark mark = free_.back();
  check(cudaEventRecord(event_of(events_[mark]), stream_of(stream_)), "cudaEventRecord");
  free_.pop_back();
  return mark;
}

bool DeviceQueue::reached(Mark mark) {
  const OnDevice current(device_);
  const cudaError_t code = cudaEventQuery(event_of(events_[mark]));
  if (code == cudaErrorNotReady) {
    cudaGetLastError();  // which this is not for others
    return false;
  }
  free_.push_back(mark);
  check(code, "work on the device");
  return true;
}

void DeviceQueue::wait() {
  const OnDevice current(device_);
  check(cudaStreamSynchronize(stream_of(stream_)), "work on the device");
}

#ifdef TERSE_HAS_NVTX
void DeviceRange::begin(const char* name) noexcept { nvtxRangePushA(name); }
void DeviceRange::end() noexcept { nvtxRangePop(); }
#else
void DeviceRange::begin(const char*) noexcept {}
void DeviceRange::end() noexcept {}
#endif

}  // namespace terse::inline v0_1

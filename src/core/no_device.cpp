// SPDX-License-Identifier: Apache-2.0
// What core/device.hpp is in a build without CUDA.
#include <terse/error.hpp>

#include "core/device.hpp"

namespace terse::inline v0_1 {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      ErrorCode::unsupported,
      "this build of Terse has no CUDA: build it with TERSE_CUDA=ON, or copy the tensor to host memory");
}

}  // namespace

bool has_cuda() noexcept { return false; }
int device_count() noexcept { return 0; }

void OnDevice::enter(int) { refuse(); }
void OnDevice::leave() noexcept {}
void DeviceMemory::release() noexcept {}
std::byte* DeviceMemory::reserve(int, std::size_t) { refuse(); }
void PinnedMemory::release() noexcept {}
std::span<std::byte> PinnedMemory::reserve(int, std::size_t) { refuse(); }
void DeviceQueue::open() { refuse(); }
void DeviceQueue::close() noexcept {}
void DeviceQueue::follow(void*) { refuse(); }
void DeviceQueue::copy(void*, const void*, std::size_t) { refuse(); }
void DeviceQueue::clear(void*, std::size_t) { refuse(); }
DeviceQueue::Mark DeviceQueue::mark() { refuse(); }
bool DeviceQueue::reached(Mark) { refuse(); }
void DeviceQueue::wait() { refuse(); }
void DeviceRange::begin(const char*) noexcept {}
void DeviceRange::end() noexcept {}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What device_memory.hpp is in a build without CUDA.
#include "../command_line.hpp"
#include "device_memory.hpp"

namespace terse::bench {
namespace {

[[noreturn]] void refuse() {
  throw tools::UsageError("--device cuda: this build of Terse has no CUDA, which TERSE_CUDA=ON asks for");
}

}  // namespace

std::string choose_device(int) { refuse(); }
DeviceTensor::DeviceTensor(std::size_t, DType, Place) { refuse(); }
DeviceTensor::~DeviceTensor() = default;
DeviceTensor::DeviceTensor(DeviceTensor&&) noexcept = default;
DeviceTensor& DeviceTensor::operator=(DeviceTensor&&) noexcept = default;
void copy_bytes(void*, const void*, std::size_t) { refuse(); }

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#include "device_memory.hpp"

#include <cuda_runtime.h>

#include <stdexcept>
#include <utility>

#include "../command_line.hpp"

namespace terse::bench {
namespace {

void check(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return;
  throw std::runtime_error(what + " failed: " + cudaGetErrorString(code));
}

}  // namespace

std::string choose_device(int rank_on_host) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  if (count == 0) throw tools::UsageError("--device cuda: there is no CUDA device on this machine");
  const int device = rank_on_host % count;
  check(cudaSetDevice(device), "cudaSetDevice");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

DeviceTensor::DeviceTensor(std::size_t count, DType dtype, Place place)
    : view_{nullptr, count, dtype, place == Place::device ? Memory::cuda : Memory::host} {
  if (count == 0) return;
  const std::string amount = " of " + std::to_string(view_.bytes()) + " bytes";
  if (place == Place::device) {
    check(cudaMalloc(&view_.data, view_.bytes()), "cudaMalloc" + amount);
  } else {
    check(cudaHostAlloc(&view_.data, view_.bytes(), cudaHostAllocPortable), "cudaHostAlloc" + amount);
  }
  check(cudaMemset(view_.data, 0, view_.bytes()), "cudaMemset");
  check(cudaStreamSynchronize(nullptr), "cudaMemset");
}

DeviceTensor::~DeviceTensor() {
  if (view_.data == nullptr) return;
  if (view_.memory == Memory::cuda) {
    cudaFree(view_.data);
  } else {
    cudaFreeHost(view_.data);
  }
}

DeviceTensor::DeviceTensor(DeviceTensor&& other) noexcept : view_(std::exchange(other.view_, {})) {}

DeviceTensor& DeviceTensor::operator=(DeviceTensor&& other) noexcept {
  std::swap(view_, other.view_);
  return *this;
}

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, nullptr), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(nullptr), "work on the device");
}

}  // namespace terse::bench

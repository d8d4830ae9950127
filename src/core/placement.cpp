// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <atomic>

#include "core/device.hpp"

namespace terse::inline v0_1 {
namespace {

// int cuPointerGetAttribute(void* data, int attribute, unsigned long long pointer): 0 where the driver knows
// the pointer (CUDA driver API, Unified Addressing). The runtime's own question would make a context on the
// current device.
using GetAttribute = int (*)(void*, int, unsigned long long);
constexpr int kMemoryType = 2;     // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
constexpr int kIsManaged = 8;      // CU_POINTER_ATTRIBUTE_IS_MANAGED
constexpr int kDeviceOrdinal = 9;  // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
constexpr unsigned kDevice = 2;    // CU_MEMORYTYPE_DEVICE

// int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active)
using GetState = int (*)(int, unsigned*, int*);

// A function of the driver, if the program has loaded that.
template <class Function>
Function driver(const char* name, std::atomic<Function>& known) noexcept {
  if (const Function function = known.load()) return function;
  void* function = dlsym(RTLD_DEFAULT, name);
  if (function == nullptr) {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);  // a program may load it at any time
    if (library != nullptr) function = dlsym(library, name);
  }
  if (function != nullptr) known = reinterpret_cast<Function>(function);
  return known;
}

}  // namespace

Placement placement_of(const void* pointer) noexcept {
  static std::atomic<GetAttribute> known{nullptr};
  const GetAttribute get = pointer == nullptr ? nullptr : driver("cuPointerGetAttribute", known);
  if (get == nullptr) return {};
  const auto address = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(pointer));
  unsigned type = 0;
  unsigned managed = 0;
  int device = 0;
  if (get(&type, kMemoryType, address) != 0 || type != kDevice) return {};
  if (get(&managed, kIsManaged, address) != 0) managed = 0;
  if (get(&device, kDeviceOrdinal, address) != 0 || device < 0) device = 0;
  return {managed != 0 ? Placement::Kind::managed : Placement::Kind::device, device};
}

bool has_context(int device) noexcept {
  static std::atomic<GetState> known{nullptr};
  const GetState get = driver("cuDevicePrimaryCtxGetState", known);
  unsigned flags = 0;
  int active = 0;
  return get == nullptr || get(device, &flags, &active) != 0 || active != 0;
}

Memory memory_of(const void* pointer) noexcept {
  return placement_of(pointer).kind == Placement::Kind::host ? Memory::host : Memory::cuda;
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "interpose/device_memory.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstdint>

namespace terse::interpose {
namespace {

// int cuPointerGetAttribute(void* data, int attribute, unsigned long long pointer): 0 where the driver knows
// the pointer (CUDA driver API, Unified Addressing)
using GetAttribute = int (*)(void*, int, unsigned long long);
constexpr int kMemoryType = 2;   // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
constexpr int kIsManaged = 8;    // CU_POINTER_ATTRIBUTE_IS_MANAGED
constexpr unsigned kDevice = 2;  // CU_MEMORYTYPE_DEVICE

GetAttribute driver() noexcept {
  static std::atomic<GetAttribute> known{nullptr};
  if (const GetAttribute get = known.load()) return get;
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);  // a program may load it at any time
  if (library == nullptr) return nullptr;
  known = reinterpret_cast<GetAttribute>(dlsym(library, "cuPointerGetAttribute"));
  return known;
}

}  // namespace

bool is_device_memory(const void* pointer) noexcept {
  const GetAttribute get = driver();
  if (get == nullptr) return false;
  const auto address = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(pointer));
  unsigned type = 0;
  unsigned managed = 0;
  if (get(&type, kMemoryType, address) != 0 || type != kDevice) return false;
  return get(&managed, kIsManaged, address) != 0 || managed == 0;
}

}  // namespace terse::interpose

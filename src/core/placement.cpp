// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "core/device.hpp"

namespace terse::inline v0_1 {
namespace {

// int cuPointerGetAttributes(unsigned n, int* attributes, void** data, unsigned long long pointer): gives zeros
// for what the driver does not know, where the function for one attribute would say that it fails, which tools
// report (CUDA driver API, Unified Addressing). The runtime's own question would make a context on the current
// device.
using GetAttributes = int (*)(unsigned, int*, void**, unsigned long long);
constexpr int kMemoryType = 2;     // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
constexpr int kIsManaged = 8;      // CU_POINTER_ATTRIBUTE_IS_MANAGED
constexpr int kDeviceOrdinal = 9;  // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
constexpr unsigned kDevice = 2;    // CU_MEMORYTYPE_DEVICE

// int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active)
using GetState = int (*)(int, unsigned*, int*);

// Changes whenever the program has loaded a library.
unsigned long long libraries_loaded() noexcept {
  unsigned long long loaded = 0;
  const auto note = [](dl_phdr_info* info, std::size_t, void* to) {
    *static_cast<unsigned long long*>(to) = info->dlpi_adds;
    return 1;  // of the first is enough
  };
  dl_iterate_phdr(note, &loaded);
  return loaded;
}

// A function of the driver, if the program has loaded that, which it may do at any time. Quick where it has
// not.
template <class Function>
class Driver {
 public:
  Function find(const char* name) noexcept {
    if (const Function function = known_.load()) return function;
    const unsigned long long loaded = libraries_loaded();
    if (loaded == without_.load()) return nullptr;
    void* function = dlsym(RTLD_DEFAULT, name);
    if (function == nullptr) {
      void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
      if (library != nullptr) function = dlsym(library, name);
    }
    if (function == nullptr) {
      without_ = loaded;
    } else {
      known_ = reinterpret_cast<Function>(function);
    }
    return known_;
  }

 private:
  std::atomic<Function> known_{nullptr};
  std::atomic<unsigned long long> without_{0};
};

}  // namespace

Placement placement_of(const void* pointer) noexcept {
  static Driver<GetAttributes> driver;
  const GetAttributes get = pointer == nullptr ? nullptr : driver.find("cuPointerGetAttributes");
  if (get == nullptr) return {};
  const auto address = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(pointer));
  unsigned type = 0;
  unsigned managed = 0;
  int device = 0;
  std::array attributes = {kMemoryType, kIsManaged, kDeviceOrdinal};
  std::array<void*, attributes.size()> data = {&type, &managed, &device};
  if (get(attributes.size(), attributes.data(), data.data(), address) != 0 || type != kDevice) return {};
  return {managed != 0 ? Placement::Kind::managed : Placement::Kind::device, std::max(device, 0)};
}

bool has_context(int device) noexcept {
  static Driver<GetState> driver;
  const GetState get = driver.find("cuDevicePrimaryCtxGetState");
  unsigned flags = 0;
  int active = 0;
  return get == nullptr || get(device, &flags, &active) != 0 || active != 0;
}

Memory memory_of(const void* pointer) noexcept {
  return placement_of(pointer).kind == Placement::Kind::device ? Memory::cuda : Memory::host;
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What core/device.hpp is in a shared library whose CUDA lies in a module: calls through the module's table.
#include <dlfcn.h>

#include <string>
#include <terse/error.hpp>

#include "core/device_table.hpp"

#ifndef TERSE_DEVICE_MODULE
#error "TERSE_DEVICE_MODULE is the module's file name"
#endif

namespace terse::inline v0_1 {
namespace {

// Beside the file that this library was loaded from, or else wherever the loader looks. It stays loaded.
void* load_module() {
  Dl_info self{};
  std::string path = TERSE_DEVICE_MODULE;
  if (dladdr(reinterpret_cast<void*>(&load_module), &self) != 0 && self.dli_fname != nullptr) {
    const std::string own = self.dli_fname;
    const std::size_t slash = own.rfind('/');
    if (slash != std::string::npos) path = own.substr(0, slash + 1) + TERSE_DEVICE_MODULE;
  }
  void* loaded = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (loaded == nullptr) loaded = dlopen(TERSE_DEVICE_MODULE, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (loaded != nullptr) return loaded;
  const char* why = dlerror();
  throw Error(ErrorCode::unsupported, "Terse's part for CUDA devices cannot be loaded (" +
                                          std::string(why == nullptr ? path.c_str() : why) +
                                          "): install it beside libterse, or copy the tensor to host memory");
}

const DeviceTable& table() {
  using Get = const DeviceTable* (*)();
  static const DeviceTable& found = *reinterpret_cast<Get>(device_module_symbol("terse_device_table"))();
  return found;
}

}  // namespace

void* device_module_symbol(const char* name) {
  static void* const loaded = load_module();
  if (void* symbol = dlsym(loaded, name)) return symbol;
  throw Error(ErrorCode::unsupported,
              std::string(TERSE_DEVICE_MODULE) + " is of another version of Terse: it has no " + name);
}

bool has_cuda() noexcept { return true; }

int device_count() noexcept {
  try {
    return table().count();
  } catch (...) {
    return 0;  // what cannot be loaded serves no device
  }
}

// Where there is an object to leave, release or close, the table was found before.
void OnDevice::enter(int device) { (this->*table().enter)(device); }
void OnDevice::leave() noexcept { (this->*table().leave)(); }
void DeviceMemory::release() noexcept { (this->*table().release)(); }
std::byte* DeviceMemory::reserve(int device, std::size_t bytes) {
  return (this->*table().reserve)(device, bytes);
}
void PinnedMemory::release() noexcept { (this->*table().release_pinned)(); }
std::span<std::byte> PinnedMemory::reserve(int device, std::size_t bytes) {
  return (this->*table().reserve_pinned)(device, bytes);
}
void DeviceQueue::open() { (this->*table().open)(); }
void DeviceQueue::close() noexcept { (this->*table().close)(); }
void DeviceQueue::follow(void* stream) { (this->*table().follow)(stream); }
void DeviceQueue::copy(void* to, const void* from, std::size_t bytes) {
  (this->*table().copy)(to, from, bytes);
}
void DeviceQueue::clear(void* to, std::size_t bytes) { (this->*table().clear)(to, bytes); }
DeviceQueue::Mark DeviceQueue::mark() { return (this->*table().mark)(); }
bool DeviceQueue::reached(Mark mark) { return (this->*table().reached)(mark); }
void DeviceQueue::wait() { (this->*table().wait)(); }
void DeviceRange::begin(const char* name) noexcept { table().begin_range(name); }
void DeviceRange::end() noexcept { table().end_range(); }

}  // namespace terse::inline v0_1

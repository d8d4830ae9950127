// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "core/device.hpp"

namespace terse::inline v0_1 {

/// The functions of core/device.hpp that call CUDA, where these lie in a module of their own, which the
/// shared library loads when a program first has something on a device.
///
/// Why: CUDA's runtime has 4 KiB of thread-local storage. In a library that a program starts with, the C
/// library takes that out of the stack of each thread; of a module that is loaded later it does not. And a
/// program without a device has nothing of CUDA in its process.
struct DeviceTable {
  int (*count)() noexcept;
  void (OnDevice::*enter)(int);
  void (OnDevice::*leave)() noexcept;
  void (DeviceMemory::*release)() noexcept;
  std::byte* (DeviceMemory::*reserve)(int, std::size_t);
  void (PinnedMemory::*release_pinned)() noexcept;
  std::span<std::byte> (PinnedMemory::*reserve_pinned)(int, std::size_t);
  void (DeviceQueue::*open)();
  void (DeviceQueue::*close)() noexcept;
  void (DeviceQueue::*follow)(void*);
  void (DeviceQueue::*copy)(void*, const void*, std::size_t);
  void (DeviceQueue::*clear)(void*, std::size_t);
  DeviceQueue::Mark (DeviceQueue::*mark)();
  bool (DeviceQueue::*reached)(DeviceQueue::Mark);
  void (DeviceQueue::*wait)();
  void (*begin_range)(const char*) noexcept;
  void (*end_range)() noexcept;

  /// In the module: of its own functions.
  static DeviceTable of_this_module() noexcept;
};

/// A function of the module, which is loaded for it. Errors: unsupported where it cannot be loaded, with what
/// the loader says.
void* device_module_symbol(const char* name);

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What the module for CUDA devices exports: the tables that the shared library calls through.
#include "codec/device_codec.hpp"
#include "core/device_table.hpp"

namespace terse::inline v0_1 {

DeviceTable DeviceTable::of_this_module() noexcept {
  return {.count = device_count,
          .enter = &OnDevice::enter,
          .leave = &OnDevice::leave,
          .release = &DeviceMemory::release,
          .reserve = &DeviceMemory::reserve,
          .release_pinned = &PinnedMemory::release,
          .reserve_pinned = &PinnedMemory::reserve,
          .open = &DeviceQueue::open,
          .close = &DeviceQueue::close,
          .follow = &DeviceQueue::follow,
          .copy = &DeviceQueue::copy,
          .clear = &DeviceQueue::clear,
          .mark = &DeviceQueue::mark,
          .reached = &DeviceQueue::reached,
          .wait = &DeviceQueue::wait,
          .begin_range = &DeviceRange::begin,
          .end_range = &DeviceRange::end};
}

}  // namespace terse::inline v0_1

extern "C" {

[[gnu::visibility("default")]] const terse::DeviceTable* terse_device_table() {
  static const terse::DeviceTable table = terse::DeviceTable::of_this_module();
  return &table;
}

[[gnu::visibility("default")]] const terse::DeviceCodecTable* terse_device_codecs() {
  static const terse::DeviceCodecTable table = {.make = terse::make_device_codec,
                                                .divide = terse::divide_on_device};
  return &table;
}

}  // extern "C"

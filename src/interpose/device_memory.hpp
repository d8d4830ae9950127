// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace terse::interpose {

/// Whether a pointer is one that only a CUDA device can follow. Asks the driver, if the program has loaded
/// it.
bool is_device_memory(const void* pointer) noexcept;

}  // namespace terse::interpose

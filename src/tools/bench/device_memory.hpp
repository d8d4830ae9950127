// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <terse/types.hpp>

// CUDA as the suites need it, without its types. What a device refuses is thrown as std::runtime_error: it
// is one rank's alone.

namespace terse::bench {

/// Makes a device of this machine that of this process: the one with number `rank_on_host`, counted round.
/// Returns its name. Errors: tools::UsageError where this build has no CUDA, or the machine has no device.
std::string choose_device(int rank_on_host);

/// Memory for elements on the chosen device; or on the host, where the device reaches it by itself.
class DeviceTensor {
 public:
  enum class Place : std::uint8_t { device, pinned };

  DeviceTensor() = default;
  /// The elements are zero.
  DeviceTensor(std::size_t count, DType dtype, Place place = Place::device);
  ~DeviceTensor();
  DeviceTensor(DeviceTensor&& other) noexcept;
  DeviceTensor& operator=(DeviceTensor&& other) noexcept;

  View view() const noexcept { return view_; }

 private:
  View view_;
};

/// Copies bytes from any memory to any memory, after what the device's legacy default stream holds, and waits
/// until they are there.
void copy_bytes(void* to, const void* from, std::size_t bytes);
/// As many elements of the same type.
inline void copy(View to, ConstView from) { copy_bytes(to.data, from.data, from.bytes()); }

}  // namespace terse::bench

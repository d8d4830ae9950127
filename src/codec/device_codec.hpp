// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <terse/types.hpp>
#include <type_traits>

#include "codec/piece.hpp"
#include "core/device.hpp"

namespace terse::inline v0_1 {

/// What kernels report, in pinned memory, once they are done. Zero before.
struct DeviceReport {
  std::uint32_t non_finite = 0;  ///< a value is not finite, or beyond the codec's range
  std::uint32_t corrupt = 0;     ///< bytes that no encoder wrote, in message number `corrupt` - 1
};

/// The messages of all ranks, which lie in device memory at equal distances.
struct DeviceSum {
  const std::byte* payloads = nullptr;  ///< of the first message
  std::size_t stride = 0;
  int ranks = 1;
  double divisor = 1.0;
  double factor = 1.0;
};

/// A codec's twin on a device: bit-identical payloads and residuals. Work is queued, not
/// waited for.
///
/// What is passed by pointer lies in device memory, but for reports. `payload` begins at a multiple of 16.
/// Where a value is not finite, its block is left out and reported, and the caller takes back the rest; the
/// host's loops stop there instead, so that residuals may differ by rounding after that.
///
/// Errors: device, out_of_memory.
class DeviceCodec {
 public:
  virtual ~DeviceCodec() = default;
  DeviceCodec() = default;
  DeviceCodec(const DeviceCodec&) = delete;
  DeviceCodec& operator=(const DeviceCodec&) = delete;

  /// Encodes fragments one behind the other, with their residuals if they have any; values are of the
  /// tensor's type. `key` is without the fragments' positions.
  virtual void encode(DeviceQueue& queue, std::span<const Fragment> fragments, const RandomKey& key,
                      std::byte* payload, DeviceReport* report) const = 0;
  /// Takes back, to rounding, what encode did to residuals, wherever it did something.
  virtual void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
                    const std::byte* payload) const = 0;
  /// Decodes into fragments of the tensor's type, each value times `factor`; adds, or overwrites.
  virtual void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
                      double factor, DeviceReport* report) const = 0;
  /// What the owner of a piece does: adds the decoded messages in order of the ranks, divides, adds the
  /// residual, and encodes, in one pass. `fragments` have a count, the tensor's type, and a residual or none;
  /// no values.
  virtual void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                      const RandomKey& key, std::byte* payload, DeviceReport* report) const = 0;
  virtual void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                           const std::byte* payload) const = 0;
};

/// The twin of the codec `name` (device_codecs.cpp has the table), made from the bytes of that codec's
/// format. Null in a build without CUDA.
std::unique_ptr<const DeviceCodec> make_device_codec(std::string_view name,
                                                     std::span<const std::byte> format);
/// `format` is what the codec's .cu takes with format_of().
template <class Format>
std::unique_ptr<const DeviceCodec> make_device_twin(std::string_view name, const Format& format) {
  static_assert(std::is_trivially_copyable_v<Format>);
  return make_device_codec(name, std::as_bytes(std::span(&format, 1)));
}

/// values /= divisor, as divide() on the host. Errors: unsupported in a build without CUDA.
void divide_on_device(DeviceQueue& queue, View values, double divisor);

/// The same two, of the module that DeviceTable tells of.
struct DeviceCodecTable {
  decltype(&make_device_codec) make;
  decltype(&divide_on_device) divide;
};

/// The codecs that have code for device memory, for a sentence: "a, b or c". Empty in a build without CUDA.
std::string device_codec_names();

}  // namespace terse::inline v0_1

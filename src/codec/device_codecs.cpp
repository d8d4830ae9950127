// SPDX-License-Identifier: Apache-2.0
// The table of codecs that have code for devices, in a build with CUDA. A row for each .cu of a codec.
#include <terse/error.hpp>

#include "codec/device_codec.hpp"

namespace terse::inline v0_1 {

using MakeTwin = std::unique_ptr<const DeviceCodec>(std::span<const std::byte> format);
MakeTwin make_device_identity;
MakeTwin make_device_cast;
MakeTwin make_device_onebit;
MakeTwin make_device_quant;

namespace {

struct Row {
  std::string_view name;
  MakeTwin* make;
};
constexpr Row kRows[] = {
    {"identity", make_device_identity},
    {"cast", make_device_cast},
    {"onebit", make_device_onebit},
    {"quant", make_device_quant},
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_codec(std::string_view name,
                                                     std::span<const std::byte> format) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.make(format);
  }
  throw Error(ErrorCode::unsupported, "codec " + std::string(name) + " has no code for device memory");
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What codec/device_codec.hpp is in a build without CUDA.
#include <terse/error.hpp>

#include "codec/device_codec.hpp"

namespace terse::inline v0_1 {

std::unique_ptr<const DeviceCodec> make_device_codec(std::string_view, std::span<const std::byte>) {
  return nullptr;
}

void divide_on_device(DeviceQueue&, View, double) {
  throw Error(ErrorCode::unsupported, "this build of Terse has no CUDA: build it with TERSE_CUDA=ON");
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// onebit on a device. See onebit.cpp for what is written.
#include "codec/block.cuh"
#include "codec/onebit_arithmetic.hpp"

namespace terse::inline v0_1 {

template <class A>
struct OnebitOnDevice : OnebitOperations<A> {
  using OnebitOperations<A>::OnebitOperations;
  using Codes = SignBits;
  TERSE_HOST_DEVICE Codes codes() const { return {}; }
};

std::unique_ptr<const DeviceCodec> make_device_onebit(std::span<const std::byte> format) {
  return std::make_unique<DeviceBlockCodec<OnebitOnDevice>>(format_of<OnebitFormat>(format));
}

}  // namespace terse::inline v0_1

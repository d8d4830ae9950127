// SPDX-License-Identifier: Apache-2.0
//
// quant on a device. See quant.cpp for what is written.
#include "codec/block.cuh"
#include "codec/quant_arithmetic.hpp"

namespace terse::inline v0_1 {

template <class A>
struct QuantOnDevice : QuantOperations<A> {
  using QuantOperations<A>::QuantOperations;
  using Codes = GroupCodes;
  TERSE_HOST_DEVICE Codes codes() const { return {this->format().bits, this->format().top()}; }
};

std::unique_ptr<const DeviceCodec> make_device_quant(std::span<const std::byte> format) {
  return std::make_unique<DeviceBlockCodec<QuantOnDevice>>(format_of<QuantTwin>(format));
}

}  // namespace terse::inline v0_1

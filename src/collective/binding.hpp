// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>

#include "collective/schedule.hpp"
#include "core/device.hpp"

namespace terse::inline v0_1 {

/// What a phase keeps of one tensor: residuals of its elements from `begin` on; empty: it keeps none.
struct Residual {
  View values{};
  std::size_t begin = 0;
};

/// One tensor of a call.
struct BoundTensor {
  ConstView in;
  View out;
  std::array<Residual, kMostPhases> residuals{};
  std::span<std::byte> state{};  ///< of a codec that has one: see EncodeContext
  std::size_t rows = 0;          ///< the same
};

/// What a call with tensors on a device needs there: kept from call to call.
struct DeviceSide {
  explicit DeviceSide(int device) : queue(device) {}

  DeviceQueue queue;
  DeviceMemory messages;  ///< as they lie in the schedule's slots
  PinnedMemory on_host;   ///< the same on the host: headers, and what goes through it
  PinnedMemory reports;   ///< of kernels, one a step
  PinnedMemory tensors;   ///< of an exact call whose transport takes no device memory
};

/// What a schedule's names stand for in one call.
struct Binding {
  /// Where each tensor lies among all, as messages count their elements; and what of that the inputs and the
  /// outputs are, where they are not all of it (empty: they are).
  std::span<const Range> layout{};
  std::span<const Range> in_layout{};
  std::span<const Range> out_layout{};
  std::span<const BoundTensor> tensors{};
  std::array<const Codec*, kMostCodecs> codecs{};
  DType dtype = DType::f32;
  std::uint64_t call = 0;  ///< which it is, for codecs that draw random numbers
  double limit = std::numeric_limits<double>::infinity();  ///< as EncodeContext has it
  bool checksum = false;
  bool blocks = false;           ///< the transport's own reduction may block
  DeviceSide* device = nullptr;  ///< of tensors in device memory: its steps are computed there
  bool direct = false;           ///< the transport takes device memory; else messages go through the host's
};

}  // namespace terse::inline v0_1

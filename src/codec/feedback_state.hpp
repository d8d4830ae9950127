// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/feedback.hpp>
#include <terse/types.hpp>
#include <vector>

#include "core/allocator.hpp"
#include "core/device.hpp"

namespace terse::inline v0_1 {

/// A Feedback keeps a residual of each phase of an algorithm, of so many at most. What its user calls the
/// worker residual is that of the first phase, in which a rank encodes its tensor; the server residual that
/// of the second, in which it encodes the sums that it owns.
inline constexpr std::size_t kMostPhases = 2;
inline constexpr std::size_t kWorkerPhase = 0;
inline constexpr std::size_t kServerPhase = 1;

/// Which elements of the tensor the residual of a phase has: more than there are where the tensor is padded.
struct ResidualShape {
  std::uint64_t begin = 0;
  std::uint64_t count = 0;

  bool operator==(const ResidualShape&) const = default;
};

/// What a Feedback is bound to. Which rank of how many is only a label here.
template <class Text>
struct BasicFeedbackShape {
  std::uint64_t count = 0;  ///< elements of the tensor
  DType dtype = DType::f32;
  Text codec;      ///< the canonical spec
  Text algorithm;  ///< the row's name
  std::uint32_t rank = 0;
  std::uint32_t ranks = 0;
  std::array<ResidualShape, kMostPhases> residuals{};  ///< by phase
  bool owns = true;  ///< whether ranks own chunks with that algorithm; for those who ask, not compared

  template <class OtherText>
  bool operator==(const BasicFeedbackShape<OtherText>& other) const noexcept {
    return count == other.count && dtype == other.dtype && codec == other.codec &&
           algorithm == other.algorithm && rank == other.rank && ranks == other.ranks &&
           residuals == other.residuals;
  }
};
using FeedbackShape = BasicFeedbackShape<std::string>;
/// The same without memory of its own, for a call.
using FeedbackShapeView = BasicFeedbackShape<std::string_view>;
FeedbackShape owned(const FeedbackShapeView& shape);
inline FeedbackShapeView view_of(const FeedbackShape& shape) {
  return {shape.count, shape.dtype, shape.codec,     shape.algorithm,
          shape.rank,  shape.ranks, shape.residuals, shape.owns};
}

/// Whether residuals of a tensor of `dtype` may be of that type.
constexpr bool serves(ResidualType type, DType dtype) noexcept {
  return type == residual_type_for(dtype, type);
}

/// What a codec keeps for a tensor.
struct CodecState {
  std::size_t bytes = 0;
  std::size_t rows = 0;  ///< of the tensor, which the state may depend on
};

struct FeedbackState {
  bool bound = false;
  bool in_use = false;    ///< by a call; accessed atomically
  bool declined = false;  ///< `auto` chose plain MPI for the tensor that shape describes: nothing is kept
  FeedbackShape shape;
  std::uint64_t calls = 0;
  /// The codec's own, if it has one (see EncodeContext::state), and the rows that it was made for. Empty
  /// after the load of a save that has none.
  std::vector<std::byte> codec_state;
  std::uint64_t state_rows = 0;
  ResidualType residual_type = ResidualType::full;
  using Bytes = std::vector<std::byte, StreamingAllocator<std::byte>>;
  /// By phase: shape.residuals[phase].count values of residual_of(shape.dtype, residual_type), on the host,
  /// or where `memory` says so, on that device; the others are empty.
  std::array<Bytes, kMostPhases> residuals;
  std::array<DeviceMemory, kMostPhases> device_residuals;
  Memory memory = Memory::host;
  int device = 0;
  /// After re-sharding, until the first use: what is owed, for the whole tensor, in the accumulator's type.
  /// shape then says only for what.
  Bytes owed;

  View view(std::size_t phase) noexcept {
    return {memory == Memory::host ? residuals[phase].data() : device_residuals[phase].data(),
            shape.residuals[phase].count, residual_of(shape.dtype, residual_type), memory};
  }

  /// Makes the residuals fit `wanted`, and the codec's state what it keeps: zeros at first use, what was held
  /// before if it is the same. Residuals are in the memory of the queue's device then, or without one in the
  /// host's; zeros are queued. Errors: invalid_state where it is bound to something else, out_of_memory,
  /// device.
  void bind(const FeedbackShapeView& wanted, const CodecState& state = {}, DeviceQueue* queue = nullptr);
  /// For a call: a copy of the codec's state, which keep_state() puts in its place.
  std::span<std::byte> copy_state();
  void keep_state() noexcept { codec_state.swap(next_state_); }
  /// Gives residuals up: whoever comes next may bind it anew.
  void unbind() noexcept;
  /// A residual's bytes, wherever they lie.
  Bytes bytes(std::size_t phase) const;

 private:
  void bind_residuals(const FeedbackShapeView& wanted, DeviceQueue* queue);
  void move_to(DeviceQueue* queue);

  std::vector<std::byte> next_state_;  // kept for its memory
};

/// What a Feedback holds. Errors: invalid_state where it was moved from.
FeedbackState& state_of(const Feedback& feedback);

}  // namespace terse::inline v0_1

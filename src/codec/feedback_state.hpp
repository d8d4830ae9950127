// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <vector>

#include "core/allocator.hpp"
#include "core/device.hpp"

namespace terse::inline v0_1 {

/// What a Feedback is bound to. Which rank of how many is only a label here.
template <class Text>
struct BasicFeedbackShape {
  std::uint64_t count = 0;  ///< elements of the tensor
  DType dtype = DType::f32;
  Text codec;      ///< the canonical spec
  Text algorithm;  ///< the row's name
  std::uint32_t rank = 0;
  std::uint32_t ranks = 0;
  std::uint64_t worker_count = 0;  ///< elements of the worker residual: more than count where that is padded
  std::uint64_t server_begin = 0;  ///< the own chunk
  std::uint64_t server_count = 0;
  bool owns = true;  ///< whether ranks own chunks with that algorithm; for those who ask, not compared

  template <class OtherText>
  bool operator==(const BasicFeedbackShape<OtherText>& other) const noexcept {
    return count == other.count && dtype == other.dtype && codec == other.codec &&
           algorithm == other.algorithm && rank == other.rank && ranks == other.ranks &&
           worker_count == other.worker_count && server_begin == other.server_begin &&
           server_count == other.server_count;
  }
};
using FeedbackShape = BasicFeedbackShape<std::string>;
/// The same without memory of its own, for a call.
using FeedbackShapeView = BasicFeedbackShape<std::string_view>;
FeedbackShape owned(const FeedbackShapeView& shape);
inline FeedbackShapeView view_of(const FeedbackShape& shape) {
  return {shape.count, shape.dtype,        shape.codec,        shape.algorithm,    shape.rank,
          shape.ranks, shape.worker_count, shape.server_begin, shape.server_count, shape.owns};
}

/// Whether residuals of a tensor of `dtype` may be of that type.
constexpr bool serves(ResidualType type, DType dtype) noexcept {
  return type == residual_type_for(dtype, type);
}

struct FeedbackState {
  bool bound = false;
  bool in_use = false;    ///< by a call; accessed atomically
  bool declined = false;  ///< `auto` chose plain MPI for the tensor that shape describes: nothing is kept
  FeedbackShape shape;
  std::uint64_t calls = 0;
  Note note{};  ///< of the codec, if it encodes the tensor as a whole
  ResidualType residual_type = ResidualType::full;
  using Bytes = std::vector<std::byte, StreamingAllocator<std::byte>>;
  Bytes worker;  ///< shape.worker_count values of residual_of(shape.dtype, residual_type)
  Bytes server;  ///< shape.server_count values
  /// Where the residuals lie: in these two, which are empty then, or in the memory of a device.
  Memory memory = Memory::host;
  int device = 0;
  DeviceMemory device_worker;
  DeviceMemory device_server;
  /// After re-sharding, until the first use: what is owed, for the whole tensor, in the accumulator's type.
  /// shape then says only for what.
  Bytes owed;

  View worker_view() noexcept {
    return {memory == Memory::host ? worker.data() : device_worker.data(), shape.worker_count,
            residual_of(shape.dtype, residual_type), memory};
  }
  View server_view() noexcept {
    return {memory == Memory::host ? server.data() : device_server.data(), shape.server_count,
            residual_of(shape.dtype, residual_type), memory};
  }

  /// Makes the residuals fit `wanted`: zeros at first use, what was held before if it is the same. They are
  /// in the memory of the queue's device then, or without one in the host's; zeros are queued. Errors:
  /// invalid_state where it is bound to something else, out_of_memory, device.
  void bind(const FeedbackShapeView& wanted, DeviceQueue* queue = nullptr);
  /// Gives residuals up: whoever comes next may bind it anew.
  void unbind() noexcept;
  /// The residuals' bytes, wherever they lie.
  Bytes worker_bytes() const { return bytes_in(worker, device_worker, shape.worker_count); }
  Bytes server_bytes() const { return bytes_in(server, device_server, shape.server_count); }

 private:
  void move_to(DeviceQueue* queue);
  Bytes bytes_in(const Bytes& host, const DeviceMemory& on_device, std::uint64_t count) const;
};

}  // namespace terse::inline v0_1

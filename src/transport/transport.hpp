// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// One transfer on its way. Its owner keeps it in place until `done`.
struct Operation {
  bool done = false;
  std::size_t bytes = 0;  ///< when done: bytes sent, or that came
  std::size_t parts = 1;  ///< of what the transport did in parts: those not done
};

/// Bytes <-> ranks. Knows nothing of what the bytes mean.
///
/// Between a pair of ranks, messages under one tag arrive in the order in which they were sent. Errors of the
/// layer below are thrown as Error(communication); the transport then only refuses.
class Transport {
 public:
  enum class Wait : std::uint8_t { no, yes };

  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// The first of `channels` tags that belong to the call being started. Taken in start order, so that
  /// ranks agree; a tag comes round again only after thousands of calls.
  virtual int take_tags(int channels) = 0;

  /// Starts a transfer. The bytes stay in place and, for send, unchanged until `operation.done`. A receive
  /// accepts any message up to bytes.size().
  virtual void send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) = 0;
  virtual void receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) = 0;

  /// Completes what can be completed of all started operations; with Wait::yes, at least one if there is any.
  virtual void progress(Wait wait) = 0;

  /// The plain sum over all ranks, in the order of the layer below. in.data may be out.data. Collective: all
  /// ranks enter these in the same order, and either all of them block or none.
  virtual void all_reduce(ConstView in, View out) = 0;
  virtual void start_all_reduce(ConstView in, View out, Operation& operation) = 0;

  /// Whether the layer below says that it takes pointers to device memory.
  virtual bool takes_device_memory() const noexcept { return false; }

  /// Gives up all operations on their way, for good: every later call throws Error(communication). What was
  /// to be sent or received may still be read and written until the process ends: its memory must stay.
  virtual void abandon() noexcept = 0;
  /// Whether that has happened, by abandon() or by an error of the layer below.
  virtual bool abandoned() const noexcept = 0;
};

}  // namespace terse::inline v0_1

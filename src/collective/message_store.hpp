// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <vector>

#include "codec/message.hpp"
#include "codec/piece.hpp"
#include "collective/binding.hpp"
#include "collective/schedule.hpp"
#include "core/buffer.hpp"

namespace terse::inline v0_1 {

/// The slots of a schedule that is being run: where messages are made, sent from, received and read.
///
/// Where the tensors are on a device, each slot has two places, one on the device and one in pinned memory. A
/// payload is made and read on the device; the header, and the whole of a message without payload, on the
/// host.
class MessageStore {
 public:
  /// `rank`: this one. The memory, which is kept from run to run, outlives it.
  MessageStore(Buffer& memory, int rank) : memory_(memory), rank_(rank) {}

  /// Begins a run. Errors: out_of_memory; nothing has changed then.
  void begin(const Schedule& schedule, const Binding& binding, int first_tag);

  /// All of a slot, on the host.
  std::span<std::byte> slot(std::uint32_t i) const noexcept;
  std::byte* on_device(std::uint32_t i) const noexcept;
  /// A slot as the transport is to see it.
  std::span<std::byte> on_wire(std::uint32_t i) const noexcept;
  /// What there is in a slot, on the host.
  std::span<const std::byte> message(std::uint32_t i) const noexcept { return slot(i).first(sizes_[i]); }
  std::size_t size(std::uint32_t i) const noexcept { return sizes_[i]; }
  void set_size(std::uint32_t i, std::size_t bytes) noexcept;
  /// Whether a slot's message is sent to other ranks.
  bool is_sent(std::uint32_t i) const noexcept { return sent_[i] != 0; }
  /// Says where the message is that was last put into a slot: all of it on the host, or its payload on the
  /// device.
  void set_at_host(std::uint32_t i, bool at_host) noexcept { at_host_[i] = at_host ? 1 : 0; }

  /// The message of `to`, whose first `bytes` bytes are there, becomes one of this rank's: the last thing
  /// that is done to it. One that is not sent stays as it is.
  void seal(const Operand& to, std::size_t bytes) noexcept;
  /// The same of a message that stands for no values.
  void write_flagged(const Step& step, std::uint8_t flags) noexcept;
  /// The message in slot `from.slot + index`, which `author` has made. Errors: corrupt_data.
  Contents open(const Step& step, const Operand& from, std::uint32_t index, int author) const;

 private:
  std::uint64_t message_id(std::uint8_t channel, int author, const Range& elements) const noexcept;

  Buffer& memory_;
  int rank_;
  const Schedule* schedule_ = nullptr;
  const Binding* binding_ = nullptr;
  int first_tag_ = 0;
  std::vector<std::size_t> sizes_;
  std::vector<std::uint8_t> sent_;
  std::vector<std::uint8_t> at_host_;
};

/// The pieces of tensors that steps work on, of a binding. What is returned is memory of the calling
/// thread's, until its next call of the same function.
class Pieces {
 public:
  explicit Pieces(const Binding& binding, const MessageStore& store) : binding_(binding), store_(store) {}

  /// What an encoding encodes, with the residuals of its phase. `from` says where the elements are that the
  /// message of `elements` stands for.
  std::span<const Fragment> inputs(const Operand& from, const Range& elements, std::uint8_t phase) const;
  /// An owner's sums with the residuals of the phase: no values, but their type.
  std::span<const Fragment> sums(const Range& elements, std::uint8_t phase) const;
  /// Where the elements of a message go.
  std::span<const View> outputs(const Operand& to, const Range& elements) const;
  /// The largest message of these elements.
  std::size_t message_bytes(const Codec& codec, const Range& elements) const;

 private:
  const Binding& binding_;
  const MessageStore& store_;
};

}  // namespace terse::inline v0_1

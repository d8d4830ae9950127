// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <vector>

#include "collective/schedule.hpp"
#include "collective/workspace.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// What a schedule's names stand for in one call.
struct Binding {
  ConstView in;
  View out;
  const Codec* codec = nullptr;
  View worker{};                ///< residual of the whole tensor, or empty
  View server{};                ///< residual of the own chunk, or empty
  std::size_t chunk_begin = 0;  ///< where the own chunk begins in the tensor
  double factor = 1.0;          ///< of the final decode: the number of ranks where a sum is made of averages
  bool checksum = false;
};

/// Advances one schedule. Computation runs as soon as it can, the lowest step first; the wire is served in
/// between. Nothing is sent, received or reduced before open_gate().
class Runner {
 public:
  /// The schedule, the transport, the workspace and what the binding points to outlive the runner.
  /// Errors: out_of_memory.
  Runner(const Schedule& schedule, const Binding& binding, Transport& transport, int first_tag,
         Workspace& workspace);
  /// Left before its end, it takes the transport with it.
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// Does at most one step of computation and what the wire allows. Where there is nothing to compute and
  /// Wait::yes is given, it waits until some transfer of the transport ends.
  void advance(Transport::Wait wait);
  void open_gate();
  bool gated() const noexcept { return gated_; }
  bool done() const noexcept { return finished_ == schedule_.size(); }
  /// While the gate is closed: takes back, to rounding, what encoding has done to the worker residual.
  void roll_back();

  std::size_t bytes_sent() const noexcept { return bytes_sent_; }
  /// Pieces whose output is still to be written because a value somewhere was not finite. The same set on all
  /// ranks, in the order in which they were met.
  const std::vector<Piece>& flagged() const noexcept { return flagged_; }
  /// What went wrong on this rank: bytes came that no encoder wrote, or its codec threw.
  const std::optional<Error>& failure() const noexcept { return failure_; }
  /// Whether an owner has told all ranks that something went wrong.
  bool told() const noexcept { return told_; }
  /// Before the first step: this rank has failed already. It goes through all steps, since others wait for
  /// its messages, and every message says so.
  void spoil(const Error& failure);

 private:
  void make_ready(std::uint32_t step);
  void finish(std::uint32_t step);
  void compute(std::uint32_t step);
  void encode(const Step& step);
  void part(const Step& step);
  void decode(const Step& step);
  void undo(std::uint32_t message, const Range& elements);
  void fail(const std::string& where);
  std::uint64_t place(const Step& step, int author) const noexcept;
  std::size_t address(const Step& step, std::span<std::byte> out, std::size_t bytes) const;
  void start_wire();
  void collect();
  std::span<std::byte> slot(std::uint32_t message) const noexcept;
  View sum(const Step& step) const noexcept;
  View residual(const Step& step) const noexcept;

  const Schedule& schedule_;
  Binding binding_;
  Transport& transport_;
  Workspace& workspace_;
  int first_tag_;
  bool gated_ = true;
  bool told_ = false;
  bool spoilt_ = false;
  std::size_t finished_ = 0;
  std::size_t bytes_sent_ = 0;
  std::vector<std::uint32_t> waits_;       // by step: prerequisites not yet finished
  std::vector<std::uint32_t> ready_;       // computation, a heap with the lowest step on top
  std::vector<std::uint32_t> ready_wire_;  // transfers that may start
  std::vector<std::uint32_t> starting_;    // those that just do
  std::vector<std::uint32_t> in_flight_;   // transfers that have started
  std::vector<Operation> operations_;      // by step
  std::vector<std::size_t> message_size_;  // by message slot: bytes in it
  std::vector<std::uint8_t> sum_flags_;    // by sum slot: flags of what was added
  std::vector<std::uint32_t> encoded_behind_gate_;
  std::vector<Piece> flagged_;
  std::optional<Error> failure_;
};

}  // namespace terse::inline v0_1

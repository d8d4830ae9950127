// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <vector>

#include "codec/device_codec.hpp"
#include "codec/piece.hpp"
#include "collective/schedule.hpp"
#include "collective/step_pool.hpp"
#include "core/buffer.hpp"
#include "core/device.hpp"
#include "core/thread_memory.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// One tensor of a call.
struct BoundTensor {
  ConstView in;
  View out;
  View worker{};                 ///< residual of the whole tensor, or empty
  View server{};                 ///< residual of what this rank owns of it, or empty
  std::size_t server_begin = 0;  ///< where that begins in the tensor
  Note* note = nullptr;          ///< of a codec that encodes the tensor as a whole
};

/// What a call with tensors on a device needs there: kept from call to call.
struct DeviceSide {
  explicit DeviceSide(int device) : queue(device) {}

  DeviceQueue queue;
  DeviceMemory messages;  ///< as they lie in the schedule's scratch
  PinnedMemory on_host;   ///< the same on the host: headers, and what goes through it
  PinnedMemory reports;   ///< of kernels, one a step
  PinnedMemory tensors;   ///< of an exact call whose transport takes no device memory
};

/// What a schedule's names stand for in one call.
struct Binding {
  std::span<const Range> layout{};  ///< where each tensor lies among all
  std::span<const BoundTensor> tensors{};
  const Codec* codec = nullptr;
  DType dtype = DType::f32;
  double factor = 1.0;     ///< of the final decode: the number of ranks where a sum is made of averages
  std::uint64_t call = 0;  ///< which it is, for codecs that draw random numbers
  double most = std::numeric_limits<double>::infinity();  ///< as Occasion has it
  bool checksum = false;
  bool blocks = false;           ///< the transport's own reduction may block
  DeviceSide* device = nullptr;  ///< of tensors in device memory: its steps are computed there
  bool direct = false;           ///< the transport takes device memory; else messages go through the host's
};

/// Advances one schedule after another. Computation runs as soon as it can, the lowest step first; the wire
/// is served in between. Nothing is sent, received or reduced before open_gate().
class Runner {
 public:
  /// The transport, the scratch for messages and the pool, where there is one, outlive the runner.
  Runner(Transport& transport, Buffer& messages, StepPool* pool)
      : transport_(transport), messages_(messages), pool_(pool) {}
  /// Left before its end, it takes the transport with it.
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// Begins a schedule. What the binding points to stays in place until the end. Errors: out_of_memory.
  void begin(std::shared_ptr<const Schedule> schedule, const Binding& binding, int first_tag);

  enum class Collectives : std::uint8_t { wait, enter };
  /// Starts what the wire allows, collects what it has done, and does at most one step of computation. The
  /// transport's progress is the caller's affair. Returns whether it computed, or others do.
  bool advance(Collectives collectives);
  /// Whether it waits for a device, which nobody else's progress makes faster.
  bool awaits_device() const noexcept { return !on_device_.empty(); }
  void open_gate() noexcept { gated_ = false; }
  bool gated() const noexcept { return gated_; }
  bool done() const noexcept { return !schedule_ || finished_ == schedule_->size(); }
  /// Whether it has a reduction of the transport's to enter, now or later.
  bool wants_collective() const noexcept { return collectives_left_ != 0; }
  /// While the gate is closed: takes back, to rounding, what encoding has done to the worker residuals.
  void roll_back();

  std::size_t bytes_sent() const noexcept { return bytes_sent_; }
  /// Pieces whose output is still to be written because a value somewhere was not finite. The same set on all
  /// ranks, in the order in which they were met.
  const std::vector<Piece>& flagged() const noexcept { return flagged_; }
  /// What went wrong on this rank: bytes came that no encoder wrote, or its codec threw.
  const std::optional<Error>& failure() const noexcept { return failure_; }
  /// Whether an owner has told all ranks that something went wrong.
  bool told() const noexcept { return told_; }
  /// Goes no further: nobody computes for it any more.
  void settle();
  /// Before the first step: this rank has failed already. It goes through all steps, since others wait for
  /// its messages, and every message says so.
  void spoil(const Error& failure);

 private:
  friend class StepPool;
  void make_ready(std::uint32_t step);
  void finish(std::uint32_t step);
  bool compute_some();
  void take_back();
  // From here to the next comment: by any thread.
  StepResult compute(std::uint32_t step) noexcept;
  void encode(const Step& step, StepResult& result);
  void part(const Step& step, StepResult& result);
  void reduce(const Step& step, StepResult& result);
  void decode(const Step& step, StepResult& result);
  void sum(const Step& step, StepResult& result);
  void undo(std::uint32_t message, const Range& elements) const;
  std::uint8_t open_all(const Step& step, std::vector<Contents>& messages, StepResult& result,
                        std::optional<std::size_t> due = std::nullopt) const;
  Contents open(const Step& step, std::uint32_t message, int author, std::uint8_t channel) const;
  std::uint64_t place(std::uint8_t channel, int author, const Range& elements) const noexcept;
  std::size_t address(const Step& step, std::span<std::byte> out, std::size_t bytes) const;
  std::span<std::byte> slot(std::uint32_t message) const noexcept;
  std::span<const std::byte> message_in(std::uint32_t slot) const noexcept;
  // make(tensor, its elements, position) for what lies in a range; memory of this thread's, until the next
  // call.
  template <class Make>
  auto fragments_of(const Range& elements, Make&& make) const {
    using Made = decltype(make(binding_.tensors[0], elements, std::uint64_t{}));
    auto& made = kept_by_thread<std::vector<Made>>([] {});
    made.clear();
    for_each_fragment(binding_.layout, elements, [&](std::size_t t, const Range& own) {
      made.push_back(make(binding_.tensors[t], own, std::uint64_t{binding_.layout[t].offset + own.offset}));
    });
    return std::span<const Made>(made);
  }
  std::span<const Fragment> inputs_of(const Range& elements) const;
  std::span<const Fragment> sums_of(const Range& elements) const;
  Occasion occasion(std::uint32_t phase) const {
    return {.call = binding_.call,
            .stream = 2 * static_cast<std::uint32_t>(transport_.rank()) + phase,
            .most = binding_.most};
  }
  PieceCoder coder(std::uint32_t phase) const { return {*binding_.codec, binding_.dtype, occasion(phase)}; }
  View shared_numbers(std::uint32_t message) const noexcept;
  static bool is_flagged_by_any(const View& shared);
  void measure(const Step& step);
  void encode_addends(const Step& step);
  void decode_addends(const Step& step, StepResult& result) const;
  // By the caller's thread.
  void apply(std::uint32_t step, StepResult& result);
  // Steps on a device: queued there, and finished by the host once they are done.
  struct DeviceStep {
    std::uint32_t step = 0;
    bool has_headers = false;  // those of messages that came there are on the host, or on their way
    bool queued = false;       // its kernels
    DeviceQueue::Mark mark = 0;
    std::uint8_t flags = 0;  // of the message that is made
    std::size_t bytes = 0;   // of that message without flags
    StepResult result{};
  };
  void launch(std::uint32_t step) noexcept;
  bool poll_device() noexcept;
  void prepare_device(const Schedule& schedule, DeviceSide& side);
  bool go_on(DeviceStep& work) noexcept;
  bool try_to_go_on(DeviceStep& work);
  void give_up(DeviceStep& work) noexcept;
  void queue_encode(DeviceStep& work);
  bool queue_reduce(DeviceStep& work);
  bool queue_decode(DeviceStep& work);
  void end_encode(DeviceStep& work);
  void end_reduce(DeviceStep& work);
  void end_decode(DeviceStep& work);
  bool fetch_headers(const Step& step);
  void upload(std::uint32_t message, std::size_t payload);
  std::size_t bytes_of(std::span<const Fragment> fragments) const;
  std::optional<std::size_t> payload_due(const Step& step) const;
  void begin_message(DeviceStep& work, std::span<const Fragment> fragments);
  void end_message(DeviceStep& work);
  void publish(DeviceStep& work);
  Error corrupt_payload(int author) const;
  void require_payload(const Contents& contents, std::size_t due) const;
  DeviceSum sum_on_device(const Step& step) const;
  bool is_sent(std::uint32_t message) const noexcept { return sent_[message] != 0; }
  std::byte* device_slot(std::uint32_t message) const noexcept;
  DeviceReport& report_of(const DeviceStep& work) const noexcept;
  std::span<std::byte> wire_slot(std::uint32_t message) const noexcept;
  bool through_host(std::uint32_t message) const noexcept {
    return binding_.device == nullptr || !binding_.direct || at_host_[message] != 0;
  }
  void start_wire(Collectives collectives);
  void start_reduction(std::uint32_t step);
  void collect();

  std::shared_ptr<const Schedule> schedule_;
  Binding binding_;
  Transport& transport_;
  Buffer& messages_;
  StepPool* pool_;
  std::uint64_t order_ = 0;  // among the runners that share the pool
  int first_tag_ = 0;
  bool gated_ = true;
  bool told_ = false;
  bool spoilt_ = false;
  std::size_t finished_ = 0;
  std::size_t bytes_sent_ = 0;
  std::size_t collectives_left_ = 0;
  std::vector<std::uint32_t> waits_;       // by step: prerequisites not yet finished
  std::vector<std::uint8_t> started_;      // by step, of those on the wire
  std::vector<std::uint32_t> ready_;       // computation, a heap with the lowest step on top
  std::vector<std::uint32_t> ready_wire_;  // transfers that may start
  std::vector<std::uint32_t> starting_;    // those that just do
  std::vector<std::uint32_t> in_flight_;   // transfers that have started
  std::vector<Operation> operations_;      // by step
  std::vector<std::size_t> message_size_;  // by message slot: bytes in it
  std::vector<std::uint32_t> encoded_behind_gate_;
  std::vector<Piece> flagged_;
  std::optional<Error> failure_;
  std::vector<DeviceStep> on_device_;  // in the order in which they were queued
  std::vector<std::uint8_t> sent_;     // by message: goes to other ranks
  std::vector<std::uint8_t> at_host_;  // by message: what there is of it lies on the host
  // With a pool: steps that others compute, and those that they have done, under the pool's mutex.
  std::size_t lent_ = 0;
  std::vector<std::pair<std::uint32_t, StepResult>> returned_;
  std::vector<std::pair<std::uint32_t, StepResult>> taken_back_;
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/feedback.hpp>
#include <terse/types.hpp>
#include <vector>

#include "codec/feedback_state.hpp"
#include "collective/agreement.hpp"
#include "collective/algorithms.hpp"
#include "collective/runner.hpp"
#include "collective/schedule_cache.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

// A call's tags, as offsets from its first:
//
//   0, 1    messages of the first pass, by channel
//   2       error reports at its end
//   3, 4    messages of the resending pass, by channel
//   5       error reports at its end
//   6, 7    the agreement at the call's beginning, and the error reports that follow where it is not reached
//   8, 9    the closing agreement of the first pass, and its error reports
//   10, 11  the closing agreement of the resending pass, and its error reports
inline constexpr int kErrorReports = Schedule::kChannels;
inline constexpr int kTagsOfAPass = kErrorReports + 1;
inline constexpr int kTagsOfPasses = 2 * kTagsOfAPass;
inline constexpr int kBeginning = kTagsOfPasses;
inline constexpr int kClosing = kBeginning + 2;
inline constexpr int kTagsOfACall = kClosing + 4;

/// One tensor of several. `in` and `out` have one count and dtype, and are disjoint or the same memory.
struct CallTensor {
  ConstView in;
  View out;
  Feedback* feedback = nullptr;
  std::size_t rows = 0;  ///< as Tensor has it
};

/// Something that ranks must have in common, of which only the caller knows what it means.
struct Term {
  std::string_view name;
  std::string_view value;
};

/// One allreduce, all choices made: algorithm, codec and the rest go together (check_pair). What it points to
/// stays in place until its end, but for the terms.
struct Call {
  ConstView in{};  ///< of its tensor, where there is only one
  View out{};
  std::shared_ptr<const Codec> codec{};
  const Algorithm* algorithm = nullptr;
  /// What else ranks must have in common, since it led to the choice of the algorithm. Where there are none,
  /// that is the algorithm's name.
  std::span<const Term> terms{};
  Op op = Op::sum;
  Feedback* feedback = nullptr;  ///< of the tensor, where there is only one
  std::size_t rows = 0;          ///< the same
  std::optional<std::size_t> segment_bytes = std::size_t{4} << 20;  ///< nothing: what the model says
  std::span<const CallTensor> tensors{};                            ///< where there are several: of one dtype
  bool blocks = false;     ///< nothing else is under way: MPI may block
  int device = -1;         ///< whose memory the tensors are in; -1: the host's
  void* stream = nullptr;  ///< of that device: the call comes after what it holds
  bool direct = false;     ///< the transport is given device memory
  bool agree = true;       ///< begin with the agreement
  bool is_trial = false;   ///< of `auto`'s: not counted
  bool checksum = false;   ///< seal every message
  /// Once all is well, notes in the Feedbacks, unless one holds residuals, that `auto` chose plain MPI.
  bool declines = false;
  /// What this rank already knows to be wrong with its arguments. With `agree`, all ranks then throw it.
  std::optional<Error> failure{};

  std::size_t count() const noexcept;  ///< elements of all tensors
  std::size_t bytes() const noexcept { return count() * size_of(dtype()); }
  DType dtype() const noexcept { return tensors.empty() ? in.dtype : tensors[0].in.dtype; }
};

struct CallResult {
  std::size_t bytes_sent = 0;
  std::size_t exact_count = 0;  ///< elements of flagged pieces, which were resent uncompressed
};

/// The agreement alone, before something that only makes sense if all ranks are about to do it: to the other
/// ranks it is the beginning of the call. Collective; throws on all ranks alike, as the call would.
void require_agreement(Transport& transport, const Call& call);

/// One allreduce on its way. Kept from call to call with its scratch.
class Execution {
 public:
  /// All that is passed outlives it; the pool may be missing. Errors: out_of_memory.
  Execution(Transport& transport, ScheduleCache& schedules, ThreadPool* pool);
  ~Execution();
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;

  /// Begins a call; collective, in the same order on all ranks. Throws nothing: see finish.
  /// `number`: how many came before.
  void start(const Call& call, std::uint64_t number) noexcept;
  /// Does at most one step of computation and what the wire allows; the transport's progress is the caller's
  /// affair. Returns whether there was something to compute.
  bool advance(Runner::Collectives collectives) noexcept;
  bool done() const noexcept { return phase_ == Phase::done; }
  /// Whether it will enter a reduction of the transport's: that has to be done in start order.
  bool wants_collective() const noexcept { return phase_ == Phase::running && runner_.wants_collective(); }
  /// Whether it waits for a device.
  bool awaits_device() const noexcept { return arrival_.has_value() || runner_.awaits_device(); }
  /// When done: what it did. Errors: see Communicator::allreduce. With `agree`, what is no AgreedError was
  /// met half way, perhaps by this rank alone: the next call must tell the others (Call::failure).
  CallResult finish();

  /// Ends it with an error of the transport's.
  void fail(std::exception_ptr error) noexcept;

  /// Memory that it keeps.
  std::size_t scratch_bytes() const noexcept;

 private:
  enum class Phase : std::uint8_t {
    done,
    refusing,    // this rank has failed, and the others are told in the agreement
    explaining,  // the agreement was not reached: why
    running,     // the first pass
    closing,     // its end, where all ranks are sure to meet
    reporting,   // its end, where they are not: words
    again,       // flagged pieces
    closing_again,
    reporting_again
  };

  void keep_terms(std::span<const Term> terms);
  void prepare();
  void prepare_again();
  void pad(std::size_t count);
  void unpad();
  bool takes_device_memory() const;
  DeviceSide& side();
  void release_feedbacks() noexcept;
  Problem problem_of(const Codec& codec) const;
  void begin(std::shared_ptr<const Schedule> schedule);
  void explain(int tag);
  void end_pass();
  void end_closing();
  void end_reporting();
  void after_pass(bool first);
  void succeed();
  void decline();
  std::uint64_t digest_of_pass() const;
  ErrorReports::Fields fields_of_pass() const;

  Transport& transport_;
  ScheduleCache& schedules_;
  Phase phase_ = Phase::done;
  Call call_;
  std::string term_text_;  // what the call's terms point to
  std::vector<Term> terms_;
  std::vector<CallTensor> tensors_;
  std::size_t segment_bytes_ = 0;
  int tag_ = 0;
  // With residuals that a call uses, no other may; what was `fresh` belongs to nobody if nothing is sent.
  struct Lease {
    FeedbackState* state;
    bool fresh;
    std::optional<FeedbackShape> declined;  // what `auto` had left to MPI before
  };
  std::vector<Lease> leases_;
  std::vector<Range> layout_;
  std::vector<BoundTensor> bound_;
  std::vector<std::size_t> rows_;  // by tensor; empty: nothing is said of any
  Buffer messages_;
  Buffer flat_;  // tensors padded, or one behind the other
  std::unique_ptr<DeviceSide> side_;
  std::optional<DeviceQueue::Mark>
      arrival_;  // tensors are on their way to the host, or to where they may be read
  Buffer reports_memory_;
  Runner runner_;
  Agreement agreement_;
  ErrorReports reports_;
  std::optional<Error> failure_;
  bool sent_ = false;
  bool remote_failure_ =
      false;               // at the end of a pass: an owner has told all ranks that something went wrong
  bool all_know_ = false;  // that there is reason to meet
  bool agreed_ = false;    // ranks have agreed, or need not
  std::uint64_t number_ = 0;
  /// For tensors on a device: to be taken instead if some rank's are on the host. Nothing is done until all
  /// know.
  std::shared_ptr<const Schedule> fallback_schedule_;
  std::vector<Piece> flagged_;
  CallResult result_;
  std::exception_ptr error_;
};

}  // namespace terse::inline v0_1

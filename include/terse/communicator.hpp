// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/error.hpp>
#include <terse/feedback.hpp>
#include <terse/types.hpp>
#include <utility>

namespace terse::inline v0_1 {

/// Which codec: a spec such as "onebit:block=1024", or a codec made before. Default: not chosen here.
class CodecChoice {
 public:
  CodecChoice() = default;
  CodecChoice(const char* spec) : spec_(spec) {}
  CodecChoice(std::string_view spec) : spec_(spec) {}
  CodecChoice(std::string spec) : spec_(std::move(spec)) {}
  template <std::derived_from<Codec> C>
  CodecChoice(std::shared_ptr<C> codec) : codec_(std::move(codec)) {}

  bool chosen() const noexcept { return codec_ != nullptr || !spec_.empty(); }
  const std::string& spec() const noexcept { return spec_; }
  const std::shared_ptr<const Codec>& codec() const noexcept { return codec_; }

 private:
  std::string spec_;
  std::shared_ptr<const Codec> codec_;
};

/// The value of min_bytes for auto, whatever the Communicator's options and the environment say.
inline constexpr std::size_t kAutoBytes = std::numeric_limits<std::size_t>::max();

/// How much is verified: `call`, that all ranks make the same call, but for small ones; `all`, for those too;
/// `payload`, also a checksum of every message.
enum class Check : std::uint8_t { call, all, payload };

/// Who makes progress with nonblocking calls: the calls of the Communicator, or a thread of its own beside
/// them.
enum class Progress : std::uint8_t { calls, thread };

/// Whether MPI may be given pointers to device memory: as MPI says itself (MPIX_Query_cuda_support), or as
/// the caller knows better.
enum class CudaAware : std::uint8_t { automatic, on, off };

/// The value of segment_bytes for auto.
inline constexpr std::size_t kAutoSegment = std::numeric_limits<std::size_t>::max();

/// Options of one call. What is not set comes from the Communicator's options, then from the environment
/// (TERSE_CODEC,
/// ...), then from the table's defaults: see options().
struct AllreduceOptions {
  CodecChoice codec{};                     ///< "identity" by default: nothing is lossy unless asked for
  std::string algorithm{};                 ///< a name from algorithms(), or "auto"
  std::optional<Op> op{};                  ///< sum by default, as in MPI
  Feedback* feedback = nullptr;            ///< this tensor's residuals; without one, what is left out is lost
  std::optional<std::size_t> min_bytes{};  ///< tensors of fewer bytes go exactly; kAutoBytes by default
  /// Elements on their way at once, in bytes over all ranks' chunks; kAutoSegment by default.
  std::optional<std::size_t> segment_bytes{};
  std::optional<Check> check{};
  /// Threads that encode and decode, the caller's own included: 1 by default, for one rank a core. A
  /// Communicator's option, not a call's; results do not depend on it.
  std::optional<std::size_t> threads{};
  /// Who makes progress with calls that are under way. A Communicator's option, not a call's; thread needs
  /// MPI_THREAD_MULTIPLE.
  std::optional<Progress> progress{};
  /// How residuals are kept that Terse makes, those of a Plan and of GradientBuckets: `full` by default.
  /// Those of f64 tensors are always full. A Feedback of the caller's has a type of its own.
  std::optional<ResidualType> residual{};
  /// Whether MPI is given device pointers: asked of MPI by default. Where it is not, or with check=payload,
  /// messages, which are compressed, go through pinned memory of the host. Ranks may differ.
  std::optional<CudaAware> cuda_aware{};
  /// A cudaStream_t of the tensor's device: the call begins, there, after what the stream holds now. By
  /// default the stream is the legacy default one. When the call, or wait(), has returned, the output is
  /// there for any stream. Not for what is taken as the host's: pinned memory, and managed memory whose
  /// partner is the host's, must be ready when the call is made.
  void* stream = nullptr;
  /// Names the tensor where ranks could mean different ones: a difference is an error that names both.
  std::string tensor{};
  /// What this rank has found wrong with its arguments before it could make the call, as a binding for
  /// another language may: all ranks throw it, as they throw what Terse finds.
  std::optional<Error> failure{};
};

/// One tensor of a fused call. `in` and `out` have the same count and dtype and are disjoint or the same
/// memory.
struct FusedTensor {
  ConstView in;
  View out;
  Feedback* feedback = nullptr;  ///< this tensor's residuals

  FusedTensor(ConstView from, View to, Feedback* residuals = nullptr)
      : in(from), out(to), feedback(residuals) {}
  /// In place.
  FusedTensor(View data, Feedback* residuals = nullptr) : in(data), out(data), feedback(residuals) {}
};

/// What a call did.
struct Outcome {
  enum class Result : std::uint8_t { compressed, exact };
  /// Why exact: `asked` (a lossless codec or algorithm=exact), `small` (below min_bytes), `slower` (auto:
  /// compression would take longer). `non_finite`: compressed but for `exact_count` elements around values
  /// that are not finite.
  enum class Reason : std::uint8_t { none, asked, small, slower, non_finite };

  Result result = Result::exact;
  Reason reason = Reason::none;
  std::string_view algorithm{};  ///< the row of algorithms() that ran
  /// Bytes that this rank sent, headers and re-sent pieces included. For Result::exact, where the MPI library
  /// does not tell, the least that any algorithm can do: 2 (P - 1) / P of the tensor.
  std::size_t bytes_sent = 0;
  std::size_t exact_count = 0;  ///< elements that went exactly
};
TERSE_API std::string_view name(Outcome::Result result) noexcept;
TERSE_API std::string_view name(Outcome::Reason reason) noexcept;

/// A row of the option table: `name` here, TERSE_NAME in the environment, --name (with '-' for '_') on a
/// command line.
struct OptionInfo {
  std::string_view name;
  std::string_view default_value;
  std::string_view help;
};
TERSE_API std::span<const OptionInfo> options() noexcept;
/// Sets one option from text, as the environment and command lines do.
/// Errors: invalid_argument, naming the option and what is allowed.
TERSE_API void set_option(AllreduceOptions& options, std::string_view name, std::string_view value);
/// The inverse of set_option: empty where the option is not set. Errors: as set_option, for the name.
TERSE_API std::string get_option(const AllreduceOptions& options, std::string_view name);
/// The options that the environment sets. Errors: as set_option, naming the variable.
TERSE_API AllreduceOptions options_from_environment();

/// A row of the algorithm table.
struct AlgorithmInfo {
  std::string_view name;
  std::string_view summary;
};
TERSE_API std::span<const AlgorithmInfo> algorithms() noexcept;

class Execution;
struct CommunicatorState;

/// An allreduce under way, for the thread that uses its Communicator.
class TERSE_API Request {
 public:
  /// None.
  Request() noexcept;
  Request(Request&& other) noexcept;
  Request& operator=(Request&& other) noexcept;
  /// Waits for the end, whatever that is; while an exception unwinds or after MPI_Finalize it does not
  /// communicate, and the Communicator is not usable any more. What a call that goes exactly has then handed
  /// to MPI_Iallreduce cannot be taken back, and MPI may write to `out` until MPI_Finalize.
  ~Request();

  /// Whether a call is under way, or has ended and nobody has waited for it yet.
  bool active() const noexcept { return communicator_ != nullptr; }
  /// Whether it is over, well or not. Does what can be done without waiting, for all calls that are under way
  /// on the Communicator: without a progress thread, nothing else does. True for none.
  bool test();
  /// Waits, and says what the call did. Then the request is none. Errors: those of Communicator::allreduce;
  /// invalid_state for none.
  Outcome wait();

 private:
  friend struct CommunicatorState;
  std::shared_ptr<CommunicatorState> communicator_;
  Execution* execution_ = nullptr;
  Outcome outcome_{};  // as far as it is known before the end; exact_count is all that there is
  std::size_t bytes_ = 0;
  bool agreed_ = false;
  bool refuses_ = false;  // the Communicator was broken before, and ranks do not agree on this call
};

/// An allreduce that is made again and again, on the same buffers: `auto` chooses when it is made.
///
/// Keeps residuals of its own for each tensor that comes without a Feedback. For the thread that uses its
/// Communicator. Nothing is allocated by a call after the first.
class TERSE_API Plan {
 public:
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;
  /// As Request's.
  ~Plan();

  /// Begins a call; collective, in the same order on all ranks. Errors: invalid_state where one is under way;
  /// what else is wrong is told by wait().
  void start();
  /// As Request's. True where none was started.
  bool test();
  /// As Request's.
  Outcome wait();
  /// The residuals of a tensor, to save, load or reset between calls. Errors: invalid_argument where there is
  /// no such tensor, invalid_state for a plan that was moved from.
  Feedback& feedback(std::size_t tensor = 0);

 private:
  friend class Communicator;
  struct [[gnu::visibility("hidden")]] Impl;
  explicit Plan(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

/// Collectives over the ranks of an MPI communicator.
///
/// One thread at a time per Communicator, different ones concurrently under MPI_THREAD_MULTIPLE.
class TERSE_API Communicator {
 public:
  /// Makes a communicator of its own of the ranks of `comm`, an intracommunicator of any size, by
  /// MPI_Comm_create, which is collective over `comm`. That is the only operation on `comm`, now or later: no
  /// message travels there, and no callback of its attributes runs. `defaults` override the environment.
  /// Errors: invalid_state outside MPI_Init ... MPI_Finalize, invalid_argument for MPI_COMM_NULL
  /// or an intercommunicator; on all ranks alike, invalid_argument where an environment variable makes no
  /// sense on some rank, mismatch where ranks have different defaults or variables, and `defaults.failure`.
  explicit Communicator(MPI_Comm comm, const AllreduceOptions& defaults = {});
  Communicator(Communicator&&) noexcept;
  Communicator& operator=(Communicator&&) noexcept;
  /// As free(), except after MPI_Finalize or while an exception unwinds: then it does not communicate.
  ~Communicator();

  /// Waits for calls that are under way, whose requests keep what became of them, and frees the communicator
  /// of its own; where a call failed half way that is left to MPI_Finalize, since messages may be left in it.
  /// Collective.
  void free();

  int rank() const;
  int size() const;
  const AllreduceOptions& defaults() const;

  /// Reduces `in` over all ranks into `out` on all ranks: the same bits everywhere. `in` and `out` have the
  /// same count and dtype and are disjoint or the same memory. All ranks call with the same count, dtype and
  /// options. Of a compressed call neither the bits nor the exception flags depend on the caller's
  /// floating-point mode; an exact call's sum is MPI_Allreduce's in that mode. On one rank algorithm=auto is exact,
  /// whatever min_bytes is, while a named algorithm encodes and decodes.
  ///
  /// Errors, on every rank alike: mismatch, and those of a single rank (invalid_argument, unsupported,
  /// invalid_state, out_of_memory), whose sentence then names the rank. They are found before anything is
  /// written: `in`, `out` and the residuals are as before (residuals to rounding). Not looked for, unless
  /// check is `all` or `payload`, where this rank's tensor is too small to be compressed (min_bytes; 2 KiB
  /// where that is auto): then a mismatch is what it is with MPI_Allreduce, and a device that fails is one
  /// rank's error, for whom the others wait. communication, corrupt_data, device, and
  /// what is met when the call is half way (a codec throws, or there is no memory to send values that are not
  /// finite once more): `out` and residuals are undefined. Such an error may be one rank's alone, unless
  /// check is `payload`, where what was wrong came late; this Communicator then only refuses, on all ranks
  /// from the next call on that is large enough to be compressed.
  Outcome allreduce(ConstView in, View out, const AllreduceOptions& options = {});
  /// In place.
  Outcome allreduce(View data, const AllreduceOptions& options = {});
  /// Several tensors of one dtype as one message; the results are those of one call for each, to the bit,
  /// where it is compressed. All ranks pass as many, of the same counts in the same order.
  /// options.feedback is not used: each tensor names its own. A small list is one whose sum is small.
  Outcome allreduce(std::span<const FusedTensor> tensors, const AllreduceOptions& options = {});

  /// The same, begun: `in` and `out` belong to the call until Request::wait has returned, options.feedback
  /// too. Any number may be under way on a Communicator; all ranks begin them, and blocking calls between
  /// them, in the same order, and may end them in any. A call that is nonblocking on one rank is so on all.
  /// What is wrong is told by wait(). Thrown here: invalid_state, out_of_memory, and, where `auto` makes a
  /// trial first, which is a call of its own, what allreduce throws, on all ranks alike.
  ///
  /// Progress is made by calls on this Communicator, or with progress=thread beside them. So, without such a
  /// thread, a rank that waits for something else than this Communicator may keep others waiting.
  Request iallreduce(ConstView in, View out, const AllreduceOptions& options = {});
  Request iallreduce(View data, const AllreduceOptions& options = {});
  Request iallreduce(std::span<const FusedTensor> tensors, const AllreduceOptions& options = {});

  /// A plan for calls on these buffers. Collective: where `auto` has a choice to make, it is made here.
  /// Errors: those of allreduce, for what is wrong with the arguments.
  Plan allreduce_init(ConstView in, View out, const AllreduceOptions& options = {});
  Plan allreduce_init(View data, const AllreduceOptions& options = {});
  Plan allreduce_init(std::span<const FusedTensor> tensors, const AllreduceOptions& options = {});

  /// Bytes of memory that this Communicator keeps for calls to come: for each that was ever under way at the
  /// same time, 12 messages a rank of a segment (see segment_bytes), 1 KiB a rank, and as much as the tensors
  /// where a list went exactly or a tensor was padded. Not counted: schedules, and what each thread that
  /// computes keeps, which is some 100 KiB, or a few pieces where a codec's payload is not made of runs.
  std::size_t scratch_bytes() const;

 private:
  std::shared_ptr<CommunicatorState> state_;
};

}  // namespace terse::inline v0_1

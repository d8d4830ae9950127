// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <terse/error.hpp>
#include <terse/feedback.hpp>
#include <terse/options.hpp>
#include <terse/tensor.hpp>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

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
  std::size_t exact_count = 0;  ///< elements that went uncompressed
};
TERSE_API std::string_view name(Outcome::Result result) noexcept;
TERSE_API std::string_view name(Outcome::Reason reason) noexcept;

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
  /// communicate, and the Communicator is not usable any more. What an exact call has then handed
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
  /// message travels there, and no callback of its attributes runs. `options` override the environment.
  /// Errors: invalid_state outside MPI_Init ... MPI_Finalize, invalid_argument for MPI_COMM_NULL
  /// or an intercommunicator; on all ranks alike, invalid_argument where an environment variable makes no
  /// sense on some rank, mismatch where ranks have different options or variables, and `options.failure`.
  explicit Communicator(MPI_Comm comm, const CommunicatorOptions& options = {});
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
  /// The options in force: its own, the environment's, the table's.
  const CommunicatorOptions& options() const;

  /// Reduces the input over all ranks into the output on all ranks: the same bits everywhere. All ranks call
  /// with the same count, dtype, op and options. Of a compressed call neither the bits nor the exception
  /// flags depend on the caller's floating-point mode; an exact call's sum is MPI_Allreduce's in that mode.
  /// On one rank algorithm=auto is exact, whatever min_bytes is, while a named algorithm encodes and decodes.
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
  ///
  /// A list of tensors, of one dtype, is one message; the results are bit-identical to those of one call for
  /// each, where it is compressed. All ranks pass as many, of the same counts in the same order. A small list
  /// is one whose sum is small.
  Outcome allreduce(const Tensors& tensors, Op op, const CallOptions& options = {});

  /// The same, begun: inputs, outputs and residuals belong to the call until Request::wait has returned; a
  /// list does not. Any number may be under way on a Communicator; all ranks begin them, and blocking calls
  /// between them, in the same order, and may end them in any. A call that is nonblocking on one rank is so
  /// on all. What is wrong is told by wait(). Thrown here: invalid_state, out_of_memory, and, where `auto`
  /// makes a trial first, which is a call of its own, what allreduce throws, on all ranks alike.
  ///
  /// Progress is made by calls on this Communicator, or with progress=thread beside them. So, without such a
  /// thread, a rank that waits for something else than this Communicator may keep others waiting.
  Request iallreduce(const Tensors& tensors, Op op, const CallOptions& options = {});

  /// A plan for calls on these buffers. Collective: where `auto` has a choice to make, it is made here.
  /// Errors: those of allreduce, for what is wrong with the arguments.
  Plan allreduce_init(const Tensors& tensors, Op op, const CallOptions& options = {});

  /// Bytes of memory that this Communicator keeps for calls to come: for each that was ever under way at the
  /// same time, 12 messages a rank of a segment (see segment_bytes), 1 KiB a rank, and as much as the tensors
  /// where a list went uncompressed or a tensor was padded. Not counted: schedules, and what each thread that
  /// computes keeps, which is some 100 KiB, or a few pieces where a codec's payload is not made of runs.
  std::size_t scratch_bytes() const;

 private:
  std::shared_ptr<CommunicatorState> state_;
};

}  // namespace terse::inline v0_1

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

/// Options of one call. What is not set comes from the Communicator's options, then from the environment
/// (TERSE_CODEC,
/// ...), then from the table's defaults: see options().
struct AllreduceOptions {
  CodecChoice codec{};                     ///< "identity" by default: nothing is lossy unless asked for
  std::string algorithm{};                 ///< a name from algorithms(), or "auto"
  std::optional<Op> op{};                  ///< sum by default, as in MPI
  Feedback* feedback = nullptr;            ///< this tensor's residuals; without one, what is left out is lost
  std::optional<std::size_t> min_bytes{};  ///< tensors of fewer bytes go exactly; kAutoBytes by default
  std::optional<std::size_t>
      segment_bytes{};  ///< elements on their way at once, in bytes over all ranks' chunks
  std::optional<Check> check{};
  /// Names the tensor where ranks could mean different ones: a difference is an error that names both.
  std::string tensor{};
  /// What this rank has found wrong with its arguments before it could make the call, as a binding for
  /// another language may: all ranks throw it, as they throw what Terse finds.
  std::optional<Error> failure{};
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

/// Collectives over the ranks of an MPI communicator.
///
/// One thread at a time per Communicator, different ones concurrently under MPI_THREAD_MULTIPLE.
class TERSE_API Communicator {
 public:
  /// Duplicates `comm` (collective over it): any intracommunicator of any size. `defaults` override the
  /// environment. Errors: invalid_state outside MPI_Init ... MPI_Finalize, invalid_argument for MPI_COMM_NULL
  /// or an intercommunicator; on all ranks alike, invalid_argument where an environment variable makes no
  /// sense on some rank, mismatch where ranks have different defaults or variables, and `defaults.failure`.
  explicit Communicator(MPI_Comm comm, const AllreduceOptions& defaults = {});
  Communicator(Communicator&&) noexcept;
  Communicator& operator=(Communicator&&) noexcept;
  /// As free(), except after MPI_Finalize or while an exception unwinds: then it does not communicate.
  ~Communicator();

  /// Gives the duplicate back. Collective.
  void free();

  int rank() const;
  int size() const;
  const AllreduceOptions& defaults() const;

  /// Reduces `in` over all ranks into `out` on all ranks: the same bits everywhere. `in` and `out` have the
  /// same count and dtype and are disjoint or the same memory. All ranks call with the same count, dtype and
  /// options.
  ///
  /// Errors, on every rank alike: mismatch, and those of a single rank (invalid_argument, unsupported,
  /// invalid_state, out_of_memory), whose sentence then names the rank. They are found before anything is
  /// written: `in`, `out` and the residuals are as before (residuals to rounding). Not looked for, unless
  /// check is `all` or `payload`, where this rank's tensor is too small to be compressed (min_bytes; 2 KiB
  /// where that is auto): then a mismatch is what it is with MPI_Allreduce. communication, corrupt_data, and
  /// what is met when the call is half way (a codec throws, or there is no memory to send values that are not
  /// finite once more): `out` and residuals are undefined. Such an error may be one rank's alone, unless
  /// check is `payload`, where what was wrong came late; this Communicator then only refuses, on all ranks
  /// from the next call on that is large enough to be compressed.
  Outcome allreduce(ConstView in, View out, const AllreduceOptions& options = {});
  /// In place.
  Outcome allreduce(View data, const AllreduceOptions& options = {});

 private:
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace terse::inline v0_1

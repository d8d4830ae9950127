// SPDX-License-Identifier: Apache-2.0
#pragma once

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
/// The value of segment_bytes for auto.
inline constexpr std::size_t kAutoSegment = std::numeric_limits<std::size_t>::max();

/// How much is verified: `call`, that all ranks make the same call, but for small ones; `all`, for those too;
/// `payload`, also a checksum of every message.
enum class Check : std::uint8_t { call, all, payload };

/// Who makes progress with nonblocking calls: the calls of the Communicator, or a thread of its own beside
/// them.
enum class Progress : std::uint8_t { calls, thread };

/// Whether MPI may be given pointers to device memory: as MPI says itself (MPIX_Query_cuda_support), or as
/// the caller knows better.
enum class CudaAware : std::uint8_t { automatic, on, off };

/// How tensors are sent: with which codec and algorithm, from which size on. All ranks have the same. What is
/// not set in a call's comes from the Communicator's, then from the environment (TERSE_CODEC, ...), then from
/// the table's defaults: see options().
struct Policy {
  CodecChoice codec{};      ///< "identity" by default: nothing is lossy unless asked for
  std::string algorithm{};  ///< a name from algorithms(), or "auto"
  std::optional<std::size_t>
      min_bytes{};  ///< tensors of fewer bytes are sent uncompressed; kAutoBytes by default
  /// Elements on their way at once, in bytes over all ranks' chunks; kAutoSegment by default.
  std::optional<std::size_t> segment_bytes{};
  std::optional<Check> check{};
  /// How residuals are kept that Terse makes, those of a Plan and of GradientBuckets: `full` by default.
  /// Those of f64 tensors are always full. A Feedback of the caller's has a type of its own.
  std::optional<ResidualType> residual{};
};

/// Options of a Communicator. What is not set comes from the environment (TERSE_THREADS, ...), then from the
/// table's defaults.
struct CommunicatorOptions {
  /// Threads that encode and decode, the caller's own included: 1 by default, for one rank a core. Results do
  /// not depend on it.
  std::optional<std::size_t> threads{};
  /// Who makes progress with calls that are under way: `calls` by default; `thread` needs
  /// MPI_THREAD_MULTIPLE.
  std::optional<Progress> progress{};
  /// Whether MPI is given device pointers: asked of MPI by default. Where it is not, or with check=payload,
  /// messages, which are compressed, go through pinned memory of the host. Ranks may differ.
  std::optional<CudaAware> cuda_aware{};
  Policy policy{};  ///< of all calls, as far as they have none of their own
  /// What this rank has found wrong with its arguments before it could make the Communicator, as a binding
  /// for another language may: all ranks throw it.
  std::optional<Error> failure{};
};

/// Options of one call.
struct CallOptions {
  Policy policy{};
  /// The tensor's residuals, where there is one tensor and it names none itself; without residuals, what a
  /// lossy codec leaves out is lost.
  Feedback* feedback = nullptr;
  /// A cudaStream_t of the tensors' device: the call begins, there, after what the stream holds now. By
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

/// A row of the option table: `name` here, TERSE_NAME in the environment, --name (with '-' for '_') on a
/// command line.
struct OptionInfo {
  std::string_view name;
  std::string_view default_value;
  std::string_view help;
  bool of_policy = true;  ///< whether a call may have a value of its own; else it is the Communicator's
};
TERSE_API std::span<const OptionInfo> options() noexcept;
/// Sets one option from text, as the environment and command lines do.
/// Errors: invalid_argument, naming the option and what is allowed.
TERSE_API void set_option(CommunicatorOptions& options, std::string_view name, std::string_view value);
/// The same for the options of a policy. Errors also: invalid_argument for an option of a Communicator.
TERSE_API void set_option(Policy& policy, std::string_view name, std::string_view value);
/// The inverse of set_option: empty where the option is not set. Errors: as set_option, for the name.
TERSE_API std::string get_option(const CommunicatorOptions& options, std::string_view name);
TERSE_API std::string get_option(const Policy& policy, std::string_view name);
/// The options that the environment sets. Errors: as set_option, naming the variable.
TERSE_API CommunicatorOptions options_from_environment();

}  // namespace terse::inline v0_1

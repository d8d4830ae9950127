// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/communicator.hpp>
#include <terse/error.hpp>
#include <terse/types.hpp>

#include "codec/feedback_state.hpp"
#include "collective/algorithms.hpp"
#include "collective/allreduce.hpp"

namespace terse::inline v0_1 {

/// What `auto` did with a tensor before, as its Feedback knows it.
enum class Past : std::uint8_t { unknown, declined, compressed };

/// What a Feedback says of a tensor of that many elements. A Feedback that was loaded for another number of
/// ranks says nothing of what these should decline.
Past past_of(const FeedbackState& state, std::size_t count, DType dtype, const Codec& codec, int ranks);
/// Of several tensors: one that was compressed before decides for all.
constexpr Past past_of_both(Past one, Past other) noexcept { return one > other ? one : other; }

/// All that the choices of a call depend on. Errors are named here in the order in which they are reported:
/// the first one counts.
struct Facts {
  // the options, the call's own before the communicator's
  std::string_view algorithm = "auto";  ///< a name, or auto
  std::size_t min_bytes = kAutoBytes;
  std::size_t segment_bytes = kAutoSegment;
  Check check = Check::call;
  CudaAware cuda_aware = CudaAware::automatic;
  const Codec* codec = nullptr;           ///< null: `option_failure` says why
  const Error* option_failure = nullptr;  ///< what the caller, or making the codec, has found wrong
  // the buffers
  std::size_t count = 0;  ///< elements of all tensors
  DType dtype = DType::f32;
  bool list = false;  ///< two tensors or more
  bool on_device = false;
  const Error* buffer_failure = nullptr;
  // the Feedbacks
  bool feedback = false;        ///< a tensor has one
  bool bf16_residuals = false;  ///< one has residuals of bf16
  Past past = Past::unknown;
  // the job
  int ranks = 1;
  bool takes_device_memory = false;  ///< MPI says that it takes pointers to device memory
  const Error* broken = nullptr;     ///< an earlier call failed half way
  std::optional<bool> pays{};        ///< what trials have found, once a decision has asked for them
};

struct Decision {
  /// Whether compression pays is to be asked of the trials first: the rest is then what a trial goes by, and
  /// the next decision knows the answer.
  bool asks_for_trial = false;
  const Algorithm* algorithm = nullptr;
  std::optional<std::size_t> segment_bytes{};  ///< nothing: the model's
  bool checksum = false;
  bool direct = false;  ///< MPI is given device memory
  bool agree = true;    ///< ranks agree on the call before they make it
  /// The call is refused after its end: other ranks, which agree on nothing first, would wait for it.
  bool refuses_afterwards = false;
  bool declines = false;  ///< the Feedbacks note that `auto` chose plain MPI
  Outcome::Result result = Outcome::Result::compressed;
  Outcome::Reason reason = Outcome::Reason::none;
  std::string_view found{};  ///< what `auto` went by; nothing where it had no choice
  std::optional<Error> failure{};
};

/// Reads no environment, no clock and no memory but what the facts name; the same facts give the same
/// decision on every rank. Ranks may differ in `on_device`, `cuda_aware`, `takes_device_memory`, `broken` and
/// the failures, and choose the same algorithm all the same, unless the decision has a failure.
Decision decide(const Facts& facts);

/// What ranks must have in common since it led to the decision, as names and values: the call's terms. What
/// it is made of stays in place as long as they are used.
class CallTerms {
 public:
  std::span<const Term> compose(std::string_view style, const Facts& facts, const Decision& decision,
                                std::string_view tensor) noexcept;

 private:
  std::array<Term, 5> terms_{};
  std::array<char, 20> digits_{};
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "api/decide.hpp"

#include <charconv>

#include "api/tuning.hpp"

namespace terse::inline v0_1 {
namespace {

// What `make` throws, unless something is known to be wrong already.
template <class Make>
void note(std::optional<Error>& failure, Make&& make) {
  try {
    make();
  } catch (...) {
    if (!failure) failure = current_error();
  }
}

std::optional<Error> copy_of(const Error* error) { return error ? std::optional(*error) : std::nullopt; }

}  // namespace

Past past_of(const FeedbackState& state, std::size_t count, DType dtype, const Codec& codec, int ranks) {
  if (state.calls != 0) return Past::compressed;
  const FeedbackShape& shape = state.shape;
  const bool is_this = shape.ranks == static_cast<std::uint32_t>(ranks) && shape.count == count &&
                       shape.dtype == dtype && shape.codec == codec.spec();
  return state.declined && is_this ? Past::declined : Past::unknown;
}

Decision decide(const Facts& facts) {
  const Algorithm& exact = find_algorithm("exact");
  const bool automatic = facts.algorithm == "auto";
  const bool by_trials = facts.min_bytes == kAutoBytes;
  Decision decision{.algorithm = &find_algorithm("two_phase"), .failure = copy_of(facts.option_failure)};

  // The algorithm that compresses, and what is wrong with the call by itself, small or not.
  if (!automatic) {
    note(decision.failure, [&] { decision.algorithm = &find_algorithm(facts.algorithm); });
  } else if (facts.codec) {
    decision.algorithm = &algorithm_for(*facts.codec, facts.ranks);
  }
  if (facts.segment_bytes == 0 && !decision.failure) {
    decision.failure =
        Error(ErrorCode::invalid_argument, "segment_bytes is 0: use auto, or at least 1, such as 4M");
  }
  if (facts.segment_bytes != kAutoSegment) decision.segment_bytes = facts.segment_bytes;
  if (facts.buffer_failure && !decision.failure) decision.failure = *facts.buffer_failure;
  if (!decision.failure) {
    note(decision.failure, [&] {
      check_pair({.algorithm = *decision.algorithm,
                  .codec = *facts.codec,
                  .dtype = facts.dtype,
                  .ranks = facts.ranks,
                  .list = facts.list,
                  .on_device = facts.on_device,
                  .feedback = facts.feedback,
                  .bf16_residuals = facts.bf16_residuals});
    });
  }
  decision.checksum = facts.check == Check::payload;
  decision.direct =
      !decision.checksum && (facts.cuda_aware == CudaAware::on ||
                             (facts.cuda_aware == CudaAware::automatic && facts.takes_device_memory));

  // Compressed or exact. Nothing here may depend on what ranks may differ in, unless the call fails.
  const auto be_exact = [&](Outcome::Reason reason) {
    decision.result = Outcome::Result::exact;
    decision.reason = reason;
    decision.algorithm = &exact;
  };
  const bool plain = decision.algorithm == &exact;
  const bool lossless = facts.codec && facts.codec->traits().lossless;
  const std::size_t smallest = !by_trials ? facts.min_bytes : automatic || plain ? kAlwaysExact : 0;
  const bool small = facts.count * size_of(facts.dtype) < smallest;
  const bool has_choice = automatic && (by_trials || facts.ranks == 1) && !decision.failure && !facts.broken;
  if (plain || (automatic && lossless)) {
    be_exact(Outcome::Reason::asked);
  } else if (small) {
    be_exact(Outcome::Reason::small);
  } else if (!has_choice) {
    if (lossless) {
      decision.result = Outcome::Result::exact;
      decision.reason = Outcome::Reason::asked;
    }
  } else if (facts.past == Past::compressed) {
    decision.found = "compresses as before";
  } else if (facts.past == Past::declined) {
    decision.found = "takes plain MPI as before";
    be_exact(Outcome::Reason::slower);
  } else if (facts.ranks == 1) {
    be_exact(Outcome::Reason::slower);  // nothing is sent
  } else if (!facts.pays) {
    decision.found = "has a trial to make";
    decision.asks_for_trial = true;
  } else if (*facts.pays) {
    decision.found = "compresses after a trial";
  } else {
    decision.found = "takes plain MPI after a trial";
    be_exact(Outcome::Reason::slower);
  }
  decision.declines = decision.reason == Outcome::Reason::slower;

  // Another rank may be about to compress, by mistake: exact calls are agreed upon too, unless they are
  // small.
  decision.agree = !small || facts.check != Check::call;
  // An earlier call failed, perhaps here alone. Where there is an agreement, all ranks hear of that.
  if (facts.broken && decision.agree) decision.failure = *facts.broken;
  decision.refuses_afterwards = facts.broken && !decision.agree;
  return decision;
}

std::span<const Term> CallTerms::compose(std::string_view style, const Facts& facts, const Decision& decision,
                                         std::string_view tensor) noexcept {
  std::size_t n = 0;
  terms_[n++] = {"call", style};
  terms_[n++] = {"algorithm", facts.algorithm};
  if (facts.min_bytes == kAutoBytes) {
    terms_[n++] = {"min_bytes", "auto"};
  } else {
    const char* end = std::to_chars(digits_.data(), digits_.data() + digits_.size(), facts.min_bytes).ptr;
    terms_[n++] = {"min_bytes", {digits_.data(), static_cast<std::size_t>(end - digits_.data())}};
  }
  if (!decision.found.empty()) terms_[n++] = {"auto", decision.found};
  if (!tensor.empty()) terms_[n++] = {"tensor", tensor};
  return std::span(terms_).first(n);
}

}  // namespace terse::inline v0_1

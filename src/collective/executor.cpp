// SPDX-License-Identifier: Apache-2.0
#include "collective/executor.hpp"

#include <algorithm>
#include <string>

#include "core/assert.hpp"

namespace terse::inline v0_1 {

void Executor::begin(const Schedule& schedule, const Binding& binding) {
  for (const Step& step : schedule.steps()) {
    TERSE_ASSERT(binding.codecs[step.codec] != nullptr || step.codec == 0,
                 "a step names a codec that its call does not have", step.codec);
  }
  for (const BoundTensor& tensor : binding.tensors) {
    const auto t = static_cast<std::size_t>(&tensor - binding.tensors.data());
    const auto residuals = schedule.residuals();
    for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
      const Residual& held = tensor.residuals[phase];
      if (held.values.data == nullptr) continue;
      TERSE_ASSERT(phase < residuals.size(),
                   "a call brings residuals of a phase that its schedule does not have", phase,
                   residuals.size());
      const Range& kept = residuals[phase];
      const std::size_t begin = std::max(kept.offset, binding.layout[t].offset);
      const std::size_t end = std::min(kept.end(), binding.layout[t].end());
      TERSE_ASSERT(begin >= end ||
                       (held.begin == begin - binding.layout[t].offset && held.values.count == end - begin),
                   "a residual has other elements than its phase encodes", phase, t, held.begin,
                   held.values.count, begin, end);
    }
  }
  inherited_.assign(schedule.size(), 0);
  schedule_ = &schedule;
  binding_ = &binding;
  poisoned_ = false;
}

EncodeContext Executor::context(const Step& step) const noexcept {
  return {.random = {.call = binding_->call,
                     .stream = static_cast<std::uint32_t>(kMostPhases) * static_cast<std::uint32_t>(rank_) +
                               (step.phase == kNoResidual ? 0U : step.phase)},
          .limit = binding_->limit};
}

std::uint8_t Executor::open_all(const Step& step, std::vector<Contents>& messages, StepResult& result,
                                std::optional<std::size_t> due) const {
  const Group& group = schedule_->group(step);
  std::uint8_t flags = poisoned_ ? kPoisoned : 0;
  messages.clear();
  for (std::uint32_t member = 0; member < step.in.slots; ++member) {
    const int rank = group.rank(static_cast<int>(member));
    try {
      messages.push_back(store_.open(step, step.in, member, rank));
      if (due && messages.back().flags == 0) require_payload(step, messages.back(), *due);
      flags |= messages.back().flags;
    } catch (...) {
      if (!result.failure) result.failure = current_error("a message from rank " + std::to_string(rank));
      flags |= kPoisoned;
    }
  }
  return flags;
}

void Executor::require_payload(const Step& step, const Contents& contents, std::size_t due) const {
  if (contents.payload.size() == due) return;
  throw Error(ErrorCode::corrupt_data,
              "corrupt message for codec " + codec(step).spec() + ": its payload is cut short or too long");
}

void Executor::undo(std::uint32_t i) const {
  const Step& step = (*schedule_)[i];
  TERSE_ASSERT(step.verb == Verb::encode || step.verb == Verb::extract,
               "a step is undone that has not encoded", i, step.verb);
  const auto fragments =
      pieces().inputs(step.verb == Verb::extract ? step.beside : step.in, step.out.elements, step.phase);
  if (std::all_of(fragments.begin(), fragments.end(),
                  [](const Fragment& f) { return f.residual.data == nullptr; })) {
    return;
  }
  do_undo(step,
          open_message(codec(step), step.out.elements.count, binding_->dtype, store_.message(step.out.slot),
                       std::nullopt),
          fragments);
}

}  // namespace terse::inline v0_1

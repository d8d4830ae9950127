// SPDX-License-Identifier: Apache-2.0
#include "collective/schedule.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "core/assert.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kAlignment = 64;  // slots begin on cache lines
constexpr std::size_t aligned(std::size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

std::uint32_t Schedule::add(const Step& step, std::span<const std::uint32_t> after) {
  const auto id = static_cast<std::uint32_t>(steps_.size());
  steps_.push_back(step);
  for (const std::uint32_t before : after) {
    TERSE_ASSERT(before < id, "a step waits for one that does not stand before it", before, id);
    edges_.emplace_back(before, id);
  }
  return id;
}

std::uint32_t Schedule::add_slot(std::size_t bytes) {
  slots_.push_back({aligned(slot_bytes()), bytes});
  return static_cast<std::uint32_t>(slots_.size() - 1);
}

std::uint8_t Schedule::add_group(Group group) {
  groups_.push_back(std::move(group));
  return static_cast<std::uint8_t>(groups_.size() - 1);
}

std::uint8_t Schedule::add_phase(const Range& residual) {
  TERSE_ASSERT(residuals_.size() < kMostPhases,
               "a schedule has more phases with residuals than a Feedback keeps", residuals_.size());
  residuals_.push_back(residual);
  return static_cast<std::uint8_t>(residuals_.size() - 1);
}

void Schedule::check(const Operand& operand, std::uint32_t i) const {
  if (operand.space != Space::message && operand.space != Space::scratch) return;
  TERSE_ASSERT(operand.slot < slots_.size() && operand.slots <= slots_.size() - operand.slot,
               "a step names slots that its schedule does not have", i, operand.slot, operand.slots,
               slots_.size());
  TERSE_ASSERT(operand.space == Space::scratch || operand.channel < kChannels || operand.channel == kUnsent,
               "a message goes under a tag that is not one of the call's", i, operand.channel);
}

void Schedule::check(std::uint32_t i) const {
  const Step& step = steps_[i];
  for (const Operand* operand : {&step.in, &step.out, &step.beside}) check(*operand, i);
  TERSE_ASSERT(step.codec < kMostCodecs, "a step names a codec that no binding has", i, step.codec);
  if (step.verb == Verb::join) return;
  TERSE_ASSERT(!encodes(step.verb) || step.phase < residuals_.size() || step.phase == kNoResidual,
               "a step encodes in a phase that its schedule does not have", i, step.phase, residuals_.size());
  const bool transfers = step.verb == Verb::send || step.verb == Verb::receive;
  const Operand& moved = step.verb == Verb::send ? step.in : step.out;
  TERSE_ASSERT(!transfers || (step.peer >= 0 && moved.space == Space::message && moved.channel < kChannels),
               "a transfer has no peer or no message", i, step.peer, moved.space, moved.channel);
  const bool combines = step.verb == Verb::reduce || step.verb == Verb::sum;
  TERSE_ASSERT(
      !combines ||
          (step.group < groups_.size() && step.in.slots == static_cast<std::uint32_t>(group(step).size())),
      "a step sums messages of a group that it does not have one each of", i, step.group, step.in.slots);
  TERSE_ASSERT(step.undoes == kNoStep || step.undoes < i, "a step undoes one that does not stand before it",
               i, step.undoes);
  const bool sized = step.verb == Verb::encode || step.verb == Verb::sum || step.verb == Verb::decode;
  TERSE_ASSERT(!sized || step.in.elements.count == step.out.elements.count,
               "a step writes another number of elements than it reads", i, step.in.elements.count,
               step.out.elements.count);
}

void Schedule::seal() {
  for (std::uint32_t i = 0; i < steps_.size(); ++i) check(i);
  std::sort(edges_.begin(), edges_.end());
  edges_.erase(std::unique(edges_.begin(), edges_.end()), edges_.end());
  prerequisites_.assign(steps_.size(), 0);
  first_.assign(steps_.size() + 1, 0);
  successors_.reserve(edges_.size());
  for (const auto& [before, after] : edges_) {
    ++first_[before + 1];
    ++prerequisites_[after];
    successors_.push_back(after);
  }
  for (std::size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
  started_after_.assign(steps_.size(), kNoStep);
  std::map<std::tuple<Verb, int, std::uint8_t>, std::uint32_t> last;
  for (std::uint32_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (!is_on_wire(step.verb)) continue;
    const std::uint8_t channel = step.verb == Verb::send      ? step.in.channel
                                 : step.verb == Verb::receive ? step.out.channel
                                                              : std::uint8_t{0};
    const auto [before, first] = last.try_emplace({step.verb, step.peer, channel}, i);
    if (!first) started_after_[i] = std::exchange(before->second, i);
  }
  edges_.clear();
  edges_.shrink_to_fit();
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "collective/schedule.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kAlignment = 64;  // slots begin on cache lines
constexpr std::size_t aligned(std::size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

std::uint32_t Schedule::add(const Step& step, std::span<const std::uint32_t> after) {
  const auto id = static_cast<std::uint32_t>(steps_.size());
  steps_.push_back(step);
  for (const std::uint32_t before : after) edges_.emplace_back(before, id);
  return id;
}

std::uint32_t Schedule::add_message(std::size_t bytes) {
  messages_.push_back({aligned(message_bytes()), bytes});
  return static_cast<std::uint32_t>(messages_.size() - 1);
}

void Schedule::seal() {
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
  started_after_.assign(steps_.size(), kNoSlot);
  std::map<std::tuple<Verb, int, std::uint8_t>, std::uint32_t> last;
  for (std::uint32_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (!is_on_wire(step.verb)) continue;
    const auto [before, first] = last.try_emplace({step.verb, step.peer, step.channel}, i);
    if (!first) started_after_[i] = std::exchange(before->second, i);
  }
  edges_.clear();
  edges_.shrink_to_fit();
}

}  // namespace terse::inline v0_1

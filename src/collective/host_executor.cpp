// SPDX-License-Identifier: Apache-2.0
#include "collective/host_executor.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <string>
#include <utility>

#include "codec/elements.hpp"
#include "codec/rounds.hpp"
#include "core/assert.hpp"
#include "core/bytes.hpp"
#include "core/floating_point.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

// An output of this size is unlikely to find room in caches that the ranks of a node share.
constexpr std::size_t kStreamedBytes = std::size_t{8} << 20;

}  // namespace

void HostExecutor::begin(const Schedule& schedule, const Binding& binding) {
  ready_.reserve(schedule.size());  // what it holds depends on when messages come
  if (pool_ != nullptr) {
    batch_ = pool_->begin_batch(schedule.size());
    returned_.reserve(schedule.size());
  }
  ready_.clear();
  Executor::begin(schedule, binding);
}

void HostExecutor::submit(std::uint32_t step) {
  ready_.push_back(step);
  std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
}

std::uint32_t HostExecutor::take_lowest() {
  std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
  const std::uint32_t step = ready_.back();
  ready_.pop_back();
  return step;
}

bool HostExecutor::work(Finished& finished) noexcept {
  if (pool_ == nullptr) {
    if (ready_.empty()) return false;
    const std::uint32_t step = take_lowest();
    finished.push_back({step, compute(step)});
    return true;
  }
  while (!ready_.empty()) {
    ++handed_in_;
    pool_->submit(*this, batch_, take_lowest());
  }
  if (handed_in_ == 0) return false;
  pool_->help();
  collect(finished);
  return true;
}

std::size_t HostExecutor::collect(Finished& finished) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = returned_.size();
  std::move(returned_.begin(), returned_.end(), std::back_inserter(finished));
  returned_.clear();
  handed_in_ -= count;
  return count;
}

void HostExecutor::settle(Finished& finished) noexcept {
  ready_.clear();
  while (handed_in_ != 0) {
    pool_->wait_until([&] {
      const std::lock_guard lock(mutex_);
      return !returned_.empty();
    });
    collect(finished);
  }
}

void HostExecutor::run_task(std::uint32_t step) noexcept {
  StepResult result = compute(step);
  const std::lock_guard lock(mutex_);
  returned_.push_back({step, std::move(result)});
}

StepResult HostExecutor::compute(std::uint32_t i) noexcept {
  const DefaultFloatingPoint mode;
  const Step& step = schedule()[i];
  StepResult result;
  switch (step.verb) {
    case Verb::encode:
      encode(step, inherited(i), result);
      break;
    case Verb::extract:
      extract(step, result);
      break;
    case Verb::reduce:
      reduce(step, result);
      break;
    case Verb::decode:
      decode(step, result);
      break;
    case Verb::sum:
      sum(step, result);
      break;
    case Verb::divide:
      divide(binding().tensors[0].out, step.divisor);
      break;
    case Verb::contribute:
      contribute(step);
      break;
    case Verb::conclude:
      conclude(step, result);
      break;
    case Verb::join:
      break;
    case Verb::send:
    case Verb::receive:
    case Verb::all_reduce:
      TERSE_ASSERT(!is_on_wire(step.verb), "a step on the wire is handed in to be computed", i, step.verb);
  }
  return result;
}

void HostExecutor::encode(const Step& step, std::uint8_t inherited, StepResult& result) {
  std::uint8_t flags = poisoned() ? kPoisoned : 0;
  if (step.in.space == Space::scratch) flags |= inherited;
  if (flags == 0) {
    try {
      const auto fragments = pieces().inputs(step.in, step.out.elements, step.phase);
      store_.seal(step.out,
                  coder(step).encode(fragments, step.out.elements.count, store_.slot(step.out.slot)));
      return;
    } catch (...) {
      result.failure = current_error("encoding with " + codec(step).spec());
      flags = kPoisoned;
    }
  }
  store_.write_flagged(step, flags);
}

void HostExecutor::extract(const Step& step, StepResult& result) {
  try {
    store_.seal(step.out,
                CodecAccess(codec(step))
                    .split(store_.message(step.in.slot), step.in.elements.count, binding().dtype,
                           step.out.elements.offset, step.out.elements.count, store_.slot(step.out.slot)));
  } catch (...) {
    result.failure = current_error("taking apart what " + codec(step).spec() + " encoded");
    store_.write_flagged(step, kPoisoned);
  }
}

// What a message's size must be, where that is known: where another rank's flag keeps a message from being
// decoded, a wrong one shows all the same.
std::optional<std::size_t> HostExecutor::payload_due(const Step& step) const {
  if (!codec(step).traits().fixed_size) return std::nullopt;
  return pieces().message_bytes(codec(step), step.in.elements) - kHeaderBytes;
}

void HostExecutor::reduce(const Step& step, StepResult& result) {
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  std::uint8_t flags = open_all(step, messages, result, payload_due(step));
  if (flags == 0) {
    std::size_t reading = messages.size();
    try {
      store_.seal(step.out, coder(step).reduce(messages, pieces().sums(step.out.elements, step.phase),
                                               step.divisor, step.factor, step.out.elements.count,
                                               store_.slot(step.out.slot), reading));
      return;
    } catch (...) {
      result.failure =
          current_error(reading < messages.size()
                            ? "a message from rank " +
                                  std::to_string(schedule().group(step).rank(static_cast<int>(reading)))
                            : "encoding with " + codec(step).spec());
      flags = kPoisoned;
    }
  }
  store_.write_flagged(step, flags);
}

void HostExecutor::decode(const Step& step, StepResult& result) {
  try {
    const Contents contents = store_.open(step, step.in, 0, step.peer);
    result.remote_failure = (contents.flags & kPoisoned) != 0;
    result.flags = contents.flags;
    if (contents.flags == 0) {
      const auto to = pieces().outputs(step.out, step.in.elements);
      const bool streams = std::any_of(binding().tensors.begin(), binding().tensors.end(),
                                       [](const BoundTensor& t) { return t.out.bytes() >= kStreamedBytes; });
      PieceCoder(codec(step), binding().dtype)
          .decode(contents, to, streams ? Into::stream : Into::overwrite, step.factor);
    } else if (contents.flags == kNonFinite) {
      result.flagged = step.out.space == Space::output;  // those who read scratch pass its flags on
      if (step.undoes != kNoStep) undo(step.undoes);
    }
  } catch (...) {
    result.failure = current_error("a message from rank " + std::to_string(step.peer));
    result.flags = kPoisoned;
  }
}

// Every rank that sums looks at all messages of a piece, and so knows by itself what an owner would have told
// it.
void HostExecutor::sum(const Step& step, StepResult& result) {
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  std::uint8_t flags = open_all(step, messages, result, payload_due(step));
  for (const Contents& contents : messages) {
    result.remote_failure = result.remote_failure || (contents.flags & kPoisoned) != 0;
    result.flagged = result.flagged || contents.flags == kNonFinite;
  }
  std::size_t reading = messages.size();
  try {
    if (flags == 0) {
      PieceCoder(codec(step), binding().dtype)
          .sum(messages, pieces().outputs(step.out, step.in.elements), step.divisor, reading);
    } else if (result.flagged && !result.failure && step.undoes != kNoStep) {
      undo(step.undoes);
    }
  } catch (...) {
    result.failure = current_error(
        reading < messages.size()
            ? "a message from rank " + std::to_string(schedule().group(step).rank(static_cast<int>(reading)))
            : "taking back what " + codec(step).spec() + " encoded");
    flags = kPoisoned;
  }
  result.flags = flags;
  result.flagged = result.flagged && step.out.space == Space::output;
}

namespace {

// In front of the first round's bytes: how many ranks have flagged the piece, or whether any has, as a number
// that is reduced like those behind it.
void write_flag(std::span<std::byte> message, DType accumulator, bool flagged) {
  accumulator == DType::f64 ? store(message.data(), flagged ? 1.0 : 0.0)
                            : store(message.data(), flagged ? 1.0F : 0.0F);
}
bool is_flagged_by_any(std::span<const std::byte> message, DType accumulator) {
  return accumulator == DType::f64 ? load<double>(message.data()) != 0 : load<float>(message.data()) != 0;
}

}  // namespace

// The results of a piece's first rounds, which are in the operand's slots; without the flag.
RoundResults HostExecutor::results_of(const Operand& rounds) const {
  RoundResults results{};
  if (rounds.space == Space::nothing) return results;
  for (std::uint32_t round = 0; round < rounds.slots; ++round) {
    const auto message = store_.message(rounds.slot + round);
    results[round] = round == 0 ? message.subspan(size_of(accumulator_of(binding().dtype))) : message;
  }
  return results;
}

// Takes a fragment's share off the front of what the results have left; returns it.
RoundResults HostExecutor::take_results(const Step& step, std::uint32_t rounds, const Fragment& fragment,
                                        RoundResults& left) const {
  RoundResults own{};
  for (std::uint32_t round = 0; round < rounds; ++round) {
    const std::size_t bytes =
        rounds_of(codec(step))->round_bytes(round, fragment.values.count, binding().dtype, fragment.rows);
    TERSE_ASSERT(bytes <= left[round].size(), "a round's result is smaller than what was contributed to it",
                 round, bytes, left[round].size());
    own[round] = left[round].first(bytes);
    left[round] = left[round].subspan(bytes);
  }
  return own;
}

RoundContext HostExecutor::round_context(const Step& step, const Fragment& fragment) const {
  RoundContext made{.as = binding().dtype, .ranks = schedule().group(step).size(), .encode = context(step)};
  made.encode.random = made.encode.random.at(fragment.position);
  made.encode.state = fragment.state;
  made.encode.rows = fragment.rows;
  return made;
}

void HostExecutor::contribute(const Step& step) {
  const RoundsCodec& rounds = *rounds_of(codec(step));
  const DType accumulator = accumulator_of(binding().dtype);
  const auto out = store_.slot(step.out.slot);
  RoundResults left = results_of(step.beside);
  bool flagged = step.round != 0 && is_flagged_by_any(store_.message(step.beside.slot), accumulator);
  std::size_t written = step.round == 0 ? size_of(accumulator) : 0;
  for (const Fragment& fragment : pieces().inputs(step.in, step.out.elements, step.phase)) {
    const auto own = out.subspan(
        written, rounds.round_bytes(step.round, fragment.values.count, binding().dtype, fragment.rows));
    const RoundResults earlier = take_results(step, step.round, fragment, left);
    written += own.size();
    if (flagged && step.round != 0) {
      std::fill(own.begin(), own.end(), std::byte{0});
      continue;
    }
    const bool well = rounds.contribute(step.round, fragment.values, fragment.residual,
                                        round_context(step, fragment), earlier, own);
    TERSE_ASSERT(well || step.round == 0, "a codec flags values after its first round", step.round);
    flagged = flagged || !well;
  }
  if (step.round == 0) write_flag(out, accumulator, flagged);
  store_.set_size(step.out.slot, written);
}

void HostExecutor::conclude(const Step& step, StepResult& result) const {
  result.flagged = is_flagged_by_any(store_.message(step.in.slot), accumulator_of(binding().dtype));
  if (result.flagged) return;
  const RoundsCodec& rounds = *rounds_of(codec(step));
  RoundResults left = results_of(step.in);
  const auto outputs = pieces().outputs(step.out, step.in.elements);
  const View* out = outputs.data();
  for (const Fragment& fragment : pieces().sums(step.in.elements, kNoResidual)) {
    rounds.conclude(round_context(step, fragment), take_results(step, step.in.slots, fragment, left), *out++,
                    1.0 / step.divisor);
  }
}

void HostExecutor::do_undo(const Step& step, const Contents& contents,
                           std::span<const Fragment> fragments) const {
  PieceCoder(codec(step), binding().dtype).undo(contents, fragments);
}

}  // namespace terse::inline v0_1

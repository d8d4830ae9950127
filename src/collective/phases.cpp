// SPDX-License-Identifier: Apache-2.0
#include "collective/phases.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "codec/internals.hpp"
#include "core/assert.hpp"

namespace terse::inline v0_1 {

PhaseBuilder::PhaseBuilder(const Problem& problem, std::size_t window) : problem_(problem), slots_(window) {
  add_codec(*problem.codec);
}

std::uint8_t PhaseBuilder::add_codec(const Codec& codec) {
  TERSE_ASSERT(codecs_.size() < kMostCodecs, "a schedule has more codecs than a binding", codecs_.size());
  codecs_.push_back(&codec);
  return static_cast<std::uint8_t>(codecs_.size() - 1);
}

void PhaseBuilder::begin_segment() {
  const std::size_t k = segments_.size();
  segments_.emplace_back();
  next_slots_ = 0;
  if (k < slots_.size()) return;
  // joins are chained, so that segments begin, and their messages are posted, in order
  std::vector<std::uint32_t> after = segments_[k - slots_.size()].last;
  if (join_ != kNoStep) after.push_back(join_);
  if (after.size() == 1) {
    segments_.back().begin = after[0];
    return;
  }
  join_ = add(0, {.verb = Verb::join}, after);
  segments_.back().begin = join_;
}

std::uint32_t PhaseBuilder::add(std::size_t stage, const Step& step, std::span<const std::uint32_t> after) {
  TERSE_ASSERT(!segments_.empty() && stage < kStages && stage < slots_.size(),
               "a step is added to a stage in which its segment is not under way any more", stage,
               slots_.size());
  Draft draft{.step = step, .after = {after.begin(), after.end()}, .position = 0};
  std::erase(draft.after, kNoStep);
  const std::uint32_t begin = segments_.back().begin;
  if (draft.after.empty() && begin != kNoStep) draft.after.push_back(begin);
  // receives are posted first
  const bool first = step.verb == Verb::join || step.verb == Verb::receive;
  draft.position = ((segments_.size() - 1 + stage) * kStages + stage) * 2 + (first ? 0 : 1);
  drafts_.push_back(std::move(draft));
  return static_cast<std::uint32_t>(drafts_.size() - 1);
}

std::uint32_t PhaseBuilder::add_slots(std::size_t number, std::size_t bytes) {
  std::vector<Slots>& known = slots_[(segments_.size() - 1) % slots_.size()];
  if (next_slots_ == known.size()) {
    TERSE_ASSERT(segments_.size() <= slots_.size(),
                 "a segment asks for more slots than the one whose slots it takes over", segments_.size(),
                 next_slots_);
    known.push_back({slot_count_, number, bytes});
    slot_count_ += static_cast<std::uint32_t>(number);
  }
  Slots& slots = known[next_slots_++];
  TERSE_ASSERT(slots.number == number, "segments ask for their slots in different orders", slots.number,
               number);
  slots.bytes = std::max(slots.bytes, bytes);
  return slots.first;
}

std::size_t PhaseBuilder::message_bytes(std::uint8_t codec, const Range& elements) const {
  return terse::message_bytes(*codecs_[codec], problem_.dtype, problem_.tensors, elements) +
         problem_.trailer_bytes;
}

Schedule PhaseBuilder::finish() && {
  std::vector<std::size_t> sizes(slot_count_);
  for (const std::vector<Slots>& of_segment : slots_) {
    for (const Slots& slots : of_segment) {
      std::fill_n(sizes.begin() + slots.first, slots.number, slots.bytes);
    }
  }
  for (const std::size_t bytes : sizes) schedule_.add_slot(bytes);
  std::vector<std::uint32_t> order(drafts_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return drafts_[a].position < drafts_[b].position;
  });
  std::vector<std::uint32_t> number(drafts_.size(), kNoStep);
  for (const std::uint32_t i : order) {
    Draft& draft = drafts_[i];
    for (std::uint32_t& before : draft.after) before = number[before];
    if (draft.step.undoes != kNoStep) draft.step.undoes = number[draft.step.undoes];
    number[i] = schedule_.add(draft.step, draft.after);
  }
  schedule_.seal();
  return std::move(schedule_);
}

namespace {

std::size_t index_of(int member) { return static_cast<std::size_t>(member); }

// The largest message of a share. Shares that follow one another are often as long as each other.
std::size_t largest_message(PhaseBuilder& builder, std::uint8_t codec, Shares shares) {
  std::size_t bytes = 0;
  const Range* before = nullptr;
  for (const Range& share : shares) {
    if (share.count != 0 && !(before != nullptr && *before == share)) {
      bytes = std::max(bytes, builder.message_bytes(codec, share));
    }
    before = &share;
  }
  return bytes;
}

Operand message(const Phase& phase, std::uint32_t slot, const Range& elements) {
  return {.space = Space::message, .channel = phase.channel, .slot = slot, .elements = elements};
}

Step encoding(const Phase& phase, std::uint32_t slot, const Range& elements, const Elements& from) {
  return {.verb = Verb::encode,
          .codec = phase.codec,
          .phase = phase.number,
          .group = phase.group,
          .in = from.at(elements),
          .out = message(phase, slot, elements)};
}

Step sending(const Phase& phase, int peer, std::uint32_t slot, const Range& elements) {
  return {.verb = Verb::send, .group = phase.group, .peer = peer, .in = message(phase, slot, elements)};
}

Step receiving(const Phase& phase, int peer, std::uint32_t slot, const Range& elements) {
  return {.verb = Verb::receive, .group = phase.group, .peer = peer, .out = message(phase, slot, elements)};
}

Step combining(Verb verb, const Phase& phase, const Messages& messages, const Range& elements,
               double divisor) {
  return {.verb = verb,
          .codec = phase.codec,
          .phase = phase.number,
          .group = phase.group,
          .in = {.space = Space::message,
                 .channel = messages.channel,
                 .slot = messages.slot,
                 .slots = static_cast<std::uint32_t>(messages.there.size()),
                 .elements = elements},
          .divisor = divisor};
}

}  // namespace

Exchange add_exchange(PhaseBuilder& builder, const Phase& phase, Shares shares, const Elements& from) {
  const Group& group = builder.group(phase.group);
  const int me = group.me();
  const std::size_t bytes = largest_message(builder, phase.codec, shares);
  const bool apart = is_splittable(builder.codec(phase.codec));  // a message of the whole is taken apart
  const std::uint32_t whole =
      apart ? builder.add_slots(
                  1, builder.codec(phase.codec).max_bytes(builder.problem().count, builder.problem().dtype))
            : kNoSlot;
  // what this rank encodes for itself lies among what comes from the others
  Exchange made{.received = {.slot = builder.add_slots(index_of(group.size()), bytes),
                             .channel = phase.channel,
                             .there = std::vector<std::uint32_t>(index_of(group.size()), kNoStep)},
                .encoded = std::vector<std::uint32_t>(index_of(group.size()), kNoStep)};
  const std::uint32_t sent = builder.add_slots(index_of(group.size() - 1), bytes);
  const auto slot_for = [&](int member) {
    if (member == me) return made.received.slot_of(me);
    return sent + static_cast<std::uint32_t>(member < me ? member : member - 1);
  };

  const Range& own = shares[index_of(me)];
  for (int turn = 1; turn < group.size() && own.count != 0; ++turn) {
    const int peer = group.neighbour(-turn);
    made.received.there[index_of(peer)] =
        builder.add(0, receiving(phase, group.rank(peer), made.received.slot_of(peer), own), {});
  }
  std::uint32_t encoded_whole = kNoStep;
  if (apart) {
    Step step = encoding(phase, whole, {0, builder.problem().count}, from);
    step.out.channel = kUnsent;
    encoded_whole = builder.add(phase.stage, step, from.ready);
  }
  // neighbours first and oneself last, so that no owner is everybody's first
  for (int turn = 1; turn <= group.size(); ++turn) {
    const int owner = group.neighbour(turn);
    const Range& share = shares[index_of(owner)];
    if (share.count == 0) continue;
    Step step = encoding(phase, slot_for(owner), share, from);
    if (apart) {
      step.verb = Verb::extract;
      step.beside = std::exchange(step.in, {.space = Space::message,
                                            .channel = kUnsent,
                                            .slot = whole,
                                            .elements = {0, builder.problem().count}});
    }
    const std::uint32_t encoded = apart ? builder.add(phase.stage, step, {{encoded_whole}})
                                        : builder.add(phase.stage, step, from.ready);
    made.encoded[index_of(owner)] = encoded;
    if (owner != me) {
      builder.end_with(
          builder.add(phase.stage, sending(phase, group.rank(owner), slot_for(owner), share), {{encoded}}));
    }
  }
  made.received.there[index_of(me)] = made.encoded[index_of(me)];
  return made;
}

std::uint32_t add_encoding(PhaseBuilder& builder, const Phase& phase, const Range& elements,
                           const Elements& from, std::uint32_t slot) {
  return builder.add(phase.stage, encoding(phase, slot, elements, from), from.ready);
}

std::uint32_t add_sum(PhaseBuilder& builder, const Phase& phase, const Messages& messages,
                      const Range& elements, double divisor, const Elements& to, std::uint32_t undoes) {
  Step step = combining(Verb::sum, phase, messages, elements, divisor);
  step.out = to.at(elements);
  step.undoes = undoes;
  const std::uint32_t summed = builder.add(phase.stage + 1, step, messages.there);
  builder.end_with(summed);
  return summed;
}

std::uint32_t add_reduction(PhaseBuilder& builder, const Phase& phase, const Messages& messages,
                            const Range& elements, double divisor, double factor, std::uint32_t slot) {
  Step step = combining(Verb::reduce, phase, messages, elements, divisor);
  step.out = message(phase, slot, elements);
  step.factor = factor;
  return builder.add(phase.stage, step, messages.there);
}

Messages add_broadcasts(PhaseBuilder& builder, const Phase& phase, Shares shares, const MakeOwn& make_own) {
  const Group& group = builder.group(phase.group);
  const int me = group.me();
  Messages messages{
      .slot = builder.add_slots(index_of(group.size()), largest_message(builder, phase.codec, shares)),
      .channel = phase.channel,
      .there = std::vector<std::uint32_t>(index_of(group.size()), kNoStep)};
  for (int turn = 1; turn < group.size(); ++turn) {
    const int peer = group.neighbour(-turn);
    const Range& share = shares[index_of(peer)];
    if (share.count == 0) continue;
    messages.there[index_of(peer)] =
        builder.add(0, receiving(phase, group.rank(peer), messages.slot_of(peer), share), {});
  }
  const Range& own = shares[index_of(me)];
  if (own.count == 0) return messages;
  const std::uint32_t made = make_own(messages.slot_of(me));
  messages.there[index_of(me)] = made;
  for (int turn = 1; turn < group.size(); ++turn) {
    const int peer = group.neighbour(turn);
    builder.end_with(
        builder.add(phase.stage, sending(phase, group.rank(peer), messages.slot_of(me), own), {{made}}));
  }
  return messages;
}

ReduceScatter add_reduce_scatter(PhaseBuilder& builder, const Phase& phase, Shares shares, double divisor,
                                 const Elements& from, const Elements& to) {
  Exchange exchange = add_exchange(builder, phase, shares, from);
  const auto me = index_of(builder.group(phase.group).me());
  ReduceScatter made{.sums = to, .encoded = std::move(exchange.encoded)};
  if (shares[me].count != 0) {
    made.sums.ready = {add_sum(builder, phase, exchange.received, shares[me], divisor, to, made.encoded[me])};
  }
  return made;
}

Elements add_all_gather(PhaseBuilder& builder, const Phase& phase, Shares shares, const MakeOwn& make_own,
                        double factor, const Elements& to, std::span<const std::uint32_t> after) {
  const Group& group = builder.group(phase.group);
  const Messages messages = add_broadcasts(builder, phase, shares, make_own);
  Elements made = to;
  made.ready.clear();
  for (int turn = 0; turn < group.size(); ++turn) {
    const int owner = group.neighbour(-turn);
    const Range& share = shares[index_of(owner)];
    if (share.count == 0) continue;
    // in place, the output is the input: it must have been encoded
    const std::uint32_t encoded = after[index_of(owner)];
    made.ready.push_back(builder.add(phase.stage + 1,
                                     {.verb = Verb::decode,
                                      .codec = phase.codec,
                                      .phase = phase.number,
                                      .group = phase.group,
                                      .peer = group.rank(owner),
                                      .in = message(phase, messages.slot_of(owner), share),
                                      .out = to.at(share),
                                      .undoes = encoded,
                                      .factor = factor},
                                     {{messages.there[index_of(owner)], encoded}}));
    builder.end_with(made.ready.back());
  }
  return made;
}

Elements add_all_gather(PhaseBuilder& builder, const Phase& phase, Shares shares, const Elements& from,
                        double factor, const Elements& to) {
  const auto me = index_of(builder.group(phase.group).me());
  // filled in by the time that shares are decoded
  std::vector<std::uint32_t> encoded(shares.size(), kNoStep);
  return add_all_gather(
      builder, phase, shares,
      [&](std::uint32_t slot) { return encoded[me] = add_encoding(builder, phase, shares[me], from, slot); },
      factor, to, encoded);
}

}  // namespace terse::inline v0_1

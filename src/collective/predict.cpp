// SPDX-License-Identifier: Apache-2.0
#include "collective/predict.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <terse/error.hpp>
#include <tuple>
#include <utility>

#include "codec/message.hpp"
#include "codec/rounds.hpp"

namespace terse::inline v0_1 {
namespace {

// What a step of computation does, of all that there is to know about it here.
struct Effect {
  double ns = 0;
  std::size_t encoded = 0;  // bytes of elements
  std::size_t decoded = 0;
  std::uint32_t slot = kNoSlot;   // of the message that it makes
  std::size_t message_bytes = 0;  // of that message
};

// The only place that knows what the fields of a step mean.
class Reader {
 public:
  Reader(const Problem& problem, const Rates& rates, const Conditions& conditions)
      : problem_(problem), rates_(rates), trailer_(conditions.checksum ? kTrailerBytes : 0) {}

  /// Of a message that is made, sent, received or reduced; kNoSlot of a reduction of elements.
  static std::uint32_t slot(const Step& step) noexcept {
    return step.verb == Verb::send ? step.in.slot : step.out.slot;
  }
  static std::uint8_t channel(const Step& step) noexcept {
    return is_send(step) ? step.in.channel : step.out.channel;
  }
  static bool is_reduction(const Step& step) noexcept { return step.verb == Verb::all_reduce; }
  static bool is_send(const Step& step) noexcept { return step.verb == Verb::send; }

  Effect effect_of(const Step& step) const {
    const std::size_t bytes = step.out.elements.count * size_of(problem_.dtype);
    const auto ranks = static_cast<std::size_t>(step.in.slots);  // messages that are summed
    const auto cost = [](const Rates::Cost& rate, std::size_t of) {
      return rate.each + static_cast<double>(of) * rate.byte;
    };
    Effect effect;
    switch (step.verb) {
      case Verb::encode:
        effect = {.ns = cost(rates_.encode, bytes), .encoded = bytes};
        effect.message_bytes =
            message_bytes(step.out.elements) + (step.out.channel == kUnsent ? 0 : trailer_);
        break;
      case Verb::extract:
        effect.message_bytes = message_bytes(step.out.elements) + trailer_;
        effect.ns = cost(rates_.copy, effect.message_bytes);
        break;
      case Verb::reduce:
        effect = {.ns = cost(rates_.add, ranks * bytes) + cost(rates_.encode, bytes),
                  .encoded = bytes,
                  .decoded = ranks * bytes};
        effect.message_bytes = message_bytes(step.out.elements) + trailer_;
        break;
      case Verb::sum:
        effect = {.ns = cost(rates_.add, ranks * bytes), .decoded = ranks * bytes};
        break;
      case Verb::decode:
      case Verb::conclude:
        effect = {.ns = cost(rates_.decode, bytes), .decoded = bytes};
        break;
      case Verb::divide:
        effect.ns = cost(rates_.copy, bytes);
        break;
      case Verb::contribute: {
        // the last round takes the codes, those before it what they depend on
        const bool last = step.round + 1U == rounds_of(*problem_.codec)->rounds_in_order().size();
        effect = {.ns = cost(last ? rates_.encode : rates_.measure, bytes),
                  .encoded = last ? bytes : 0,
                  .message_bytes = round_bytes(problem_, step.out.elements, step.round)};
        break;
      }
      default:
        break;  // joins
    }
    if (step.out.space == Space::message) effect.slot = step.out.slot;
    return effect;
  }

  /// Of a reduction: what each rank has of it, where that is no message.
  std::size_t tensor_bytes(const Step& step) const {
    return step.in.elements.count * size_of(problem_.dtype);
  }

 private:
  std::size_t message_bytes(const Range& elements) const {
    return terse::message_bytes(*problem_.codec, problem_.dtype, problem_.tensors, elements);
  }

  const Problem& problem_;
  const Rates& rates_;
  std::size_t trailer_;
};

// Ranks, links and a clock.
class Simulation {
 public:
  Simulation(std::span<const Schedule> schedules, const Problem& problem, const Rates& rates,
             const Conditions& conditions)
      : reader_(problem, rates, conditions),
        rates_(rates),
        conditions_(conditions),
        ranks_(schedules.size()) {
    for (std::size_t r = 0; r < schedules.size(); ++r) {
      Rank& rank = ranks_[r];
      rank.schedule = &schedules[r];
      rank.waits.resize(schedules[r].size());
      rank.started.resize(schedules[r].size());
      rank.sizes.resize(schedules[r].slots().size());
      for (std::uint32_t i = 0; i < schedules[r].size(); ++i) {
        rank.waits[i] = schedules[r].prerequisites(i);
        if (rank.waits[i] == 0) make_ready(rank, i);
      }
    }
  }

  Prediction run() && {
    for (std::size_t r = 0; r < ranks_.size(); ++r) serve(r);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      happen(event);
    }
    Prediction prediction;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const Rank& rank = ranks_[r];
      if (rank.finished != rank.schedule->size()) {
        throw Error(ErrorCode::invalid_argument, "these schedules wait for each other: rank " +
                                                     std::to_string(r) + " is stuck after " +
                                                     std::to_string(rank.finished) + " of " +
                                                     std::to_string(rank.schedule->size()) + " steps");
      }
      prediction.ns = std::max(prediction.ns, rank.counts.ns);
      prediction.ranks.push_back(rank.counts);
    }
    return prediction;
  }

 private:
  struct Rank {
    const Schedule* schedule = nullptr;
    std::vector<std::uint32_t> waits;       // by step: prerequisites not yet finished
    std::vector<std::uint8_t> started;      // by step, of those on the wire
    std::vector<std::uint32_t> ready;       // computation, a heap with the lowest step on top
    std::vector<std::uint32_t> ready_wire;  // transfers and reductions that may start
    std::vector<std::uint32_t> over;        // on the wire, and not yet looked at
    std::vector<std::size_t> sizes;         // by slot: bytes of the message
    std::array<double, 2> leaves{};         // by link: when what was sent before has left
    std::array<double, 2> reaches{};        // by link: when what comes before is there
    std::size_t busy = 0;                   // threads that compute
    bool blocked = false;                   // in a reduction
    std::size_t reductions = 0;             // entered
    std::size_t finished = 0;
    RankPrediction counts;
  };
  enum class Kind : std::uint8_t { computed, over, arrives };
  struct Event {
    double time = 0;
    std::uint64_t order = 0;  // of events at one time
    Kind kind = Kind::over;
    std::size_t rank = 0;
    std::uint32_t step = 0;
    std::size_t bytes = 0;  // of a message that arrives
    bool far = false;
    bool operator>(const Event& other) const {
      return std::tie(time, order) > std::tie(other.time, other.order);
    }
  };
  struct Posted {
    std::size_t rank;
    std::uint32_t step;
  };
  struct Meeting {
    std::deque<Posted> sends;
    std::deque<Posted> receives;
  };
  struct Entered {
    std::vector<Posted> by;
    std::size_t bytes = 0;
  };

  void at(double time, Event event) {
    event.time = time;
    event.order = next_order_++;
    events_.push(event);
  }

  static void make_ready(Rank& rank, std::uint32_t step) {
    if (is_on_wire((*rank.schedule)[step].verb)) {
      rank.ready_wire.push_back(step);
    } else {
      rank.ready.push_back(step);
      std::push_heap(rank.ready.begin(), rank.ready.end(), std::greater<>());
    }
  }

  void finish(Rank& rank, std::uint32_t step) {
    ++rank.finished;
    rank.counts.ns = now_;
    for (const std::uint32_t next : rank.schedule->successors(step)) {
      if (--rank.waits[next] == 0) make_ready(rank, next);
    }
  }

  void apply(Rank& rank, std::uint32_t step) {
    const Effect effect = reader_.effect_of((*rank.schedule)[step]);
    rank.counts.bytes_encoded += effect.encoded;
    rank.counts.bytes_decoded += effect.decoded;
    if (effect.slot != kNoSlot) rank.sizes[effect.slot] = effect.message_bytes;
    finish(rank, step);
  }

  // What a rank does when it looks up from its work: as a runner's advance(), until there is nothing to do or
  // nobody to do it.
  void serve(std::size_t r) {
    Rank& rank = ranks_[r];
    while (!rank.blocked && rank.busy < conditions_.threads) {
      for (const std::uint32_t step : std::exchange(rank.over, {})) finish(rank, step);
      start_wire(r);
      if (rank.blocked || rank.ready.empty()) return;
      std::pop_heap(rank.ready.begin(), rank.ready.end(), std::greater<>());
      const std::uint32_t step = rank.ready.back();
      rank.ready.pop_back();
      const double ns = reader_.effect_of((*rank.schedule)[step]).ns;
      if (ns == 0) {
        apply(rank, step);
      } else {
        ++rank.busy;
        at(now_ + ns, {.kind = Kind::computed, .rank = r, .step = step});
      }
    }
  }

  void start_wire(std::size_t r) {
    Rank& rank = ranks_[r];
    std::sort(rank.ready_wire.begin(), rank.ready_wire.end());
    std::vector<std::uint32_t> later;
    for (const std::uint32_t i : std::exchange(rank.ready_wire, {})) {
      const std::uint32_t before = rank.schedule->started_after(i);
      if (rank.blocked || (before != kNoStep && !rank.started[before])) {
        later.push_back(i);
        continue;
      }
      rank.started[i] = 1;
      if (Reader::is_reduction((*rank.schedule)[i])) {
        enter_reduction(r, i);
      } else {
        post(r, i);
      }
    }
    rank.ready_wire.insert(rank.ready_wire.end(), later.begin(), later.end());
  }

  void post(std::size_t r, std::uint32_t i) {
    const Step& step = (*ranks_[r].schedule)[i];
    const auto peer = static_cast<std::size_t>(step.peer);
    const bool sends = Reader::is_send(step);
    Meeting& meeting = meetings_[sends ? std::tuple(r, peer, Reader::channel(step))
                                       : std::tuple(peer, r, Reader::channel(step))];
    (sends ? meeting.sends : meeting.receives).push_back({r, i});
    if (meeting.sends.empty() || meeting.receives.empty()) return;
    const Posted from = meeting.sends.front();
    const Posted to = meeting.receives.front();
    meeting.sends.pop_front();
    meeting.receives.pop_front();
    Rank& sender = ranks_[from.rank];
    const std::size_t bytes = sender.sizes[Reader::slot((*sender.schedule)[from.step])];
    const bool far = node_of(from.rank) != node_of(to.rank);
    const Rates::Cost& link = far ? rates_.between_nodes : rates_.within_node;
    ++sender.counts.messages;
    sender.counts.bytes_sent += bytes;
    double& leaves = sender.leaves[far];
    const double begins = std::max(now_, leaves);
    leaves = begins + static_cast<double>(bytes) * link.byte;
    at(leaves, {.kind = Kind::over, .rank = from.rank, .step = from.step});
    at(begins + link.each,
       {.kind = Kind::arrives, .rank = to.rank, .step = to.step, .bytes = bytes, .far = far});
  }

  void enter_reduction(std::size_t r, std::uint32_t i) {
    Rank& rank = ranks_[r];
    const Step& step = (*rank.schedule)[i];
    const bool of_message = Reader::slot(step) != kNoSlot;
    const std::size_t bytes = of_message ? rank.sizes[Reader::slot(step)] : reader_.tensor_bytes(step);
    rank.blocked = conditions_.blocks;
    if (rank.reductions == reductions_.size()) reductions_.emplace_back();
    Entered& entered = reductions_[rank.reductions++];
    ++rank.counts.reductions;
    // as the runner counts: what MPI sends is its own affair, and the least
    if (of_message) rank.counts.bytes_sent += 2 * (ranks_.size() - 1) * bytes / ranks_.size();
    entered.bytes = std::max(entered.bytes, bytes);
    entered.by.push_back({r, i});
    if (entered.by.size() < ranks_.size()) return;
    const double end = now_ + reduction_ns(static_cast<double>(entered.bytes));
    for (const Posted& one : entered.by) at(end, {.kind = Kind::over, .rank = one.rank, .step = one.step});
  }

  double reduction_ns(double bytes) const {
    const auto ranks = static_cast<double>(ranks_.size());
    const bool far = node_of(0) != node_of(ranks_.size() - 1);
    const Rates::Cost& link = far ? rates_.between_nodes : rates_.within_node;
    const double ring = (ranks - 1) * (2 * link.each + bytes / ranks * (2 * link.byte + rates_.reduced_byte));
    const double doubling =
        std::ceil(std::log2(ranks)) * (link.each + bytes * (link.byte + rates_.reduced_byte));
    return std::min(ring, doubling);
  }

  void happen(const Event& event) {
    Rank& rank = ranks_[event.rank];
    switch (event.kind) {
      case Kind::computed:
        --rank.busy;
        apply(rank, event.step);
        break;
      case Kind::arrives: {
        const Rates::Cost& link = event.far ? rates_.between_nodes : rates_.within_node;
        double& reaches = rank.reaches[event.far];
        reaches = std::max(now_, reaches) + static_cast<double>(event.bytes) * link.byte;
        rank.counts.bytes_received += event.bytes;
        rank.sizes[Reader::slot((*rank.schedule)[event.step])] = event.bytes;
        at(reaches, {.kind = Kind::over, .rank = event.rank, .step = event.step});
        return;
      }
      case Kind::over:
        if (Reader::is_reduction((*rank.schedule)[event.step])) rank.blocked = false;
        rank.over.push_back(event.step);
        break;
    }
    serve(event.rank);
  }

  std::size_t node_of(std::size_t rank) const {
    return rank / static_cast<std::size_t>(conditions_.ranks_per_node);
  }

  Reader reader_;
  const Rates& rates_;
  const Conditions& conditions_;
  double now_ = 0;
  std::uint64_t next_order_ = 0;
  std::vector<Rank> ranks_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::map<std::tuple<std::size_t, std::size_t, std::uint8_t>, Meeting>
      meetings_;  // by sender, receiver, channel
  std::vector<Entered> reductions_;
};

}  // namespace

Prediction predict(std::span<const Schedule> schedules, const Problem& problem, const Rates& rates,
                   const Conditions& conditions) {
  return Simulation(schedules, problem, rates, conditions).run();
}

Prediction predict(const Algorithm& algorithm, Problem problem, const Rates& rates,
                   const Conditions& conditions) {
  std::vector<Schedule> schedules;
  for (problem.rank = 0; problem.rank < problem.ranks; ++problem.rank) {
    schedules.push_back(algorithm.build(problem));
  }
  problem.rank = 0;
  return predict(schedules, problem, rates, conditions);
}

}  // namespace terse::inline v0_1

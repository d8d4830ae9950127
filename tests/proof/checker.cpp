// SPDX-License-Identifier: Apache-2.0
//
// How orders are told. A step has two events: it starts, and it is over. What holds in every run is
//   - a step is over after it has started; a step starts after those that it waits for are over, and a
//     transfer also after the one before it to or from the same peer, with the same tag, has started;
//   - a receive is over after its send has started; a reduction is over on every rank after all ranks
//     have started it.
// An access lasts from its step's start until the step is over, so two accesses are in order if one step is
// over before the other starts in every run, which is to say: if there is a path of such edges. For deadlock
// there is one more edge: a send may be over only after its receive has started. If the graph with that edge
// has no cycle, no run comes to a stop; and since conflicting accesses are in order, all runs compute what
// one of them does, which is then followed.
#include "proof/checker.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <utility>

namespace terse::test::proof {
namespace {

constexpr std::size_t kMostViolations = 8;

std::string text_of(const Range& range) {
  return "[" + std::to_string(range.offset) + ", " + std::to_string(range.end()) + ")";
}

const char* text_of(Space space) {
  switch (space) {
    case Space::input:
      return "the input's element";
    case Space::output:
      return "the output's element";
    case Space::message:
      return "slot";
    case Space::worker_residual:
      return "the worker residual's element";
    case Space::server_residual:
      return "the server residual's element";
  }
  return "?";
}

const char* text_of(What what) {
  switch (what) {
    case What::nothing:
      return "nothing";
    case What::message:
      return "a message";
    case What::unsealed:
      return "a message that stays here";
    case What::statistics:
      return "statistics";
    case What::addends:
      return "addends";
  }
  return "?";
}

std::string rank_text(int rank) { return "rank " + std::to_string(rank); }

// Which of a rank's steps are over before which start, whatever happens elsewhere: a row of bits for each
// step, over the steps that come before it in a topological order.
class Ancestors {
 public:
  // `order`: the rank's steps in a topological order; `position`: where each is in it.
  void build(const RankView& view, std::span<const std::uint32_t> order,
             std::span<const std::uint32_t> position) {
    position_ = position;
    const std::size_t n = order.size();
    first_.resize(n + 1);
    first_[0] = 0;
    for (std::size_t i = 0; i < n; ++i) first_[i + 1] = first_[i] + (i + kBits - 1) / kBits;
    bits_.assign(first_[n], 0);
    for (std::uint32_t at = 0; at < n; ++at) {
      const Step& step = view.steps[order[at]];
      for (const std::uint32_t before : view.before_of(step)) add(at, position[before], true);
      if (step.started_after != kNone) add(at, position[step.started_after], false);
    }
  }

  bool before(std::uint32_t a, std::uint32_t b) const {
    const std::uint32_t i = position_[a];
    const std::uint32_t row = position_[b];
    return i < row && (bits_[first_[row] + i / kBits] >> (i % kBits) & 1) != 0;
  }

 private:
  static constexpr std::size_t kBits = 64;

  void add(std::uint32_t row, std::uint32_t other, bool itself) {
    std::uint64_t* to = bits_.data() + first_[row];
    const std::uint64_t* from = bits_.data() + first_[other];
    const std::size_t words = first_[other + 1] - first_[other];
    for (std::size_t w = 0; w < words; ++w) to[w] |= from[w];
    if (itself) to[other / kBits] |= std::uint64_t{1} << (other % kBits);
  }

  std::span<const std::uint32_t> position_;
  std::vector<std::size_t> first_;
  std::vector<std::uint64_t> bits_;
};

// A range and which step did something to it.
struct Span {
  Range range;
  std::uint32_t step = 0;
  std::uint32_t order = 0;
  int scale = 0;
};

class Checker {
 public:
  explicit Checker(const Job& job) : job_(job) {}

  std::vector<std::string> violations() && {
    using Check = void (Checker::*)();
    for (const Check check :
         {&Checker::look_at_names, &Checker::order_locally, &Checker::match, &Checker::order_globally,
          &Checker::look_at_accesses, &Checker::compute, &Checker::look_at_outputs, &Checker::count}) {
      (this->*check)();
      if (!found_.empty()) break;
    }
    return std::move(found_);
  }

 private:
  // ---- sentences

  void complain(const std::string& sentence) {
    if (found_.size() < kMostViolations) found_.push_back(job_.name + ": " + sentence);
  }
  void complain(int rank, std::uint32_t step, const std::string& sentence) {
    if (found_.size() < kMostViolations) {
      complain(rank_text(rank) + ", " + step_text(rank, step) + ": " + sentence);
    }
  }
  std::string step_text(int rank, std::uint32_t i) const {
    const Step& step = view(rank).steps[i];
    std::string text = "step " + std::to_string(i) + " (" + step.name;
    if (step.kind == Kind::send) {
      text += " to rank " + std::to_string(step.peer) + ", tag " + std::to_string(step.tag);
    } else if (step.kind == Kind::receive) {
      text += " from rank " + std::to_string(step.peer) + ", tag " + std::to_string(step.tag);
    } else if (step.kind == Kind::compute) {
      text += " of elements " + text_of(step.elements);
    }
    return text + ")";
  }

  const RankView& view(int rank) const { return job_.views[static_cast<std::size_t>(rank)]; }
  std::uint32_t steps_of(int rank) const { return static_cast<std::uint32_t>(view(rank).steps.size()); }
  std::uint32_t id(int rank, std::uint32_t step) const {
    return base_[static_cast<std::size_t>(rank)] + step;
  }
  int rank_of(std::uint32_t id) const {
    return static_cast<int>(std::upper_bound(base_.begin(), base_.end(), id) - base_.begin()) - 1;
  }
  std::span<const std::uint32_t> order_of(int rank) const {
    return std::span(order_).subspan(id(rank, 0), steps_of(rank));
  }
  std::span<const std::uint32_t> position_of(int rank) const {
    return std::span(position_).subspan(id(rank, 0), steps_of(rank));
  }

  // ---- whether what steps name is there

  void look_at_names() {
    base_.assign(1, 0);
    for (int rank = 0; rank < job_.ranks; ++rank) base_.push_back(base_.back() + steps_of(rank));
    for (int rank = 0; rank < job_.ranks; ++rank) {
      const RankView& v = view(rank);
      std::size_t end = 0;
      for (std::size_t s = 0; s < v.slots.size(); ++s) {
        if (v.slots[s].offset < end) {
          complain(rank_text(rank) + ": slot " + std::to_string(s) + " lies over the one before it");
        }
        end = v.slots[s].end();
      }
      for (std::uint32_t i = 0; i < v.steps.size(); ++i) look_at_names(rank, i);
    }
  }

  void look_at_names(int rank, std::uint32_t i) {
    const RankView& v = view(rank);
    const Step& step = v.steps[i];
    if (step.kind == Kind::send || step.kind == Kind::receive) {
      if (step.peer < 0 || step.peer >= job_.ranks || step.peer == rank) {
        complain(rank, i, "there is no such peer");
      }
      if (step.tag >= job_.tags) complain(rank, i, "the call has no such tag");
    }
    if (step.started_after != kNone && step.started_after >= v.steps.size()) {
      complain(rank, i, "it starts after a step that is not there");
    }
    for (const std::uint32_t before : v.before_of(step)) {
      if (before >= v.steps.size()) complain(rank, i, "it waits for a step that is not there");
    }
    for (const Access& access : v.accesses_of(step)) {
      const std::size_t size = access.space == Space::message ? v.slots.size() : job_.count;
      if (access.where.end() > size || access.where.offset > access.where.end()) {
        complain(rank, i,
                 std::string("there is no ") + text_of(access.space) + " " + text_of(access.where) +
                     " among " + std::to_string(size));
      }
      if (access.space == Space::server_residual &&
          (access.where.offset < v.owned.offset || access.where.end() > v.owned.end())) {
        complain(
            rank, i,
            "the server residual is for elements " + text_of(v.owned) + ", not for " + text_of(access.where));
      }
    }
  }

  // ---- orders

  // A topological order of each rank's steps: that in which they stand, where no step waits for a later one.
  void order_locally() {
    order_.resize(base_.back());
    position_.resize(base_.back());
    for (int rank = 0; rank < job_.ranks; ++rank) {
      const auto order = std::span(order_).subspan(id(rank, 0), steps_of(rank));
      order_steps(view(rank), order);
      const auto position = std::span(position_).subspan(id(rank, 0), steps_of(rank));
      for (std::uint32_t at = 0; at < order.size(); ++at) position[order[at]] = at;
    }
  }

  static void order_steps(const RankView& view, std::span<std::uint32_t> order) {
    bool stand = true;
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      const Step& step = view.steps[i];
      stand = stand && (step.started_after == kNone || step.started_after < i);
      for (const std::uint32_t before : view.before_of(step)) stand = stand && before < i;
    }
    if (stand) return;
    std::vector<std::vector<std::uint32_t>> next(order.size());
    std::vector<std::uint32_t> waits(order.size(), 0);
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      const Step& step = view.steps[i];
      for (const std::uint32_t before : view.before_of(step)) next[before].push_back(i);
      if (step.started_after != kNone) next[step.started_after].push_back(i);
      waits[i] = step.befores + (step.started_after != kNone);
    }
    std::vector<std::uint32_t> sorted;
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      if (waits[i] == 0) sorted.push_back(i);
    }
    for (std::size_t at = 0; at < sorted.size(); ++at) {
      for (const std::uint32_t after : next[sorted[at]]) {
        if (--waits[after] == 0) sorted.push_back(after);
      }
    }
    // a cycle keeps the order as it was, and is told of by order_globally
    if (sorted.size() == order.size()) std::copy(sorted.begin(), sorted.end(), order.begin());
  }

  // The k-th send from one rank to another with a tag meets the k-th receive.
  void match() {
    const auto ranks = static_cast<std::size_t>(job_.ranks);
    const auto tags = static_cast<std::size_t>(job_.tags);
    std::vector<std::uint32_t> sends(ranks * ranks * tags, 0);  // first how many, then where the next one is
    std::vector<std::uint32_t> receives(sends.size(), 0);
    const auto queue = [&](int from, int to, std::uint8_t tag) {
      return (static_cast<std::size_t>(from) * ranks + static_cast<std::size_t>(to)) * tags + tag;
    };
    const auto for_each_transfer = [&](auto&& visit) {
      for (int rank = 0; rank < job_.ranks; ++rank) {
        for (const std::uint32_t i : order_of(rank)) {
          const Step& step = view(rank).steps[i];
          if (step.kind == Kind::send) visit(sends, queue(rank, step.peer, step.tag), id(rank, i));
          if (step.kind == Kind::receive) visit(receives, queue(step.peer, rank, step.tag), id(rank, i));
        }
      }
    };
    for_each_transfer([&](auto& counts, std::size_t q, std::uint32_t) { ++counts[q]; });
    for (int from = 0; from < job_.ranks; ++from) {
      for (int to = 0; to < job_.ranks; ++to) {
        for (std::uint8_t tag = 0; tag < job_.tags; ++tag) {
          const std::size_t q = queue(from, to, tag);
          if (sends[q] == receives[q]) continue;
          complain(rank_text(from) + " sends " + std::to_string(sends[q]) + " messages to " + rank_text(to) +
                   " with tag " + std::to_string(tag) + ", which receives " + std::to_string(receives[q]));
        }
      }
    }
    peer_.assign(base_.back(), kNone);
    reductions_.resize(ranks);
    if (!found_.empty()) return;
    std::uint32_t at = 0;
    for (std::size_t q = 0; q < sends.size(); ++q) {
      receives[q] = std::exchange(sends[q], at);
      at += std::exchange(receives[q], sends[q]);
    }
    std::vector<std::uint32_t> sent(at);
    std::vector<std::uint32_t> received(at);
    for_each_transfer([&](auto& next, std::size_t q, std::uint32_t step) {
      (&next == &sends ? sent : received)[next[q]++] = step;
    });
    for (std::size_t m = 0; m < sent.size(); ++m) {
      peer_[sent[m]] = received[m];
      peer_[received[m]] = sent[m];
    }
    for (int rank = 0; rank < job_.ranks; ++rank) {
      auto& own = reductions_[static_cast<std::size_t>(rank)];
      for (const std::uint32_t i : order_of(rank)) {
        if (view(rank).steps[i].kind == Kind::reduction) own.push_back(i);
      }
      if (own.size() != reductions_[0].size()) {
        complain(rank_text(rank) + " enters " + std::to_string(own.size()) + " reductions, rank 0 " +
                 std::to_string(reductions_[0].size()));
      }
    }
  }

  // Events: a step's start and end, then each reduction, which is between all starts and all ends.
  static std::uint32_t start(std::uint32_t step) { return 2 * step; }
  static std::uint32_t end(std::uint32_t step) { return 2 * step + 1; }
  std::uint32_t hub(std::uint32_t reduction) const { return 2 * base_.back() + reduction; }
  std::uint32_t events() const { return hub(static_cast<std::uint32_t>(reductions_[0].size())); }

  template <class Visit>
  void for_each_next(std::uint32_t event, bool waits, Visit&& visit) const {
    const std::uint32_t steps = base_.back();
    if (event >= 2 * steps) {
      for (int rank = 0; rank < job_.ranks; ++rank) {
        visit(end(id(rank, reductions_[static_cast<std::size_t>(rank)][event - 2 * steps])));
      }
      return;
    }
    const std::uint32_t step = event / 2;
    if (event % 2 == 0) {
      visit(end(step));
      for (std::uint32_t next = first_started_[step]; next != kNone; next = next_started_[next]) {
        visit(start(next));
      }
      if (peer_[step] != kNone && (waits || is_send_[step])) visit(end(peer_[step]));
      if (reduction_[step] != kNone) visit(hub(reduction_[step]));
    } else {
      for (std::uint32_t e = first_next_[step]; e < first_next_[step + 1]; ++e) visit(start(next_[e]));
      if (waits) {
        const auto kept = std::equal_range(kept_waiting_.begin(), kept_waiting_.end(), std::pair(step, 0u),
                                           [](const auto& a, const auto& b) { return a.first < b.first; });
        for (auto x = kept.first; x != kept.second; ++x) visit(start(x->second));
      }
    }
  }

  void order_globally() {
    const std::uint32_t steps = base_.back();
    first_next_.assign(steps + 1, 0);
    first_started_.assign(steps, kNone);
    next_started_.assign(steps, kNone);
    is_send_.assign(steps, false);
    reduction_.assign(steps, kNone);
    for_each_edge([&](std::uint32_t before, std::uint32_t) { ++first_next_[before + 1]; });
    for (std::uint32_t s = 0; s < steps; ++s) first_next_[s + 1] += first_next_[s];
    next_.resize(first_next_[steps]);
    std::vector<std::uint32_t> at(first_next_.begin(), first_next_.end() - 1);
    for_each_edge([&](std::uint32_t before, std::uint32_t after) { next_[at[before]++] = after; });
    for (int rank = 0; rank < job_.ranks; ++rank) {
      for (std::uint32_t i = 0; i < steps_of(rank); ++i) {
        const Step& step = view(rank).steps[i];
        is_send_[id(rank, i)] = step.kind == Kind::send;
        if (step.started_after == kNone) continue;
        const std::uint32_t before = id(rank, step.started_after);
        next_started_[id(rank, i)] = std::exchange(first_started_[before], id(rank, i));
      }
      const auto& own = reductions_[static_cast<std::size_t>(rank)];
      for (std::uint32_t k = 0; k < own.size(); ++k) reduction_[id(rank, own[k])] = k;
      if (!own.empty()) keep_waiting(rank);
    }
    std::sort(kept_waiting_.begin(), kept_waiting_.end());
    sort_events();
  }

  template <class Visit>
  void for_each_edge(Visit&& visit) const {
    for (int rank = 0; rank < job_.ranks; ++rank) {
      for (std::uint32_t i = 0; i < steps_of(rank); ++i) {
        for (const std::uint32_t before : view(rank).before_of(view(rank).steps[i])) {
          visit(id(rank, before), id(rank, i));
        }
      }
    }
  }

  // A rank in a reduction that blocks starts nothing. So what need not be over before the reduction may have
  // to wait for it; where a rank has no transfers, nobody waits for that in turn.
  void keep_waiting(int rank) {
    const auto& steps = view(rank).steps;
    if (std::none_of(steps.begin(), steps.end(),
                     [](const Step& s) { return s.kind == Kind::send || s.kind == Kind::receive; }))
      return;
    Ancestors ancestors;
    ancestors.build(view(rank), order_of(rank), position_of(rank));
    for (const std::uint32_t reduction : reductions_[static_cast<std::size_t>(rank)]) {
      for (std::uint32_t i = 0; i < steps.size(); ++i) {
        const bool early = steps[i].kind == Kind::reduction || ancestors.before(i, reduction);
        if (i != reduction && !early && !ancestors.before(reduction, i)) {
          kept_waiting_.emplace_back(id(rank, reduction), id(rank, i));
        }
      }
    }
  }

  void sort_events() {
    std::vector<std::uint32_t> waits(events(), 0);
    for (std::uint32_t e = 0; e < events(); ++e) {
      for_each_next(e, true, [&](std::uint32_t next) { ++waits[next]; });
    }
    sorted_.clear();
    sorted_.reserve(events());
    for (std::uint32_t e = 0; e < events(); ++e) {
      if (waits[e] == 0) sorted_.push_back(e);
    }
    for (std::size_t at = 0; at < sorted_.size(); ++at) {
      for_each_next(sorted_[at], true, [&](std::uint32_t next) {
        if (--waits[next] == 0) sorted_.push_back(next);
      });
    }
    if (sorted_.size() != events()) complain(cycle(waits));
  }

  // Of the events that wait for ever: each waits for one of them, so the way back ends in a circle.
  std::string cycle(const std::vector<std::uint32_t>& waits) const {
    std::vector<std::uint32_t> before(events(), kNone);
    for (std::uint32_t e = 0; e < events(); ++e) {
      if (waits[e] == 0) continue;
      for_each_next(e, true, [&](std::uint32_t next) { before[next] = e; });
    }
    std::uint32_t at = 0;
    while (waits[at] == 0) ++at;
    std::vector<bool> seen(events(), false);
    for (; !seen[at]; at = before[at]) seen[at] = true;
    std::string text = "a cycle of waits: ";
    std::uint32_t e = at;
    std::size_t shown = 0;
    do {
      text += event_text(e) + " waits for ";
      e = before[e];
    } while (e != at && ++shown < kMostViolations);
    return text + (e == at ? event_text(at) : "more");
  }

  std::string event_text(std::uint32_t event) const {
    if (event >= 2 * base_.back()) return "reduction " + std::to_string(event - 2 * base_.back());
    const int rank = rank_of(event / 2);
    return std::string(event % 2 == 0 ? "the start" : "the end") + " of " + rank_text(rank) + "'s " +
           step_text(rank, event / 2 - id(rank, 0));
  }

  // Whether one step is over before another one of the same rank starts, in every run.
  bool is_before(int rank, std::uint32_t a, std::uint32_t b) {
    return ancestors_.before(a, b) || leads_to(end(id(rank, a)), start(id(rank, b)));
  }

  // The same by way of other ranks, which no schedule of today's needs: looked for along all edges.
  bool leads_to(std::uint32_t from, std::uint32_t to) {
    if (place_.empty()) {
      place_.resize(events());
      for (std::uint32_t at = 0; at < sorted_.size(); ++at) place_[sorted_[at]] = at;
      reached_.assign(events(), 0);
    }
    ++search_;
    std::vector<std::uint32_t> open = {from};
    while (!open.empty()) {
      const std::uint32_t event = open.back();
      open.pop_back();
      if (event == to) return true;
      for_each_next(event, false, [&](std::uint32_t next) {
        if (place_[next] > place_[to] || reached_[next] == search_) return;
        reached_[next] = search_;
        open.push_back(next);
      });
    }
    return false;
  }

  // ---- accesses

  void look_at_accesses() {
    for (int rank = 0; rank < job_.ranks && found_.empty(); ++rank) {
      ancestors_.build(view(rank), order_of(rank), position_of(rank));
      look_at_starts(rank);
      look_at(rank, {Space::message});
      look_at(rank, {Space::input, Space::output});
      look_at(rank, {Space::worker_residual});
      look_at(rank, {Space::server_residual});
      look_at_residual(rank, Space::worker_residual, job_.worker);
      look_at_residual(rank, Space::server_residual, job_.server[static_cast<std::size_t>(rank)]);
    }
  }

  // Transfers of one peer, direction and tag, and reductions, start in one order in every run.
  void look_at_starts(int rank) {
    const auto tags = static_cast<std::size_t>(job_.tags);
    last_.assign((2 * static_cast<std::size_t>(job_.ranks) + 1) * tags, kNone);
    for (const std::uint32_t i : order_of(rank)) {
      const Step& step = view(rank).steps[i];
      if (step.kind == Kind::compute || step.kind == Kind::join) continue;
      const auto peer = static_cast<std::size_t>(
          step.kind == Kind::reduction ? 0 : 1 + 2 * step.peer + (step.kind == Kind::send ? 1 : 0));
      const std::size_t queue = step.kind == Kind::reduction ? 0 : peer * tags + step.tag;
      const std::uint32_t before = std::exchange(last_[queue], i);
      if (before == kNone || step.started_after == before || is_before(rank, before, i)) continue;
      complain(rank, i, "it and " + step_text(rank, before) + " may start in either order");
    }
  }

  struct Touch {
    Range where;
    std::uint32_t step;
    Use use;
    Space space;
  };

  void look_at(int rank, std::initializer_list<Space> spaces) {
    touches_.clear();
    const RankView& v = view(rank);
    for (const std::uint32_t i : order_of(rank)) {
      for (const Access& access : v.accesses_of(v.steps[i])) {
        if (access.where.count == 0 ||
            std::find(spaces.begin(), spaces.end(), access.space) == spaces.end()) {
          continue;
        }
        touches_.push_back({access.where, i, access.use, access.space});
      }
    }
    if (touches_.empty()) return;
    borders_.clear();
    if (*spaces.begin() == Space::message) {
      for (std::size_t s = 0; s <= v.slots.size(); ++s) borders_.push_back(s);
    } else {
      for (const Touch& touch : touches_) {
        borders_.push_back(touch.where.offset);
        borders_.push_back(touch.where.end());
      }
      std::sort(borders_.begin(), borders_.end());
      borders_.erase(std::unique(borders_.begin(), borders_.end()), borders_.end());
    }
    // for each interval between borders: those who touch it, in the rank's topological order
    first_touch_.assign(borders_.size() + 1, 0);
    for_each_interval([&](std::size_t k, std::uint32_t) { ++first_touch_[k + 1]; });
    for (std::size_t k = 0; k < borders_.size(); ++k) first_touch_[k + 1] += first_touch_[k];
    by_interval_.resize(first_touch_.back());
    std::vector<std::uint32_t> at(first_touch_.begin(), first_touch_.end() - 1);
    for_each_interval([&](std::size_t k, std::uint32_t touch) { by_interval_[at[k]++] = touch; });
    for (std::size_t k = 0; k + 1 < borders_.size() && found_.empty(); ++k) {
      walk(rank, {borders_[k], borders_[k + 1] - borders_[k]},
           std::span(by_interval_).subspan(first_touch_[k], first_touch_[k + 1] - first_touch_[k]));
    }
  }

  template <class Visit>
  void for_each_interval(Visit&& visit) const {
    for (std::uint32_t t = 0; t < touches_.size(); ++t) {
      const Range& where = touches_[t].where;
      auto k = static_cast<std::size_t>(std::lower_bound(borders_.begin(), borders_.end(), where.offset) -
                                        borders_.begin());
      for (; borders_[k] < where.end(); ++k) visit(k, t);
    }
  }

  // A read is after the write before it, a write after that and after the reads since: so all conflicts are
  // in order.
  void walk(int rank, const Range& interval, std::span<const std::uint32_t> touches) {
    std::uint32_t written = kNone;
    bool encoded = false;
    reads_.clear();
    const auto require = [&](std::uint32_t before, const Touch& touch, const char* what) {
      if (before == touch.step || before == kNone || is_before(rank, before, touch.step)) return;
      complain(rank, touch.step,
               std::string(what) + " " + text_of(touch.space) + " " + text_of(interval) + " which " +
                   step_text(rank, before) + " may touch at the same time");
    };
    for (const std::uint32_t t : touches) {
      const Touch& touch = touches_[t];
      const bool residual = touch.space == Space::worker_residual || touch.space == Space::server_residual;
      const auto place = [&] { return std::string(text_of(touch.space)) + " " + text_of(interval); };
      if (touch.use != Use::write && written == kNone &&
          (touch.space == Space::message || touch.space == Space::output)) {
        complain(rank, touch.step, "it reads " + place() + " before anything is written there");
      }
      if (touch.space == Space::input && written != kNone && written != touch.step) {
        complain(rank, touch.step,
                 "it reads " + place() + " after " + step_text(rank, written) +
                     " has written the output there, which may be the same memory");
      }
      if (residual && touch.use == Use::undo && !encoded) {
        complain(rank, touch.step, "it takes back " + place() + " before that is updated");
      }
      if (residual && touch.use == Use::read && encoded) {
        complain(rank, touch.step, "it reads " + place() + " after that is updated");
      }
      encoded = encoded || touch.use == Use::update;
      if (touch.use == Use::read) {
        require(written, touch, "it reads");
        reads_.push_back(touch.step);
        continue;
      }
      for (const std::uint32_t read : reads_) require(read, touch, "it writes");
      if (reads_.empty() || touch.use != Use::write) require(written, touch, "it writes");
      reads_.clear();
      written = touch.step;
    }
  }

  void look_at_residual(int rank, Space space, const std::vector<Range>& due) {
    std::vector<Span> updated;
    std::vector<Span> undone;
    const RankView& v = view(rank);
    for (std::uint32_t i = 0; i < v.steps.size(); ++i) {
      for (const Access& access : v.accesses_of(v.steps[i])) {
        if (access.space != space) continue;
        if (access.use == Use::update) updated.push_back({access.where, i});
        if (access.use == Use::undo) undone.push_back({access.where, i});
      }
    }
    const std::string what = std::string(text_of(space)) + "s";
    require_cover(rank, updated, due, {}, what, "updated");
    require_once(rank, undone, what, "taken back");
  }

  void require_once(int rank, std::vector<Span>& spans, const std::string& what, const char* done) {
    std::erase_if(spans, [](const Span& span) { return span.range.count == 0; });
    std::stable_sort(spans.begin(), spans.end(),
                     [](const Span& a, const Span& b) { return a.range.offset < b.range.offset; });
    for (std::size_t s = 1; s < spans.size(); ++s) {
      if (spans[s].range.offset >= spans[s - 1].range.end()) continue;
      complain(rank, spans[s].step,
               what + " " + text_of(spans[s].range) + " are " + done + " here and by " +
                   step_text(rank, spans[s - 1].step));
    }
  }

  // Each element of `due` once, none of `not_due`.
  void require_cover(int rank, std::vector<Span>& spans, const std::vector<Range>& due,
                     const std::vector<Range>& not_due, const std::string& what, const char* done) {
    require_once(rank, spans, what, done);
    std::size_t s = 0;
    for (const Range& range : due) {
      for (std::size_t at = range.offset; at < range.end();) {
        while (s < spans.size() && spans[s].range.end() <= at) ++s;
        if (s == spans.size() || spans[s].range.offset > at) {
          const std::size_t to =
              s == spans.size() ? range.end() : std::min(range.end(), spans[s].range.offset);
          complain(rank_text(rank) + ": " + what + " " + text_of({at, to - at}) + " are never " + done);
          at = to;
        } else {
          at = spans[s].range.end();
        }
      }
    }
    s = 0;
    for (const Range& range : not_due) {
      while (s < spans.size() && spans[s].range.end() <= range.offset) ++s;
      if (s < spans.size() && spans[s].range.offset < range.end()) {
        complain(rank, spans[s].step,
                 what + " " + text_of(spans[s].range) + " are " + done + ", but " + text_of(range) +
                     " are not due");
      }
    }
  }

  // ---- values

  // What a slot holds, or what is under way.
  struct Value {
    What what = What::nothing;
    std::uint8_t tag = 0;
    int author = -1;  // -1: a sum by the transport
    int scale = 0;
    std::uint32_t order = 0;  // whose inputs were added, and how
    Range elements{};
    std::size_t bytes = 0;
    std::size_t trailer = 0;
  };
  using RankList = std::vector<int>;
  static constexpr int kByTransport = -1;  // in front of a list of ranks

  std::uint32_t order_of(const RankList& list) {
    const auto [at, is_new] = order_ids_.try_emplace(list, static_cast<std::uint32_t>(orders_.size()));
    if (is_new) orders_.push_back(list);
    return at->second;
  }

  static std::string text_of_list(const RankList& list) {
    std::string text;
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (i == 16) return text + ", ...";
      text += (i == 0 ? "" : ", ") +
              (list[i] == kByTransport ? std::string("by the transport") : std::to_string(list[i]));
    }
    return text.empty() ? "of none" : text;
  }

  std::string text_of_value(const Value& value) const {
    if (value.what == What::nothing) return "nothing";
    return std::string(proof::text_of(value.what)) + " of elements " + proof::text_of(value.elements) +
           " by " + (value.author < 0 ? "all" : rank_text(value.author)) + " for tag " +
           std::to_string(value.tag);
  }

  Value& slot(int rank, std::size_t s) { return slots_[first_slot_[static_cast<std::size_t>(rank)] + s]; }

  // Follows one run.
  void compute() {
    first_slot_.assign(1, 0);
    RankList all;
    for (int rank = 0; rank < job_.ranks; ++rank) {
      order_of(RankList{rank});
      all.push_back(rank);
      first_slot_.push_back(first_slot_.back() + view(rank).slots.size());
    }
    by_rank_ = order_of(all);
    all.insert(all.begin(), kByTransport);
    by_transport_ = order_of(all);
    slots_.assign(first_slot_.back(), {});
    under_way_.assign(base_.back(), kNone);
    reduced_.assign(reductions_[0].size(), std::vector<Value>(static_cast<std::size_t>(job_.ranks)));
    written_.assign(static_cast<std::size_t>(job_.ranks), {});
    rescaled_.assign(static_cast<std::size_t>(job_.ranks), {});
    messages_.assign(static_cast<std::size_t>(job_.ranks), 0);
    bytes_.assign(static_cast<std::size_t>(job_.ranks), 0);
    reduced_bytes_.assign(static_cast<std::size_t>(job_.ranks), 0);
    for (const std::uint32_t event : sorted_) {
      if (!found_.empty()) return;
      if (event >= 2 * base_.back()) {
        reduce(event - 2 * base_.back());
        continue;
      }
      const int rank = rank_of(event / 2);
      const std::uint32_t i = event / 2 - id(rank, 0);
      const Kind kind = view(rank).steps[i].kind;
      if (event % 2 == 0) {
        if (kind == Kind::send) send(rank, i);
        if (kind == Kind::reduction) enter(rank, i);
      } else {
        if (kind == Kind::receive) receive(rank, i);
        if (kind == Kind::reduction) leave(rank, i);
        if (kind == Kind::compute) compute(rank, i);
      }
    }
  }

  const Access& only_access(int rank, std::uint32_t i) const {
    return view(rank).accesses_of(view(rank).steps[i])[0];
  }

  void send(int rank, std::uint32_t i) {
    const Value& value = slot(rank, only_access(rank, i).where.offset);
    if (value.what != What::message) complain(rank, i, "it sends " + text_of_value(value));
    under_way_[id(rank, i)] = static_cast<std::uint32_t>(sent_.size());
    sent_.push_back(value);
    ++messages_[static_cast<std::size_t>(rank)];
    bytes_[static_cast<std::size_t>(rank)] += value.bytes;
  }

  void receive(int rank, std::uint32_t i) {
    put(rank, i, only_access(rank, i).where.offset, sent_[under_way_[peer_[id(rank, i)]]]);
  }

  void put(int rank, std::uint32_t i, std::size_t s, const Value& value) {
    const std::size_t room = view(rank).slots[s].count;
    if (value.bytes + value.trailer > room) {
      complain(rank, i,
               "slot " + std::to_string(s) + " has room for " + std::to_string(room) + " bytes, and " +
                   text_of_value(value) + " has " + std::to_string(value.bytes + value.trailer));
    }
    slot(rank, s) = value;
  }

  void enter(int rank, std::uint32_t i) {
    const Step& step = view(rank).steps[i];
    const Access& access = only_access(rank, i);
    Value& value = reduced_[reduction_[id(rank, i)]][static_cast<std::size_t>(rank)];
    if (access.space == Space::message) {
      value = slot(rank, access.where.offset);
      if (value.what != What::statistics && value.what != What::addends) {
        complain(rank, i, "it reduces " + text_of_value(value));
      }
      if (step.maximum != (value.what == What::statistics)) {
        complain(rank, i, "statistics are reduced by their maximum, addends by their sum");
      }
      reduced_bytes_[static_cast<std::size_t>(rank)] += value.bytes;
    } else {
      value = {.author = rank,
               .order = static_cast<std::uint32_t>(rank),
               .elements = access.where,
               .bytes = access.where.count * step.unit};
      reduced_bytes_[static_cast<std::size_t>(rank)] += value.bytes;
    }
    if (value.bytes % step.unit != 0) complain(rank, i, "it reduces a fraction of an element");
  }

  // Once all ranks have entered.
  void reduce(std::uint32_t k) {
    std::vector<Value>& values = reduced_[k];
    RankList list = {kByTransport};
    for (int rank = 0; rank < job_.ranks; ++rank) {
      const Value& value = values[static_cast<std::size_t>(rank)];
      if (value.what != values[0].what || value.elements != values[0].elements ||
          value.bytes != values[0].bytes) {
        complain(rank, reductions_[static_cast<std::size_t>(rank)][k],
                 "reduction " + std::to_string(k) + " is of " + text_of_value(value) + " in " +
                     std::to_string(value.bytes) + " bytes here, and of " + text_of_value(values[0]) +
                     " in " + std::to_string(values[0].bytes) + " on rank 0");
      }
      const RankList& own = orders_[value.order];
      list.insert(list.end(), own.begin(), own.end());
    }
    values[0].order = order_of(list);
    values[0].author = -1;
  }

  void leave(int rank, std::uint32_t i) {
    const Value& value = reduced_[reduction_[id(rank, i)]][0];
    for (const Access& access : view(rank).accesses_of(view(rank).steps[i])) {
      if (access.space == Space::message) slot(rank, access.where.offset) = value;
      if (access.space == Space::output) {
        written_[static_cast<std::size_t>(rank)].push_back({access.where, i, value.order, value.scale});
      }
    }
  }

  void compute(int rank, std::uint32_t i) {
    const Step& step = view(rank).steps[i];
    terms_.clear();
    std::optional<int> scale;
    for (const Access& access : view(rank).accesses_of(step)) {
      if (access.role == Role::none) {
        if (access.space == Space::output && access.use == Use::update) {
          rescaled_[static_cast<std::size_t>(rank)].push_back({access.where, i, 0, step.scale});
        }
      } else if (access.role == Role::result) {
        const std::uint32_t order = terms_.size() == 1 ? terms_[0] : concatenated();
        const int scaled = scale.value_or(0) + step.scale;
        if (access.space == Space::output) {
          written_[static_cast<std::size_t>(rank)].push_back({access.where, i, order, scaled});
        } else {
          put(rank, i, access.where.offset,
              {step.makes, step.tag, rank, scaled, order, step.elements, step.bytes, step.trailer});
        }
      } else if (access.space == Space::input) {
        if (access.where != step.elements)
          complain(rank, i, "it encodes elements " + proof::text_of(access.where));
        terms_.push_back(static_cast<std::uint32_t>(rank));
        scale = 0;
      } else {
        for (std::size_t n = 0; n < access.where.count && found_.empty(); ++n) {
          const Value& value = slot(rank, access.where.offset + n);
          require(rank, i, access, n, value);
          if (access.role != Role::term) continue;
          terms_.push_back(value.order);
          if (scale && *scale != value.scale) complain(rank, i, "it adds an average to a sum");
          scale = value.scale;
        }
      }
    }
  }

  std::uint32_t concatenated() {
    bool by_rank = terms_.size() == static_cast<std::size_t>(job_.ranks);
    for (std::uint32_t t = 0; by_rank && t < terms_.size(); ++t) by_rank = terms_[t] == t;
    if (by_rank) return by_rank_;
    RankList list;
    for (const std::uint32_t term : terms_)
      list.insert(list.end(), orders_[term].begin(), orders_[term].end());
    return order_of(list);
  }

  // That a slot holds what a step takes it for.
  void require(int rank, std::uint32_t i, const Access& access, std::size_t n, const Value& value) {
    const Step& step = view(rank).steps[i];
    const int author = access.author < 0 ? -1 : access.author + static_cast<int>(n);
    bool fits = value.what == access.what && value.author == author;
    if (access.what == What::unsealed) {
      fits = fits && value.elements.offset <= step.elements.offset &&
             value.elements.end() >= step.elements.end();
    } else {
      fits = fits && value.elements == step.elements;
    }
    // what comes from another rank is sealed for its tag
    if (author >= 0 && author != rank) fits = fits && value.tag == access.tag;
    if (access.role == Role::own) fits = fits && value.order == static_cast<std::uint32_t>(rank);
    if (access.role == Role::statistics) fits = fits && value.order == by_transport_;
    if (fits) return;
    Value due{.what = access.what, .tag = access.tag, .author = author, .elements = step.elements};
    complain(rank, i,
             "slot " + std::to_string(access.where.offset + n) + " holds " + text_of_value(value) +
                 ", where " + text_of_value(due) + " is due");
  }

  void look_at_outputs() {
    const std::uint32_t due = job_.order == Order::by_rank ? by_rank_ : by_transport_;
    for (int rank = 0; rank < job_.ranks; ++rank) {
      auto& written = written_[static_cast<std::size_t>(rank)];
      require_cover(rank, written, job_.due, job_.not_due, "the output's elements", "written");
      const auto& rescaled = rescaled_[static_cast<std::size_t>(rank)];
      for (const Span& span : written) {
        if (span.range.count == 0) continue;
        if (span.order != due) complain(rank, span.step, wrong_order(span.range, orders_[span.order]));
        int scale = span.scale;
        for (const Span& again : rescaled) {
          if (again.range.offset <= span.range.offset && span.range.end() <= again.range.end()) {
            scale += again.scale;
          }
        }
        if (scale != (job_.average ? -1 : 0)) {
          complain(rank, span.step,
                   std::string("the output is divided by the number of ranks ") + std::to_string(-scale) +
                       " times, where the " + (job_.average ? "average" : "sum") + " is due");
        }
      }
    }
  }

  std::string wrong_order(const Range& range, const RankList& list) const {
    const std::string where = "in the output's elements " + proof::text_of(range) + " ";
    for (int rank = 0; rank < job_.ranks; ++rank) {
      const auto times = std::count(list.begin(), list.end(), rank);
      if (times == 0) return where + rank_text(rank) + "'s input is missing";
      if (times > 1) return where + rank_text(rank) + "'s input is " + std::to_string(times) + " times";
    }
    return where + "the ranks' inputs are added in the order " + text_of_list(list) + ", where " +
           text_of_list(orders_[job_.order == Order::by_rank ? by_rank_ : by_transport_]) + " is stated";
  }

  // ---- what the documents say

  void count() {
    for (int rank = 0; rank < job_.ranks; ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      const auto require = [&](std::size_t is, std::size_t due, const char* what) {
        if (is == due) return;
        complain(rank_text(rank) + " " + what + " " + std::to_string(is) + ", and by the formula " +
                 std::to_string(due));
      };
      require(messages_[r], job_.messages[r], "sends messages:");
      require(bytes_[r], job_.bytes[r], "sends bytes:");
      require(reductions_[r].size(), job_.reductions, "enters reductions:");
      require(reduced_bytes_[r], job_.reduced_bytes, "gives bytes to reductions:");
    }
  }

  const Job& job_;
  std::vector<std::string> found_;
  std::vector<std::uint32_t> base_;      // by rank: its first step among all ranks'
  std::vector<std::uint32_t> order_;     // each rank's steps in a topological order
  std::vector<std::uint32_t> position_;  // by step: where it is in that
  std::vector<std::uint32_t> peer_;      // by step: the send of a receive, and the other way about
  std::vector<std::vector<std::uint32_t>> reductions_;  // by rank
  std::vector<std::uint32_t> reduction_;                // by step: which reduction it is
  std::vector<bool> is_send_;
  std::vector<std::uint32_t> first_next_;  // steps that wait for a step
  std::vector<std::uint32_t> next_;
  std::vector<std::uint32_t> first_started_;  // transfers that start after a transfer: a list
  std::vector<std::uint32_t> next_started_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> kept_waiting_;  // by reductions
  std::vector<std::uint32_t> sorted_;                                  // events in a topological order
  std::vector<std::uint32_t> place_;
  std::vector<std::uint32_t> reached_;
  std::uint32_t search_ = 0;
  // of the rank that is looked at
  Ancestors ancestors_;
  std::vector<std::uint32_t> last_;
  std::vector<Touch> touches_;
  std::vector<std::size_t> borders_;
  std::vector<std::uint32_t> first_touch_;
  std::vector<std::uint32_t> by_interval_;
  std::vector<std::uint32_t> reads_;
  // values
  std::vector<std::size_t> first_slot_;
  std::vector<Value> slots_;
  std::vector<Value> sent_;
  std::vector<std::uint32_t> under_way_;  // by send: which of sent_
  std::vector<std::vector<Value>> reduced_;
  std::vector<RankList> orders_;
  std::map<RankList, std::uint32_t> order_ids_;
  std::uint32_t by_rank_ = 0;
  std::uint32_t by_transport_ = 0;
  std::vector<std::uint32_t> terms_;
  std::vector<std::vector<Span>> written_;
  std::vector<std::vector<Span>> rescaled_;
  std::vector<std::size_t> messages_;
  std::vector<std::size_t> bytes_;
  std::vector<std::size_t> reduced_bytes_;
};

}  // namespace

std::vector<std::string> violations_of(const Job& job) { return Checker(job).violations(); }

}  // namespace terse::test::proof

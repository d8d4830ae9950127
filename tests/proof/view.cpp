// SPDX-License-Identifier: Apache-2.0
//
// The one place that knows the library's Step: what executors (collective/executor.hpp) and the
// runner read and write for each verb.
#include "proof/view.hpp"

#include <algorithm>

#include "codec/piece.hpp"
#include "codec/rounds.hpp"

namespace terse::test::proof {
namespace {

const char* name_of(Verb verb) {
  switch (verb) {
    case Verb::encode:
      return "encode";
    case Verb::extract:
      return "extract";
    case Verb::reduce:
      return "reduce";
    case Verb::decode:
      return "decode";
    case Verb::sum:
      return "sum";
    case Verb::divide:
      return "divide";
    case Verb::contribute:
      return "contribute";
    case Verb::conclude:
      return "conclude";
    case Verb::send:
      return "send";
    case Verb::receive:
      return "receive";
    case Verb::all_reduce:
      return "all_reduce";
    case Verb::join:
      return "join";
  }
  return "?";
}

Kind kind_of(Verb verb) {
  switch (verb) {
    case Verb::send:
      return Kind::send;
    case Verb::receive:
      return Kind::receive;
    case Verb::all_reduce:
      return Kind::reduction;
    case Verb::join:
      return Kind::join;
    default:
      return Kind::compute;
  }
}

template <class Visit>
void for_each_count(const Problem& problem, const Range& elements, Visit&& visit) {
  if (problem.tensors.empty()) return visit(elements.count);
  for_each_fragment(problem.tensors, elements, [&](std::size_t, const Range& own) { visit(own.count); });
}

class Translator {
 public:
  Translator(const Schedule& schedule, const Problem& problem) : schedule_(schedule), problem_(problem) {}

  RankView translate() && {
    const auto steps = static_cast<std::uint32_t>(schedule_.size());
    view_.slots = schedule_.slots();
    if (schedule_.residuals().size() > kServerPhase) view_.owned = schedule_.residuals()[kServerPhase];
    view_.steps.reserve(steps);
    view_.accesses.reserve(2 * steps);
    for (std::uint32_t i = 0; i < steps; ++i) {
      to_ = {};
      to_.first_access = static_cast<std::uint32_t>(view_.accesses.size());
      add(schedule_[i]);
      to_.started_after = schedule_.started_after(i);
      to_.accesses = static_cast<std::uint32_t>(view_.accesses.size()) - to_.first_access;
      view_.steps.push_back(to_);
    }
    std::uint32_t edges = 0;
    for (std::uint32_t i = 0; i < steps; ++i) {
      view_.steps[i].first_before = edges;
      edges += schedule_.prerequisites(i);
    }
    view_.before.resize(edges);
    for (std::uint32_t i = 0; i < steps; ++i) {
      for (const std::uint32_t next : schedule_.successors(i)) {
        Step& step = view_.steps[next];
        view_.before[step.first_before + step.befores++] = i;
      }
    }
    return std::move(view_);
  }

 private:
  void add(const terse::Step& step) {
    to_.kind = kind_of(step.verb);
    to_.name = name_of(step.verb);
    const bool reads_message = step.verb == Verb::send || step.verb == Verb::decode || step.verb == Verb::sum;
    to_.tag = reads_message ? step.in.channel : tag_of(step.out);
    to_.elements = step.out.space == terse::Space::nothing ? step.in.elements : step.out.elements;
    if (step.verb == Verb::send || step.verb == Verb::receive) to_.elements = {};
    switch (step.verb) {
      case Verb::encode:
        access(step.in, Use::read, Role::term);
        residual(step, Use::update);
        result(step, step.out.channel == kUnsent ? What::unsealed : What::message,
               encoded_bytes(problem_, step.out.elements));
        if (step.out.channel == kUnsent) to_.trailer = 0;
        break;
      case Verb::extract:
        read_message(step.in, Role::term, What::unsealed, problem_.rank);
        result(step, What::message, problem_.codec->max_bytes(step.out.elements.count, problem_.dtype));
        break;
      case Verb::reduce:
        read_all(step);
        residual(step, Use::update);
        result(step, What::message, encoded_bytes(problem_, step.out.elements));
        break;
      case Verb::decode:
        read_message(step.in, Role::term, What::message, step.peer);
        undo(step);
        output(step);
        if (multiplies(step)) to_.scale = 1;
        break;
      case Verb::sum:
        read_all(step);
        undo(step);
        output(step);
        break;
      case Verb::divide:
        access(step.out, Use::update, Role::none);
        to_.scale = -1;
        break;
      case Verb::contribute: {
        // the last round is the sum; those before it are about what all ranks need to know first
        const bool last = step.round + 1U == terse::rounds_of(*problem_.codec)->rounds_in_order().size();
        if (last) to_.name = "contribute last";
        read_rounds(step.beside, step.round);
        access(step.in, Use::read, Role::term);
        residual(step, last ? Use::update : Use::read);
        result(step, last ? What::addends : What::statistics,
               terse::round_bytes(problem_, step.out.elements, step.round));
        to_.trailer = 0;
        break;
      }
      case Verb::conclude:
        read_rounds(step.in, step.in.slots - 1);
        read_message(slot_of(step.in, step.in.slots - 1), Role::term, What::addends, -1);
        output(step);
        if (divides(step)) to_.scale = -1;
        break;
      case Verb::send:
        to_.peer = step.peer;
        access(step.in, Use::read, Role::none);
        break;
      case Verb::receive:
        to_.peer = step.peer;
        access(step.out, Use::write, Role::none);
        break;
      case Verb::all_reduce:
        to_.unit = size_of(step.reduction);
        if (step.in.space == terse::Space::message) {
          access(step.in, Use::update, Role::none);
          to_.maximum = step.reduction == Reduction::max_f32 || step.reduction == Reduction::max_f64;
        } else {
          access(step.in, Use::read, Role::term);
          output(step);
        }
        break;
      case Verb::join:
        break;
    }
  }

  // On one rank all divisors and factors are 1, and only the problem says what they would be.
  bool averages_first() const { return !problem_.codec->traits().lossless; }
  bool divides(const terse::Step& step) const {
    if (problem_.ranks > 1) return step.divisor != 1;
    return problem_.op == Op::average || (step.verb == Verb::reduce && averages_first());
  }
  bool multiplies(const terse::Step& step) const {
    return problem_.ranks > 1 ? step.factor != 1 : problem_.op == Op::sum && averages_first();
  }
  // What stays on the rank has no tag.
  static std::uint8_t tag_of(const Operand& operand) {
    return operand.space != terse::Space::message || operand.channel == kUnsent ? std::uint8_t{0}
                                                                                : operand.channel;
  }
  // No algorithm of allreduce has elements in scratch.
  static Space space_of(const Operand& operand) {
    return operand.space == terse::Space::message  ? Space::message
           : operand.space == terse::Space::output ? Space::output
                                                   : Space::input;
  }
  Access& access(Space space, Use use, Range where, Role role = Role::none) {
    return view_.accesses.emplace_back(Access{.space = space, .use = use, .role = role, .where = where});
  }
  Access& access(const Operand& operand, Use use, Role role) {
    const bool slots = operand.space == terse::Space::message;
    return access(space_of(operand), use, slots ? Range{operand.slot, operand.slots} : operand.elements,
                  role);
  }
  void read_message(const Operand& message, Role role, What what, int author) {
    Access& read = access(message, Use::read, role);
    read.what = what;
    read.author = author;
    read.tag = tag_of(message);
  }
  static Operand slot_of(Operand message, std::uint32_t index) {
    message.slot += index;
    message.slots = 1;
    return message;
  }
  // The results of so many rounds, which say what all ranks need to know before the next.
  void read_rounds(const Operand& rounds, std::uint32_t number) {
    for (std::uint32_t round = 0; round < number; ++round) {
      read_message(slot_of(rounds, round), Role::statistics, What::statistics, -1);
    }
  }
  void residual(const terse::Step& step, Use use) {
    if (!problem_.feedback) return;
    access(step.phase == kWorkerPhase ? Space::worker_residual : Space::server_residual, use,
           step.out.elements);
  }
  // The messages of all ranks lie in their order.
  void read_all(const terse::Step& step) {
    read_message(step.in, Role::term, What::message, 0);
    if (divides(step)) to_.scale = -1;
  }
  // Without residuals nothing is taken back.
  void undo(const terse::Step& step) {
    if (!problem_.feedback || step.undoes == kNoStep) return;
    const terse::Step& made = schedule_[step.undoes];
    read_message(made.out, Role::own, What::message, problem_.rank);
    view_.accesses.back().tag = 0;
    access(made.verb == Verb::extract ? made.beside : made.in, Use::read, Role::none);
    residual(made, Use::undo);
  }
  void result(const terse::Step& step, What makes, std::size_t bytes) {
    access(step.out, Use::write, Role::result);
    to_.makes = makes;
    to_.bytes = bytes;
    to_.trailer = problem_.trailer_bytes;
  }
  // A flagged piece belongs to whoever made its message; one that nobody owns is resent as the first rank's.
  void output(const terse::Step& step) {
    access(step.out, Use::write, Role::result);
    to_.owner = step.verb == Verb::all_reduce ? -1 : std::max(step.peer, 0);
  }

  const Schedule& schedule_;
  const Problem& problem_;
  RankView view_;
  Step to_;
};

}  // namespace

std::size_t encoded_bytes(const Problem& problem, const Range& elements) {
  thread_local std::vector<std::size_t> counts;
  counts.clear();
  for_each_count(problem, elements, [&](std::size_t n) { counts.push_back(n); });
  return PieceCoder(*problem.codec, problem.dtype).max_bytes(counts);
}

RankView view_of(const Schedule& schedule, const Problem& problem) {
  return Translator(schedule, problem).translate();
}

}  // namespace terse::test::proof

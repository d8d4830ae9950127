// SPDX-License-Identifier: Apache-2.0
//
// The one place that knows the library's Step: what the runner (collective/runner.cpp) reads and writes for
// each verb.
#include "proof/view.hpp"

#include "codec/piece.hpp"
#include "codec/summable.hpp"

namespace terse::test::proof {
namespace {

const char* name_of(Verb verb) {
  switch (verb) {
    case Verb::encode:
      return "encode";
    case Verb::part:
      return "part";
    case Verb::reduce:
      return "reduce";
    case Verb::decode:
      return "decode";
    case Verb::sum:
      return "sum";
    case Verb::divide:
      return "divide";
    case Verb::measure:
      return "measure";
    case Verb::encode_addends:
      return "encode_addends";
    case Verb::decode_addends:
      return "decode_addends";
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
  Translator(const Schedule& schedule, const Problem& problem, bool factor)
      : schedule_(schedule), problem_(problem), factor_(factor) {}

  RankView translate() && {
    const auto steps = static_cast<std::uint32_t>(schedule_.size());
    view_.slots = schedule_.messages();
    view_.owned = schedule_.chunk;
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
    to_.tag = step.channel;
    to_.elements = step.elements;
    switch (step.verb) {
      case Verb::encode:
        read_input(step, Role::term);
        worker(step, Use::update);
        result(step, step.kept ? What::unsealed : What::message, encoded_bytes(problem_, step.elements));
        if (step.kept) to_.trailer = 0;
        break;
      case Verb::part:
        read_message(step.whole, 1, Role::term, What::unsealed, problem_.rank, 0);
        result(step, What::message, problem_.codec->max_bytes(step.elements.count, problem_.dtype));
        break;
      case Verb::reduce:
        read_all(step);
        if (problem_.feedback) access(Space::server_residual, Use::update, step.elements);
        result(step, What::message, encoded_bytes(problem_, step.elements));
        break;
      case Verb::decode:
        read_message(step.message, 1, Role::term, What::message, step.peer, step.channel);
        undo(step);
        output(step);
        if (factor_) to_.scale = 1;
        break;
      case Verb::sum:
        read_all(step);
        undo(step);
        output(step);
        break;
      case Verb::divide:
        access(Space::output, Use::update, {0, problem_.count});
        to_.scale = -1;
        break;
      case Verb::measure: {
        read_input(step, Role::term);
        worker(step, Use::read);
        std::size_t numbers = 1;
        for_each_count(problem_, step.elements,
                       [&](std::size_t n) { numbers += problem_.codec->summable()->shared_count(n); });
        result(step, What::statistics, numbers * size_of(accumulator_of(problem_.dtype)));
        to_.trailer = 0;
        break;
      }
      case Verb::encode_addends: {
        read_message(step.shared, 1, Role::statistics, What::statistics, -1, 0);
        read_input(step, Role::term);
        worker(step, Use::update);
        std::size_t bytes = 0;
        for_each_count(problem_, step.elements, [&](std::size_t n) {
          bytes += problem_.codec->summable()->addend_bytes(n, problem_.dtype);
        });
        result(step, What::addends, bytes);
        to_.trailer = 0;
        break;
      }
      case Verb::decode_addends:
        read_message(step.shared, 1, Role::statistics, What::statistics, -1, 0);
        read_message(step.message, 1, Role::term, What::addends, -1, 0);
        output(step);
        if (step.average) to_.scale = -1;
        break;
      case Verb::send:
        to_.peer = step.peer;
        access(Space::message, Use::read, {step.message, 1});
        break;
      case Verb::receive:
        to_.peer = step.peer;
        access(Space::message, Use::write, {step.message, 1});
        break;
      case Verb::all_reduce:
        if (step.message != kNoSlot) {
          access(Space::message, Use::update, {step.message, 1});
          to_.unit = size_of(step.reduction);
          to_.maximum = step.reduction == Reduction::max_f32 || step.reduction == Reduction::max_f64;
        } else {
          to_.elements = {0, problem_.count};
          read_input(step, Role::term);
          output(step);
          to_.unit = size_of(problem_.dtype);
        }
        break;
      case Verb::join:
        break;
    }
  }

  Access& access(Space space, Use use, Range where, Role role = Role::none) {
    return view_.accesses.emplace_back(Access{.space = space, .use = use, .role = role, .where = where});
  }
  void read_input(const terse::Step&, Role role) { access(Space::input, Use::read, to_.elements, role); }
  void read_message(std::uint32_t slot, std::size_t slots, Role role, What what, int author,
                    std::uint8_t tag) {
    Access& read = access(Space::message, Use::read, {slot, slots}, role);
    read.what = what;
    read.author = author;
    read.tag = tag;
  }
  void worker(const terse::Step&, Use use) {
    if (problem_.feedback) access(Space::worker_residual, use, to_.elements);
  }
  // The messages of all ranks lie in their order.
  void read_all(const terse::Step& step) {
    read_message(step.from, static_cast<std::size_t>(problem_.ranks), Role::term, What::message, 0,
                 step.from_channel);
    if (step.average) to_.scale = -1;
  }
  // Without residuals the runner takes nothing back.
  void undo(const terse::Step& step) {
    if (!problem_.feedback) return;
    read_message(step.undo, 1, Role::own, What::message, problem_.rank, 0);
    read_input(step, Role::none);
    worker(step, Use::undo);
  }
  void result(const terse::Step& step, What makes, std::size_t bytes) {
    access(Space::message, Use::write, {step.message, 1}, Role::result);
    to_.makes = makes;
    to_.bytes = bytes;
    to_.trailer = problem_.trailer_bytes;
  }
  void output(const terse::Step& step) {
    access(Space::output, Use::write, to_.elements, Role::result);
    to_.owner = step.peer;
  }

  const Schedule& schedule_;
  const Problem& problem_;
  bool factor_;
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

RankView view_of(const Schedule& schedule, const Problem& problem, bool factor) {
  return Translator(schedule, problem, factor).translate();
}

}  // namespace terse::test::proof

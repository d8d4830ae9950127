// SPDX-License-Identifier: Apache-2.0
#include "proof/jobs.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <terse/error.hpp>
#include <utility>

#include "codec/message.hpp"
#include "proof/view.hpp"
#include "support/formulas.hpp"

namespace terse::test::proof {
namespace {

std::shared_ptr<const Codec> codec_of(const std::string& spec) {
  static auto& made = *new std::map<std::string, std::shared_ptr<const Codec>>;
  auto& codec = made[spec];
  if (!codec) codec = make_codec(spec);
  return codec;
}

// A call as the library sees it (collective/allreduce.cpp: how tensors lie, and which of them are padded).
class Call {
 public:
  explicit Call(const Case& one)
      : one_(one), algorithm_(find_algorithm(one.algorithm)), codec_(codec_of(one.codec)) {
    const std::size_t padded = padded_count(algorithm_, one.tensors[0], one.ranks);
    for (const std::size_t count : one.tensors) {
      append(layout_, one.tensors.size() == 1 ? padded : count, codec_->traits().block);
    }
  }

  const Case& one() const { return one_; }
  const Algorithm& algorithm() const { return algorithm_; }
  const Codec& codec() const { return *codec_; }
  const std::vector<Range>& layout() const { return layout_; }
  std::size_t count() const { return layout_.back().end(); }

  Problem problem(int rank, const Codec& codec) const {
    return {.rank = rank,
            .ranks = one_.ranks,
            .count = count(),
            .tensors = layout_.size() > 1 ? std::span<const Range>(layout_) : std::span<const Range>(),
            .dtype = one_.dtype,
            .op = one_.op,
            .codec = &codec,
            .feedback = one_.feedback && algorithm_.compresses && !codec.traits().lossless,
            .segment_bytes = one_.segment_bytes,
            .trailer_bytes = kTrailerBytes};
  }

 private:
  const Case& one_;
  const Algorithm& algorithm_;
  std::shared_ptr<const Codec> codec_;
  std::vector<Range> layout_;
};

void add_formula(Job& job, const Call& call) {
  const Problem problem = call.problem(0, call.codec());
  Formula formula = formula_of(call.algorithm(), problem);
  job.messages = std::move(formula.messages);
  job.bytes = std::move(formula.bytes);
  job.reductions = formula.reduced_bytes.size();
  job.reduced_bytes =
      std::accumulate(formula.reduced_bytes.begin(), formula.reduced_bytes.end(), std::size_t{0});
  if (call.algorithm().reduces) job.order = Order::of_the_transport;
  if (problem.feedback) job.worker = call.layout();
  job.server.resize(static_cast<std::size_t>(job.ranks));
  if (problem.feedback && !formula.chunks.empty()) {
    for (std::size_t r = 0; r < job.server.size(); ++r) {
      job.server[r] = fragments_of(problem, formula.chunks[r]);
    }
  }
}

Job job_with(const Call& call, const std::string& name) {
  Job job;
  job.name = name;
  job.ranks = call.one().ranks;
  job.count = call.count();
  job.tags = Schedule::kChannels;
  job.average = call.one().op == Op::average;
  job.views.reserve(static_cast<std::size_t>(job.ranks));
  return job;
}

}  // namespace

std::string text_of(const Case& one) {
  std::string counts;
  for (const std::size_t count : one.tensors) counts += (counts.empty() ? "" : " + ") + std::to_string(count);
  return one.algorithm + ", P = " + std::to_string(one.ranks) + ", count = " + counts + ", " + one.codec +
         ", " + std::string(name(one.dtype)) + ", " + std::string(name(one.op)) +
         (one.feedback ? ", feedback" : "") + ", segment_bytes = " + std::to_string(one.segment_bytes);
}

bool is_allowed(const Case& one) {
  const Call call(one);
  try {
    check_pair({.algorithm = call.algorithm(),
                .codec = call.codec(),
                .dtype = one.dtype,
                .ranks = one.ranks,
                .list = one.tensors.size() > 1,
                .feedback = one.feedback});
    return true;
  } catch (const Error&) {
    return false;
  }
}

Job job_of(const Case& one) {
  const Call call(one);
  Job job = job_with(call, text_of(one));
  for (int rank = 0; rank < one.ranks; ++rank) {
    const Problem problem = call.problem(rank, call.codec());
    job.views.push_back(view_of(call.algorithm().build(problem), problem));
  }
  job.due = call.layout();
  add_formula(job, call);
  return job;
}

std::vector<Piece> pieces_of(const Job& job) {
  std::vector<Piece> pieces;
  for (const Step& step : job.views[0].steps) {
    if (step.owner >= 0) pieces.push_back({step.owner, step.elements});
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.range.offset < b.range.offset; });
  return pieces;
}

Job resending_job_of(const Case& one, const std::vector<Piece>& flagged) {
  const Call call(one);
  const Codec& identity = *codec_of("identity");
  Job job = job_with(call, text_of(one) + ", resending " + std::to_string(flagged.size()) + " pieces");
  for (int rank = 0; rank < one.ranks; ++rank) {
    const Problem problem = call.problem(rank, identity);
    job.views.push_back(
        view_of(call.algorithm().build_pieces(problem, regroup(flagged, one.ranks)), problem));
  }
  const Problem any = call.problem(0, identity);
  const auto fragments = [&](const Range& range) { return fragments_of(any, range); };
  std::size_t at = 0;
  for (const Piece& piece : flagged) {
    for (const Range& range : fragments(piece.range)) job.due.push_back(range);
    for (const Range& range : fragments({at, piece.range.offset - at})) job.not_due.push_back(range);
    at = piece.range.end();
  }
  for (const Range& range : fragments({at, job.count - at})) job.not_due.push_back(range);
  job.server.resize(static_cast<std::size_t>(one.ranks));
  Formula formula = formula_of_resending(call.algorithm(), any, flagged);
  job.messages = std::move(formula.messages);
  job.bytes = std::move(formula.bytes);
  return job;
}

}  // namespace terse::test::proof

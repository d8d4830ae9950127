// SPDX-License-Identifier: Apache-2.0
#include "proof/jobs.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <terse/error.hpp>

#include "codec/message.hpp"
#include "codec/summable.hpp"
#include "proof/view.hpp"

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
  std::size_t element() const { return size_of(one_.dtype); }

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

// ---- the formulas of docs/algorithms.md, of the documents' words and not of the builders' code

// What a range has of each tensor that it has anything of.
std::vector<Range> fragments(const Call& call, const Range& range) {
  std::vector<Range> out;
  for (const Range& tensor : call.layout()) {
    const std::size_t begin = std::max(tensor.offset, range.offset);
    const std::size_t end = std::min(tensor.end(), range.end());
    if (begin < end) out.push_back({begin, end - begin});
  }
  return out;
}

// c(n): a header and the payload of each fragment; and where sizes vary, their sizes if there are several.
std::size_t c(const Call& call, const Codec& codec, const Range& range) {
  constexpr std::size_t kHeader = 16;
  constexpr std::size_t kLength = 8;
  const auto all = fragments(call, range);
  std::size_t bytes = kHeader;
  for (const Range& one : all) bytes += codec.max_bytes(one.count, call.one().dtype) - kHeader;
  return bytes + (codec.traits().fixed_size || all.size() < 2 ? 0 : kLength * all.size());
}

// "Dealt out in chunks of whole codec blocks, as evenly as can be": the first ranks have one more.
Range chunk(std::size_t count, std::size_t block, int ranks, int rank) {
  const auto p = static_cast<std::size_t>(ranks);
  const auto r = static_cast<std::size_t>(rank);
  const std::size_t blocks = (count + block - 1) / block;
  const auto begins = [&](std::size_t owner) {
    return std::min(count, (owner * (blocks / p) + std::min(owner, blocks % p)) * block);
  };
  return {begins(r), begins(r + 1) - begins(r)};
}

std::vector<Range> cut(const Range& range, std::size_t most) {
  std::vector<Range> pieces;
  for (std::size_t at = range.offset; at < range.end(); at += most) {
    pieces.push_back({at, std::min(most, range.end() - at)});
  }
  return pieces;
}

// Whole blocks of `bytes`, one at least.
std::size_t elements_in(const Call& call, std::size_t bytes, std::size_t block) {
  return std::max<std::size_t>(1, bytes / call.element() / block) * block;
}

// The two phases: a rank sends each piece of others to its owner, and each of its own, summed, to all others.
void phases(Job& job, const Call& call, const Codec& codec, const std::vector<Piece>& pieces) {
  const auto ranks = static_cast<std::size_t>(job.ranks);
  std::size_t all = 0;
  std::vector<std::size_t> own(ranks, 0);
  std::vector<std::size_t> own_pieces(ranks, 0);
  for (const Piece& piece : pieces) {
    const std::size_t bytes = c(call, codec, piece.range);
    all += bytes;
    own[static_cast<std::size_t>(piece.owner)] += bytes;
    ++own_pieces[static_cast<std::size_t>(piece.owner)];
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    job.messages.push_back(pieces.size() - own_pieces[r] + (ranks - 1) * own_pieces[r]);
    job.bytes.push_back(all - own[r] + (ranks - 1) * own[r]);
  }
}

void add_formula(Job& job, const Call& call) {
  const Case& one = call.one();
  const auto ranks = static_cast<std::size_t>(job.ranks);
  const std::size_t block = call.codec().traits().block;
  std::vector<Range> chunks;
  std::vector<Piece> pieces;
  if (one.algorithm == "two_phase") {
    for (int r = 0; r < job.ranks; ++r) {
      chunks.push_back(chunk(job.count, block, job.ranks, r));
      for (const Range& piece : cut(chunks.back(), elements_in(call, one.segment_bytes / ranks, block))) {
        pieces.push_back({r, piece});
      }
    }
    phases(job, call, call.codec(), pieces);
  } else if (one.algorithm == "deepspeed") {
    for (std::size_t r = 0; r < ranks; ++r) {
      chunks.push_back({r * (job.count / ranks), job.count / ranks});
      if (job.count != 0) pieces.push_back({static_cast<int>(r), chunks.back()});
    }
    phases(job, call, call.codec(), pieces);
  } else {
    job.messages.assign(ranks, 0);
    job.bytes.assign(ranks, 0);
    const auto segments =
        cut({0, job.count}, call.codec().traits().whole ? std::max<std::size_t>(1, job.count)
                                                        : elements_in(call, one.segment_bytes, block));
    if (one.algorithm == "gather") {
      for (const Range& segment : segments) {
        for (std::size_t r = 0; r < ranks; ++r) {
          job.messages[r] += ranks - 1;
          job.bytes[r] += (ranks - 1) * c(call, call.codec(), segment);
        }
      }
    } else if (one.algorithm == "summed") {
      const SummableCodec& codec = *call.codec().summable();
      job.order = Order::of_the_transport;
      job.reductions = 2 * segments.size();
      for (const Range& segment : segments) {
        std::size_t shared = 1;  // whether the segment is flagged
        for (const Range& part : fragments(call, segment)) {
          shared += codec.shared_count(part.count);
          job.reduced_bytes += codec.addend_bytes(part.count, one.dtype);
        }
        job.reduced_bytes += shared * size_of(accumulator_of(one.dtype));
      }
    } else if (one.algorithm == "exact") {
      job.order = Order::of_the_transport;
      job.reductions = 1;
      job.reduced_bytes = job.count * call.element();
    } else {
      throw std::logic_error("tests/proof/jobs.cpp: what does algorithm " + one.algorithm + " send?");
    }
  }
  const bool feedback = call.problem(0, call.codec()).feedback;
  if (feedback) job.worker = call.layout();
  job.server.resize(ranks);
  if (feedback && !chunks.empty()) {
    for (std::size_t r = 0; r < ranks; ++r) job.server[r] = fragments(call, chunks[r]);
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
  std::size_t at = 0;
  for (const Piece& piece : flagged) {
    for (const Range& range : fragments(call, piece.range)) job.due.push_back(range);
    for (const Range& range : fragments(call, {at, piece.range.offset - at})) job.not_due.push_back(range);
    at = piece.range.end();
  }
  for (const Range& range : fragments(call, {at, job.count - at})) job.not_due.push_back(range);
  job.server.resize(static_cast<std::size_t>(one.ranks));
  std::vector<Piece> pieces = flagged;
  if (call.algorithm().chunks == nullptr) {
    // nobody owns a piece: each rank sums a share of it
    pieces.clear();
    const std::size_t most = elements_in(call, one.segment_bytes / static_cast<std::size_t>(one.ranks), 1);
    for (const Piece& piece : flagged) {
      for (int r = 0; r < one.ranks; ++r) {
        Range share = chunk(piece.range.count, 1, one.ranks, r);
        share.offset += piece.range.offset;
        for (const Range& part : cut(share, most)) pieces.push_back({r, part});
      }
    }
  }
  phases(job, call, identity, pieces);
  return job;
}

}  // namespace terse::test::proof

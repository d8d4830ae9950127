// SPDX-License-Identifier: Apache-2.0
#include "support/formulas.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "codec/summable.hpp"

namespace terse::test {
namespace {

// A range cut into pieces of so many elements, the last one of what is left.
struct Cut {
  std::size_t pieces = 0;
  std::size_t bytes = 0;  // c(range): of the messages of all pieces
};

Cut cut(const Problem& problem, std::size_t count, std::size_t piece) {
  if (count == 0) return {};
  const std::size_t rest = count % piece;
  const auto encoded = [&](std::size_t n) { return problem.codec->max_bytes(n, problem.dtype); };
  return {count / piece + (rest != 0), count / piece * encoded(piece) + (rest != 0 ? encoded(rest) : 0)};
}

// Elements of a segment, of all ranks' shares or of one's.
std::size_t segment(const Problem& problem, std::size_t sharers) {
  const std::size_t block = problem.codec->traits().block;
  const std::size_t wanted = problem.segment_bytes / size_of(problem.dtype) / sharers;
  return std::max(block, wanted / block * block);
}

std::vector<std::size_t> chunks(const Problem& problem) {
  const auto ranks = static_cast<std::size_t>(problem.ranks);
  const std::size_t block = problem.codec->traits().block;
  const std::size_t blocks = (problem.count + block - 1) / block;
  std::vector<std::size_t> counts(ranks);
  std::size_t left = problem.count;
  for (std::size_t r = 0; r < ranks; ++r) {
    counts[r] = std::min(left, (blocks / ranks + (r < blocks % ranks)) * block);
    left -= counts[r];
  }
  return counts;
}

// (P - 1) c(own chunk), and to each owner what its chunk is encoded as.
Sent two_phases(const Problem& problem, const std::vector<std::size_t>& chunks, std::size_t piece) {
  Sent sent;
  for (std::size_t r = 0; r < chunks.size(); ++r) {
    const Cut chunk = cut(problem, chunks[r], piece);
    const std::size_t times = r == static_cast<std::size_t>(problem.rank) ? chunks.size() - 1 : 1;
    sent.messages += times * chunk.pieces;
    sent.bytes += times * chunk.bytes;
  }
  return sent;
}

}  // namespace

Sent sent_as_documented(const Algorithm& algorithm, const Problem& problem) {
  const auto ranks = static_cast<std::size_t>(problem.ranks);
  if (algorithm.name == "exact") return {.reductions = 1};
  if (algorithm.name == "two_phase") return two_phases(problem, chunks(problem), segment(problem, ranks));
  if (algorithm.name == "deepspeed") {
    const std::size_t chunk = problem.count / ranks;
    return two_phases(problem, std::vector<std::size_t>(ranks, chunk), std::max<std::size_t>(chunk, 1));
  }
  if (algorithm.name == "gather") {
    const bool whole = problem.codec->traits().whole;
    const Cut all = cut(problem, problem.count, whole ? problem.count : segment(problem, 1));
    return {.messages = (ranks - 1) * all.pieces, .bytes = (ranks - 1) * all.bytes};
  }
  if (algorithm.name == "summed") {
    const SummableCodec& codec = *problem.codec->summable();
    const std::size_t most = segment(problem, 1);
    Sent sent;
    for (std::size_t at = 0; at < problem.count; at += most) {
      const std::size_t n = std::min(most, problem.count - at);
      const std::size_t shared = (1 + codec.shared_count(n)) * size_of(accumulator_of(problem.dtype));
      for (const std::size_t bytes : {shared, codec.addend_bytes(n, problem.dtype)}) {
        ++sent.reductions;
        sent.bytes += 2 * (ranks - 1) * bytes / ranks;
      }
    }
    return sent;
  }
  throw std::invalid_argument("no formula for " + std::string(algorithm.name));
}

std::size_t segments_as_documented(const Algorithm& algorithm, const Problem& problem) {
  if (problem.count == 0 || algorithm.name == "exact") return problem.count != 0;
  if (algorithm.name == "deepspeed") return 1;
  if (algorithm.name == "two_phase") {
    const std::size_t piece = segment(problem, static_cast<std::size_t>(problem.ranks));
    return (chunks(problem)[0] + piece - 1) / piece;
  }
  const std::size_t piece = problem.codec->traits().whole ? problem.count : segment(problem, 1);
  return (problem.count + piece - 1) / piece;
}

}  // namespace terse::test

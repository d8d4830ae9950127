// SPDX-License-Identifier: Apache-2.0
#include "support/formulas.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "codec/rounds.hpp"

namespace terse::test {
namespace {

// c(n): a header and the payload of each fragment; and where sizes vary, their sizes if there are several.
std::size_t c(const Problem& problem, const Range& range) {
  constexpr std::size_t kHeader = 16;
  constexpr std::size_t kLength = 8;
  const auto all = fragments_of(problem, range);
  std::size_t bytes = kHeader;
  for (const Range& one : all) bytes += problem.codec->max_bytes(one.count, problem.dtype) - kHeader;
  return bytes + (problem.codec->traits().fixed_size || all.size() < 2 ? 0 : kLength * all.size());
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
std::size_t elements_in(const Problem& problem, std::size_t bytes) {
  const std::size_t block = problem.codec->traits().block;
  return std::max<std::size_t>(1, bytes / size_of(problem.dtype) / block) * block;
}

// The two phases: a rank sends each piece of others to its owner, and each of its own, summed, to all others.
void add_phases(Formula& formula, const Problem& problem, const std::vector<Piece>& pieces) {
  const auto ranks = static_cast<std::size_t>(problem.ranks);
  std::size_t all = 0;
  std::vector<std::size_t> own(ranks, 0);
  std::vector<std::size_t> own_pieces(ranks, 0);
  for (const Piece& piece : pieces) {
    const std::size_t bytes = c(problem, piece.range);
    all += bytes;
    own[static_cast<std::size_t>(piece.owner)] += bytes;
    ++own_pieces[static_cast<std::size_t>(piece.owner)];
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    formula.messages[r] = pieces.size() - own_pieces[r] + (ranks - 1) * own_pieces[r];
    formula.bytes[r] = all - own[r] + (ranks - 1) * own[r];
  }
}

}  // namespace

std::vector<Range> fragments_of(const Problem& problem, const Range& range) {
  std::vector<Range> layout(problem.tensors.begin(), problem.tensors.end());
  if (layout.empty()) layout.push_back({0, problem.count});
  std::vector<Range> out;
  for (const Range& tensor : layout) {
    const std::size_t begin = std::max(tensor.offset, range.offset);
    const std::size_t end = std::min(tensor.end(), range.end());
    if (begin < end) out.push_back({begin, end - begin});
  }
  return out;
}

Formula formula_of(const Algorithm& algorithm, const Problem& problem) {
  const auto ranks = static_cast<std::size_t>(problem.ranks);
  const CodecTraits& traits = problem.codec->traits();
  Formula formula;
  formula.messages.assign(ranks, 0);
  formula.bytes.assign(ranks, 0);
  std::vector<Piece> pieces;
  if (algorithm.name == "two_phase") {
    for (int r = 0; r < problem.ranks; ++r) {
      formula.chunks.push_back(chunk(problem.count, traits.block, problem.ranks, r));
      for (const Range& piece :
           cut(formula.chunks.back(), elements_in(problem, problem.segment_bytes / ranks))) {
        pieces.push_back({r, piece});
      }
    }
    add_phases(formula, problem, pieces);
    return formula;
  }
  if (algorithm.name == "deepspeed") {
    for (std::size_t r = 0; r < ranks; ++r) {
      formula.chunks.push_back({r * (problem.count / ranks), problem.count / ranks});
      if (problem.count != 0) pieces.push_back({static_cast<int>(r), formula.chunks.back()});
    }
    add_phases(formula, problem, pieces);
    return formula;
  }
  if (algorithm.name == "exact") {
    formula.reduced_bytes = {problem.count * size_of(problem.dtype)};
    return formula;
  }
  const auto segments =
      cut({0, problem.count}, traits.whole_tensor ? std::max<std::size_t>(1, problem.count)
                                                  : elements_in(problem, problem.segment_bytes));
  if (algorithm.name == "gather") {
    for (const Range& segment : segments) {
      for (std::size_t r = 0; r < ranks; ++r) {
        formula.messages[r] += ranks - 1;
        formula.bytes[r] += (ranks - 1) * c(problem, segment);
      }
    }
    return formula;
  }
  if (algorithm.name == "summed") {
    const RoundsCodec& codec = *rounds_of(*problem.codec);
    for (const Range& segment : segments) {
      for (std::size_t round = 0; round < codec.rounds_in_order().size(); ++round) {
        // whether the segment is flagged
        std::size_t bytes = round == 0 ? size_of(accumulator_of(problem.dtype)) : 0;
        for (const Range& part : fragments_of(problem, segment)) {
          bytes += codec.round_bytes(round, part.count, problem.dtype, 0);
        }
        formula.reduced_bytes.push_back(bytes);
      }
    }
    return formula;
  }
  throw std::logic_error("tests/support/formulas.cpp: what does algorithm " + std::string(algorithm.name) +
                         " send?");
}

Formula formula_of_resending(const Algorithm& algorithm, const Problem& problem,
                             const std::vector<Piece>& flagged) {
  const auto ranks = static_cast<std::size_t>(problem.ranks);
  Formula formula;
  formula.messages.assign(ranks, 0);
  formula.bytes.assign(ranks, 0);
  std::vector<Piece> pieces = flagged;
  if (algorithm.chunks == nullptr) {
    // nobody owns a piece: each rank sums a share of it
    pieces.clear();
    const std::size_t most = elements_in(problem, problem.segment_bytes / ranks);
    for (const Piece& piece : flagged) {
      for (int r = 0; r < problem.ranks; ++r) {
        Range share = chunk(piece.range.count, 1, problem.ranks, r);
        share.offset += piece.range.offset;
        for (const Range& part : cut(share, most)) pieces.push_back({r, part});
      }
    }
  }
  add_phases(formula, problem, pieces);
  return formula;
}

}  // namespace terse::test

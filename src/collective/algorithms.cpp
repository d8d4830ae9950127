// SPDX-License-Identifier: Apache-2.0
#include "collective/algorithms.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace terse::inline v0_1 {

bool Problem::operator==(const Problem& other) const noexcept {
  return rank == other.rank && ranks == other.ranks && count == other.count && dtype == other.dtype &&
         op == other.op && codec == other.codec && feedback == other.feedback &&
         segment_bytes == other.segment_bytes && trailer_bytes == other.trailer_bytes &&
         std::equal(tensors.begin(), tensors.end(), other.tensors.begin(), other.tensors.end());
}

std::span<const Algorithm> algorithm_table() noexcept {
  static constexpr std::array<Algorithm, 3> kTable = {{
      {.name = "exact", .summary = "plain MPI_Allreduce: nothing is encoded", .build = build_exact},
      {.name = "two_phase",
       .summary = "compressed exchange, then compressed all-gather; feedback in both phases",
       .compresses = true,
       .chunks = two_phase_chunks,
       .build = build_two_phase,
       .build_pieces = build_phases},
      {.name = "deepspeed",
       .summary = "two_phase as DeepSpeed has it, for codec onebit:deepspeed: padded, one scale for all",
       .compresses = true,
       .whole = true,
       .padded = deepspeed_padded,
       .chunks = deepspeed_chunks,
       .build = build_deepspeed,
       .build_pieces = build_phases},
  }};
  return kTable;
}

const Algorithm& algorithm_for(const Codec& codec) {
  const auto table = algorithm_table();
  return *std::find_if(table.begin(), table.end(), [&](const Algorithm& row) {
    return row.compresses && row.whole == codec.traits().whole;
  });
}

void check_pair(const Algorithm& algorithm, const Problem& problem) {
  if (!algorithm.compresses) return;
  const Codec& codec = *problem.codec;
  const auto refuse = [&](const std::string& sentence) { throw Error(ErrorCode::unsupported, sentence); };
  if (algorithm.whole != codec.traits().whole) {
    refuse("algorithm " + std::string(algorithm.name) + " does not go with codec " + codec.spec() +
           (algorithm.whole ? ": it is for codecs that encode a tensor as a whole, such as onebit:deepspeed"
                            : ": the codec encodes a tensor only as a whole") +
           ". Use algorithm " + std::string(algorithm_for(codec).name) + ", or auto");
  }
  if (algorithm.whole && problem.tensors.size() > 1) {
    refuse("algorithm " + std::string(algorithm.name) +
           " takes one tensor a call: its codec has one scale for all of it. Call it for each tensor");
  }
  if (!codec.supports(problem.dtype)) {
    refuse("codec " + codec.spec() + " cannot encode " + std::string(name(problem.dtype)) +
           ": choose another codec for this tensor (see `terse codecs`)");
  }
  // an algorithm for whole tensors is there to do as others do, whether or not that is sound
  if (problem.feedback && !codec.traits().contractive && !algorithm.whole) {
    refuse(
        "algorithm " + std::string(algorithm.name) + " cannot keep residuals for codec " + codec.spec() +
        ": the codec is not a contraction, so that they may grow without bound. Call it without feedback or "
        "choose a codec that is (see `terse codecs`)");
  }
}

const Algorithm& find_algorithm(std::string_view name) {
  std::string list;
  for (const Algorithm& row : algorithm_table()) {
    if (row.name == name) return row;
    list += (list.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::invalid_argument,
              "unknown algorithm '" + std::string(name) + "': use auto, or one of " + list);
}

}  // namespace terse::inline v0_1

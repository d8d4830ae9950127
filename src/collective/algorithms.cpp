// SPDX-License-Identifier: Apache-2.0
#include "collective/algorithms.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "codec/device_codec.hpp"
#include "codec/feedback_state.hpp"
#include "codec/piece.hpp"
#include "codec/rounds.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {

bool Problem::operator==(const Problem& other) const noexcept {
  return rank == other.rank && ranks == other.ranks && count == other.count && dtype == other.dtype &&
         op == other.op && codec == other.codec && feedback == other.feedback &&
         segment_bytes == other.segment_bytes && trailer_bytes == other.trailer_bytes &&
         std::equal(tensors.begin(), tensors.end(), other.tensors.begin(), other.tensors.end()) &&
         std::equal(rows.begin(), rows.end(), other.rows.begin(), other.rows.end());
}

std::span<const Algorithm> algorithm_table(Collective collective) noexcept {
  // the rows of a collective stand together
  static constexpr std::array<Algorithm, 7> kTable = {{
      {.name = "exact",
       .summary = "plain MPI_Allreduce: nothing is encoded",
       .reduces = true,
       .build = build_exact},
      {.name = "two_phase",
       .summary = "compressed exchange, then compressed all-gather; feedback in both phases",
       .compresses = true,
       .on_devices = true,
       .chunks = two_phase_chunks,
       .build = build_two_phase,
       .build_pieces = build_phases},
      {.name = "gather",
       .summary = "all-gather of encoded tensors, summed on every rank: for sparse codecs, and few ranks",
       .compresses = true,
       .codecs = Algorithm::For::all,
       .build = build_gather,
       .build_pieces = build_gather_pieces},
      {.name = "summed",
       .summary =
           "plain MPI reduction of encoded tensors, for codecs whose messages add: sum8, sum4, randomk",
       .compresses = true,
       .codecs = Algorithm::For::summable,
       .reduces = true,
       .build = build_summed,
       .build_pieces = build_gather_pieces},
      {.name = "deepspeed",
       .summary = "two_phase as DeepSpeed has it, for codec onebit:deepspeed: padded, one scale for all",
       .compresses = true,
       .codecs = Algorithm::For::parts,
       .on_devices = true,
       .padded = deepspeed_padded,
       .chunks = deepspeed_chunks,
       .build = build_deepspeed,
       .build_pieces = build_phases},
      {.collective = Collective::reduce_scatter,
       .name = "direct",
       .summary = "compressed exchange, then a sum of the own chunk; feedback",
       .compresses = true,
       .chunks = two_phase_chunks,
       .build = build_reduce_scatter,
       .build_pieces = build_reduce_scatter_pieces},
      {.collective = Collective::all_gather,
       .name = "direct",
       .summary = "compressed all-gather of chunks; feedback",
       .compresses = true,
       .on_devices = true,
       .chunks = two_phase_chunks,
       .build = build_all_gather,
       .build_pieces = build_all_gather_pieces},
  }};
  const auto is_of = [&](const Algorithm& row) { return row.collective == collective; };
  const auto* const first = std::find_if(kTable.begin(), kTable.end(), is_of);
  return {first, std::find_if_not(first, kTable.end(), is_of)};
}

namespace {

/// Whether the sums of what so many ranks encode are within the range of the codec's addends.
bool has_room_for(const Codec& codec, int ranks) {
  return static_cast<std::size_t>(ranks) <= rounds_of(codec)->most_ranks();
}

}  // namespace

std::size_t message_bytes(const Codec& codec, DType dtype, std::span<const Range> tensors,
                          const Range& elements) {
  auto& counts = kept_by_thread<std::vector<std::size_t>>([] {});
  counts.clear();
  if (tensors.empty()) counts.push_back(elements.count);
  for_each_fragment(tensors, elements, [&](std::size_t, const Range& own) { counts.push_back(own.count); });
  return PieceCoder(codec, dtype).max_bytes(counts);
}

std::size_t round_bytes(const Problem& problem, const Range& elements, std::size_t round) {
  const RoundsCodec& codec = *rounds_of(*problem.codec);
  std::size_t bytes = round == 0 ? size_of(accumulator_of(problem.dtype)) : 0;  // whether it is flagged
  const auto add = [&](std::size_t t, const Range& own, const Range& tensor) {
    const std::size_t rows = problem.rows.empty() || own.count != tensor.count ? 0 : problem.rows[t];
    bytes += codec.round_bytes(round, own.count, problem.dtype, rows);
  };
  if (problem.tensors.empty()) {
    add(0, elements, {0, problem.count});
  } else {
    for_each_fragment(problem.tensors, elements,
                      [&](std::size_t t, const Range& own) { add(t, own, problem.tensors[t]); });
  }
  return bytes;
}

const Algorithm& algorithm_for(const Codec& codec, int ranks) {
  const CodecTraits& traits = codec.traits();
  const bool adds = rounds_of(codec) != nullptr && has_room_for(codec, ranks);
  const auto wanted = is_splittable(codec)                   ? Algorithm::For::parts
                      : adds                                 ? Algorithm::For::summable
                      : traits.whole_tensor || traits.sparse ? Algorithm::For::all
                                                             : Algorithm::For::pieces;
  const auto table = algorithm_table();
  return *std::find_if(table.begin(), table.end(),
                       [&](const Algorithm& row) { return row.compresses && row.codecs == wanted; });
}

namespace {

// Why they do not go together; nothing where they do.
std::string_view misfit(Algorithm::For codecs, const Codec& codec) {
  const CodecTraits& traits = codec.traits();
  switch (codecs) {
    case Algorithm::For::pieces:
      return traits.whole_tensor ? "the codec encodes a tensor only as a whole" : "";
    case Algorithm::For::parts:
      return is_splittable(codec)
                 ? ""
                 : "it is for codecs whose messages are taken apart, such as onebit:deepspeed";
    case Algorithm::For::summable:
      return rounds_of(codec) != nullptr ? "" : "its messages do not add up without being decoded";
    case Algorithm::For::all:
      break;
  }
  return is_splittable(codec) ? "the codec has an algorithm of its own" : "";
}

}  // namespace

void check_pair(const Pairing& pairing) {
  const Algorithm& algorithm = pairing.algorithm;
  if (!algorithm.compresses) return;
  const Codec& codec = pairing.codec;
  const auto refuse = [&](const std::string& sentence) { throw Error(ErrorCode::unsupported, sentence); };
  if (pairing.on_device && !codec.supports(Memory::cuda)) {
    const std::string others = device_codec_names();
    refuse("codec " + codec.spec() + " has no code for device memory: " +
           (others.empty() ? "" : "use " + others + ", or ") + "copy the tensor to host memory");
  }
  if (pairing.on_device && !algorithm.on_devices) {
    refuse("algorithm " + std::string(algorithm.name) +
           " has no code for device memory: use two_phase, or copy the tensor to host memory");
  }
  const bool keeps_residuals = pairing.feedback && !codec.traits().lossless;
  if (keeps_residuals && pairing.bf16_residuals && !serves(ResidualType::bf16, pairing.dtype)) {
    refuse("a Feedback with residuals in " + std::string(name(ResidualType::bf16)) +
           " does not serve a tensor of " + std::string(name(pairing.dtype)) + ": make one of type full");
  }
  if (const std::string why(misfit(algorithm.codecs, codec)); !why.empty()) {
    refuse("algorithm " + std::string(algorithm.name) + " does not go with codec " + codec.spec() + ": " +
           why + ". Use algorithm " + std::string(algorithm_for(codec, pairing.ranks).name) + ", or auto");
  }
  const bool takes_parts = algorithm.codecs == Algorithm::For::parts;
  if (takes_parts && pairing.list) {
    refuse("algorithm " + std::string(algorithm.name) +
           " takes one tensor a call: its codec has one scale for all of it. Call it for each tensor");
  }
  if (algorithm.codecs == Algorithm::For::summable && !has_room_for(codec, pairing.ranks)) {
    refuse("algorithm " + std::string(algorithm.name) + " cannot add what " + std::to_string(pairing.ranks) +
           " ranks encode with codec " + codec.spec() + ": its codes have room for " +
           std::to_string(rounds_of(codec)->most_ranks()) + ". Use algorithm " +
           std::string(algorithm_for(codec, pairing.ranks).name) + ", or auto, or a codec with more bits");
  }
  if (!codec.supports(pairing.dtype)) {
    refuse("codec " + codec.spec() + " cannot encode " + std::string(name(pairing.dtype)) +
           ": choose another codec for this tensor (see `terse codecs`)");
  }
  // an algorithm for parts is there to do as others do, whether or not that is sound
  if (keeps_residuals && !codec.traits().contractive && !takes_parts) {
    refuse(
        "algorithm " + std::string(algorithm.name) + " cannot keep residuals for codec " + codec.spec() +
        ": the codec is not a contraction, so that they may grow without bound. Call it without feedback or "
        "choose a codec that is (see `terse codecs`)");
  }
}

const Algorithm& find_algorithm(std::string_view name, Collective collective) {
  const auto table = algorithm_table(collective);
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const Algorithm& row) { return row.name == name; });
  if (found != table.end()) return *found;
  std::string list;
  for (const Algorithm& row : table) list += (list.empty() ? "" : ", ") + std::string(row.name);
  throw Error(ErrorCode::invalid_argument,
              "unknown algorithm '" + std::string(name) + "': use auto, or one of " + list);
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <vector>

#include "collective/schedule.hpp"

namespace terse::inline v0_1 {

/// What a schedule depends on. Equal problems give equal schedules on a rank, and matching ones on all ranks.
struct Problem {
  int rank = 0;
  int ranks = 1;
  std::size_t count = 0;  ///< elements that the schedule deals with: the padded tensor's, where it is padded
  /// Where there are several: how they lie one behind the other, as append() lays them; `count` is the last
  /// one's end.
  std::span<const Range> tensors{};
  std::span<const std::size_t> rows{};  ///< by tensor, as Tensor has them; empty: nothing is said of any
  DType dtype = DType::f32;
  Op op = Op::sum;
  const Codec* codec = nullptr;
  bool feedback = false;
  std::size_t segment_bytes = 0;
  std::size_t trailer_bytes = 0;  ///< what a message may grow by after encoding

  bool operator==(const Problem& other) const noexcept;
};

enum class Collective : std::uint8_t { allreduce, reduce_scatter, all_gather };

/// A row of the algorithm table: one way to do one collective.
struct Algorithm {
  Collective collective = Collective::allreduce;
  std::string_view name;
  std::string_view summary;
  bool compresses = false;  ///< encodes: may be lossy, may have feedback
  /// Which codecs it is for: those that encode piece by piece, those that encode a whole tensor of which
  /// they take parts (see CodecTraits), all but these, or of those the summable ones.
  enum class For : std::uint8_t { pieces, parts, all, summable };
  For codecs = For::pieces;
  bool reduces = false;     ///< has the transport reduce, which may block there
  bool on_devices = false;  ///< has code for tensors in device memory
  /// Elements of a tensor of `count` once it is padded with zeros; null: it is not.
  std::size_t (*padded)(std::size_t count, int ranks) = nullptr;
  /// The elements of each rank's chunk; empty where ranks own nothing.
  std::vector<Range> (*chunks)(const Problem&) = nullptr;
  Schedule (*build)(const Problem&) = nullptr;
  /// The same schedule over some pieces only.
  Schedule (*build_pieces)(const Problem&, const std::vector<std::vector<Piece>>& segments) = nullptr;
};

/// The rows of a collective.
std::span<const Algorithm> algorithm_table(Collective collective = Collective::allreduce) noexcept;
/// Elements of a tensor as the algorithm deals with it.
inline std::size_t padded_count(const Algorithm& algorithm, std::size_t count, int ranks) {
  return algorithm.padded ? algorithm.padded(count, ranks) : count;
}
/// The algorithm of allreduce that compresses with a codec on so many ranks, where nobody has named one.
const Algorithm& algorithm_for(const Codec& codec, int ranks);
/// In what an algorithm and a codec must suit each other and the call.
struct Pairing {
  const Algorithm& algorithm;
  const Codec& codec;
  DType dtype = DType::f32;
  int ranks = 1;
  bool list = false;            ///< of two tensors or more
  bool on_device = false;       ///< this rank's tensors are in device memory
  bool feedback = false;        ///< a tensor has a Feedback
  bool bf16_residuals = false;  ///< one has residuals of bf16
};
/// Throws Error(unsupported) with a sentence that names both where they do not go together.
void check_pair(const Pairing& pairing);
/// Throws Error(invalid_argument) that lists the names.
const Algorithm& find_algorithm(std::string_view name, Collective collective = Collective::allreduce);

// The rows' code, one file each.
Schedule build_exact(const Problem& problem);
std::vector<Range> two_phase_chunks(const Problem& problem);
Schedule build_two_phase(const Problem& problem);
Schedule build_gather(const Problem& problem);
Schedule build_gather_pieces(const Problem& problem, const std::vector<std::vector<Piece>>& segments);
Schedule build_summed(const Problem& problem);
std::size_t deepspeed_padded(std::size_t count, int ranks);
std::vector<Range> deepspeed_chunks(const Problem& problem);
Schedule build_deepspeed(const Problem& problem);
Schedule build_reduce_scatter(const Problem& problem);
Schedule build_reduce_scatter_pieces(const Problem& problem, const std::vector<std::vector<Piece>>& segments);
Schedule build_all_gather(const Problem& problem);
Schedule build_all_gather_pieces(const Problem& problem, const std::vector<std::vector<Piece>>& segments);

/// The segments with which the two phases are expected to take least time, for a tensor of `count` elements
/// that a codec encodes, where all ranks have it in such memory.
std::size_t model_segment_bytes(const Codec& codec, std::size_t count, DType dtype, int ranks, Memory memory);

/// Bytes of what each rank contributes to a round for these elements: whether any rank has flagged them, in
/// front of the first round, and what the codec has to say of each tensor (RoundsCodec).
std::size_t round_bytes(const Problem& problem, const Range& elements, std::size_t round);

/// The largest message of these elements, without a trailer. `tensors`: how they lie one behind the other;
/// none: there is one.
std::size_t message_bytes(const Codec& codec, DType dtype, std::span<const Range> tensors,
                          const Range& elements);

/// Elements of a piece, of which each rank has one in a segment of that many bytes.
std::size_t piece_elements(const Problem& problem);
/// Elements of a segment of that many bytes where ranks do not share it.
std::size_t segment_elements(const Problem& problem);
/// The two phases over pieces of a tensor, of which this rank owns `chunk`. Where a codec encodes only as a
/// whole, a rank encodes all that is its own at once and sends parts of that message.
Schedule build_phases(const Problem& problem, const std::vector<std::vector<Piece>>& segments,
                      const Range& chunk);
/// The same without residuals of what it owns.
Schedule build_phases(const Problem& problem, const std::vector<std::vector<Piece>>& segments);

}  // namespace terse::inline v0_1

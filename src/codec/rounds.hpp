// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>

#include "codec/internals.hpp"

namespace terse::inline v0_1 {

/// How many rounds a codec may have: each is a stage of the pipeline, and so is what comes after them.
inline constexpr std::size_t kMostRounds = 3;

/// What a round reduces. Maxima are of accumulators that are not negative.
enum class Addend : std::uint8_t {
  int8,        ///< bytes; no sum of any ranks' is beyond the range
  accumulator  ///< numbers of accumulator_of(as)
};

/// One plain reduction over all ranks.
struct Round {
  enum class Kind : std::uint8_t { max, sum };
  Kind kind = Kind::sum;
  Addend addend = Addend::accumulator;
};

/// What all rounds of a tensor, or of a piece of one, have in common.
struct RoundContext {
  DType as = DType::f32;  ///< the tensor's type
  int ranks = 1;          ///< how many contribute
  EncodeContext encode{};
};

/// By round: what it has come to. Of rounds that are not over: empty.
using RoundResults = std::array<std::span<const std::byte>, kMostRounds>;

/// A codec with which tensors are reduced by plain reductions, one after another, of what it encodes.
///
///   sum8, sum4   MAX of each block's largest magnitude; SUM of the codes, on the scale that this gives
///   randomk      nothing but whether the values can be sent; SUM of the values that are kept
///
/// A low-rank codec would have SUM of P = M Q, and SUM of Q = M^T P once P is orthogonal.
///
/// In each round all ranks contribute, in turn, and then each concludes from the results of all rounds, which
/// are the same everywhere. The first round is of accumulators, since whether any rank cannot represent a
/// value travels with it; then no more is done with that piece, and residuals stay as they are. Nobody can
/// say so later: in the first round a codec makes sure, by the context's limit for instance, that no sum of
/// any ranks' contributions will be beyond its type. A state is changed in conclude() alone.
///
/// Elements begin and end as pieces of a tensor do; there is one at least. What is given to one function was
/// given to the others: count, context but for its stream, earlier results. Nothing is thrown, since other
/// ranks would add up what this one has not made: where a thread's little memory cannot be had, the program
/// ends.
class RoundsCodec {
 public:
  virtual ~RoundsCodec() = default;

  /// Two at least, since the last one changes residuals, and kMostRounds at most.
  virtual std::span<const Round> rounds_in_order() const noexcept = 0;
  virtual std::size_t most_ranks() const noexcept = 0;
  /// Bytes of what each rank contributes to a round for `count` elements, in `rows` rows where that is not 0.
  virtual std::size_t round_bytes(std::size_t round, std::size_t count, DType as, std::size_t rows) const = 0;
  /// Writes what this rank has to say about value + residual (which may be null) in that round. In its last
  /// round it leaves in the residual what its contributions do not hold.
  ///
  /// Returns false where a value cannot be represented, or is larger than the context's limit, for codecs
  /// that look at it; `out` has any content then. Only the first round may: what comes later goes well.
  virtual bool contribute(std::size_t round, ConstView values, View residual, const RoundContext& context,
                          const RoundResults& earlier, std::span<std::byte> out) const noexcept = 0;
  /// The sum of all ranks' values, each times `factor`, in `out`, which is of the tensor's type. Any results
  /// will do: they come from the network.
  virtual void conclude(const RoundContext& context, const RoundResults& results, View out,
                        double factor) const noexcept = 0;
};

}  // namespace terse::inline v0_1

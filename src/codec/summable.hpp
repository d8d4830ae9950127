// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// What is added where encoded tensors are added.
enum class Addend : std::uint8_t {
  int8,        ///< bytes; no sum of any parties' is beyond the range
  accumulator  ///< numbers of accumulator_of(as)
};

/// What a codec with traits().summable does so that encoded tensors add up in a plain reduction: it encodes
/// into numbers of one kind, addends, with the help of numbers that all ranks have in common.
///
/// First, all ranks measure() their values, and what they have found is reduced by MAX: the shared numbers,
/// of type accumulator_of(as). With these each encodes. decode_addends() takes one rank's addends or the sums
/// of some ranks' alike.
///
/// Elements begin and end as pieces of a tensor do; there is one at least. `parties`: how many may be added,
/// 1 to most_parties(). What is given to one function was given to the others: count, occasion but for its
/// stream, shared numbers, parties. Nothing is thrown, since other ranks would add up what this one has not
/// made: where a thread's little memory cannot be had, the program ends.
class SummableCodec {
 public:
  virtual ~SummableCodec() = default;

  virtual Addend addend() const noexcept = 0;
  virtual std::size_t most_parties() const noexcept = 0;
  /// Bytes of the addends of `count` elements.
  virtual std::size_t addend_bytes(std::size_t count, DType as) const = 0;
  /// How many numbers are shared.
  virtual std::size_t shared_count(std::size_t count) const noexcept = 0;
  /// What this rank's value + residual (which may be empty) has to say about them. Returns false where a
  /// value cannot be represented, or is larger than `most` (Occasion::most, for codecs that look at it);
  /// `shared` has any content then.
  virtual bool measure(ConstView values, View residual, DType as, double most,
                       View shared) const noexcept = 0;
  /// Encodes value + residual, and leaves in the residual what the addends do not hold. The shared numbers
  /// are no smaller than those measured.
  virtual void encode_addends(ConstView values, View residual, DType as, const Occasion& occasion,
                              ConstView shared, int parties, std::span<std::byte> addends) const noexcept = 0;
  /// Decodes sums into `out`, which is of the tensor's type, each times `factor`. Any bytes will do.
  virtual void decode_addends(std::span<const std::byte> addends, DType as, const Occasion& occasion,
                              ConstView shared, int parties, View out, double factor) const noexcept = 0;
};

}  // namespace terse::inline v0_1

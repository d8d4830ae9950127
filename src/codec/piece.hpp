// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>

#include "codec/internals.hpp"
#include "codec/message.hpp"

namespace terse::inline v0_1 {

/// Elements of one tensor, one at least, and their residual or none (null).
struct Fragment {
  ConstView values{};
  View residual{};
  std::uint64_t position = 0;    ///< as RandomKey has it
  std::span<std::byte> state{};  ///< of a whole tensor: as EncodeContext has it
  std::size_t rows = 0;          ///< the same
};

/// What a message of a collective stands for: fragments of one tensor or of several, encoded one behind the
/// other under one header. Where a codec's messages vary in size and there is more than one fragment, the
/// bytes of each go in front of it, in 8 bytes.
///
/// `count`, what the header says, is the caller's affair: both ends know it.
class PieceCoder {
 public:
  /// `as`: the type of the tensors; `context`, for encoding, is without what each fragment has of its own.
  /// Errors: those of Codec::encode.
  PieceCoder(const Codec& codec, DType as, const EncodeContext& context = {})
      : codec_(codec), access_(codec), as_(as), context_(context) {}

  /// Largest message of fragments of these counts, without a trailer.
  std::size_t max_bytes(std::span<const std::size_t> counts) const;

  /// As Codec::encode, of all fragments; where one has a value that is not finite or out of range, the whole
  /// message is flagged and all residuals are as before, to rounding. `out` has room for max_bytes.
  std::size_t encode(std::span<const Fragment> fragments, std::size_t count, std::span<std::byte> out) const;
  /// As Codec::decode, of an open message that is not flagged.
  void decode(const Contents& message, std::span<const View> to, Into into, double factor) const;
  /// Takes back an encode, to rounding: does nothing for a flagged message. `fragments` may be the first of
  /// `all` that the message holds; 0: they are all.
  void undo(const Contents& message, std::span<const Fragment> fragments, std::size_t all = 0) const;

  /// What the owner of a piece does, a few thousand elements at a time where the codec allows it, so that
  /// sums stay in the first-level cache: decodes the messages of all ranks and adds them in their order, in
  /// the accumulator's type, divides by `divisor`, and encodes the result with the server residuals, for
  /// receivers that will multiply by `factor`. Of `sums`, which are to be made, the values' data is not
  /// looked at. None of the messages is flagged. Errors: corrupt_data; residuals are undefined then, and
  /// `reading` says which message it was read from.
  std::size_t reduce(std::span<const Contents> messages, std::span<const Fragment> sums, double divisor,
                     double factor, std::size_t count, std::span<std::byte> out, std::size_t& reading) const;

  /// The sum of the messages of all ranks, added in their order in the accumulator's type, over `divisor`,
  /// rounded once to the outputs' type: a few thousand elements at a time where the codec allows it. None of
  /// the messages is flagged. Errors: those of reduce; outputs may be partly written then.
  void sum(std::span<const Contents> messages, std::span<const View> to, double divisor,
           std::size_t& reading) const;

 private:
  template <class Elements, class Place, class Visit>
  void for_each_sum(std::span<const Contents> messages, std::span<const Elements> fragments, double divisor,
                    std::size_t& reading, Place&& place, Visit&& visit) const;
  std::span<const std::byte> take(std::span<const std::byte>& payload, std::size_t count, bool several) const;
  const Codec& codec_;
  CodecAccess access_;
  DType as_;
  EncodeContext context_;
};

}  // namespace terse::inline v0_1

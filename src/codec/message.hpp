// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

// A message: header, payload, and where it is sealed a trailer. All numbers little-endian.
//
//   offset 0  magic     2 bytes  'T' 'z'
//          2  version   1        kWireVersion
//          3  dtype     1        DType of the tensor
//          4  flags     1        below
//          5  zero      1
//          6  codec     2        low bits of the hash of the codec's spec, exclusive or those of its id
//          8  count     8        elements
//         16  payload            the codec's; none if flagged
//        end  trailer   8        if sealed: hash of all before it, with its id as the seed
//
// The id is a number that sender and receiver know beforehand, another one for each message of a
// collective: so a sound message does not fit where another one is due. Outside collectives it is 0.

inline constexpr std::uint8_t kWireVersion = 1;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kTrailerBytes = 8;

inline constexpr std::uint8_t kNonFinite =
    1;  ///< no payload: a value was not finite or beyond the codec's range
inline constexpr std::uint8_t kPoisoned =
    2;  ///< no payload: the sender could not make it from what it received
inline constexpr std::uint8_t kSealed = 4;  ///< a trailer follows

/// Writes the header of `count` elements of a tensor of type `dtype`.
void write_header(const Codec& codec, std::size_t count, DType dtype, std::uint8_t flags,
                  std::span<std::byte> out);

enum class Sealed : std::uint8_t { no, yes };
/// Binds the first `bytes` bytes of `out`, a whole message as Codec::encode or write_header gave it, to its
/// id, with a trailer if it is to be sealed. Returns the bytes of the message.
std::size_t seal(std::span<std::byte> out, std::size_t bytes, std::uint64_t id, Sealed sealed);

struct Contents {
  std::uint8_t flags = 0;  ///< kNonFinite or kPoisoned or none
  DType dtype = DType::f32;
  bool sealed = false;
  std::span<const std::byte> payload;

  /// Errors: corrupt_data or non_finite where the message stands for no values of this codec's.
  void require_values(const Codec& codec) const;
  /// What Codec::decode and Codec::undo do with a message once it is open.
  void decode(const Codec& codec, View out, Into into, double factor) const;
  void undo(const Codec& codec, ConstView values, View residual) const;
};

/// Whether a header says that a trailer follows.
bool is_sealed(std::span<const std::byte> message) noexcept;

/// Takes a message apart after checking all that can be checked without the codec. `elements` is the type of
/// the tensor or its accumulator. Without an id, the message never left this process: neither id nor
/// trailer is looked at. Errors: corrupt_data, with what is wrong.
Contents open_message(const Codec& codec, std::size_t count, DType elements,
                      std::span<const std::byte> message, std::optional<std::uint64_t> id = 0);

}  // namespace terse::inline v0_1

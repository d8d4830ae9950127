// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
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
//          6  codec     2        low bits of the hash of the codec's spec
//          8  count     8        elements
//         16  payload            the codec's; none if flagged
//        end  trailer   8        if sealed: hash of all before it

inline constexpr std::uint8_t kWireVersion = 1;
inline constexpr std::size_t kHeaderBytes = 16;
inline constexpr std::size_t kTrailerBytes = 8;

inline constexpr std::uint8_t kNonFinite =
    1;  ///< no payload: a value was not finite or beyond the codec's range
inline constexpr std::uint8_t kSpoilt =
    2;  ///< no payload: the sender could not make it from what it received
inline constexpr std::uint8_t kSealed = 4;  ///< a trailer follows

/// Writes the header of `count` elements of a tensor of type `dtype`.
void write_header(const Codec& codec, std::size_t count, DType dtype, std::uint8_t flags,
                  std::span<std::byte> out);

/// Adds the trailer to the first `bytes` bytes of `out`, a whole message; returns the bytes of the sealed
/// message.
std::size_t seal(std::span<std::byte> out, std::size_t bytes);

struct Contents {
  std::uint8_t flags = 0;  ///< kNonFinite or kSpoilt or none
  DType dtype = DType::f32;
  std::span<const std::byte> payload;
};

enum class Trailer : std::uint8_t { optional, required };

/// Takes a message apart after checking all that can be checked without the codec. `elements` is the type of
/// the tensor or its accumulator. Errors: corrupt_data, with what is wrong.
Contents open_message(const Codec& codec, std::size_t count, DType elements,
                      std::span<const std::byte> message, Trailer trailer);

/// Whether the bytes of a header look as an encoder writes them for a message with a payload.
bool is_plain_header(std::span<const std::byte> message) noexcept;

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "codec/message.hpp"

#include <string>

#include "core/assert.hpp"
#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::byte kMagic[2] = {std::byte{'T'}, std::byte{'z'}};

std::uint16_t tag_of(const Codec& codec) noexcept {
  return static_cast<std::uint16_t>(hash(std::as_bytes(std::span(codec.spec()))));
}

[[noreturn]] void corrupt(const Codec& codec, const std::string& what) {
  throw Error(ErrorCode::corrupt_data, "corrupt message for codec " + codec.spec() + ": " + what);
}

}  // namespace

void write_header(const Codec& codec, std::size_t count, DType dtype, std::uint8_t flags,
                  std::span<std::byte> out) {
  TERSE_ASSERT(out.size() >= kHeaderBytes, "there is no room for a header", out.size());
  std::byte* p = out.data();
  p[0] = kMagic[0];
  p[1] = kMagic[1];
  p[2] = std::byte{kWireVersion};
  p[3] = std::byte{static_cast<std::uint8_t>(dtype)};
  p[4] = std::byte{flags};
  p[5] = std::byte{0};
  store(p + 6, tag_of(codec));
  store(p + 8, static_cast<std::uint64_t>(count));
}

std::size_t seal(std::span<std::byte> out, std::size_t bytes, std::uint64_t id, Sealed sealed) {
  TERSE_ASSERT(bytes >= kHeaderBytes && bytes <= out.size(), "a message without a header is sealed", bytes,
               out.size());
  TERSE_ASSERT(sealed == Sealed::no || out.size() - bytes >= kTrailerBytes,
               "there is no room for a message's trailer", bytes, out.size());
  store(out.data() + 6, static_cast<std::uint16_t>(load<std::uint16_t>(out.data() + 6) ^ id));
  if (sealed == Sealed::no) return bytes;
  out[4] |= std::byte{kSealed};
  store(out.data() + bytes, hash(out.first(bytes), id));
  return bytes + kTrailerBytes;
}

Contents open_message(const Codec& codec, std::size_t count, DType elements,
                      std::span<const std::byte> message, std::optional<std::uint64_t> id) {
  if (message.size() < kHeaderBytes) {
    corrupt(codec, std::to_string(message.size()) + " bytes are less than a header");
  }
  const std::byte* p = message.data();
  auto flags = std::to_integer<std::uint8_t>(p[4]);
  const bool sealed = (flags & kSealed) != 0;
  if (sealed) {
    if (message.size() < kHeaderBytes + kTrailerBytes) corrupt(codec, "cut short");
    const std::size_t body = message.size() - kTrailerBytes;
    if (id && load<std::uint64_t>(p + body) != hash(message.first(body), *id)) {
      corrupt(codec, "its checksum does not fit");
    }
    message = message.first(body);
    flags &= static_cast<std::uint8_t>(~kSealed);
  }
  if (p[0] != kMagic[0] || p[1] != kMagic[1]) corrupt(codec, "it does not begin as a message does");
  if (p[2] != std::byte{kWireVersion}) {
    corrupt(codec, "its wire version is " + std::to_string(std::to_integer<int>(p[2])) +
                       ", this library's is " + std::to_string(kWireVersion));
  }
  if (std::to_integer<int>(p[3]) > static_cast<int>(DType::bf16) || p[5] != std::byte{0} ||
      (flags & ~(kNonFinite | kPoisoned)) != 0) {
    corrupt(codec, "unknown dtype or flags");
  }
  const auto dtype = static_cast<DType>(p[3]);
  if (elements != dtype && elements != accumulator_of(dtype)) {
    corrupt(codec,
            "it holds " + std::string(name(dtype)) + " where " + std::string(name(elements)) + " is due");
  }
  if (id && load<std::uint16_t>(p + 6) != static_cast<std::uint16_t>(tag_of(codec) ^ *id)) {
    corrupt(codec, "another codec or other options wrote it, or it belongs elsewhere");
  }
  if (const auto held = load<std::uint64_t>(p + 8); held != count) {
    corrupt(codec,
            "it holds " + std::to_string(held) + " elements where " + std::to_string(count) + " are due");
  }
  if (flags != 0 && message.size() != kHeaderBytes) corrupt(codec, "flagged, yet with a payload");
  return {flags, dtype, sealed, message.subspan(kHeaderBytes)};
}

bool is_sealed(std::span<const std::byte> message) noexcept {
  return message.size() >= kHeaderBytes && (std::to_integer<std::uint8_t>(message[4]) & kSealed) != 0;
}

bool is_flagged(std::span<const std::byte> message) noexcept {
  return message.size() >= kHeaderBytes &&
         (std::to_integer<std::uint8_t>(message[4]) & (kNonFinite | kPoisoned)) != 0;
}

}  // namespace terse::inline v0_1

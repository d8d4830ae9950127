// SPDX-License-Identifier: Apache-2.0
//
// open_message: corrupt_data, or what lies inside the message.
//
// Input: codec (1), dtype (1), what to do (1), place (8), elements (2), bytes.
#include <optional>

#include "codec/message.hpp"
#include "fuzz/fuzz.hpp"

namespace terse::fuzz {
namespace {

enum : std::uint8_t { kAddress = 1, kSeal = 2, kOwn = 4 };

bool inside(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

}  // namespace

void fuzz_message(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto codec = codec_of(input.number<std::uint8_t>());
  const auto dtype = static_cast<DType>(input.number<std::uint8_t>() % 4);
  const auto what = input.number<std::uint8_t>();
  const auto place = input.number<std::uint64_t>();
  const std::size_t count = input.number<std::uint16_t>();
  Bytes message = input.rest();
  if ((what & kAddress) && message.size() >= kHeaderBytes) {  // so that the rest is in reach
    const std::size_t whole = message.size();
    message.resize(whole + kTrailerBytes);
    message.resize(seal(message, whole, place, what & kSeal ? Sealed::yes : Sealed::no));
  }
  message.shrink_to_fit();

  Contents contents;
  const auto open = [&](std::optional<std::uint64_t> where) {
    return outcome_of([&] { contents = open_message(*codec, count, dtype, message, where); });
  };
  const std::optional<std::uint64_t> where = what & kOwn ? std::nullopt : std::optional(place);
  const std::string outcome = open(where);
  is_flagged(message);
  require(outcome.empty() || is(outcome, ErrorCode::corrupt_data), outcome);
  if (!outcome.empty()) return;
  require(inside(contents.payload, message), "the payload is part of the message");
  require(contents.payload.size() + kHeaderBytes + (contents.sealed ? kTrailerBytes : 0) == message.size(),
          "nothing lies between header, payload and trailer");
  require(contents.dtype == dtype || accumulator_of(contents.dtype) == dtype,
          "the type is the one asked for");
  require(contents.flags == 0 || contents.payload.empty(), "a flagged message has no payload");
  if (where && contents.sealed)
    require(!open(place + (std::uint64_t{1} << 32)).empty(), "sealed for one place");
}

std::vector<Bytes> message_seeds() {
  std::vector<Bytes> seeds;
  for (std::size_t k = 0; k < specs().size(); ++k) {
    const auto codec = codec_of(static_cast<std::uint8_t>(k));
    for (const DType dtype : {DType::f32, DType::f64, DType::f16, DType::bf16}) {
      if (!codec->supports(dtype)) continue;
      for (const std::uint8_t flags : {std::uint8_t{0}, kNonFinite, kPoisoned}) {
        Bytes message(kHeaderBytes + (flags == 0 ? 12 : 0));
        write_header(*codec, 100, dtype, flags, message);
        seeds.push_back(
            Writer()
                .number(static_cast<std::uint8_t>(k))
                .number(static_cast<std::uint8_t>(dtype))
                .number(static_cast<std::uint8_t>(kAddress | (flags != 0 || k % 2 == 0 ? kSeal : 0)))
                .number(std::uint64_t{k})
                .number(std::uint16_t{100})
                .add(message)
                .done());
      }
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

// SPDX-License-Identifier: Apache-2.0
//
// Codec::decode of any bytes: corrupt_data, non_finite, or numbers, the same ones each time; nothing is
// written beside them.
//
// Input: codec (1), dtype (1), what to do (1), factor (4), elements (2), bytes.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "codec/message.hpp"
#include "codec/rounds.hpp"
#include "fuzz/fuzz.hpp"
#include "support/tensor.hpp"

namespace terse::fuzz {
namespace {

enum : std::uint8_t { kHeaderGiven = 1, kAdd = 2, kIntoSum = 4, kUndo = 8, kStream = 16 };

// The results of rounds may be any bytes.
void add_up(const RoundsCodec& codec, DType dtype, std::size_t count, const Bytes& bytes) {
  std::array<Bytes, kMostRounds> reduced;
  RoundResults results{};
  for (std::size_t round = 0; round < codec.rounds_in_order().size(); ++round) {
    reduced[round].resize(codec.round_bytes(round, count, dtype, 0));
    std::copy_n(bytes.begin(), std::min(bytes.size(), reduced[round].size()), reduced[round].begin());
    results[round] = reduced[round];
  }
  const RoundContext context{
      .as = dtype,
      .ranks = static_cast<int>(std::min<std::size_t>(1 + count % 8, codec.most_ranks())),
      .encode = {.random = {.position = count}}};
  test::Tensor first(count, dtype);
  test::Tensor second(count, dtype);
  for (test::Tensor* out : {&first, &second}) codec.conclude(context, results, out->view(), 0.5);
  require(first.guards_intact(), "nothing is written beside the output");
  require(first.same_bits(second), "the same numbers each time");
}

}  // namespace

void fuzz_decode(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto codec = codec_of(input.number<std::uint8_t>());
  const auto dtype = static_cast<DType>(input.number<std::uint8_t>() % 4);
  const auto what = input.number<std::uint8_t>();
  const auto factor = static_cast<double>(input.number<float>());
  const std::size_t count = input.number<std::uint16_t>() % 5000;
  Bytes message = input.rest();
  if (what & kHeaderGiven) {  // the rest is a payload
    message.insert(message.begin(), kHeaderBytes, std::byte{});
    write_header(*codec, count, dtype, 0, message);
  }
  message.shrink_to_fit();
  const DType into = what & kIntoSum ? accumulator_of(dtype) : dtype;

  if (what & kUndo) {  // takes messages of this rank's own encoder, and must not run away with others
    const test::Tensor values(count, dtype);
    test::Tensor residual(count, accumulator_of(dtype));
    const std::string outcome = outcome_of([&] { codec->undo(message, values.view(), residual.view()); });
    require(outcome.empty() || is(outcome, ErrorCode::corrupt_data), outcome);
    require(residual.guards_intact(), "nothing is written beside the residual");
    return;
  }
  if (rounds_of(*codec) != nullptr && count != 0) add_up(*rounds_of(*codec), dtype, count, message);
  test::Tensor first(std::vector<double>(count, 1.5), into, what >> 5);
  test::Tensor second = first;
  const auto decode = [&](test::Tensor& out) {
    const Into how = what & kAdd ? Into::add : what & kStream ? Into::stream : Into::overwrite;
    return outcome_of([&] { codec->decode(message, out.view(), how, factor); });
  };
  const std::string outcome = decode(first);
  require(outcome.empty() || is(outcome, ErrorCode::corrupt_data) || is(outcome, ErrorCode::non_finite),
          outcome);
  require(first.guards_intact(), "nothing is written beside the output");
  require(decode(second) == outcome, "what is wrong once is wrong again");
  require(!outcome.empty() || first.same_bits(second), "the same numbers each time");
}

std::vector<Bytes> decode_seeds() {
  std::vector<Bytes> seeds;
  for (std::size_t k = 0; k < specs().size(); ++k) {
    const auto codec = codec_of(static_cast<std::uint8_t>(k));
    for (const DType dtype : test::kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const std::size_t count : {0u, 1u, 65u, 300u}) {
        test::Tensor values(count, dtype);
        for (std::size_t i = 0; i < count; ++i)
          values.set(i, i % 3 == 0 ? -0.25 * static_cast<double>(i) : 1.0);
        Bytes message(codec->max_bytes(count, dtype));
        message.resize(codec->encode(std::as_const(values).view(), {}, message));
        const auto what = static_cast<std::uint8_t>(count % 2 == 0 ? 0 : kHeaderGiven);
        seeds.push_back(Writer()
                            .number(static_cast<std::uint8_t>(k))
                            .number(static_cast<std::uint8_t>(dtype))
                            .number(what)
                            .number(1.0f)
                            .number(static_cast<std::uint16_t>(count))
                            .add(std::span(message).subspan(what & kHeaderGiven ? kHeaderBytes : 0))
                            .done());
      }
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

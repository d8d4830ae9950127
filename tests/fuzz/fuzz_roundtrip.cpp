// SPDX-License-Identifier: Apache-2.0
//
// Codec::encode of any numbers, then decode: the bytes keep within their bound and are the same each time;
// what is not finite is flagged, what is of moderate size is not; value + residual before is decoded +
// residual after.
//
// Input: codec (1), dtype (1), what to do (1), values and residuals in turn.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "codec/message.hpp"
#include "fuzz/fuzz.hpp"
#include "support/tensor.hpp"

namespace terse::fuzz {
namespace {

enum : std::uint8_t { kResidual = 1, kOfSums = 2, kFactor = 4, kSameMagnitude = 8 };

// Numbers up to here are no codec's limit: f16 ends at 65504, and squares of f32 beyond 1e19.
double moderate(DType dtype) { return dtype == DType::f16 ? 3e4 : 1e15; }
// The error that zfp:accuracy=A promises.
std::optional<double> accuracy_of(const Codec& codec) {
  constexpr std::string_view kBegin = "zfp:accuracy=";
  if (!codec.spec().starts_with(kBegin)) return std::nullopt;
  return std::stod(codec.spec().substr(kBegin.size()));
}
// zfp's come out up to four times as large, natural's up to twice; hadamard adds those of a block.
double moderate_for(const Codec& codec, DType dtype) {
  if (codec.spec() == "cast:f8e4m3") return 440;
  if (codec.spec() == "cast:f8e5m2") return std::min(moderate(dtype), 5e4);
  if (codec.name() == "natural") return moderate(dtype) / 2;
  if (codec.name() == "hadamard") return moderate(dtype) / (2.0 * static_cast<double>(codec.traits().block));
  if (const auto accuracy = accuracy_of(codec)) {
    const double resolved = *accuracy * (accumulator_of(dtype) == DType::f64 ? 0x1p44 : 0x1p16);
    return std::min(moderate(dtype) / 4, resolved);
  }
  return codec.name() == "zfp" ? moderate(dtype) / 4 : moderate(dtype);
}
// Whether what comes out is rounded to a 16-bit type there, and not in between.
bool is_between(const Codec& codec) {
  return codec.name() == "zfp" || codec.name() == "hadamard" || codec.traits().block_error_bound.has_value();
}

struct Encoded {
  Bytes message;
  test::Tensor residual;
};

Encoded encode(const Codec& codec, const test::Tensor& values, const test::Tensor& residual, DType dtype,
               double factor, bool feedback) {
  Encoded made{Bytes(codec.max_bytes(values.count(), dtype)), residual};
  const std::size_t room = made.message.size();
  const std::size_t bytes =
      codec.encode(values.view(), feedback ? made.residual.view() : View{}, made.message, dtype, factor);
  require(bytes >= kHeaderBytes && bytes <= room, "a message keeps within max_bytes");
  made.message.resize(bytes);
  if (codec.traits().fixed_size) {
    require(bytes == (is_flagged(made.message) ? kHeaderBytes : room), "messages of a fixed size have it");
  }
  require(made.residual.guards_intact(), "nothing is written beside the residual");
  return made;
}

}  // namespace

void fuzz_roundtrip(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto codec = codec_of(input.number<std::uint8_t>());
  const auto dtype = static_cast<DType>(input.number<std::uint8_t>() % 4);
  const auto what = input.number<std::uint8_t>();
  if (!codec->supports(dtype)) return;
  const DType sums = accumulator_of(dtype);
  const bool feedback = (what & kResidual) != 0 && !codec->traits().lossless;
  const DType given = what & kOfSums ? sums : dtype;
  const double factor = what & kFactor ? 3.0 : 1.0;
  const std::size_t each = size_of(given) + (feedback ? size_of(sums) : 0);
  const Bytes numbers = input.rest();
  const std::size_t count = numbers.size() / each;
  test::Tensor values(count, given, what >> 6);
  test::Tensor residual(count, sums);
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(static_cast<std::byte*>(values.view().data) + i * size_of(given), numbers.data() + i * each,
                size_of(given));
    if (!feedback) continue;
    std::memcpy(static_cast<std::byte*>(residual.view().data) + i * size_of(sums),
                numbers.data() + i * each + size_of(given), size_of(sums));
    // residuals are what encode left: finite
    if (!std::isfinite(residual[i])) residual.set(i, 0.0);
  }
  if (what & kSameMagnitude) {  // random bits alone seldom make a block without NaN
    for (test::Tensor* tensor : {&values, &residual}) {
      for (std::size_t i = 0; i < count; ++i) {
        const double v = (*tensor)[i];
        tensor->set(i, std::isfinite(v) ? std::remainder(v, 100.0) : 1.0);
      }
    }
  }

  const test::Tensor before = values;
  const Encoded made = encode(*codec, values, residual, dtype, factor, feedback);
  const Encoded again = encode(*codec, values, residual, dtype, factor, feedback);
  require(made.message == again.message && made.residual.same_bits(again.residual),
          "the same bytes each time");
  require(values.same_bits(before), "the values stay as they are");

  // v as the codec forms it
  std::vector<double> v(count);
  double largest = 0;
  bool finite = true;
  for (std::size_t i = 0; i < count; ++i) {
    v[i] = feedback ? test::round_to(values[i] + residual[i], sums) : values[i];
    if (feedback && sums == DType::f64) v[i] = values[i] + residual[i];
    finite = finite && std::isfinite(v[i]);
    if (std::isfinite(v[i])) largest = std::max(largest, std::abs(v[i]));
  }
  const double unit = test::unit_roundoff(sums);
  const double least = sums == DType::f64 ? std::numeric_limits<double>::denorm_min()
                                          : static_cast<double>(std::numeric_limits<float>::denorm_min());
  const bool flagged = is_flagged(made.message);
  test::Tensor out(count, dtype);
  const std::string outcome =
      outcome_of([&] { codec->decode(made.message, out.view(), Into::overwrite, factor); });
  require(out.guards_intact(), "nothing is written beside the output");
  if (flagged) {
    require(!finite || factor * largest > moderate_for(*codec, dtype) ||
                (codec->spec() == "cast:f16" && largest > moderate(DType::f16)),
            "a flag stands for a value that cannot be sent");
    require(is(outcome, ErrorCode::non_finite), "what is flagged is not decoded: " + outcome);
    for (std::size_t i = 0; feedback && i < count; ++i) {
      const double slack = 8 * unit * (std::abs(residual[i]) + std::abs(values[i]) + largest) + 8 * least;
      require(!std::isfinite(values[i]) || !(std::abs(made.residual[i] - residual[i]) > slack),
              "the residual of a flagged message is as before");
    }
    return;
  }
  require(outcome.empty(), "what was encoded is decoded: " + outcome);
  if (codec->traits().lossless) {
    if (given == dtype && factor == 1.0) require(out.same_bits(values), "lossless is bit-identical");
    return;
  }
  require(finite, "what is not finite is flagged");
  const auto accuracy = accuracy_of(*codec);
  for (std::size_t i = 0; i < count; ++i) {
    require(std::isfinite(out[i]), "finite numbers come out finite");
    if (accuracy && factor == 1.0 && given == dtype) {
      const double rounding = dtype == sums ? 0.0 : test::unit_roundoff(dtype) * (std::abs(v[i]) + *accuracy);
      require(std::abs(out[i] - v[i]) <= *accuracy + 1.01 * rounding, "zfp keeps to its accuracy");
    }
    if (!feedback) continue;
    const long double decoded = static_cast<long double>(out[i]) / factor;
    const long double off = static_cast<long double>(v[i]) - decoded - made.residual[i];
    const double last = is_between(*codec) ? test::unit_roundoff(dtype) : 0.0;
    const double tiny = last == 0 ? 0 : dtype == DType::f16 ? 0x1p-25 : dtype == DType::bf16 ? 0x1p-134 : 0;
    const long double slack = 8.0L * unit * (std::abs(static_cast<long double>(v[i])) + std::abs(decoded)) +
                              2.0L * last * std::abs(decoded) + 2.0L * tiny + 8.0L * least;
    require(std::abs(off) <= slack, "nothing is lost at " + std::to_string(i) + ": " + std::to_string(v[i]) +
                                        " is " + std::to_string(out[i]) + " and " +
                                        std::to_string(made.residual[i]));
  }
}

std::vector<Bytes> roundtrip_seeds() {
  const double kinds[] = {1.0, -2.5, 0.0, -0.0, 1e-30, 3e4, -1e38, std::nan(""), HUGE_VAL, 1e-42};
  std::vector<Bytes> seeds;
  for (std::size_t k = 0; k < specs().size(); ++k) {
    for (const DType dtype : test::kAllDTypes) {
      if (!codec_of(static_cast<std::uint8_t>(k))->supports(dtype)) continue;
      for (const int kind : {0, 1, 7, 9}) {
        const auto what = static_cast<std::uint8_t>(kind);
        Writer seed;
        seed.number(static_cast<std::uint8_t>(k)).number(static_cast<std::uint8_t>(dtype)).number(what);
        for (std::size_t i = 0; i < 80; ++i) {
          // some seeds without values that are flagged
          test::Tensor one(1, what & kOfSums ? accumulator_of(dtype) : dtype);
          one.set(0, kinds[i % (what == 1 ? 6 : std::size(kinds))]);
          seed.add(one.bytes());
          test::Tensor owed(1, accumulator_of(dtype));
          owed.set(0, 0.01 * static_cast<double>(i));
          if (what & kResidual) seed.add(owed.bytes());
        }
        seeds.push_back(seed.done());
      }
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

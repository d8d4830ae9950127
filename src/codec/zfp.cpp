// SPDX-License-Identifier: Apache-2.0
//
// zfp: four neighbours share an exponent, are decorrelated, and are sent from the highest bit down, as many
// bits of them as a rate allows (zfp:rate=) or an error asks for (zfp:accuracy=).
//
// Payload: blocks of four elements of a one-dimensional field, of f32 (f64 for f64), in zfp's bit stream
// (codec version 5), the lowest bit of a byte first; what is missing of the last block is made up by zfp.
//   rate=R      each block takes 4 R bits, one behind the other; zeros up to a byte at the end
//   accuracy=A  as many bits as zfp takes for an error of at most A; after 4096 elements, and at the end,
//               zeros up to a byte
// Elements below 2^-98 (f64: 2^-962) are zeros, since zfp's scaling of such a block is beyond its type.
//
// Errors: with accuracy at most A, plus the rounding to a 16-bit type; with rate there is no bound but what
// the bits hold. Blocks below the error come out as zeros, so neither is a contraction.
//
// zfp's integers resolve 2^-24 (f64: 2^-53) of the largest of four neighbours, so where that is large, zfp
// may miss A in those beside it. Runs with elements above 2^16 A (f64: 2^44 A) are decoded and compared.
// Below, what the integers leave out is a small part of A, and zfp keeps the rest within A (Diffenderfer et
// al., Error Analysis of ZFP Compression for Floating-Point Data, SIAM J. Sci. Comput. 2019).
//
// A message is flagged, so that its values are resent uncompressed, where a value is not finite, where the
// error of one would be above A, or where one that is near the end of the type's range would come out beyond
// it: that is tried, for elements above an eighth of the range.
//
// zfp's decoder reads on without looking where its bytes end. It is given a copy, with zeros behind it for
// all that the blocks which are due can take: a block of four takes at most 271 bits (zfp's own figure for
// f64: 1 + 11 bits of exponent, 3 + 4 * 64 of digits), or 4 R with a rate. What it took is compared with
// what there was, and what came out with the type's range.
//
// Lindstrom, "Fixed-Rate Compressed Floating-Point Arrays", IEEE TVCG 2014.
#include "codec/zfp.hpp"

#include <zfp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <string>

#include "codec/elements.hpp"
#include "codec/spec.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kFour = 4;       // elements of a block
constexpr std::size_t kRun = 4096;     // elements worked on at a time
constexpr std::size_t kWordBits = 64;  // the most that zfp reads or writes at once
constexpr std::size_t kMostBits = 271;
// Quarters of a bit an element are bits of a block. Below 4, exponents leave next to nothing for digits.
constexpr double kLeastRate = 4;
constexpr double kMostRate = 32;
// What is taken for zero, below 2^-98, must be within the error.
constexpr double kLeastAccuracy = 1e-29;
constexpr double kMostAccuracy = 1e30;
const char* const kNone = "none";

std::size_t blocks_of(std::size_t count) { return (count + kFour - 1) / kFour; }
std::size_t bytes_of(std::size_t bits) { return (bits + 7) / 8; }
// The most that a block takes with an accuracy.
std::size_t most_bits(DType as) { return accumulator_of(as) == DType::f64 ? kMostBits : 1 + 8 + 3 + 4 * 32; }

// What magnitudes round to a finite value of the type: those below.
double range_of(DType as) {
  if (as == DType::f16) return 65520;
  if (as == DType::bf16) return 0x1.FFp127;
  return std::numeric_limits<double>::infinity();
}
// Magnitudes below this decode to something within the range whatever bits are left out, since digits have
// two places in front of the point: to at most four times the largest.
double surely_within(DType as) {
  if (as == DType::f16) return 0x1p13;
  return accumulator_of(as) == DType::f64 ? 0x1p1021 : 0x1p125;
}

struct Closing {
  void operator()(bitstream* stream) const noexcept { stream_close(stream); }
  void operator()(zfp_stream* stream) const noexcept { zfp_stream_close(stream); }
};

// What a thread keeps.
struct Workspace {
  Workspace() : bits(stream_open(room.data(), sizeof room)), zfp(zfp_stream_open(bits.get())) {
    if (!bits || !zfp) throw std::bad_alloc();
  }
  std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(room.data()); }

  std::array<double, kRun> values{};
  std::array<double, kRun> decoded{};
  // a run's bits, and two words
  std::array<std::uint64_t, (kRun / kFour * kMostBits + kWordBits - 1) / kWordBits + 2> room{};
  std::unique_ptr<bitstream, Closing> bits;
  std::unique_ptr<zfp_stream, Closing> zfp;
};

Workspace& workspace() {
  return kept_by_thread<Workspace>([] {});
}

void encode_blocks(zfp_stream* to, const float* values, std::size_t count) {
  std::size_t i = 0;
  for (; i + kFour <= count; i += kFour) zfp_encode_block_float_1(to, values + i);
  if (i < count) zfp_encode_partial_block_strided_float_1(to, values + i, count - i, 1);
}
void encode_blocks(zfp_stream* to, const double* values, std::size_t count) {
  std::size_t i = 0;
  for (; i + kFour <= count; i += kFour) zfp_encode_block_double_1(to, values + i);
  if (i < count) zfp_encode_partial_block_strided_double_1(to, values + i, count - i, 1);
}

// Returns the bits that they took.
std::size_t decode_blocks(zfp_stream* from, float* values, std::size_t count) {
  std::size_t i = 0;
  std::size_t bits = 0;
  for (; i + kFour <= count; i += kFour) bits += zfp_decode_block_float_1(from, values + i);
  if (i < count) bits += zfp_decode_partial_block_strided_float_1(from, values + i, count - i, 1);
  return bits;
}
std::size_t decode_blocks(zfp_stream* from, double* values, std::size_t count) {
  std::size_t i = 0;
  std::size_t bits = 0;
  for (; i + kFour <= count; i += kFour) bits += zfp_decode_block_double_1(from, values + i);
  if (i < count) bits += zfp_decode_partial_block_strided_double_1(from, values + i, count - i, 1);
  return bits;
}

template <class A>
A largest(const A* values, std::size_t count) {  // NaN where there is one
  A most = 0;
  A nothing = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const A size = std::abs(values[i]);
    most = size > most ? size : most;
    nothing += size - size;
  }
  return nothing == 0 ? most : std::numeric_limits<A>::quiet_NaN();
}

// Whether none is further off than `most`.
template <class A>
bool are_near(const A* values, const A* others, std::size_t count, double most) {
  double furthest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    furthest = std::max(furthest, std::abs(static_cast<double>(values[i]) - static_cast<double>(others[i])));
  }
  return furthest <= most;
}

template <class A>
void drop_tiny(A* values, std::size_t count) {
  const A least = sizeof(A) == sizeof(float) ? static_cast<A>(0x1p-98) : static_cast<A>(0x1p-962);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::abs(values[i]) < least ? A{0} : values[i];
}

class Zfp final : public Codec {
 public:
  /// `block_bits`: what each block takes; 0: what an error of 2^exponent asks for.
  Zfp(const std::string& spec, std::size_t block_bits, int exponent)
      : Codec("zfp", spec, traits_of(block_bits)), block_bits_(block_bits), exponent_(exponent) {}

 private:
  static CodecTraits traits_of(std::size_t block_bits) {
    CodecTraits traits;
    traits.fixed_size = block_bits != 0;
    // with a rate, as many blocks as are whole bytes
    traits.block = block_bits == 0 ? kFour : kFour * 8 / std::gcd(block_bits, std::size_t{8});
    return traits;
  }

  bool do_supports(DType) const noexcept override { return true; }

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    if (block_bits_ != 0) return bytes_of(blocks_of(count) * block_bits_);
    return count / kRun * bytes_of(kRun / kFour * most_bits(as)) +
           bytes_of(blocks_of(count % kRun) * most_bits(as));
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    if (accumulator_of(as) == DType::f64) return encode_as<double>(values, as, payload);
    return encode_as<float>(values, as, payload);
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    const bool right = accumulator_of(as) == DType::f64 ? decode_as<double>(payload, as, out, into, factor)
                                                        : decode_as<float>(payload, as, out, into, factor);
    if (!right) {
      throw Error(ErrorCode::corrupt_data,
                  "corrupt message for codec " + spec() + ": its payload is not zfp's");
    }
  }

  std::size_t do_run() const noexcept override { return traits().block; }

  zfp_stream* start(Workspace& on) const {
    zfp_stream* stream = on.zfp.get();
    const auto bits = static_cast<unsigned>(block_bits_);
    if (block_bits_ != 0) {
      zfp_stream_set_params(stream, bits, bits, ZFP_MAX_PREC, ZFP_MIN_EXP);
    } else {
      zfp_stream_set_params(stream, ZFP_MIN_BITS, ZFP_MAX_BITS, ZFP_MAX_PREC, exponent_);
    }
    zfp_stream_rewind(stream);
    return stream;
  }

  template <class A>
  std::optional<std::size_t> encode_as(ConstView values, DType as, std::span<std::byte> payload) const {
    Workspace& on = workspace();
    const double sure = surely_within(as);
    const double resolved = surely_resolved<A>();
    std::size_t written = 0;
    for (std::size_t begin = 0; begin < values.count; begin += kRun) {
      const std::size_t n = std::min(kRun, values.count - begin);
      A* run = reinterpret_cast<A*>(on.values.data());
      convert(values.slice(begin, n), {run, n, accumulator_of(as)}, Into::overwrite, 1.0);
      const A most = largest(run, n);
      if (!(most <= std::numeric_limits<A>::max())) return std::nullopt;
      drop_tiny(run, n);
      zfp_stream* stream = start(on);
      encode_blocks(stream, run, n);
      const std::size_t bits = stream_wtell(on.bits.get());
      zfp_stream_flush(stream);
      if (most >= sure || most >= resolved) {
        A* decoded = reinterpret_cast<A*>(on.decoded.data());
        zfp_stream_rewind(stream);
        decode_blocks(stream, decoded, n);
        if (!within(largest(decoded, n), as)) return std::nullopt;
        convert(values.slice(begin, n), {run, n, accumulator_of(as)}, Into::overwrite, 1.0);
        if (block_bits_ == 0 && !are_near(run, decoded, n, accuracy())) return std::nullopt;
      }
      std::copy_n(on.bytes(), bytes_of(bits), payload.data() + written);
      written += bytes_of(bits);
    }
    return written;
  }

  double accuracy() const { return std::ldexp(1.0, exponent_); }
  // Where all magnitudes are below this, zfp keeps to the accuracy, if there is one.
  template <class A>
  double surely_resolved() const {
    if (block_bits_ != 0) return std::numeric_limits<double>::infinity();
    return std::ldexp(1.0, exponent_ + (sizeof(A) == sizeof(float) ? 16 : 44));
  }

  template <class A>
  static bool within(A most, DType as) {
    return most <= std::numeric_limits<A>::max() && static_cast<double>(most) < range_of(as);
  }

  // Says whether the payload is one of as many elements.
  template <class A>
  bool decode_as(std::span<const std::byte> payload, DType as, View out, Into into, double factor) const {
    if (block_bits_ != 0 && payload.size() != do_max_bytes(out.count, as)) return false;
    Workspace& on = workspace();
    for (std::size_t begin = 0; begin < out.count; begin += kRun) {
      const std::size_t n = std::min(kRun, out.count - begin);
      const std::size_t due = bytes_of(blocks_of(n) * (block_bits_ != 0 ? block_bits_ : kMostBits));
      const std::size_t there = std::min(due, payload.size());
      std::copy_n(payload.data(), there, on.bytes());
      std::fill_n(on.bytes() + there, due - there + 2 * sizeof(std::uint64_t), std::byte{0});
      A* run = reinterpret_cast<A*>(on.values.data());
      const std::size_t taken = bytes_of(decode_blocks(start(on), run, n));
      if (taken > there || !within(largest(run, n), as)) return false;
      convert({run, n, accumulator_of(as)}, out.slice(begin, n), into, factor);
      payload = payload.subspan(taken);
    }
    return payload.empty();
  }

  std::size_t block_bits_;
  int exponent_;
};

std::shared_ptr<const Codec> make_zfp(const CodecArguments& arguments) {
  const bool rate = arguments.find("rate")->second != kNone;
  const bool accuracy = arguments.find("accuracy")->second != kNone;
  if (rate == accuracy) {
    throw Error(ErrorCode::invalid_argument, std::string("codec zfp: give rate or accuracy") +
                                                 (rate ? ", not both" : ", as in zfp:rate=8"));
  }
  if (rate) {
    const double bits = kFour * number_argument(zfp_entry(), arguments, "rate", 0, kMostRate);
    if (bits < kFour * kLeastRate) {
      throw Error(ErrorCode::invalid_argument, "codec zfp: rate=" + arguments.find("rate")->second +
                                                   " leaves no bits for digits: use 4 to 32");
    }
    if (bits != std::floor(bits)) {
      throw Error(ErrorCode::invalid_argument, "codec zfp: rate=" + arguments.find("rate")->second +
                                                   " is not a multiple of 0.25, which is a bit of a block");
    }
    return std::make_shared<Zfp>("zfp:rate=" + number_text(bits / kFour), static_cast<std::size_t>(bits), 0);
  }
  const double most = number_argument(zfp_entry(), arguments, "accuracy", kLeastAccuracy, kMostAccuracy);
  // zfp cuts at a binary digit: what is asked for is rounded down to a power of two
  int exponent = 0;
  std::frexp(most, &exponent);
  --exponent;
  return std::make_shared<Zfp>("zfp:accuracy=" + number_text(std::ldexp(1.0, exponent)), 0, exponent);
}

}  // namespace

CodecEntry zfp_entry() {
  return {
      .name = "zfp",
      .summary =
          "floating-point numbers of smooth fields, by zfp: so many bits an element, or so large "
          "an error",
      .options = {{"rate", kNone, "bits an element, 4 to 32, a multiple of 0.25"},
                  {"accuracy", kNone,
                   "the largest error of an element, rounded down to a power of two: bytes vary, and what "
                   "cannot be held to that is sent uncompressed"}},
      .examples = {"zfp:rate=8", "zfp:rate=16", "zfp:rate=5.25", "zfp:accuracy=0.001"},
      .make = make_zfp};
}

}  // namespace terse::inline v0_1

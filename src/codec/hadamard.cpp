// SPDX-License-Identifier: Apache-2.0
//
// hadamard: another codec for values that a random rotation of each block has made look normal.
//
// Payload: that of the inner codec, of y = H D x / sqrt(m) for each block of m = `block` elements, one behind
// the other. D changes signs at random; H is Sylvester's Hadamard matrix, row i and column j of which is 1 or
// -1 as i AND j has an even or odd number of bits. Of a last block that is short, the powers of two that it
// is the sum of, from the largest down, are blocks of their own: 37 elements are 32, 4 and 1. So there is no
// padding.
//
// Position i of a block changes its sign where the top bit of its Philox word is set (philox.hpp) under the
// codec's seed, at call 0 of a stream that nobody encodes as. The signs are the same in every block, on every
// rank and in every call, since a decoder knows nothing of these.
//
// The rotation keeps norms, and its inverse gives back x: what a codec leaves out of y, and whether that is
// unbiased, holds for x as well. Rotated values are close to normal whatever the tensor's are: one
// large element no longer decides what its block's scale is (Suresh et al., ICML 2017; DRIVE, Vargaftik et
// al., NeurIPS 2021; EDEN, ICML 2022).
//
// A value is beyond the range where the sums of its block are, before or after the inner codec.
#include "codec/hadamard.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "codec/arithmetic.hpp"
#include "codec/block_codec.hpp"
#include "codec/elements.hpp"
#include "codec/hadamard_kernels.hpp"
#include "codec/internals.hpp"
#include "codec/philox.hpp"
#include "codec/spec.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kLeastBlock = 16;
constexpr std::size_t kMostBlock = 65536;
constexpr std::size_t kRunTarget = 4096;  // elements worked on at a time: they stay near a first-level cache
// What comes out of an inner codec is not larger than the largest value that went in by more than this.
constexpr double kHeadroom = 64;

std::vector<std::uint32_t> make_signs(std::size_t block, std::uint32_t seed) {
  constexpr std::uint32_t kNobody = ~std::uint32_t{0};  // others' draws are independent of these
  std::vector<std::uint32_t> signs(block);
  for (std::size_t i = 0; i < block; ++i) {
    signs[i] = random_words(seed, {.stream = kNobody}, i / 4)[i % 4] & 0x80000000u;
  }
  return signs;
}

class Hadamard final : public Codec {
 public:
  Hadamard(const CodecArguments& arguments, std::size_t block, std::uint32_t seed,
           std::shared_ptr<const Codec> inner)
      : Codec("hadamard", canonical_spec(hadamard_entry(), arguments) + "+" + inner->spec(),
              traits_of(block, inner->traits())),
        inner_(std::move(inner)),
        signs_(make_signs(block, seed)) {}

 private:
  static CodecTraits traits_of(std::size_t block, const CodecTraits& inner) {
    CodecTraits traits;
    traits.unbiased = inner.unbiased;
    traits.contractive = inner.contractive;
    traits.block = std::max(block, inner.block);
    return traits;
  }

  CodecAccess inner() const noexcept { return CodecAccess(*inner_); }

  bool do_supports(DType dtype) const noexcept override { return inner_->supports(dtype); }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override {
    return inner().max_payload(count, dtype);
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext& context,
                                       std::span<std::byte> payload) const override {
    auto& memory = kept_by_thread<Scratch>([] {});
    auto& decoded_memory = kept_by_thread<Scratch>([] {});
    const DType accumulator = accumulator_of(as);
    const std::size_t run = elements_at_a_time(values.count);
    std::size_t written = 0;
    for (std::size_t begin = 0; begin < values.count; begin += run) {
      const std::size_t n = std::min(run, values.count - begin);
      const View y = memory.view(n, accumulator);
      ConstView x = values.slice(begin, n);
      if (x.dtype != accumulator) {
        convert(x, y, Into::overwrite, 1.0);
        x = y;
      }
      const double largest = hadamard_forward(x, y, signs_);
      if (!is_finite(largest)) return std::nullopt;
      const auto bytes = inner().encode(y, as, context.at(begin), payload.subspan(written));
      if (!bytes) return std::nullopt;
      if (!surely_fits(largest, as)) {
        const View decoded = decoded_memory.view(n, accumulator);
        inner().decode(payload.subspan(written, *bytes), as, decoded, Into::overwrite, 1.0);
        if (!fits(hadamard_inverse(decoded, decoded, signs_), as)) return std::nullopt;
      }
      written += *bytes;
    }
    return written;
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    auto& memory = kept_by_thread<Scratch>([] {});
    if (payload.size() != inner().max_payload(out.count, as)) corrupt();
    const DType accumulator = accumulator_of(as);
    const std::size_t run = elements_at_a_time(out.count);
    for (std::size_t begin = 0; begin < out.count; begin += run) {
      const std::size_t n = std::min(run, out.count - begin);
      const View to = out.slice(begin, n);
      const bool direct = to.dtype == accumulator && into == Into::overwrite && factor == 1.0;
      const View x = direct ? to : memory.view(n, accumulator);
      const std::size_t bytes = inner().max_payload(n, as);
      inner().decode(payload.first(bytes), as, x, Into::overwrite, 1.0);
      if (!fits(hadamard_inverse(x, x, signs_), as)) corrupt();
      if (!direct) convert(x, to, into, factor);
      payload = payload.subspan(bytes);
    }
  }

  std::size_t do_run() const noexcept override {
    const std::size_t run = inner().run();
    return run == std::numeric_limits<std::size_t>::max() ? run : std::lcm(run, signs_.size());
  }

  std::size_t elements_at_a_time(std::size_t count) const noexcept {
    const std::size_t unit = do_run();
    return unit >= count ? count : std::max(unit, kRunTarget / unit * unit);
  }

  /// Whether a tensor's type has a finite value for this magnitude.
  static bool fits(double magnitude, DType as) noexcept { return is_finite(rounded_scale(magnitude, as)); }
  /// Whether all values fit that decoding may come to, its sums among them, where none of those that are
  /// encoded is larger than `largest`.
  bool surely_fits(double largest, DType as) const noexcept {
    const double root = std::sqrt(static_cast<double>(signs_.size()));
    const double value = kHeadroom * root * largest;
    return fits(value, as) && fits(value * root, accumulator_of(as));
  }

  [[noreturn]] void corrupt() const {
    throw Error(ErrorCode::corrupt_data,
                "corrupt message for codec " + spec() + ": its payload is not one that it writes");
  }

  std::shared_ptr<const Codec> inner_;
  std::vector<std::uint32_t> signs_;  // HadamardSigns
};

std::shared_ptr<const Codec> compose(CodecArguments arguments, std::shared_ptr<const Codec> inner) {
  const CodecEntry entry = hadamard_entry();
  const std::size_t block = count_argument(entry, arguments, "block", kLeastBlock, kMostBlock);
  if (!std::has_single_bit(block)) {
    throw Error(ErrorCode::invalid_argument,
                "codec hadamard: block=" + std::to_string(block) + " is not a power of two");
  }
  arguments["block"] = std::to_string(block);  // one way to write it
  const std::uint32_t seed = seed_argument(entry, arguments);
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::invalid_argument,
                "codec hadamard does not go in front of " + inner->spec() + ": " + why);
  };
  const CodecTraits& traits = inner->traits();
  if (inner->name() == "hadamard")
    refuse("values that are rotated twice are no better for it: once is enough");
  if (traits.lossless) refuse("it leaves nothing out, and the rotation would only add its roundings");
  if (traits.sparse) refuse("it keeps the largest elements, and of rotated ones all are about as large");
  if (traits.whole_tensor) refuse("it encodes a tensor only as a whole");
  if (!traits.fixed_size) refuse("its messages vary in size");
  const auto [less, more] = std::minmax(block, traits.block);
  if (more % less != 0) {
    refuse("its block of " + std::to_string(traits.block) + " elements and hadamard's of " +
           std::to_string(block) + " do not fit: one must be a multiple of the other");
  }
  return std::make_shared<Hadamard>(arguments, block, seed, std::move(inner));
}

}  // namespace

CodecEntry hadamard_entry() {
  return {
      .name = "hadamard",
      .summary =
          "a random rotation of each block, after which elements are close to normal; + a codec for "
          "these, which is then as good for heavy tails",
      .options = {{"block", "2048", "elements that are rotated together, a power of two from 16 to 65536"},
                  {"seed", "0", "of the signs that it changes"}},
      .examples = {"hadamard:block=64+onebit:block=64", "hadamard:block=16,seed=7+quant:bits=4,block=64"},
      .make = nullptr,
      .compose = compose};
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// quant: a few bits an element on a grid that the elements of a block share.
//
// Payload, for each block of `block` elements (the last may be short):
//   scale   one value of the tensor's accumulator: the distance of two values of the grid
//   zero    a byte, the code that stands for 0; only with range=minmax
//   codes   `bits` bits an element, of whole groups of 64 (codes-inl.hpp has their places); what lies
//           behind the tensor's end has zero's code
// A code stands for (code - zero) * scale. With range=symmetric zero is in the middle, 2^(bits-1) - 1, and
// the largest code is not used; scale is max |v| over that. With range=minmax the grid goes from the smallest
// to the largest element, or to 0 where that is beyond them, shifted so that 0 is on it: so an element is
// never off by more than itself, and feedback is sound.
//
// rounding=stochastic goes up with a probability of what is left, so that the result is unbiased: QSGD
// (Alistarh et al., NeurIPS 2017). Block by block, nearest: ZeRO++ (Wang et al., 2023). From min to max: CGX
// (Markov et al., Middleware 2022).
#include "codec/quant.hpp"

#include <array>
#include <limits>
#include <memory>
#include <string>

#include "codec/device_codec.hpp"
#include "codec/internals.hpp"
#include "codec/quant_arithmetic.hpp"
#include "codec/quant_kernels.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

class Quant final : public BlockCodec, private CodecInternals {
 public:
  Quant(const CodecArguments& arguments, std::size_t block, const QuantFormat& format)
      : BlockCodec("quant", canonical_spec(quant_entry(), arguments), traits_of(block, format)),
        format_(format),
        device_(make_device_twin("quant", QuantTwin{format, static_cast<std::uint32_t>(block)})) {}

 private:
  static CodecTraits traits_of(std::size_t block, const QuantFormat& format) {
    constexpr double kSlack = 1 + 1e-4;  // for roundings
    const bool symmetric = format.range == QuantRange::symmetric;
    const bool nearest = format.rounding == Rounding::nearest;
    // the scale over the largest magnitude, at most
    const double scale = symmetric ? 2.0 / format.top() : 2.0 / (nearest ? format.top() : format.top() - 1);
    CodecTraits traits;
    traits.block = block;
    traits.unbiased = !nearest;
    traits.block_error_bound = kSlack * (nearest ? scale / 2 : scale);
    // stochastic: of each element, the square of the error is scale^2 / 4 in the mean, or less
    traits.contractive = nearest || static_cast<double>(block) * scale * scale / 4 < 1;
    return traits;
  }

  std::size_t block_bytes(std::size_t n, DType as) const override {
    return format_.head(size_of(accumulator_of(as))) + groups_of(n) * (kBlockGroup / 8) * format_.bits;
  }
  std::size_t encode_blocks(ConstView values, std::size_t, void* residual, DType as, const RandomKey& key,
                            std::byte* out) const override {
    return quant_encode(values, residual, traits().block, as, format_, key, out);
  }
  bool decode_blocks(const std::byte* in, DType as, View out, Into into, double factor) const override {
    return quant_decode(in, traits().block, as, out, format_, into, factor);
  }
  const CodecInternals* do_internals() const noexcept override { return this; }
  const DeviceCodec* device() const noexcept override { return device_.get(); }

  QuantFormat format_;
  std::unique_ptr<const DeviceCodec> device_;
};

}  // namespace

CodecEntry quant_entry() {
  return {.name = "quant",
          .summary = "8, 6, 4 or 2 bits an element, on a grid for each block",
          .options = {{"bits", "8", "of an element: 8, 6, 4 or 2"},
                      {"block", "256", "elements that share a grid, a multiple of 64 up to 65536"},
                      {"rounding", "nearest", "nearest, or stochastic: unbiased, for use without feedback"},
                      {"range", "minmax", "what the grid covers: minmax, or symmetric about 0"},
                      {"seed", "0", "of stochastic rounding"},
                      {"preset", "none", "other defaults for these: qsgd, zeropp or cgx", true}},
          .examples = {"quant", "quant:bits=6,block=64", "quant:bits=4,range=symmetric",
                       "quant:bits=2,block=128", "quant:rounding=stochastic,block=64", "quant:qsgd"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const CodecEntry entry = quant_entry();
            choice_argument(entry, arguments, "preset", {"none", "qsgd", "zeropp", "cgx"});  // or it is wrong
            constexpr std::array<unsigned, 4> kBits = {8, 6, 4, 2};
            QuantFormat format;
            format.bits = kBits[choice_argument(entry, arguments, "bits", {"8", "6", "4", "2"})];
            format.rounding = choice_argument(entry, arguments, "rounding", {"nearest", "stochastic"}) == 0
                                  ? Rounding::nearest
                                  : Rounding::stochastic;
            format.range = choice_argument(entry, arguments, "range", {"minmax", "symmetric"}) == 0
                               ? QuantRange::minmax
                               : QuantRange::symmetric;
            format.seed = seed_argument(entry, arguments);
            if (format.seed != 0 && format.rounding == Rounding::nearest) {
              throw Error(ErrorCode::invalid_argument, "codec quant: seed=" + arguments["seed"] +
                                                           " is for rounding=stochastic: leave it out");
            }
            const std::size_t block = block_argument(entry, arguments);
            return std::make_shared<Quant>(arguments, block, format);
          },
          // what their papers' experiments have, where these say it
          .presets = {
              {"qsgd", {{"bits", "4"}, {"block", "512"}, {"rounding", "stochastic"}, {"range", "symmetric"}}},
              {"zeropp", {{"bits", "4"}, {"block", "256"}, {"range", "symmetric"}}},
              {"cgx", {{"bits", "4"}, {"block", "512"}}}}};
}

}  // namespace terse::inline v0_1

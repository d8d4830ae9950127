// SPDX-License-Identifier: Apache-2.0
//
// ternary: every element is -s, 0 or s, with one s a block.
//
// Payload, for each block of `block` elements (the last may be short):
//   scale   one value of the tensor's accumulator, s
//   codes   0, 1 or 2 for -s, 0 and s: of each group of 64 elements 13 bytes of five digits to the base
//           3, byte k having elements k, 13 + k, ..., 52 + k from the lowest digit on; 1.625 bits an
//           element. What lies behind the tensor's end has code 1
//
// rounding=nearest: |v| >= t counts as s, where t is `threshold` of the block's mean |v|, and s the mean |v|
// of those: ternary weight networks (Li et al., 2016), whose 0.7 is near the best for normal values. The
// error is |v|^2 less s^2 for each such element: a contraction. rounding=stochastic: s is the largest |v|,
// and v is +-s with the probability |v| / s: TernGrad (Wen et al., NeurIPS 2017), unbiased. That is
// no contraction: residuals would grow without bound.
#include "codec/ternary.hpp"

#include <memory>
#include <string>

#include "codec/spec.hpp"
#include "codec/ternary_kernels.hpp"

namespace terse::inline v0_1 {
namespace {

class Ternary final : public BlockCodec {
 public:
  Ternary(const CodecArguments& arguments, const TernaryFormat& format)
      : BlockCodec("ternary", canonical_spec(ternary_entry(), arguments), traits_of(format)),
        format_(format) {}

 private:
  static CodecTraits traits_of(const TernaryFormat& format) {
    CodecTraits traits;
    traits.block = format.block;
    traits.contractive = format.rounding == Rounding::nearest;
    traits.unbiased = format.rounding == Rounding::stochastic;
    traits.block_error_bound = 1.0;
    return traits;
  }

  std::size_t block_bytes(std::size_t n, DType as) const override {
    return size_of(accumulator_of(as)) + groups_of(n) * kTernaryGroupBytes;
  }
  std::size_t encode_blocks(ConstView values, std::size_t n, void* residual, DType as, const RandomKey& key,
                            std::byte* out) const override {
    return ternary_encode(values, n, residual, as, format_, key, out);
  }
  bool decode_blocks(const std::byte* in, DType, View out, Into into, double factor) const override {
    return ternary_decode(in, out, format_, into, factor);
  }

  TernaryFormat format_;
};

}  // namespace

CodecEntry ternary_entry() {
  static constexpr const char* kThreshold = "0.7";
  return {.name = "ternary",
          .summary = "-s, 0 or s, one s a block: 1.6 bits an element",
          .options = {{"block", "2048", "elements that share a scale, a multiple of 64 up to 65536"},
                      {"rounding", "nearest", "nearest, or stochastic: unbiased, for use without feedback"},
                      {"threshold", kThreshold,
                       "of nearest: the least |v| that is not 0, over mean |v|; up to 0.99"},
                      {"seed", "0", "of stochastic rounding"}},
          .examples = {"ternary", "ternary:threshold=0.4,block=64", "ternary:rounding=stochastic,block=128"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const CodecEntry entry = ternary_entry();
            constexpr double kMost = 0.99;
            TernaryFormat format;
            format.block = block_argument(entry, arguments);
            format.rounding = choice_argument(entry, arguments, "rounding", {"nearest", "stochastic"}) == 0
                                  ? Rounding::nearest
                                  : Rounding::stochastic;
            format.threshold = number_argument(entry, arguments, "threshold", 0, kMost);
            arguments["threshold"] = number_text(format.threshold);
            format.seed = seed_argument(entry, arguments);
            const bool nearest = format.rounding == Rounding::nearest;
            const char* idle = nearest ? "seed" : "threshold";
            if (arguments[idle] != (nearest ? "0" : kThreshold)) {
              throw Error(ErrorCode::invalid_argument,
                          std::string("codec ternary: ") + idle +
                              " says nothing with rounding=" + arguments["rounding"] + ": leave it out");
            }
            return std::make_shared<Ternary>(arguments, format);
          }};
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// natural: every element a power of two, up or down at random, unbiased.
//
// Payload, for each block of `block` elements (the last may be short):
//   top     16 bits: the exponent's field, in the tensor's accumulator, of the largest power of two that
//           one of the elements may be rounded to
//   codes   a byte an element, of whole groups of 64: bit 7 is the sign, c in the others stands for the
//           power of two with the field top - 127 + c, and 0 for 0
//
// Natural compression (Horvath et al., MSML 2022): a value between two powers of two goes to one with the
// probability of its distance from the other. So the square of the error is an eighth of the value's at most,
// in the mean: a contraction. Values 2^-126 of the block's largest are 0. A value whose power of two may be
// beyond the tensor's type is beyond the codec's range.
#include "codec/natural.hpp"

#include <memory>

#include "codec/block_codec.hpp"
#include "codec/natural_kernels.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

class Natural final : public BlockCodec {
 public:
  Natural(const CodecArguments& arguments, std::size_t block, std::uint32_t seed)
      : BlockCodec("natural", canonical_spec(natural_entry(), arguments), traits_of(block)), seed_(seed) {}

 private:
  static CodecTraits traits_of(std::size_t block) {
    CodecTraits traits;
    traits.block = block;
    traits.unbiased = true;
    traits.contractive = true;
    traits.error_bound = 1.0;
    traits.block_error_bound = 1.0;
    return traits;
  }

  std::size_t block_bytes(std::size_t n, DType) const override {
    return sizeof(std::uint16_t) + groups_of(n) * kBlockGroup;
  }
  std::size_t encode_blocks(ConstView values, std::size_t, void* residual, DType as, const RandomKey& key,
                            std::byte* out) const override {
    return natural_encode(values, residual, traits().block, as, seed_, key, out);
  }
  bool decode_blocks(const std::byte* in, DType as, View out, Into into, double factor) const override {
    return natural_decode(in, traits().block, as, out, into, factor);
  }

  std::uint32_t seed_;
};

}  // namespace

CodecEntry natural_entry() {
  return {.name = "natural",
          .summary = "powers of two, at random, unbiased: 8 bits an element",
          .options = {{"block", "2048", "elements that share an exponent, a multiple of 64 up to 65536"},
                      {"seed", "0", "of the random numbers"}},
          .examples = {"natural", "natural:block=64,seed=7"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const std::size_t block = block_argument(natural_entry(), arguments);
            const std::uint32_t seed = seed_argument(natural_entry(), arguments);
            return std::make_shared<Natural>(arguments, block, seed);
          }};
}

}  // namespace terse::inline v0_1

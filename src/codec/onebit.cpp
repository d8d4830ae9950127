// SPDX-License-Identifier: Apache-2.0
//
// onebit: the sign of every element and one magnitude a block.
//
// Payload, for each block of `block` elements (the last may be short):
//   scale   one value of the tensor's type: mean |v| (scale=l1) or sqrt(mean v^2) (scale=rms) of the block
//   bits    a bit an element, element 8k + j in bit j of byte k; 1 means -scale. Padding bits are zero.
//
// 1-bit SGD (Seide et al., Interspeech 2014) with the l1 scale of signSGD with error feedback (Karimireddy et
// al., ICML 2019): the scale that minimises the squared error, a contraction. rms is DeepSpeed's choice and
// is not.
#include "codec/onebit.hpp"

#include <string>

#include "codec/device_codec.hpp"
#include "codec/internals.hpp"
#include "codec/onebit_deepspeed.hpp"
#include "codec/onebit_kernels.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kUnit = 8;  // blocks are multiples of it, so that each begins on a byte
constexpr std::size_t kMaxBlock = std::size_t{1} << 24;
constexpr std::size_t kDefaultBlock = 2048;

class Onebit final : public Codec, private CodecInternals {
 public:
  Onebit(const CodecArguments& arguments, std::size_t block, OnebitScale scale)
      : Codec("onebit", canonical_spec(onebit_entry(), arguments), traits_of(block, scale)),
        block_(block),
        scale_(scale),
        device_(make_device_twin("onebit", OnebitFormat{static_cast<std::uint32_t>(block), scale})) {}

 private:
  static CodecTraits traits_of(std::size_t block, OnebitScale scale) {
    CodecTraits traits;
    traits.contractive = scale == OnebitScale::l1;
    traits.block = block;
    return traits;
  }

  bool do_supports(DType) const noexcept override { return true; }

  std::size_t do_max_bytes(std::size_t count, DType dtype) const override {
    return onebit_bytes(count, block_, dtype);
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    return do_encode_feedback(values, {}, as, 1.0, {}, payload);
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext&,
                                                std::span<std::byte> payload) const override {
    const std::size_t done = onebit_encode(values, residual, as, block_, scale_, factor, payload.data());
    if (done == values.count) return onebit_bytes(done, block_, as);
    if (residual.data != nullptr) {
      undo_run(payload, as, values.slice(0, done), residual.slice(0, done), factor);
    }
    return std::nullopt;
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    if (payload.size() != onebit_bytes(out.count, block_, as) ||
        !onebit_decode(payload.data(), as, out, block_, into, factor)) {
      throw Error(ErrorCode::corrupt_data,
                  "corrupt message for codec " + spec() + ": its payload is not onebit's");
    }
  }

  std::size_t do_run() const noexcept override { return block_; }
  const CodecInternals* do_internals() const noexcept override { return this; }
  const DeviceCodec* device() const noexcept override { return device_.get(); }

  std::size_t block_;
  OnebitScale scale_;
  std::unique_ptr<const DeviceCodec> device_;
};

}  // namespace

CodecEntry onebit_entry() {
  static constexpr const char* kBlocks = "blocks";
  return {.name = "onebit",
          .summary = "sign and one scale a block: 1 bit an element, for use with feedback",
          .options =
              {{"block", std::to_string(kDefaultBlock),
                "elements that share a scale, a multiple of 8; best one of 64"},
               {"scale", "l1", "l1 (mean |v|, sound with feedback) or rms (sqrt(mean v^2), for comparison)"},
               {"arithmetic", kBlocks,
                "blocks, or deepspeed: one rms scale for a whole f32 tensor, by the algorithm of that name, "
                "to compare with; it has no other option",
                true}},
          .examples = {"onebit", "onebit:block=64", "onebit:block=24", "onebit:block=8192",
                       "onebit:scale=rms", "onebit:deepspeed"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            if (choice_argument(onebit_entry(), arguments, "arithmetic", {kBlocks, "deepspeed"}) == 1) {
              for (const CodecOption& option : onebit_entry().options) {
                if (option.positional || arguments[option.name] == option.default_value) continue;
                throw Error(ErrorCode::invalid_argument,
                            "codec onebit: deepspeed has no option " + option.name + ": leave it out");
              }
              return make_onebit_deepspeed();
            }
            const std::size_t block = count_argument(onebit_entry(), arguments, "block", kUnit, kMaxBlock);
            if (block % kUnit != 0) {
              throw Error(ErrorCode::invalid_argument,
                          "codec onebit: block=" + std::to_string(block) + " is not a multiple of 8");
            }
            arguments["block"] = std::to_string(block);  // one way to write it
            const std::size_t scale = choice_argument(onebit_entry(), arguments, "scale", {"l1", "rms"});
            return std::make_shared<Onebit>(arguments, block,
                                            scale == 0 ? OnebitScale::l1 : OnebitScale::rms);
          }};
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// cast: f32 elements rounded to a 16-bit type.
//
// Payload: the elements as f16 or bf16, rounded to nearest even. A value that rounds to infinity is beyond
// the range.
#include "codec/cast.hpp"

#include "codec/device_codec.hpp"
#include "codec/elements.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

class Cast final : public Codec {
 public:
  Cast(const CodecArguments& arguments, DType to)
      : Codec("cast", canonical_spec(cast_entry(), arguments), traits_of(to)),
        to_(to),
        device_(make_device_cast(to)) {}

 private:
  static CodecTraits traits_of(DType to) {
    CodecTraits traits;
    traits.contractive = true;
    traits.error_bound = to == DType::f16 ? 0x1p-11 : 0x1p-8;
    return traits;
  }

  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return count * size_of(to_); }

  std::optional<std::size_t> do_encode(ConstView values, DType, const Occasion&,
                                       std::span<std::byte> payload) const override {
    if (!round_to(values, {payload.data(), values.count, to_})) return std::nullopt;
    return values.count * size_of(to_);
  }

  void do_decode(std::span<const std::byte> payload, DType, View out, Into into,
                 double factor) const override {
    if (payload.size() != out.count * size_of(to_)) {
      throw Error(ErrorCode::corrupt_data, "corrupt message for codec " + spec() + ": its payload is " +
                                               std::to_string(payload.size()) + " bytes where " +
                                               std::to_string(out.count * size_of(to_)) + " are due");
    }
    convert({payload.data(), out.count, to_}, out, into, factor);
  }

  std::size_t do_run() const noexcept override { return 1; }
  const DeviceCodec* do_device() const noexcept override { return device_.get(); }

  DType to_;
  std::unique_ptr<const DeviceCodec> device_;
};

}  // namespace

CodecEntry cast_entry() {
  return {.name = "cast",
          .summary = "f32 rounded to 16 bits: half the bytes, errors below 0.05 % (f16) or 0.4 % (bf16)",
          .options = {{"to", "", "f16 or bf16", true}},
          .examples = {"cast:f16", "cast:bf16"},
          .make = [](const CodecArguments& arguments) -> std::shared_ptr<const Codec> {
            const std::size_t to = choice_argument(cast_entry(), arguments, "to", {"f16", "bf16"});
            return std::make_shared<Cast>(arguments, to == 0 ? DType::f16 : DType::bf16);
          }};
}

}  // namespace terse::inline v0_1

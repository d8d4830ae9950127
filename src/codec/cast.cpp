// SPDX-License-Identifier: Apache-2.0
//
// cast: elements rounded to a narrower type.
//
// Payload: the elements as f16 or bf16 (of f32 tensors), or as one of the 8-bit types of OFP8 (Open Compute
// Project, 2023; Micikevicius et al., "FP8 formats for deep learning", 2022), rounded to nearest even. A
// value that rounds to more than the type's largest is beyond the range.
#include "codec/cast.hpp"

#include <array>
#include <memory>

#include "codec/cast_kernels.hpp"
#include "codec/device_codec.hpp"
#include "codec/internals.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

class Cast final : public Codec, private CodecInternals {
 public:
  Cast(const CodecArguments& arguments, CastType to)
      : Codec("cast", canonical_spec(cast_entry(), arguments), traits_of(to)), to_(to) {
    if (to == CastType::f16) device_ = make_device_twin("cast", DType::f16);
    if (to == CastType::bf16) device_ = make_device_twin("cast", DType::bf16);
  }

 private:
  static CodecTraits traits_of(CastType to) {
    constexpr std::array kErrors = {0x1p-11, 0x1p-8, 0x1p-4, 0x1p-3};
    CodecTraits traits;
    traits.contractive = true;
    traits.error_bound = kErrors[static_cast<std::size_t>(to)];
    return traits;
  }

  bool do_supports(DType dtype) const noexcept override {
    return dtype == DType::f32 || (size_of(to_) == 1 && size_of(dtype) == 2);
  }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return count * size_of(to_); }

  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    if (cast_encode(values, {}, to_, payload.data()) != values.count) return std::nullopt;
    return values.count * size_of(to_);
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override {
    // what receivers hold is rounded once more, or multiplied
    if (factor != 1.0 || values.dtype != as) {
      return encode_runs(values, residual, as, factor, context, payload);
    }
    const std::size_t done = cast_encode(values, residual, to_, payload.data());
    if (done == values.count) return done * size_of(to_);
    undo_run(payload.first(done * size_of(to_)), as, values.slice(0, done), residual.slice(0, done), factor);
    return std::nullopt;
  }

  void do_decode(std::span<const std::byte> payload, DType, View out, Into into,
                 double factor) const override {
    if (payload.size() != out.count * size_of(to_)) {
      throw Error(ErrorCode::corrupt_data, "corrupt message for codec " + spec() + ": its payload is " +
                                               std::to_string(payload.size()) + " bytes where " +
                                               std::to_string(out.count * size_of(to_)) + " are due");
    }
    if (!cast_decode(payload.data(), to_, out, into, factor)) {
      throw Error(ErrorCode::corrupt_data,
                  "corrupt message for codec " + spec() + ": it holds what is not a finite number");
    }
  }

  std::size_t do_run() const noexcept override { return 1; }
  const CodecInternals* do_internals() const noexcept override { return this; }
  const DeviceCodec* device() const noexcept override { return device_.get(); }

  CastType to_;
  std::unique_ptr<const DeviceCodec> device_;
};

}  // namespace

CodecEntry cast_entry() {
  return {.name = "cast",
          .summary = "rounded to 16 bits (errors below 0.05 % with f16, 0.4 % with bf16) or to 8",
          .options = {{"to", "", "f16 or bf16, of f32 tensors; f8e4m3 (up to 448) or f8e5m2 (up to 57344)",
                       true}},
          .examples = {"cast:f16", "cast:bf16", "cast:f8e4m3", "cast:f8e5m2"},
          .make = [](const CodecArguments& arguments) -> std::shared_ptr<const Codec> {
            const std::size_t to =
                choice_argument(cast_entry(), arguments, "to", {"f16", "bf16", "f8e4m3", "f8e5m2"});
            return std::make_shared<Cast>(arguments, static_cast<CastType>(to));
          }};
}

}  // namespace terse::inline v0_1

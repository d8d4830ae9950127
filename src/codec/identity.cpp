// SPDX-License-Identifier: Apache-2.0
//
// identity: the elements as they are.
//
// Payload: the elements in the tensor's type. Values that are not finite are sent like any other.
#include "codec/identity.hpp"

#include "codec/device_codec.hpp"
#include "codec/elements.hpp"
#include "codec/internals.hpp"

namespace terse::inline v0_1 {
namespace {

class Identity final : public Codec, private CodecInternals {
 public:
  Identity() : Codec("identity", "identity", traits_of()) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.lossless = true;
    traits.unbiased = true;
    traits.contractive = true;
    traits.error_bound = 0.0;
    return traits;
  }

  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override { return count * size_of(dtype); }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    convert(values, {payload.data(), values.count, as}, Into::overwrite, 1.0);
    return values.count * size_of(as);
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    if (payload.size() != out.count * size_of(as)) {
      throw Error(ErrorCode::corrupt_data, "corrupt message for codec identity: its payload is " +
                                               std::to_string(payload.size()) + " bytes where " +
                                               std::to_string(out.count * size_of(as)) + " are due");
    }
    convert({payload.data(), out.count, as}, out, into, factor);
  }

  std::size_t do_run() const noexcept override { return 1; }
  const CodecInternals* do_internals() const noexcept override { return this; }
  const DeviceCodec* device() const noexcept override { return device_.get(); }

  std::unique_ptr<const DeviceCodec> device_ = make_device_codec("identity", {});
};

}  // namespace

CodecEntry identity_entry() {
  return {.name = "identity",
          .summary = "the elements as they are: nothing is lost",
          .options = {},
          .examples = {"identity"},
          .make = [](const CodecArguments&) -> std::shared_ptr<const Codec> {
            return std::make_shared<Identity>();
          }};
}

}  // namespace terse::inline v0_1

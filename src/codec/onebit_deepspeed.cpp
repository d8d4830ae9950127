// SPDX-License-Identifier: Apache-2.0
//
// onebit:deepspeed: what the 1-bit compression of DeepSpeed's optimizers does to a tensor: the sign of every
// element and one scale for all of them, sqrt(mean v^2).
//
// Payload: the scale (f32), then a bit an element, element 8k + j in bit 7 - j of byte k; 1 means +scale.
// Padding bits are 1.
//
// The scale keeps the norm and is no contraction: residuals need not stay bounded. It is here to compare
// with, and to go on from.
#include "codec/onebit_deepspeed.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "codec/internals.hpp"
#include "codec/onebit_kernels.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kUnit = 8;  // a part begins on a byte
constexpr std::size_t kScaleBytes = sizeof(float);
constexpr std::size_t kDecodeRun = 32768;  // elements, a multiple of kUnit

// Between onebit's order of bits, in which 1 is negative, and DeepSpeed's: there and back alike.
void turn_bits(const std::byte* from, std::byte* to, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    auto b = ~std::to_integer<unsigned>(from[i]);
    b = (b & 0xF0u) >> 4 | (b & 0x0Fu) << 4;
    b = (b & 0xCCu) >> 2 | (b & 0x33u) << 2;
    b = (b & 0xAAu) >> 1 | (b & 0x55u) << 1;
    to[i] = static_cast<std::byte>(b);
  }
}

// All elements are one block of onebit's.
std::size_t block_of(std::size_t count) { return (count + kUnit - 1) / kUnit * kUnit; }
std::size_t payload_bytes(std::size_t count) { return onebit_bytes(count, block_of(count), DType::f32); }

class OnebitDeepspeed final : public Codec, private CodecInternals {
 public:
  OnebitDeepspeed() : Codec("onebit", std::string(kDeepspeedSpec), traits_of()) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.whole_tensor = true;
    traits.splittable = true;
    traits.block = kUnit;
    return traits;
  }

  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return payload_bytes(count); }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    return do_encode_feedback(values, {}, as, 1.0, {}, payload);
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext&,
                                                std::span<std::byte> payload) const override {
    const std::size_t done =
        onebit_encode(values, residual, as, block_of(values.count), OnebitScale::rms, factor, payload.data());
    if (done != values.count) return std::nullopt;  // nothing was done
    std::byte* bits = payload.data() + kScaleBytes;
    turn_bits(bits, bits, payload_bytes(done) - kScaleBytes);
    return payload_bytes(done);
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    // a run at a time, as a message of onebit's
    std::array<std::byte, kScaleBytes + kDecodeRun / kUnit> run;
    bool sound = payload.size() == payload_bytes(out.count);
    for (std::size_t begin = 0; sound && begin < out.count; begin += kDecodeRun) {
      const std::size_t n = std::min(kDecodeRun, out.count - begin);
      std::memcpy(run.data(), payload.data(), kScaleBytes);
      turn_bits(payload.data() + kScaleBytes + begin / kUnit, run.data() + kScaleBytes,
                (n + kUnit - 1) / kUnit);
      sound = onebit_decode(run.data(), as, out.slice(begin, n), block_of(n), into, factor);
    }
    if (!sound) {
      throw Error(ErrorCode::corrupt_data,
                  "corrupt message for codec " + spec() + ": its payload is not onebit:deepspeed's");
    }
  }

  const CodecInternals* do_internals() const noexcept override { return this; }

  std::size_t split(std::span<const std::byte> payload, DType, std::size_t first, std::size_t n,
                    std::span<std::byte> out) const override {
    const std::size_t bytes = payload_bytes(n);
    const std::size_t begin = kScaleBytes + first / kUnit;
    if (payload.size() < begin || payload.size() - begin < bytes - kScaleBytes) {
      throw Error(ErrorCode::corrupt_data, "corrupt message for codec " + spec() + ": it is cut short");
    }
    std::memcpy(out.data(), payload.data(), kScaleBytes);
    std::memcpy(out.data() + kScaleBytes, payload.data() + begin, bytes - kScaleBytes);
    if (const std::size_t used = n % kUnit; used != 0) {
      out[bytes - 1] |= static_cast<std::byte>(0xFFu >> used);  // what follows the part is padding in it
    }
    return bytes;
  }
};

}  // namespace

std::shared_ptr<const Codec> make_onebit_deepspeed() { return std::make_shared<OnebitDeepspeed>(); }

}  // namespace terse::inline v0_1

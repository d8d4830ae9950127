// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <terse/codec.hpp>
#include <vector>

#include "support/tensor.hpp"

namespace terse::test {

enum class Size { fixed, variable };
inline constexpr std::size_t kWhole = std::numeric_limits<std::size_t>::max();
inline constexpr double kStep = 0x1p-4;
inline constexpr double kLimit = 100;  // beyond: not representable

/// Rounds to sixteenths. Fixed: two bytes an element. Variable: a count, then one byte for small numbers and
/// three for others, so that payloads one behind the other are not the payload of the whole.
class Sixteenths final : public Codec {
 public:
  Sixteenths(Size size, std::size_t run)
      : Codec("sixteenths", "sixteenths", traits_of(size)), size_(size), run_(run) {}

  mutable std::size_t encodes = 0;

 private:
  static CodecTraits traits_of(Size size) {
    CodecTraits traits;
    traits.fixed_size = size == Size::fixed;
    traits.block = 4;
    return traits;
  }
  bool do_supports(DType dtype) const noexcept override { return dtype != DType::bf16; }
  std::size_t do_max_bytes(std::size_t count, DType) const override {
    return size_ == Size::fixed ? 2 * count : 8 + 3 * count;
  }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    ++encodes;
    std::size_t at = 0;
    const std::uint64_t count = values.count;
    if (size_ == Size::variable) {
      std::memcpy(payload.data(), &count, 8);
      at = 8;
    }
    for (const double v : doubles_of(values)) {
      if (!(std::abs(v) <= kLimit)) return std::nullopt;
      const auto n = static_cast<std::int16_t>(std::nearbyint(v / kStep));
      if (size_ == Size::variable && std::abs(n) < 127) {
        payload[at++] = std::byte{static_cast<std::uint8_t>(n + 127)};
        continue;
      }
      if (size_ == Size::variable) payload[at++] = std::byte{255};
      std::memcpy(payload.data() + at, &n, 2);
      at += 2;
    }
    return at;
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into into,
                 double factor) const override {
    const auto check = [](bool good) {
      if (!good) throw Error(ErrorCode::corrupt_data, "sixteenths: corrupt payload");
    };
    std::size_t at = 0;
    if (size_ == Size::variable) {
      std::uint64_t count = 0;
      check(payload.size() >= 8);
      std::memcpy(&count, payload.data(), 8);
      check(count == out.count);
      at = 8;
    }
    std::vector<double> values = doubles_of(out);
    for (double& v : values) {
      std::int16_t n = 0;
      check(at < payload.size());
      if (size_ == Size::variable && payload[at] != std::byte{255}) {
        n = static_cast<std::int16_t>(std::to_integer<int>(payload[at++]) - 127);
      } else {
        at += size_ == Size::variable;
        check(at + 2 <= payload.size());
        std::memcpy(&n, payload.data() + at, 2);
        at += 2;
      }
      v = (into == Into::add ? v : 0) + n * kStep * factor;
    }
    check(at == payload.size());
    const Tensor result(values, out.dtype);
    if (out.count != 0) std::memcpy(out.data, result.bytes().data(), out.bytes());
  }
  std::size_t do_run() const noexcept override { return run_; }

  Size size_;
  std::size_t run_;
};

}  // namespace terse::test

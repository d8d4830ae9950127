// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

/// What a codec that is made of another one may ask of that: the functions that do the work, without headers.
struct Inner {
  const Codec& codec;

  std::size_t max_bytes(std::size_t count, DType as) const {
    return count == 0 ? 0 : codec.do_max_bytes(count, as);
  }
  /// One element at least.
  std::optional<std::size_t> encode(ConstView values, DType as, const Occasion& occasion,
                                    std::span<std::byte> payload) const {
    return codec.do_encode(values, as, occasion, payload);
  }
  std::optional<std::size_t> encode_feedback(ConstView values, View residual, DType as, double factor,
                                             const Occasion& occasion, std::span<std::byte> payload) const {
    return codec.do_encode_feedback(values, residual, as, factor, occasion, payload);
  }
  void decode(std::span<const std::byte> payload, DType as, View out, Into into, double factor) const {
    codec.do_decode(payload, as, out, into, factor);
  }
  std::size_t run() const noexcept { return codec.do_run(); }
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// How a block's scale comes from its values: mean |v|, or sqrt(mean v^2).
enum class OnebitScale : std::uint8_t { l1, rms };

struct OnebitFormat {
  std::uint32_t block = 0;  ///< elements
  OnebitScale scale = OnebitScale::l1;
};

/// Bytes of `count` elements: per block one scale of type `as` and a bit an element, rounded up to bytes.
constexpr std::size_t onebit_bytes(std::size_t count, std::size_t block, DType as) noexcept {
  const std::size_t rest = count % block;
  return count / block * (size_of(as) + block / 8) + (rest == 0 ? 0 : size_of(as) + (rest + 7) / 8);
}

/// Encodes values (plus residual, unless its data is null) and updates the residual, block by block, up to
/// the first block whose scale, or scale times factor, is not finite; that block's residual and all that
/// follow are left as they are. Returns the elements done: values.count if all went well. `block` is a
/// multiple of 8; `factor`, and the types of a residual, are as in Codec::encode.
std::size_t onebit_encode(ConstView values, View residual, DType as, std::size_t block, OnebitScale scale,
                          double factor, std::byte* out);

/// Decodes onebit_bytes(out.count, block, as) bytes. Returns false where a scale is negative or not finite,
/// or a padding bit is set; `out` is then partly written.
bool onebit_decode(const std::byte* in, DType as, View out, std::size_t block, Into into, double factor);

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// What elements are rounded to. The 8-bit types are those of the Open Compute Project's OFP8: e4m3 has
/// values up to 448 and no infinity, e5m2 up to 57344.
enum class CastType : std::uint8_t { f16, bf16, f8e4m3, f8e5m2 };

constexpr std::size_t size_of(CastType type) noexcept {
  return type == CastType::f16 || type == CastType::bf16 ? 2 : 1;
}

/// Rounds values (plus residuals, unless those are null) to nearest even into `out`, and leaves what that
/// leaves out in the residuals. Values are f32, f16 or bf16, residuals f32 or bf16. Returns the elements
/// before a thousand or so with one that is not finite or beyond the type's range; residuals are as they were
/// from there on. All: values.count.
std::size_t cast_encode(ConstView values, View residual, CastType to, std::byte* out);

/// Into `out`, of f32, f16 or bf16, times `factor`. False where an encoder never writes that.
bool cast_decode(const std::byte* in, CastType from, View out, Into into, double factor);

}  // namespace terse::inline v0_1

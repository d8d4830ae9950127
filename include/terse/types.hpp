// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>
#include <string_view>
#include <terse/version.hpp>
#include <type_traits>

namespace terse::inline v0_1 {

/// IEEE binary16 in memory: 1 sign, 5 exponent, 10 fraction bits. Conversion from float rounds to nearest
/// even.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  explicit constexpr float16(float value) noexcept;
  explicit constexpr operator float() const noexcept;
  static constexpr float16 from_bits(std::uint16_t b) noexcept {
    float16 h;
    h.bits = b;
    return h;
  }
};

/// The upper half of an IEEE binary32: 1 sign, 8 exponent, 7 fraction bits. Conversion from float rounds to
/// nearest even.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  explicit constexpr bfloat16(float value) noexcept;
  explicit constexpr operator float() const noexcept;
  static constexpr bfloat16 from_bits(std::uint16_t b) noexcept {
    bfloat16 h;
    h.bits = b;
    return h;
  }
};

/// Element types.
enum class DType : std::uint8_t { f32, f64, f16, bf16 };
/// Where memory lies: on the host, pinned or not, or on a CUDA device. A build without CUDA refuses
/// Memory::cuda by name.
enum class Memory : std::uint8_t { host, cuda };
/// What a reduction computes: the sum over all ranks, or the sum divided by the number of ranks. Compressed
/// sums and averages of 16-bit types are formed in f32; an exact call adds them up as MPI would, each sum
/// rounded to the type, and divides at the end: so an f16 average whose sum is beyond 65504 is infinite
/// there.
enum class Op : std::uint8_t { sum, average };
/// How residuals are kept: `full` in the accumulator's type; `bf16` in half the memory of f32, and with less
/// memory traffic, but with an error of their own: see docs/algorithms.md. Not for f64.
enum class ResidualType : std::uint8_t { full, bf16 };
/// What decoding does with what is in its output already. `stream` overwrites too, past the caches where that
/// is faster: for an output larger than they are.
enum class Into : std::uint8_t { overwrite, add, stream };

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) noexcept {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}
/// The type in which sums of `dtype` are kept, and residuals unless they are bf16: f64 for f64, f32 for all
/// others.
constexpr DType accumulator_of(DType dtype) noexcept { return dtype == DType::f64 ? DType::f64 : DType::f32; }
/// The type in which residuals of `dtype` are kept; there is no bf16 for those of f64.
constexpr DType residual_of(DType dtype, ResidualType type) noexcept {
  return type == ResidualType::bf16 && accumulator_of(dtype) == DType::f32 ? DType::bf16
                                                                           : accumulator_of(dtype);
}
/// The type of residuals for a tensor of `dtype` where `wanted` is asked for: full where there is no bf16.
constexpr ResidualType residual_type_for(DType dtype, ResidualType wanted) noexcept {
  return residual_of(dtype, wanted) == accumulator_of(dtype) ? ResidualType::full : wanted;
}
/// "f32", "f64", "f16", "bf16".
TERSE_API std::string_view name(DType dtype) noexcept;
/// "sum", "average".
TERSE_API std::string_view name(Op op) noexcept;
/// "full", "bf16".
TERSE_API std::string_view name(ResidualType type) noexcept;
/// Memory::cuda where the CUDA driver, if the program has loaded it, says that only a device can follow the
/// pointer; managed memory, which host and device share, is host here.
TERSE_API Memory memory_of(const void* pointer) noexcept;
/// Whether this build serves Memory::cuda. The machine may have no device all the same.
TERSE_API bool has_cuda() noexcept;
/// The inverse of name(DType); throws Error(invalid_argument) that lists the names.
TERSE_API DType dtype_from(std::string_view text);

template <class T>
inline constexpr bool is_element_v = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                                     std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;
/// The DType of a C++ element type.
template <class T>
requires is_element_v<T>
inline constexpr DType dtype_of = std::is_same_v<T, float>     ? DType::f32
                                  : std::is_same_v<T, double>  ? DType::f64
                                  : std::is_same_v<T, float16> ? DType::f16
                                                               : DType::bf16;

/// Typed memory somewhere that may be written: `count` elements at `data`. Does not own it. What the driver
/// says of a pointer outweighs `memory` in calls of a Communicator.
struct View {
  void* data = nullptr;
  std::size_t count = 0;
  DType dtype = DType::f32;
  Memory memory = Memory::host;

  bool empty() const noexcept { return count == 0; }
  std::size_t bytes() const noexcept { return count * size_of(dtype); }
  /// Elements [offset, offset + n); the caller keeps offset + n <= count.
  View slice(std::size_t offset, std::size_t n) const noexcept {
    return {static_cast<std::byte*>(data) + offset * size_of(dtype), n, dtype, memory};
  }
  /// The elements as T; the caller knows that dtype is T's.
  template <class T>
  std::span<T> as() const noexcept {
    return {static_cast<T*>(data), count};
  }
};

/// Typed memory somewhere that is only read.
struct ConstView {
  const void* data = nullptr;
  std::size_t count = 0;
  DType dtype = DType::f32;
  Memory memory = Memory::host;

  ConstView() = default;
  ConstView(const void* d, std::size_t n, DType t, Memory m = Memory::host) noexcept
      : data(d), count(n), dtype(t), memory(m) {}
  ConstView(const View& v) noexcept : data(v.data), count(v.count), dtype(v.dtype), memory(v.memory) {}

  bool empty() const noexcept { return count == 0; }
  std::size_t bytes() const noexcept { return count * size_of(dtype); }
  ConstView slice(std::size_t offset, std::size_t n) const noexcept {
    return {static_cast<const std::byte*>(data) + offset * size_of(dtype), n, dtype, memory};
  }
  template <class T>
  std::span<const T> as() const noexcept {
    return {static_cast<const T*>(data), count};
  }
};

/// A view of anything contiguous whose elements are float, double, float16 or bfloat16: a std::vector,
/// std::array, std::span, ... A ConstView where the elements are const.
template <std::ranges::contiguous_range R>
requires is_element_v<std::ranges::range_value_t<R>>
auto view(R&& range) noexcept {
  using Element = std::remove_reference_t<std::ranges::range_reference_t<R>>;
  constexpr DType dtype = dtype_of<std::remove_const_t<Element>>;
  if constexpr (std::is_const_v<Element>) {
    return ConstView{std::ranges::data(range), std::ranges::size(range), dtype};
  } else {
    return View{std::ranges::data(range), std::ranges::size(range), dtype};
  }
}

// --- conversions
// ----------------------------------------------------------------------------------------------

constexpr float16::float16(float value) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    bits = static_cast<std::uint16_t>(sign | 0x7e00u);  // NaN, quiet
  } else if (magnitude >= 0x47800000u) {
    bits = static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and above, infinity
  } else if (magnitude < 0x38800000u) {
    // below 2^-14: subnormal. Adding 0.5 lines the last place of binary16 up with that of binary32 at 0.5.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  } else {
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    bits = static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
}

constexpr float16::operator float() const noexcept {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31u;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr bfloat16::bfloat16(float value) noexcept {
  const auto u = std::bit_cast<std::uint32_t>(value);
  bits = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u
                                                                    : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

constexpr bfloat16::operator float() const noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace terse::inline v0_1

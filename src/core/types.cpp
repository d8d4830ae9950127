// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <string>
#include <terse/error.hpp>
#include <terse/types.hpp>

namespace terse::inline v0_1 {
namespace {

constexpr std::array<std::string_view, 4> kDTypes = {"f32", "f64", "f16", "bf16"};

}  // namespace

std::string_view name(DType dtype) noexcept { return kDTypes[static_cast<std::size_t>(dtype)]; }

std::string_view name(ResidualType type) noexcept { return type == ResidualType::full ? "full" : "bf16"; }

std::string_view name(Op op) noexcept { return op == Op::sum ? "sum" : "average"; }

DType dtype_from(std::string_view text) {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (kDTypes[i] == text) return static_cast<DType>(i);
  }
  throw Error(ErrorCode::invalid_argument,
              "unknown dtype '" + std::string(text) + "': use f32, f64, f16 or bf16");
}

std::string_view name(ErrorCode code) noexcept {
  constexpr std::array<std::string_view, 9> kNames = {"invalid_argument", "unsupported",   "mismatch",
                                                      "corrupt_data",     "non_finite",    "out_of_memory",
                                                      "communication",    "invalid_state", "device"};
  return kNames[static_cast<std::size_t>(code)];
}

const char* version() noexcept {
#define TERSE_TEXT_OF(x) #x
#define TERSE_TEXT(x) TERSE_TEXT_OF(x)
  return TERSE_TEXT(TERSE_VERSION_MAJOR) "." TERSE_TEXT(TERSE_VERSION_MINOR) "." TERSE_TEXT(
      TERSE_VERSION_PATCH);
#undef TERSE_TEXT
#undef TERSE_TEXT_OF
}

}  // namespace terse::inline v0_1

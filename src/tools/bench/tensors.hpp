// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <terse/types.hpp>
#include <type_traits>

namespace terse::bench {

/// Host memory for elements: zeroed, so that every page is there before anything is timed, and aligned for
/// any SIMD.
class Tensor {
 public:
  Tensor() = default;
  /// Errors: std::bad_alloc.
  Tensor(std::size_t count, DType dtype);

  View view() const noexcept { return {memory_.get(), count_, dtype_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t count_ = 0;
  DType dtype_ = DType::f32;
};

/// Calls `f(std::type_identity<T>{})` with the C++ type of `dtype`.
template <class F>
decltype(auto) with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(std::type_identity<double>{});
    case DType::f16:
      return f(std::type_identity<float16>{});
    case DType::bf16:
      return f(std::type_identity<bfloat16>{});
    case DType::f32:
      break;
  }
  return f(std::type_identity<float>{});
}

/// An element as a double, and back.
template <class T>
double to_double(T element) noexcept {
  if constexpr (std::is_same_v<T, double>) {
    return element;
  } else {
    return static_cast<double>(static_cast<float>(element));
  }
}
template <class T>
T from_double(double value) noexcept {
  if constexpr (std::is_same_v<T, double>) {
    return value;
  } else {
    return T(static_cast<float>(value));
  }
}

/// What values are drawn from: student_t, with 3 degrees of freedom, has heavy tails.
enum class Distribution : std::uint8_t { normal, student_t };

/// Values like a rank's gradient: each the sum of two of this distribution, with a standard deviation of 0.01
/// in all, where one, half of the variance, is the same on all ranks. Element i depends on i and the rank
/// only.
void fill_gradient(View out, int rank, Distribution distribution = Distribution::normal);

/// The elements in a file, which holds nothing else, as they lie in memory. Errors: std::runtime_error, a
/// sentence that names the file, where there are none, or one that is not finite.
Tensor read_elements(const std::string& path, DType dtype);

/// Fills `out` with the elements of `from`, of the same type, again and again.
void fill_repeated(View out, ConstView from);

/// Element i of a stream of values that are spread evenly over [0, 1).
double uniform(std::uint64_t stream, std::size_t i) noexcept;

/// A hash of all bits.
std::uint64_t hash_of(ConstView values) noexcept;

}  // namespace terse::bench

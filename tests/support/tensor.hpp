// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/types.hpp>
#include <vector>

namespace terse::test {

/// Elements of any dtype that tests fill and read as double, between two guards that must stay as they are.
class Tensor {
 public:
  Tensor() = default;
  /// `offset` moves the elements off their natural boundary of 64 bytes, in elements.
  Tensor(std::size_t count, DType dtype, std::size_t offset = 0);
  Tensor(std::span<const double> values, DType dtype, std::size_t offset = 0);

  std::size_t count() const noexcept { return count_; }
  DType dtype() const noexcept { return dtype_; }
  View view() noexcept { return {data(), count_, dtype_}; }
  ConstView view() const noexcept { return {data(), count_, dtype_}; }
  std::span<const std::byte> bytes() const noexcept { return {data(), count_ * size_of(dtype_)}; }

  double operator[](std::size_t i) const;
  /// Rounds to the dtype.
  void set(std::size_t i, double value);
  std::vector<double> doubles() const;
  /// Whether the elements are the same, bit for bit.
  bool same_bits(const Tensor& other) const;
  /// Whether nothing was written beside the elements.
  bool guards_intact() const;

 private:
  static constexpr std::size_t kGuard = 64;

  std::byte* data() noexcept { return storage_.data() + start_; }
  const std::byte* data() const noexcept { return storage_.data() + start_; }

  std::size_t count_ = 0;
  DType dtype_ = DType::f32;
  std::size_t start_ = 0;
  std::vector<std::byte> storage_;
};

/// `value` rounded to the dtype.
double round_to(double value, DType dtype);
/// Half the distance from 1 to the next value: the relative error of rounding.
double unit_roundoff(DType dtype);
/// The elements behind a view, as double.
std::vector<double> doubles_of(ConstView values);

inline constexpr DType kAllDTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16};

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#include "support/tensor.hpp"

#include <algorithm>
#include <cstring>

namespace terse::test {
namespace {

constexpr std::byte kGuardByte{0xA5};

double load(const std::byte* at, DType dtype) {
  switch (dtype) {
    case DType::f64: {
      double v;
      std::memcpy(&v, at, sizeof v);
      return v;
    }
    case DType::f32: {
      float v;
      std::memcpy(&v, at, sizeof v);
      return v;
    }
    case DType::f16: {
      float16 v;
      std::memcpy(&v, at, sizeof v);
      return static_cast<float>(v);
    }
    case DType::bf16: {
      bfloat16 v;
      std::memcpy(&v, at, sizeof v);
      return static_cast<float>(v);
    }
  }
  return 0;
}

void store(std::byte* at, DType dtype, double value) {
  const auto narrow = static_cast<float>(value);
  const float16 half(narrow);
  const bfloat16 brain(narrow);
  switch (dtype) {
    case DType::f64:
      std::memcpy(at, &value, sizeof value);
      break;
    case DType::f32:
      std::memcpy(at, &narrow, sizeof narrow);
      break;
    case DType::f16:
      std::memcpy(at, &half, sizeof half);
      break;
    case DType::bf16:
      std::memcpy(at, &brain, sizeof brain);
      break;
  }
}

}  // namespace

Tensor::Tensor(std::size_t count, DType dtype, std::size_t offset) : count_(count), dtype_(dtype) {
  storage_.assign(2 * kGuard + (count + offset) * size_of(dtype) + 64, kGuardByte);
  const auto base = reinterpret_cast<std::uintptr_t>(storage_.data()) + kGuard;
  start_ = kGuard + (64 - base % 64) % 64 + offset * size_of(dtype);
  std::fill_n(data(), count * size_of(dtype), std::byte{0});
}

Tensor::Tensor(std::span<const double> values, DType dtype, std::size_t offset)
    : Tensor(values.size(), dtype, offset) {
  for (std::size_t i = 0; i < values.size(); ++i) set(i, values[i]);
}

double Tensor::operator[](std::size_t i) const { return load(data() + i * size_of(dtype_), dtype_); }

void Tensor::set(std::size_t i, double value) { store(data() + i * size_of(dtype_), dtype_, value); }

std::vector<double> Tensor::doubles() const { return doubles_of(view()); }

bool Tensor::same_bits(const Tensor& other) const {
  return dtype_ == other.dtype_ && std::ranges::equal(bytes(), other.bytes());
}

bool Tensor::guards_intact() const {
  const auto intact = [](std::byte b) { return b == kGuardByte; };
  const auto end = storage_.begin() + static_cast<std::ptrdiff_t>(start_ + count_ * size_of(dtype_));
  return std::all_of(storage_.begin(), storage_.begin() + static_cast<std::ptrdiff_t>(start_), intact) &&
         std::all_of(end, storage_.end(), intact);
}

double round_to(double value, DType dtype) {
  std::byte at[8];
  store(at, dtype, value);
  return load(at, dtype);
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-53;
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    case DType::bf16:
      return 0x1p-8;
  }
  return 0;
}

std::vector<double> doubles_of(ConstView values) {
  std::vector<double> result(values.count);
  const auto* at = static_cast<const std::byte*>(values.data);
  for (std::size_t i = 0; i < values.count; ++i)
    result[i] = load(at + i * size_of(values.dtype), values.dtype);
  return result;
}

}  // namespace terse::test

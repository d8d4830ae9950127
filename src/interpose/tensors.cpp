// SPDX-License-Identifier: Apache-2.0
#include "interpose/tensors.hpp"

#include <algorithm>
#include <iterator>

namespace terse::interpose {
namespace {

template <class A, class T>
double squares_of(ConstView values) {
  double sum = 0;
  for (const T value : values.as<T>()) {
    const auto wide = static_cast<A>(value);
    sum += static_cast<double>(wide) * static_cast<double>(wide);
  }
  return sum;
}

double squares_of(ConstView values) {
  if (values.dtype == DType::f64) return squares_of<double, double>(values);
  return values.dtype == DType::bf16 ? squares_of<float, bfloat16>(values) : squares_of<float, float>(values);
}

}  // namespace

Tensor* Tensors::find(const TensorKey& key) {
  const auto found = tensors_.find(key);
  if (found == tensors_.end()) return nullptr;
  found->second.used = ++uses_;
  return &found->second;
}

Tensor* Tensors::make(const TensorKey& key, std::size_t bytes, std::size_t cap, ResidualType residual) {
  drop(key);
  if (bytes > cap) return nullptr;
  while (bytes_ > cap - bytes) drop(to_drop());
  Tensor& made = tensors_[key];
  made = {.ordinal = next_++, .bytes = bytes, .used = ++uses_, .feedback = Feedback(residual)};
  by_age_.emplace(made.ordinal, key);
  bytes_ += bytes;
  return &made;
}

TensorKey Tensors::to_drop() const {
  constexpr std::uint64_t kRounds = 4;  // of all tensors, without this one: it will not come again
  const auto longest = std::min_element(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) {
    return a.second.used < b.second.used;
  });
  if (uses_ - longest->second.used > kRounds * tensors_.size()) return longest->first;
  return std::prev(by_age_.end())->second;
}

void Tensors::drop(const TensorKey& key) {
  const auto found = tensors_.find(key);
  if (found == tensors_.end()) return;
  bytes_ -= found->second.bytes;
  by_age_.erase(found->second.ordinal);
  tensors_.erase(found);
}

std::map<std::size_t, double> Tensors::squares() const {
  std::map<std::size_t, double> sums;
  for (const auto& [key, tensor] : tensors_) {
    const Feedback* residuals = &tensor.feedback;
    Feedback on_host;
    if (residuals->worker().memory != Memory::host) {  // of a tensor in managed memory
      on_host.load(residuals->save());
      residuals = &on_host;
    }
    sums[key.rule] += squares_of(residuals->worker()) + squares_of(residuals->server());
  }
  return sums;
}

}  // namespace terse::interpose

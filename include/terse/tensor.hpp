// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <terse/feedback.hpp>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// One tensor of a call: what goes in, where the result goes, and what a lossy codec has left out of it so
/// far. For allreduce `in` and `out` have the same count and dtype, and are disjoint or the same memory.
struct Tensor {
  ConstView in;
  View out;
  Feedback* feedback = nullptr;  ///< this tensor's residuals
  /// A hint for codecs that make use of it, the same on all ranks: the tensor is a matrix of so many rows of
  /// equal length, one behind the other. 0: nothing is said. Not in C, nor of GradientBuckets, yet.
  std::size_t rows = 0;

  Tensor(ConstView from, View to, Feedback* residuals = nullptr) noexcept
      : in(from), out(to), feedback(residuals) {}
  /// In place.
  Tensor(View data, Feedback* residuals = nullptr) noexcept : in(data), out(data), feedback(residuals) {}
};

/// What a collective is given: one tensor, or a list of them, which travels as one message. For parameters
/// only: it holds a list by reference.
///
///   world.allreduce(view(gradient), Op::average);                 // in place
///   world.allreduce({view(gradient), &residual}, Op::average);    // with residuals
///   world.allreduce({view(values), view(sum)}, Op::sum);          // from one buffer into another
///   world.allreduce(list, Op::sum);                               // a std::vector<Tensor>, for instance
class Tensors {
 public:
  Tensors(const Tensor& one) noexcept : one_(one), is_list_(false) {}
  Tensors(View data, Feedback* residuals = nullptr) noexcept : Tensors(Tensor(data, residuals)) {}
  Tensors(ConstView in, View out, Feedback* residuals = nullptr) noexcept
      : Tensors(Tensor(in, out, residuals)) {}
  template <std::ranges::contiguous_range R>
  requires std::same_as<std::ranges::range_value_t<R>, Tensor> Tensors(const R& list)
  noexcept : list_(std::ranges::data(list), std::ranges::size(list)), is_list_(true) {}

  std::span<const Tensor> list() const noexcept { return is_list_ ? list_ : std::span(&one_, 1); }
  /// Whether a list was given, of whatever length.
  bool is_list() const noexcept { return is_list_; }

 private:
  Tensor one_{View{}};
  std::span<const Tensor> list_{};
  bool is_list_;
};

}  // namespace terse::inline v0_1

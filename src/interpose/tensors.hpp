// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <terse/feedback.hpp>
#include <terse/types.hpp>
#include <tuple>

namespace terse::interpose {

/// What tells a tensor from the others of its communicator.
struct TensorKey {
  std::size_t rule = 0;
  DType dtype = DType::f32;
  std::size_t count = 0;
  std::uint64_t which = 0;  ///< an address, or the number of the call in its step
  bool operator<(const TensorKey& other) const noexcept {
    return std::tie(rule, dtype, count, which) < std::tie(other.rule, other.dtype, other.count, other.which);
  }
};

/// What compression has left out of one of the program's tensors. The ordinal says as which of its
/// communicator's it was made; ranks that use one of different ordinals mean different tensors.
struct Tensor {
  std::uint64_t ordinal = 0;
  std::size_t bytes = 0;
  std::uint64_t used = 0;  ///< when: by the count of uses of all of them
  Feedback feedback{};
};

/// The tensors of one communicator that have residuals on this rank. Ranks that make the same calls make and
/// drop the same ones: what decides is the same on all of them.
class Tensors {
 public:
  /// Null if it has none.
  Tensor* find(const TensorKey& key);
  /// A fresh one in the place of any that there is, the next ordinal's. Where `bytes` more would go beyond
  /// `cap`, others make room: those that were not used for long, and then the newest, so that of tensors that
  /// come round in turn most keep theirs. Null where `bytes` alone are more than that.
  Tensor* make(const TensorKey& key, std::size_t bytes, std::size_t cap,
               ResidualType residual = ResidualType::full);

  /// Gives the tensor's residuals up, if it has any. Its ordinal is not used again.
  void drop(const TensorKey& key);

  std::uint64_t next_ordinal() const noexcept { return next_; }
  /// Where ranks have made different numbers of tensors: all go on from the same one.
  void go_on_from(std::uint64_t ordinal) noexcept { next_ = ordinal; }

  /// The sum of all residuals' squares, by rule.
  std::map<std::size_t, double> squares() const;

 private:
  TensorKey to_drop() const;

  std::map<TensorKey, Tensor> tensors_;
  std::map<std::uint64_t, TensorKey> by_age_;  // by ordinal
  std::size_t bytes_ = 0;
  std::uint64_t next_ = 1;
  std::uint64_t uses_ = 0;
};

}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <terse/types.hpp>
#include <vector>

namespace terse::inline v0_1 {

/// A little memory that a thread keeps between calls.
class Scratch {
 public:
  /// `count` elements, not initialised; what was given before is over.
  View view(std::size_t count, DType dtype) {
    const std::size_t words = (count * size_of(dtype) + sizeof(double) - 1) / sizeof(double);
    if (memory_.size() < words) memory_.resize(words);
    return {memory_.data(), count, dtype};
  }

 private:
  std::vector<double> memory_;
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "tensors.hpp"

namespace terse::bench {

/// A way to compute a = b + s * c: plain loops, or stores that go around the caches.
struct TriadKernel {
  std::string_view name;
  void (*run)(float* a, const float* b, const float* c, float s, std::size_t count);
};

/// The kernels that this processor can run; plain ones come first.
std::vector<TriadKernel> triad_kernels();

/// The yardstick of memory traffic (McCalpin, STREAM, 1995): what a loop can move that does next to nothing.
class Triad {
 public:
  static constexpr double kBytesPerElement =
      12;  ///< two read, one written; a plain store's extra read is not counted

  /// Three arrays of at least `array_bytes` each. Errors: std::bad_alloc.
  explicit Triad(std::size_t array_bytes);
  /// Runs a kernel over the arrays; returns GB/s.
  double run(const TriadKernel& kernel) const;
  std::size_t array_bytes() const noexcept { return a_.view().bytes(); }

 private:
  Tensor a_;
  Tensor b_;
  Tensor c_;
};

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// An element-wise maximum of a few numbers over all ranks, by messages: nobody has to be in a collective of
/// MPI's, so that any number may be under way, and end in any order. In round k a rank tells the one 2^k
/// further on the largest that it knows (the dissemination of Hensgen, Finkel and Manber, Int. J. Parallel
/// Programming 17, 1988; a maximum may be counted twice): ceil(log2 P) rounds of one message out and in.
class MaxReduction {
 public:
  static constexpr std::size_t kMost = 4;

  explicit MaxReduction(Transport& transport) : transport_(transport) {}
  /// Left before its end, it takes the transport with it.
  ~MaxReduction();
  MaxReduction(const MaxReduction&) = delete;
  MaxReduction& operator=(const MaxReduction&) = delete;

  /// At most kMost values, as many on every rank.
  void start(std::span<const std::uint64_t> values, int tag);
  /// Collects what the transport has done and goes on.
  void advance();
  bool done() const noexcept { return distance_ == 0; }
  /// When done.
  std::span<const std::uint64_t> values() const noexcept { return {values_.data(), count_}; }
  std::size_t bytes_sent() const noexcept { return bytes_sent_; }

 private:
  void begin_round();
  Transport& transport_;
  int tag_ = 0;
  int distance_ = 0;
  std::size_t count_ = 0;
  std::size_t bytes_sent_ = 0;
  std::array<std::uint64_t, kMost> values_{};
  std::array<std::uint64_t, kMost> out_{};
  std::array<std::uint64_t, kMost> in_{};
  Operation sent_;
  Operation received_;
};

/// The same at once: waits for all ranks.
void max_of_ranks(Transport& transport, std::span<std::uint64_t> values);

}  // namespace terse::inline v0_1

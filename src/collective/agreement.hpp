// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <terse/error.hpp>
#include <utility>
#include <vector>

#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// Whether all ranks make the same call: one small reduction that travels while the first segment is encoded.
class Agreement {
 public:
  /// What the ranks must have in common, by name; or what this rank has found wrong with its own arguments.
  using Fields = std::vector<std::pair<std::string_view, std::string>>;
  Agreement(Transport& transport, const Fields& fields, const std::optional<Error>& failure);
  /// Left before its end, it takes the transport with it.
  ~Agreement();
  Agreement(const Agreement&) = delete;
  Agreement& operator=(const Agreement&) = delete;

  /// The whole of it: collective; throws on all ranks alike unless all agree and none has failed.
  void require();

  // The same in parts, for those who have something to do meanwhile.
  /// Starts the reduction: collective, in start order.
  void start();
  bool done() const noexcept { return operation_.done; }
  /// When done: whether all ranks agree and none has failed.
  bool reached() const noexcept;
  /// When done and not reached: collective; throws the same error on all ranks, which names ranks and values.
  [[noreturn]] void explain();

 private:
  Transport& transport_;
  std::string text_;  // name=value lines, or the sentence of a failure
  std::optional<ErrorCode> failure_;
  std::array<std::uint64_t, 3> words_{};  // hash, its complement, failed
  bool started_ = false;
  Operation operation_;
};

}  // namespace terse::inline v0_1

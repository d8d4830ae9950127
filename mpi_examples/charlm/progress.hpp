// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

namespace charlm {

/// Lines on standard output, and on a terminal a line below them that is written over and over.
class Progress {
 public:
  Progress();

  void line(const std::string& text);
  /// On a terminal, and at most five times a second.
  void overwrite(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  Clock::time_point written_;
};

}  // namespace charlm

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "session.hpp"

namespace terse::bench {

/// What stands for a program's computation while a call is under way.
class Computation {
 public:
  enum class Kind : std::uint8_t {
    busy,  ///< arithmetic: a fixed amount, so that whoever takes the core away makes it longer
    sleep  ///< a device computes for a fixed time, and its host's thread sleeps
  };

  /// Measures how fast ranks compute when all do, since they may share cores. Collective.
  Computation(const Session& session, Kind kind, std::size_t slices);

  /// Computes what takes `us` microseconds by itself, and calls `between` after each slice of it.
  void run(double us, const std::function<void()>& between) const;

 private:
  Kind kind_;
  std::size_t slices_;
  double steps_per_us_ = 0;
};

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace terse::test {

/// Whether a thread of this process is inside hangs_on_purpose().
inline std::atomic<bool> hangs = false;

/// Never returns: what a watchdog must find.
[[gnu::noinline]] inline void hangs_on_purpose() {
  static std::atomic<bool> never = false;
  hangs = true;
  while (!never) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace terse::test

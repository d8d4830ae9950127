// SPDX-License-Identifier: Apache-2.0
//
// What a switch of the floating-point mode and back takes, in ns: a benchmark, by hand.
// bin/floating-point-overhead
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

#include "core/floating_point.hpp"
#include "support/caller_mode.hpp"

namespace {

using terse::test::CallerMode;
using terse::test::CallerModeScope;

constexpr int kCalls = 1'000'000;
constexpr std::size_t kRounds = 21;

volatile double operand = 1.0;
volatile double result;

// Something whose result is not exact, so that an exception is flagged; or something exact.
void compute(bool inexact) { result = operand / (inexact ? 3.0 : 2.0); }

double thread_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

double ns_of(bool switches, bool inexact) {
  std::array<double, kRounds> rounds{};
  for (double& ns : rounds) {
    const double start = thread_ns();
    for (int i = 0; i < kCalls; ++i) {
      if (switches) {
        const terse::DefaultFloatingPoint mode;
        compute(inexact);
      } else {
        compute(inexact);
      }
    }
    ns = (thread_ns() - start) / kCalls;
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

void report(const char* what, CallerMode mode, bool inexact) {
  double with = 0;
  double without = 0;
  {
    const CallerModeScope caller(mode);
    without = ns_of(false, inexact);
    with = ns_of(true, inexact);
  }
  std::printf("%-62s %5.1f ns\n", what, with - without);
}

}  // namespace

int main() {
  std::printf("a switch of the floating-point mode and back, median of %zu rounds:\n", kRounds);
  report("caller in the default mode, nothing flagged in between", CallerMode::plain, false);
  report("caller in the default mode, inexact results in between", CallerMode::plain, true);
  report("caller flushes subnormals, nothing flagged in between", CallerMode::flushes, false);
  report("caller flushes subnormals, inexact results in between", CallerMode::flushes, true);
  report("caller rounds up, inexact results in between", CallerMode::rounds_up, true);
}

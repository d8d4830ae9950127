// SPDX-License-Identifier: Apache-2.0
#include "computation.hpp"

#include <chrono>
#include <thread>
#include <vector>

#include "statistics.hpp"

namespace terse::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

/// Each step needs the one before, and none needs memory.
void compute(std::size_t steps) {
  static volatile double sink = 1;
  double x = sink;
  for (std::size_t i = 0; i < steps; ++i) x = x * 0.999 + 0.001;
  sink = x;
}

double steps_per_us(const Session& session) {
  constexpr Microseconds kEnough{20e3};
  constexpr int kRuns = 5;
  const auto measure = [&](std::size_t steps) {
    MPI_Barrier(session.comm);
    const auto begin = Clock::now();
    compute(steps);
    return max_over_ranks(session, Microseconds(Clock::now() - begin).count());
  };
  std::size_t steps = 1000;
  while (measure(steps) < kEnough.count()) steps *= 2;
  std::vector<double> rates(kRuns);
  for (double& rate : rates) rate = static_cast<double>(steps) / measure(steps);
  return median(rates);
}

}  // namespace

Computation::Computation(const Session& session, Kind kind, std::size_t slices)
    : kind_(kind), slices_(slices) {
  if (kind == Kind::busy) steps_per_us_ = steps_per_us(session);
}

void Computation::run(double us, const std::function<void()>& between) const {
  const auto begin = Clock::now();
  const double slice_us = us / static_cast<double>(slices_);
  for (std::size_t i = 1; i <= slices_; ++i) {
    if (kind_ == Kind::busy) {
      compute(static_cast<std::size_t>(slice_us * steps_per_us_));
    } else {
      // the device goes on while the host does something else
      const Microseconds until(slice_us * static_cast<double>(i));
      std::this_thread::sleep_until(begin + std::chrono::duration_cast<Clock::duration>(until));
    }
    between();
  }
}

}  // namespace terse::bench

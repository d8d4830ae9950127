// SPDX-License-Identifier: Apache-2.0
#include "api/tuning.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

namespace terse::inline v0_1 {
namespace {

constexpr std::array<std::size_t, 2> kTrialBytes = {std::size_t{16} << 10, std::size_t{1} << 20};
constexpr int kWarmUps = 1;
constexpr int kRounds = 5;

std::uint64_t nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace

std::size_t break_even(const Trial& small, const Trial& large) {
  constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();
  const double gain_small = small.plain_us - small.compressed_us;  // > 0: compression is faster
  const double gain_large = large.plain_us - large.compressed_us;
  const double slope = (gain_large - gain_small) / static_cast<double>(large.bytes - small.bytes);
  if (slope <= 0) return gain_small > 0 && gain_large > 0 ? 0 : kNever;
  const double crossing = static_cast<double>(small.bytes) - gain_small / slope;
  return crossing <= 0 ? 0 : crossing >= 0x1p62 ? kNever : static_cast<std::size_t>(crossing);
}

std::size_t find_break_even(Transport& transport, const Call& call, Workspace& workspace) {
  const Algorithm& exact = find_algorithm("exact");
  // [size][plain, compressed]: the fastest round of this rank, then the slowest rank's
  std::array<std::uint64_t, 4> best;
  best.fill(std::numeric_limits<std::uint64_t>::max());
  const std::size_t largest = kTrialBytes.back() / size_of(call.in.dtype);
  Call first = call;
  std::vector<std::byte> input;
  std::vector<std::byte> output;
  try {
    input.resize(kTrialBytes.back());
    output.resize(kTrialBytes.back());
  } catch (const std::bad_alloc&) {
    first.failure = Error(ErrorCode::out_of_memory, "no memory for a trial of " + call.codec->spec() +
                                                        ": set min_bytes, so that none is needed");
  }
  require_agreement(transport, first);
  for (int round = -kWarmUps; round < kRounds; ++round) {
    for (std::size_t s = 0; s < kTrialBytes.size(); ++s) {
      for (const std::size_t which : {0u, 1u}) {
        const std::size_t count = std::min(largest, kTrialBytes[s] / size_of(call.in.dtype));
        Call trial = call;
        trial.in = {input.data(), count, call.in.dtype};
        trial.out = {output.data(), count, call.in.dtype};
        trial.feedback = nullptr;
        trial.agree = which == 1;
        if (which == 0) trial.algorithm = &exact;
        const auto start = std::chrono::steady_clock::now();
        allreduce(transport, trial, workspace);
        if (round >= 0) best[2 * s + which] = std::min(best[2 * s + which], nanoseconds_since(start));
      }
    }
  }
  Operation operation;
  transport.start_max(best, operation);
  while (!operation.done) transport.progress(Transport::Wait::yes);

  const auto us = [](std::uint64_t ns) { return 1e-3 * static_cast<double>(ns); };
  return break_even({kTrialBytes[0], us(best[0]), us(best[1])}, {kTrialBytes[1], us(best[2]), us(best[3])});
}

}  // namespace terse::inline v0_1

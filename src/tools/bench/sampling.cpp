// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace terse::bench {
namespace {

// Without a plan: kUsualSeconds or at least kFewSamples samples, but no longer than kLongestSeconds. Batches
// become shorter before samples become fewer.
constexpr std::size_t kFewSamples = 9;
constexpr std::size_t kManySamples = 51;
constexpr std::size_t kFewestSamples = 3;
constexpr std::size_t kMostSamples = 100'000;
constexpr double kUsualSeconds = 5;
constexpr double kLongestSeconds = 90;

// A sample is long enough for the clock and, where links are shaped, for their buckets to be a few percent of
// it.
constexpr double kSampleSeconds = 0.005;
constexpr double kShapedSampleSeconds = 0.05;
constexpr std::size_t kShapedBatch = 4;
constexpr std::size_t kLargestBatch = 4096;

/// One of the two calls.
struct Timed {
  const std::function<void()>& call;
  std::size_t batch = 1;
  double seconds = 0;  ///< of a batch, estimated

  double sample(const Session& session) const {
    MPI_Barrier(session.comm);
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < batch; ++i) call();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    return max_over_ranks(session, elapsed.count());
  }
};

/// Doubles the batch until it takes long enough; this is the warm-up, too.
void calibrate(const Session& session, bool shaped, Timed& timed) {
  const double enough = shaped ? kShapedSampleSeconds : kSampleSeconds;
  timed.sample(session);
  timed.seconds = timed.sample(session);
  while (timed.seconds < enough && timed.batch < kLargestBatch) {
    timed.batch *= 2;
    timed.seconds = timed.sample(session);
  }
  if (shaped && timed.batch < kShapedBatch) {
    timed.seconds *= static_cast<double>(kShapedBatch) / static_cast<double>(timed.batch);
    timed.batch = kShapedBatch;
  }
}

/// Halves a batch of several calls.
void shorten(Timed& timed) {
  const std::size_t half = timed.batch / 2;
  timed.seconds *= static_cast<double>(half) / static_cast<double>(timed.batch);
  timed.batch = half;
}

std::size_t fitting(double seconds, double of_one, std::size_t low, std::size_t high) {
  return std::clamp(static_cast<std::size_t>(std::min(seconds / of_one, static_cast<double>(high))), low,
                    high);
}

}  // namespace

PairedSamples sample_in_turn(const Session& session, const SamplingPlan& plan,
                             const std::function<void()>& measured, const std::function<void()>& baseline,
                             const std::function<void(std::size_t done, std::size_t of)>& progress) {
  Timed first{measured};
  Timed second{baseline};
  calibrate(session, plan.shaped, first);
  calibrate(session, plan.shaped, second);

  const auto of_pair = [&] { return first.seconds + second.seconds; };
  std::size_t samples = plan.iterations.value_or(0);
  if (!plan.iterations) {
    const double longest = plan.seconds.value_or(kLongestSeconds);
    while (kFewSamples * of_pair() > longest && std::max(first.batch, second.batch) > 1) {
      shorten(second.batch == 1 || (first.batch > 1 && first.seconds > second.seconds) ? first : second);
    }
    samples = plan.seconds ? fitting(longest, of_pair(), kFewestSamples, kMostSamples)
              : kFewSamples * of_pair() > kUsualSeconds
                  ? fitting(longest, of_pair(), kFewestSamples, kFewSamples)
                  : fitting(kUsualSeconds, of_pair(), kFewSamples, kManySamples);
  }

  PairedSamples result;
  result.measured_batch = first.batch;
  result.baseline_batch = second.batch;
  for (std::size_t i = 0; i < samples; ++i) {
    progress(i, samples);
    result.measured.push_back(first.sample(session) * 1e6 / static_cast<double>(first.batch));
    result.baseline.push_back(second.sample(session) * 1e6 / static_cast<double>(second.batch));
  }
  return result;
}

}  // namespace terse::bench

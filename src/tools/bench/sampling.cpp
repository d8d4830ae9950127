// SPDX-License-Identifier: Apache-2.0
#include "sampling.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace terse::bench {
namespace {

// Without a plan: kUsualSeconds or at least the few samples, but no longer than kLongestSeconds. Batches
// become shorter before samples become fewer.
constexpr std::size_t kManySamples = 51;
constexpr std::size_t kFewestSamples = 3;
constexpr std::size_t kMostOfTrial = 9;
constexpr double kUsualSeconds = 5;
constexpr double kLongestSeconds = 90;
constexpr double kTrialSeconds = 60;

// A sample is long enough for the clock and, where links are shaped, for their buckets to be a few percent of
// it.
constexpr double kSampleSeconds = 0.005;
constexpr double kShapedSampleSeconds = 0.05;
constexpr std::size_t kShapedBatch = 4;
constexpr std::size_t kLargestBatch = 4096;

/// One of the calls.
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

SamplingPlan SamplingPlan::trial() const {
  // Few samples rather than short batches: a call that follows a barrier can be far from the next one.
  SamplingPlan plan;
  plan.seconds = std::min(seconds.value_or(kTrialSeconds), kTrialSeconds);
  plan.few = kFewestSamples;
  plan.most = kMostOfTrial;
  plan.shaped = shaped;
  return plan;
}

std::vector<Samples> sample_in_turn(const Session& session, const SamplingPlan& plan,
                                    const std::vector<std::function<void()>>& calls,
                                    const std::function<void(std::size_t done, std::size_t of)>& progress) {
  std::vector<Timed> timed;
  for (const auto& call : calls) calibrate(session, plan.shaped, timed.emplace_back(Timed{call}));

  const auto of_round = [&] {
    return std::accumulate(timed.begin(), timed.end(), 0.0,
                           [](double sum, const Timed& call) { return sum + call.seconds; });
  };
  /// The one that takes longest of those that can be shortened.
  const auto longest_batch = [&]() -> Timed* {
    Timed* result = nullptr;
    for (Timed& call : timed) {
      if (call.batch > 1 && (result == nullptr || call.seconds > result->seconds)) result = &call;
    }
    return result;
  };
  std::size_t samples = plan.iterations.value_or(0);
  if (!plan.iterations) {
    const auto few = static_cast<double>(plan.few);
    const double longest = plan.seconds.value_or(kLongestSeconds);
    while (few * of_round() > longest && longest_batch() != nullptr) shorten(*longest_batch());
    samples = plan.seconds                       ? fitting(longest, of_round(), kFewestSamples, plan.most)
              : few * of_round() > kUsualSeconds ? fitting(longest, of_round(), kFewestSamples, plan.few)
                                                 : fitting(kUsualSeconds, of_round(), plan.few, kManySamples);
  }

  std::vector<Samples> result(timed.size());
  for (std::size_t i = 0; i < samples; ++i) {
    progress(i, samples);
    for (std::size_t call = 0; call < timed.size(); ++call) {
      const std::size_t batch = timed[call].batch;
      result[call].batch = batch;
      result[call].us.push_back(timed[call].sample(session) * 1e6 / static_cast<double>(batch));
    }
  }
  return result;
}

}  // namespace terse::bench

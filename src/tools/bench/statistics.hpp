// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace terse::bench {

/// The value below which a share of the samples lies, interpolated between neighbours; share 0.5 is the
/// median.
inline double quantile(std::vector<double> samples, double share) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const double position = share * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (position - static_cast<double>(below)) * (samples[above] - samples[below]);
}

inline double median(const std::vector<double>& samples) { return quantile(samples, 0.5); }
inline double smallest(const std::vector<double>& samples) { return quantile(samples, 0); }
inline double largest(const std::vector<double>& samples) { return quantile(samples, 1); }

}  // namespace terse::bench

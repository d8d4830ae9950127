// SPDX-License-Identifier: Apache-2.0
#include "support/codec_reference.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

namespace terse::test {

Expected expected_decode(const Codec& codec, const std::vector<double>& values, DType as) {
  Expected expected{values, std::vector<double>(values.size(), 0.0)};
  if (codec.name() == "identity") {
    for (double& v : expected.values) v = round_to(v, as);
  } else if (codec.name() == "cast") {
    const DType to = codec.spec() == "cast:f16" ? DType::f16 : DType::bf16;
    for (double& v : expected.values) v = round_to(v, to);
  } else if (codec.name() == "onebit") {
    const bool whole = codec.traits().whole;
    const bool rms = whole || codec.spec().find("scale=rms") != std::string::npos;
    const std::size_t block = whole ? values.size() + 1 : codec.traits().block;
    for (std::size_t begin = 0; begin < values.size(); begin += block) {
      const std::size_t end = std::min(values.size(), begin + block);
      double total = 0;
      for (std::size_t i = begin; i < end; ++i) total += rms ? values[i] * values[i] : std::abs(values[i]);
      const double mean = total / static_cast<double>(end - begin);
      const double scale = rms ? std::sqrt(mean) : mean;
      for (std::size_t i = begin; i < end; ++i) {
        expected.values[i] = values[i] >= 0 ? scale : -scale;
        // rounding of the sum in 64 lanes and of the scale
        expected.slack[i] =
            scale * ((static_cast<double>(end - begin) / 64 + 10) * unit_roundoff(accumulator_of(as)) +
                     1.01 * unit_roundoff(as));
      }
    }
  } else {
    throw std::logic_error("no reference for codec " + std::string(codec.name()) + ": write one");
  }
  return expected;
}

std::vector<std::string> all_specs() {
  std::vector<std::string> specs;
  for (const CodecEntry& row : codecs()) specs.insert(specs.end(), row.examples.begin(), row.examples.end());
  return specs;
}

std::vector<std::size_t> interesting_counts(const Codec& codec, std::size_t prime) {
  const std::size_t block = codec.traits().block;
  std::set<std::size_t> counts = {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, block - 1, block, block + 1, prime};
  return {counts.begin(), counts.end()};
}

std::vector<double> add_in(DType accumulator, const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> sum(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) sum[i] = round_to(a[i] + b[i], accumulator);
  return sum;
}

}  // namespace terse::test

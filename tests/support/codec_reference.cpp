// SPDX-License-Identifier: Apache-2.0
#include "support/codec_reference.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>

namespace terse::test {

namespace {

/// The number behind "NAME=" in a spec.
double option_of(const std::string& spec, const std::string& name, double otherwise) {
  const auto at = spec.find(name + "=");
  return at == std::string::npos ? otherwise : std::stod(spec.substr(at + name.size() + 1));
}

/// The elements [begin, end) that topk keeps: the first k when they are sorted by magnitude, put in order.
std::vector<std::size_t> largest_of(const std::vector<double>& values, std::size_t begin, std::size_t end,
                                    std::size_t k) {
  std::vector<std::size_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(values[a]) > std::abs(values[b]); });
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

/// The elements that threshold keeps.
std::vector<std::size_t> above_threshold(const std::string& spec, const std::vector<double>& values) {
  const std::size_t count = values.size();
  std::vector<double> sample;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t stride = count / 512;
    if (count < 32768 || (i % stride < 64 && i / stride < 512)) sample.push_back(std::abs(values[i]));
  }
  std::sort(sample.rbegin(), sample.rend());
  const double threshold = sample[topk_kept(spec, sample.size()) - 1];
  std::vector<std::size_t> kept;
  for (const std::size_t i : largest_of(values, 0, count, std::min(count, 2 * topk_kept(spec, count)))) {
    if (values[i] != 0 && std::abs(values[i]) >= threshold) kept.push_back(i);
  }
  return kept;
}

void expect_sparse(const std::string& spec, const std::vector<double>& values, DType as, Expected& expected) {
  const auto plus = spec.find('+');
  const std::size_t block = topk_block(spec, values.size());
  for (std::size_t begin = 0; begin < values.size(); begin += block) {
    const std::size_t end = std::min(values.size(), begin + block);
    const auto kept = spec.starts_with("threshold")
                          ? above_threshold(spec, values)
                          : largest_of(values, begin, end, topk_kept(spec, end - begin));
    std::vector<double> largest;
    for (const std::size_t i : kept) largest.push_back(values[i]);
    Expected sent{largest, std::vector<double>(largest.size(), 0.0)};
    if (plus == std::string::npos) {
      for (double& v : sent.values) v = round_to(v, as);
    } else {
      sent = expected_decode(*make_codec(spec.substr(plus + 1)), largest, as);
    }
    for (std::size_t i = begin; i < end; ++i) expected.values[i] = 0;
    for (std::size_t k = 0; k < kept.size(); ++k) {
      expected.values[kept[k]] = sent.values[k];
      expected.slack[kept[k]] = sent.slack[k];
    }
  }
}

}  // namespace

std::size_t topk_block(const std::string& spec, std::size_t count) {
  return static_cast<std::size_t>(option_of(spec, ",block", static_cast<double>(count)));
}

std::size_t topk_kept(const std::string& spec, std::size_t m) {
  const double wanted = option_of(spec, "ratio", 0) * static_cast<double>(m);
  const double whole = std::round(wanted);
  const double kept = std::abs(wanted - whole) < 1e-9 * wanted ? whole : std::ceil(wanted);
  return std::max<std::size_t>(1, static_cast<std::size_t>(kept));
}

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
  } else if (codec.name() == "topk" || codec.name() == "threshold") {
    expect_sparse(codec.spec(), values, as, expected);
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

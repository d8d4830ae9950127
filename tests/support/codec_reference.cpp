// SPDX-License-Identifier: Apache-2.0
#include "support/codec_reference.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>

#include "codec/philox.hpp"

namespace terse::test {
namespace {

std::string option_of(const Codec& codec, const std::string& name) {
  const std::string& spec = codec.spec();
  const std::size_t at = spec.find(name + "=");
  if (at == std::string::npos) throw std::logic_error("no " + name + " in " + spec);
  const std::size_t begin = at + name.size() + 1;
  return spec.substr(begin, spec.find_first_of(",+", begin) - begin);
}

// To nearest even, of binary places behind the leading one; below 2^least, as many as just above it.
double round_to_places(double v, int places, int least) {
  if (v == 0) return v;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(v), least) - places);
  return std::nearbyint(v / unit) * unit;
}

// The nearest value on a block's grid, or one of the two around it.
void expect_quant(const Codec& codec, const std::vector<double>& values, DType as, Expected& expected) {
  const int bits = std::stoi(option_of(codec, "bits"));
  const bool symmetric = option_of(codec, "range") == "symmetric";
  const bool stochastic = option_of(codec, "rounding") == "stochastic";
  const int top = (1 << bits) - (symmetric ? 2 : 1);
  const std::size_t block = codec.traits().block;
  for (std::size_t begin = 0; begin < values.size(); begin += block) {
    const std::size_t end = std::min(values.size(), begin + block);
    double low = 0;
    double high = 0;
    for (std::size_t i = begin; i < end; ++i) {
      low = std::min(low, values[i]);
      high = std::max(high, values[i]);
    }
    const double scale =
        symmetric ? std::max(-low, high) / (top / 2) : (high - low) / (stochastic ? top - 1 : top);
    const double zero = symmetric ? top / 2 : stochastic ? std::ceil(-low / scale) : std::round(-low / scale);
    const double rounding = 1e3 * unit_roundoff(accumulator_of(as));
    const double part = -low / scale - std::floor(-low / scale);
    const bool shifts = !symmetric && scale != 0 && std::abs(part - (stochastic ? 0 : 0.5)) < top * rounding;
    for (std::size_t i = begin; i < end; ++i) {
      const double t = scale == 0 ? 0 : std::clamp(values[i] / scale, -zero, top - zero);
      const double q = std::nearbyint(t);
      // where zero may be either of two codes, so may the ends
      const bool last = shifts && (t <= 1 - zero || t >= top - zero - 1);
      const bool tie = last || std::abs(std::abs(t - q) - 0.5) < rounding;
      expected.values[i] = stochastic ? values[i] : q * scale;
      expected.slack[i] = rounding * (scale + std::abs(values[i])) + (stochastic || tie ? scale : 0) +
                          2 * unit_roundoff(as) * std::abs(values[i]) + scale * unit_roundoff(as);
    }
  }
}

// Nearest: what is too near the threshold may go either way. Stochastic: any of the three.
void expect_ternary(const Codec& codec, const std::vector<double>& values, DType as, Expected& expected) {
  const bool stochastic = option_of(codec, "rounding") == "stochastic";
  const double threshold = std::stod(option_of(codec, "threshold"));
  const std::size_t block = codec.traits().block;
  const double rounding = 1e3 * unit_roundoff(accumulator_of(as));
  for (std::size_t begin = 0; begin < values.size(); begin += block) {
    const std::size_t end = std::min(values.size(), begin + block);
    double total = 0;
    double largest = 0;
    for (std::size_t i = begin; i < end; ++i) {
      total += std::abs(values[i]);
      largest = std::max(largest, std::abs(values[i]));
    }
    const double least = threshold * total / static_cast<double>(end - begin);
    double sum = 0;
    double count = 0;
    for (std::size_t i = begin; i < end; ++i) {
      if (std::abs(values[i]) < least) continue;
      sum += std::abs(values[i]);
      ++count;
    }
    const double scale = stochastic ? largest : sum / count;
    for (std::size_t i = begin; i < end; ++i) {
      const double size = std::abs(values[i]);
      const bool tie = std::abs(size - least) < rounding * least;
      expected.values[i] = stochastic ? values[i] : size < least ? 0 : std::copysign(scale, values[i]);
      expected.slack[i] =
          rounding * scale + 2 * unit_roundoff(as) * scale + (stochastic || tie ? 1.0001 * scale : 0);
    }
  }
}

// The powers of two that a block of m is made of, from the largest down: visit(first element, elements).
template <class Visit>
void for_each_part(std::size_t count, std::size_t block, Visit&& visit) {
  for (std::size_t at = 0; at < count;) {
    std::size_t n = block;
    while (n > count - at) n /= 2;
    visit(at, n);
    at += n;
  }
}

template <class A>
void apply_hadamard(std::vector<double>& values, std::size_t first, std::size_t n) {
  for (std::size_t apart = 1; apart < n; apart *= 2) {
    for (std::size_t i = 0; i < n; ++i) {
      if ((i & apart) != 0) continue;
      const A a = static_cast<A>(values[first + i]);
      const A b = static_cast<A>(values[first + i + apart]);
      values[first + i] = a + b;
      values[first + i + apart] = a - b;
    }
  }
  const A factor = static_cast<A>(1 / std::sqrt(static_cast<double>(n)));
  for (std::size_t i = 0; i < n; ++i) {
    const A product = static_cast<A>(values[first + i]) * factor;
    values[first + i] = product;
  }
}

void apply_hadamard(std::vector<double>& values, DType accumulator, std::size_t block) {
  for_each_part(values.size(), block, [&](std::size_t first, std::size_t n) {
    accumulator == DType::f64 ? apply_hadamard<double>(values, first, n)
                              : apply_hadamard<float>(values, first, n);
  });
}

void change_signs(std::vector<double>& values, std::size_t block, std::uint32_t seed) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t word = random_words(seed, {.stream = 0xffffffffu}, i % block / 4)[i % 4];
    if (word >> 31 != 0) values[i] = -values[i];
  }
}

// An error of each of m rotated values is one of all m, over their root.
void expect_hadamard(const Codec& codec, DType as, Expected& expected) {
  const std::string& spec = codec.spec();
  const std::size_t block = std::stoul(option_of(codec, "block"));
  const auto seed = static_cast<std::uint32_t>(std::stoul(option_of(codec, "seed")));
  const DType accumulator = accumulator_of(as);
  const auto y = rotated(expected.values, accumulator, block, seed);
  const auto inner = make_codec(spec.substr(spec.find('+') + 1));
  Expected q = expected_decode(*inner, y, as);
  expected.values = rotated_back(q.values, DType::f64, block, seed);
  for_each_part(y.size(), block, [&](std::size_t first, std::size_t n) {
    const double root = std::sqrt(static_cast<double>(n));
    double slack = 0;
    double size = 0;
    for (std::size_t i = first; i < first + n; ++i) {
      slack += q.slack[i] / root;
      size += std::abs(q.values[i]) / root;
    }
    const double steps = 3 + std::log2(static_cast<double>(n));
    for (std::size_t i = first; i < first + n; ++i) {
      expected.slack[i] = slack + steps * unit_roundoff(accumulator) * (size + slack) +
                          1.01 * unit_roundoff(as) * (std::abs(expected.values[i]) + slack + 0x1p-14);
    }
  });
}

// How far zfp may be off, by its own paper's reasoning and no knowledge of its code: an error of `accuracy`,
// which is all that the codec allows; or of what bits a rate leaves for digits, and what integers of 30 (62)
// bits under a common exponent resolve. And rounding to a 16-bit type.
void expect_zfp(const Codec& codec, DType as, Expected& expected) {
  const auto number_behind = [&](const std::string& option) {
    const auto at = codec.spec().find(option);
    return at == std::string::npos ? 0.0 : std::stod(codec.spec().substr(at + option.size()));
  };
  const double rate = number_behind("rate=");
  const double accuracy = number_behind("accuracy=");
  const bool wide = accumulator_of(as) == DType::f64;
  for (std::size_t begin = 0; begin < expected.values.size(); begin += 4) {
    const std::size_t end = std::min(expected.values.size(), begin + 4);
    double largest = 0;
    for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(expected.values[i]));
    int exponent = 0;
    std::frexp(largest, &exponent);
    const double unit = 1.01 * unit_roundoff(as);  // what receivers hold
    // zero or exponent, then planes of four bits, three more in all to say where the first ones are
    const double error = std::ldexp(16.0, exponent - static_cast<int>((4 * rate - (wide ? 15 : 12)) / 4));
    for (std::size_t i = begin; i < end; ++i) {
      expected.slack[i] = rate != 0 ? error + (wide ? 0x1p-53 : 0x1p-24) * largest + unit * (largest + error)
                          : as == accumulator_of(as)
                              ? accuracy
                              : accuracy + unit * (std::abs(expected.values[i]) + accuracy);
    }
  }
}

}  // namespace

std::string first_name(const Codec& codec) {
  return codec.spec().substr(0, codec.spec().find_first_of(":+"));
}

std::vector<double> rotated(std::vector<double> values, DType accumulator, std::size_t block,
                            std::uint32_t seed) {
  change_signs(values, block, seed);
  apply_hadamard(values, accumulator, block);
  return values;
}

std::vector<double> rotated_back(std::vector<double> values, DType accumulator, std::size_t block,
                                 std::uint32_t seed) {
  apply_hadamard(values, accumulator, block);
  change_signs(values, block, seed);
  return values;
}

bool has_row(std::string_view name) {
  const std::vector<CodecEntry> rows = codecs();
  return std::any_of(rows.begin(), rows.end(), [&](const CodecEntry& row) { return row.name == name; });
}

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

std::vector<double> expected_codes(const Codec& codec, const std::vector<double>& values, DType as,
                                   int parties, const std::vector<double>& largest,
                                   std::vector<double>& steps) {
  const DType accumulator = accumulator_of(as);
  const int most = (codec.name() == "sum8" ? 127 : 7) / parties;
  steps.clear();
  for (const double l : largest) {
    const double step = round_to(l / most, accumulator);
    steps.push_back(step < (accumulator == DType::f64 ? 0x1p-1022 : 0x1p-126) ? 0 : step);
  }
  std::vector<double> codes(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double step = steps[i / codec.traits().block];
    if (step == 0) continue;
    const double at = round_to(values[i] * round_to(1 / step, accumulator), accumulator);
    codes[i] = std::nearbyint(std::clamp<double>(at, -most, most));
  }
  return codes;
}

std::vector<std::size_t> randomk_kept(const std::string& spec, std::size_t count, const RandomKey& key) {
  const auto block = static_cast<std::size_t>(option_of(spec, "block", 0));
  const auto seed = static_cast<std::uint32_t>(option_of(spec, "seed", 0));
  std::vector<std::size_t> kept;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t m = std::min(block, count - begin);
    const std::size_t k = topk_kept(spec, m);
    const std::uint64_t at = key.position + begin;
    for (std::size_t j = 0; j < k; ++j) {
      const std::uint32_t word =
          philox({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at >> 32),
                  static_cast<std::uint32_t>(key.call), static_cast<std::uint32_t>(key.call >> 32)},
                 seed, static_cast<std::uint32_t>(j / 4))[j % 4];
      const std::size_t first = j * m / k;
      const std::size_t behind = (j + 1) * m / k;
      const double within = std::floor(word * 0x1p-32 * static_cast<double>(behind - first));
      kept.push_back(begin + first + static_cast<std::size_t>(within));
    }
  }
  return kept;
}

Expected expected_decode(const Codec& codec, const std::vector<double>& values, DType as,
                         const RandomKey& key) {
  Expected expected{values, std::vector<double>(values.size(), 0.0)};
  if (codec.name() == "lossless" && codec.spec().find('+') != std::string::npos) {
    return expected_decode(*make_codec(codec.spec().substr(0, codec.spec().rfind('+'))), values, as, key);
  }
  if (codec.name() == "identity" || codec.name() == "lossless") {
    for (double& v : expected.values) v = round_to(v, as);
  } else if (codec.spec() == "cast:f8e4m3" || codec.spec() == "cast:f8e5m2") {
    for (double& v : expected.values)
      v = codec.spec() == "cast:f8e4m3" ? round_to_places(v, 3, -6) : round_to_places(v, 2, -14);
  } else if (codec.name() == "cast") {
    const DType to = codec.spec() == "cast:f16" ? DType::f16 : DType::bf16;
    for (double& v : expected.values) v = round_to(v, to);
  } else if (codec.name() == "onebit") {
    const bool whole = codec.traits().whole_tensor;
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
  } else if (codec.name() == "quant") {
    expect_quant(codec, values, as, expected);
  } else if (codec.name() == "ternary") {
    expect_ternary(codec, values, as, expected);
  } else if (codec.name() == "natural") {  // one of the two powers of two around it
    for (std::size_t i = 0; i < values.size(); ++i) {
      int exponent = 0;
      std::frexp(values[i], &exponent);
      const double up = std::ldexp(1.0, exponent);
      expected.values[i] = std::copysign(0.75 * up, values[i]);
      expected.slack[i] = values[i] == 0 ? up : 0.25 * up;
    }
  } else if (codec.name() == "sum8" || codec.name() == "sum4") {
    const std::size_t block = codec.traits().block;
    std::vector<double> largest((values.size() + block - 1) / block);
    for (std::size_t i = 0; i < values.size(); ++i) {
      largest[i / block] = std::max(largest[i / block], std::abs(values[i]));
    }
    std::vector<double> steps;
    const auto codes = expected_codes(codec, values, as, 1, largest, steps);
    for (std::size_t i = 0; i < values.size(); ++i) {
      expected.values[i] = round_to(codes[i] * steps[i / block], accumulator_of(as));
      if (as != accumulator_of(as))
        expected.slack[i] = 1.01 * unit_roundoff(as) * std::abs(expected.values[i]);
    }
  } else if (codec.name() == "zfp") {
    expect_zfp(codec, as, expected);
  } else if (codec.name() == "hadamard") {
    expect_hadamard(codec, as, expected);
  } else if (codec.name() == "topk" || codec.name() == "threshold") {
    expect_sparse(codec.spec(), values, as, expected);
  } else if (codec.name() == "randomk") {
    std::fill(expected.values.begin(), expected.values.end(), 0.0);
    for (const std::size_t i : randomk_kept(codec.spec(), values.size(), key)) {
      expected.values[i] = round_to(values[i], as);
    }
  } else {
    throw std::logic_error("tests/support/codec_reference.cpp: what does codec " + std::string(codec.name()) +
                           " decode to? Write its reference in expected_decode");
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

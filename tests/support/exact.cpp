// SPDX-License-Identifier: Apache-2.0
#include "support/exact.hpp"

#include <cmath>
#include <random>

#include "support/tensor.hpp"

namespace terse::test {
namespace {

std::mt19937_64 stream(std::uint64_t seed, int rank) {
  std::seed_seq sequence{seed, seed >> 32, static_cast<std::uint64_t>(rank)};
  return std::mt19937_64(sequence);
}

}  // namespace

std::vector<double> normal_values(std::size_t count, DType dtype, std::uint64_t seed, int rank,
                                  double deviation) {
  auto random = stream(seed, rank);
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<double> values(count);
  for (double& v : values) v = round_to(normal(random), dtype);
  return values;
}

std::vector<double> exact_values(std::size_t count, DType dtype, std::uint64_t seed, int rank) {
  // A sum of 16 terms takes four bits more than a term: 4 of 8, 7 of 11, 20 of 24 and 49 of 53 bits remain.
  const int bits = static_cast<int>(-std::log2(unit_roundoff(dtype))) - 4;
  auto random = stream(seed, rank);
  std::uniform_int_distribution<std::int64_t> uniform(1, std::int64_t{1} << bits);
  std::bernoulli_distribution negative;
  std::vector<double> values(count);
  for (double& v : values)
    v = std::ldexp(static_cast<double>(uniform(random)), 3 - bits) * (negative(random) ? -1 : 1);
  return values;
}

}  // namespace terse::test

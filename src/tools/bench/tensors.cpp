// SPDX-License-Identifier: Apache-2.0
#include "tensors.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <numbers>
#include <stdexcept>
#include <system_error>

namespace terse::bench {
namespace {

constexpr std::size_t kAlignment = 4096;
constexpr double kDeviation = 0.01;

/// A bijection of 64 bits whose output looks random (the finaliser of SplitMix64, Steele et al., OOPSLA
/// 2014).
std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Elements 2 pair and 2 pair + 1 of a stream of standard normal values (Box and Muller, 1958).
std::array<double, 2> normal_pair(std::uint64_t stream, std::size_t pair) noexcept {
  const std::uint64_t bits = mix(mix(stream) + pair);
  const float u = (static_cast<float>(bits >> 32) + 0.5f) * 0x1p-32f;
  const float angle = 2 * std::numbers::pi_v<float> * (static_cast<float>(bits & 0xffffffffu) * 0x1p-32f);
  const float radius = std::sqrt(-2 * std::log(u));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

/// The same of Student's t with 3 degrees of freedom, over its standard deviation: a normal value over the
/// root mean square of three more.
std::array<double, 2> student_t_pair(std::uint64_t stream, std::size_t pair) noexcept {
  constexpr std::uint64_t kApart = std::uint64_t{1} << 32;  // streams are numbers of ranks
  std::array<double, 2> values = normal_pair(stream, pair);
  std::array<double, 2> squares{};
  for (std::uint64_t k = 1; k <= 3; ++k) {
    const auto more = normal_pair(stream + k * kApart, pair);
    for (std::size_t i = 0; i < 2; ++i) squares[i] += more[i] * more[i];
  }
  for (std::size_t i = 0; i < 2; ++i) values[i] /= std::sqrt(squares[i]);  // t / sqrt(3)
  return values;
}

}  // namespace

Tensor::Tensor(std::size_t count, DType dtype) : count_(count), dtype_(dtype) {
  const std::size_t bytes = (count * size_of(dtype) / kAlignment + 1) * kAlignment;
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes)));
  if (memory_ == nullptr) throw std::bad_alloc();
  std::memset(memory_.get(), 0, bytes);
}

void fill_gradient(View out, int rank, Distribution distribution) {
  constexpr std::uint64_t kShared = 0;
  const std::uint64_t own = static_cast<std::uint64_t>(rank) + 1;
  const double scale = kDeviation / std::numbers::sqrt2;
  const auto pair_of = distribution == Distribution::normal ? normal_pair : student_t_pair;
  with_type(out.dtype, [&]<class T>(std::type_identity<T>) {
    const auto elements = out.as<T>();
    for (std::size_t begin = 0; begin < elements.size(); begin += 2) {
      const auto shared = pair_of(kShared, begin / 2);
      const auto mine = pair_of(own, begin / 2);
      for (std::size_t i = 0; i < 2 && begin + i < elements.size(); ++i) {
        elements[begin + i] = from_double<T>(scale * (shared[i] + mine[i]));
      }
    }
  });
}

Tensor read_elements(const std::string& path, DType dtype) {
  const auto refuse = [&](const std::string& why) { throw std::runtime_error("'" + path + "' " + why); };
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) refuse("cannot be read: " + error.message());
  if (size == 0 || size % size_of(dtype) != 0) {
    refuse("has " + std::to_string(size) + " bytes, no whole number of " + std::string(name(dtype)) +
           " elements, which have " + std::to_string(size_of(dtype)) + " each");
  }
  Tensor elements(size / size_of(dtype), dtype);
  const View view = elements.view();
  if (!std::ifstream(path, std::ios::binary)
           .read(static_cast<char*>(view.data), static_cast<std::streamsize>(view.bytes()))) {
    refuse("cannot be read");
  }
  with_type(dtype, [&]<class T>(std::type_identity<T>) {
    const auto all = view.as<T>();
    const auto bad = std::find_if(all.begin(), all.end(), [](T x) { return !std::isfinite(to_double(x)); });
    if (bad == all.end()) return;
    refuse("has a value that is not finite, element " + std::to_string(bad - all.begin()) + ": is it of " +
           std::string(name(dtype)) + "?");
  });
  return elements;
}

void fill_repeated(View out, ConstView from) {
  for (std::size_t begin = 0; begin < out.count; begin += from.count) {
    const View to = out.slice(begin, std::min(from.count, out.count - begin));
    std::memcpy(to.data, from.data, to.bytes());
  }
}

double uniform(std::uint64_t stream, std::size_t i) noexcept {
  return static_cast<double>(mix(mix(stream) + i) >> 11) * 0x1p-53;
}

std::uint64_t hash_of(ConstView values) noexcept {
  const auto* bytes = static_cast<const std::byte*>(values.data);
  std::size_t left = values.bytes();
  std::uint64_t hash = left;
  while (left > 0) {
    std::uint64_t word = 0;
    const std::size_t n = left < sizeof(word) ? left : sizeof(word);
    std::memcpy(&word, bytes, n);
    hash = mix(hash ^ word);
    bytes += n;
    left -= n;
  }
  return hash;
}

}  // namespace terse::bench

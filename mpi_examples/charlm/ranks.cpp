// SPDX-License-Identifier: Apache-2.0
#include "ranks.hpp"

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <iostream>
#include <type_traits>

namespace charlm {
namespace {

int my_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

/// MPI counts in int: a larger array goes in parts.
template <class T>
void broadcast_bytes(T* data, std::size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  constexpr std::size_t kMost = std::size_t{1} << 30;
  auto* bytes = reinterpret_cast<std::byte*>(data);
  const std::size_t total = count * sizeof(T);
  for (std::size_t begin = 0; begin < total; begin += kMost) {
    const std::size_t part = std::min(kMost, total - begin);
    MPI_Bcast(bytes + begin, static_cast<int>(part), MPI_BYTE, 0, MPI_COMM_WORLD);
  }
}

}  // namespace

void agree(const std::string& problem, int code) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int mine = problem.empty() ? ranks : my_rank();
  int first = ranks;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (first == ranks) return;
  if (first == my_rank()) std::cerr << "train_charlm: " << problem << std::endl;
  MPI_Barrier(MPI_COMM_WORLD);  // nobody leaves before it is said
  throw Stop{code};
}

void broadcast(std::string& text) {
  std::uint64_t size = text.size();
  broadcast_bytes(&size, 1);
  text.resize(size);
  broadcast_bytes(text.data(), text.size());
}

void broadcast(std::span<float> numbers) { broadcast_bytes(numbers.data(), numbers.size()); }

double sum(double value) {
  double total = 0.0;
  MPI_Allreduce(&value, &total, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return total;
}

std::vector<double> slowest(std::vector<double> times) {
  const auto count = static_cast<int>(times.size());
  if (my_rank() == 0) {
    MPI_Reduce(MPI_IN_PLACE, times.data(), count, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  } else {
    MPI_Reduce(times.data(), nullptr, count, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  }
  return times;
}

bool same_bits(std::span<const float> numbers) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const std::byte b : std::as_bytes(numbers)) {
    hash = (hash ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
  }
  std::uint64_t least = 0;
  std::uint64_t greatest = 0;
  MPI_Allreduce(&hash, &least, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
  MPI_Allreduce(&hash, &greatest, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
  return least == greatest;
}

}  // namespace charlm

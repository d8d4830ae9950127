// SPDX-License-Identifier: Apache-2.0
#pragma once

// What train_charlm asks of MPI besides the allreduce of gradients. All of it is collective over
// MPI_COMM_WORLD.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace charlm {

/// Thrown on all ranks together, after the reason was printed: main returns `code`.
struct Stop {
  int code;
};

/// Returns where no rank has a problem. Else the first rank that has one prints it and all ranks throw
/// Stop{code}, so that a rank that cannot go on never leaves the others waiting.
void agree(const std::string& problem, int code = 2);

/// Gives all ranks the text of rank 0.
void broadcast(std::string& text);
/// Gives all ranks the numbers of rank 0; the span is as long everywhere.
void broadcast(std::span<float> numbers);

/// Sum over all ranks.
double sum(double value);
/// Number by number the largest of all ranks, on rank 0; other ranks get their own back.
std::vector<double> slowest(std::vector<double> times);

/// Whether all ranks hold the same bits, by a 64-bit hash.
bool same_bits(std::span<const float> numbers);

}  // namespace charlm

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <terse/types.hpp>
#include <vector>

#include "collective/algorithms.hpp"
#include "proof/abstract.hpp"

namespace terse::test::proof {

struct Case {
  std::string algorithm = "two_phase";
  std::string codec = "onebit:block=64";
  int ranks = 2;
  std::vector<std::size_t> tensors;  ///< their counts; one: not a list
  DType dtype = DType::f32;
  Op op = Op::average;
  bool feedback = true;
  std::size_t segment_bytes = std::size_t{4} << 20;
};
std::string text_of(const Case& one);

/// Whether algorithm and codec go together, with feedback or without.
bool is_allowed(const Case& one);

/// The schedules of all ranks, and what docs/algorithms.md says of them. Fails for an algorithm whose formula
/// is not written down in jobs.cpp.
Job job_of(const Case& one);

/// The pieces that may be flagged, in tensor order.
std::vector<Piece> pieces_of(const Job& job);

/// The schedules that resend these pieces of such a call.
Job resending_job_of(const Case& one, const std::vector<Piece>& flagged);

}  // namespace terse::test::proof

// SPDX-License-Identifier: Apache-2.0
#include "collective/algorithms.hpp"

#include <array>
#include <string>

namespace terse::inline v0_1 {

std::span<const Algorithm> algorithm_table() noexcept {
  static constexpr std::array<Algorithm, 3> kTable = {{
      {.name = "exact", .summary = "plain MPI_Allreduce: nothing is encoded", .build = build_exact},
      {.name = "two_phase",
       .summary = "compressed exchange, then compressed all-gather; feedback in both phases",
       .compresses = true,
       .check = check_two_phase,
       .chunks = two_phase_chunks,
       .build = build_two_phase,
       .build_pieces = build_phases},
      {.name = "deepspeed",
       .summary = "two_phase as DeepSpeed has it, for codec onebit:deepspeed: padded, one scale for all",
       .compresses = true,
       .padded = deepspeed_padded,
       .check = check_deepspeed,
       .chunks = deepspeed_chunks,
       .build = build_deepspeed,
       .build_pieces = build_phases},
  }};
  return kTable;
}

const Algorithm& algorithm_for(const Codec& codec) {
  return find_algorithm(codec.traits().whole ? "deepspeed" : "two_phase");
}

const Algorithm& find_algorithm(std::string_view name) {
  std::string list;
  for (const Algorithm& row : algorithm_table()) {
    if (row.name == name) return row;
    list += (list.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::invalid_argument,
              "unknown algorithm '" + std::string(name) + "': use auto, or one of " + list);
}

}  // namespace terse::inline v0_1

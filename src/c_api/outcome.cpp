// SPDX-License-Identifier: Apache-2.0
#include "c_api/outcome.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "c_api/raise.hpp"
#include "c_api/state.hpp"

namespace terse::c_api {
namespace {

// A text of the algorithm table that ends with a zero.
const char* lasting_name(std::string_view algorithm) {
  // never destroyed, since calls may be made as the process ends
  static const auto& names = *new auto([] {
    std::vector<std::string> made;
    for (const AlgorithmInfo& row : algorithms()) made.emplace_back(row.name);
    return made;
  }());
  const auto name = std::find(names.begin(), names.end(), algorithm);
  return name == names.end() ? "" : name->c_str();
}

static_assert(static_cast<int>(TERSE_RESULT_COMPRESSED) == 1 + static_cast<int>(Outcome::Result::compressed));
static_assert(static_cast<int>(TERSE_RESULT_EXACT) == 1 + static_cast<int>(Outcome::Result::exact));
static_assert(static_cast<int>(TERSE_REASON_NONE) == static_cast<int>(Outcome::Reason::none));
static_assert(static_cast<int>(TERSE_REASON_ASKED) == static_cast<int>(Outcome::Reason::asked));
static_assert(static_cast<int>(TERSE_REASON_SMALL) == static_cast<int>(Outcome::Reason::small));
static_assert(static_cast<int>(TERSE_REASON_SLOWER) == static_cast<int>(Outcome::Reason::slower));
static_assert(static_cast<int>(TERSE_REASON_NON_FINITE) == static_cast<int>(Outcome::Reason::non_finite));

}  // namespace

Terse_Outcome in_c(const Outcome& outcome) {
  return {static_cast<Terse_Result>(1 + static_cast<int>(outcome.result)),
          static_cast<Terse_Reason>(outcome.reason), lasting_name(outcome.algorithm), outcome.bytes_sent,
          outcome.exact_count};
}

Terse_Outcome outcome_of_passed(std::span<const Tensor> tensors) {
  std::uint64_t count = 0;
  for (const Tensor& tensor : tensors) count += static_cast<std::uint64_t>(tensor.count);
  return {TERSE_RESULT_EXACT, TERSE_REASON_PASSED_ON, "", 0, count};
}

}  // namespace terse::c_api

int Terse_Get_outcome_sized(MPI_Comm comm, Terse_Outcome* outcome, size_t size) {
  using namespace terse::c_api;
  return run("Terse_Get_outcome", comm, [&] {
    if (outcome == nullptr) {
      throw terse::Error(terse::ErrorCode::invalid_argument,
                         "there is nowhere to put the outcome: the pointer is null");
    }
    const Terse_Outcome& known = state_of(comm).outcome;
    std::memset(outcome, 0, size);
    std::memcpy(outcome, &known, std::min(size, sizeof known));
    return MPI_SUCCESS;
  });
}

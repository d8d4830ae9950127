// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <terse/codec.hpp>
#include <terse/feedback.hpp>
#include <terse/types.hpp>

#include "collective/agreement.hpp"
#include "collective/algorithms.hpp"
#include "collective/runner.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// A call's tags: those of its schedule, one for ranks' last words, and as many for what goes again exactly.
inline constexpr int kLastWord = Schedule::kChannels;
inline constexpr int kTagsOfAPass = kLastWord + 1;
inline constexpr int kTagsOfACall = 2 * kTagsOfAPass;

/// One allreduce, all choices made. `in` and `out` have one count and dtype, and are disjoint or the same
/// memory.
struct Call {
  ConstView in;
  View out;
  std::shared_ptr<const Codec> codec{};
  const Algorithm* algorithm = nullptr;
  /// What else ranks must have in common, since it led to the choice of the algorithm.
  Agreement::Fields terms{};
  Op op = Op::sum;
  Feedback* feedback = nullptr;
  std::size_t segment_bytes = std::size_t{4} << 20;
  std::string tensor{};   ///< its name, where it has one
  bool agree = true;      ///< begin with the agreement
  bool checksum = false;  ///< seal every message
  /// What this rank already knows to be wrong with its arguments. With `agree`, all ranks then throw it.
  std::optional<Error> failure;
};

struct CallResult {
  std::size_t bytes_sent = 0;
  std::size_t exact_count = 0;  ///< elements of flagged pieces, which went exactly
};

/// The agreement alone, before something that only makes sense if all ranks are about to do it: to the other
/// ranks it is the beginning of the call. Collective; throws on all ranks alike, as the call would.
void require_agreement(Transport& transport, const Call& call);

/// Whether algorithm, codec and feedback go together. Errors: unsupported, with a sentence that names them.
void check_pair(const Transport& transport, const Call& call);

/// Notes in the call's Feedback, unless that holds residuals, that plain MPI was chosen for its tensor.
void decline(const Transport& transport, const Call& call);

/// Runs a call to its end. Errors: see Communicator::allreduce. With `agree`, what is no AgreedError was met
/// half way, perhaps by this rank alone: the next call must tell the others (Call::failure).
CallResult allreduce(Transport& transport, const Call& call, Workspace& workspace);

}  // namespace terse::inline v0_1

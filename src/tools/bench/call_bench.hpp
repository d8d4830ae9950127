// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <terse/communicator.hpp>
#include <terse/types.hpp>
#include <vector>

#include "baseline.hpp"
#include "call_arguments.hpp"
#include "plain_algorithms.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "session.hpp"
#include "tensors.hpp"

namespace terse::bench {

/// A plain algorithm that might have been the baseline.
struct Candidate {
  std::string name;
  double median_us = 0;
};

/// What a row's plain calls go by.
struct ChosenBaseline {
  std::string name;
  MPI_Comm comm = MPI_COMM_NULL;
  std::vector<Candidate> candidates{};  ///< what it was chosen from; none where there was no choice
};

/// What suites that measure calls share: the ranks, the plain algorithms beside them, the report.
class CallBench {
 public:
  /// `arguments` outlives it; their plan hears whether there are links. Collective. Errors: UsageError.
  CallBench(const Session& session, std::string_view suite, CallArguments& arguments,
            const BaselineChoice& baseline);

  const Session& session() const noexcept { return session_; }
  /// The plain algorithms that rows choose from.
  const std::vector<PlainCommunicators::Entry>& plain() const noexcept { return plain_.entries(); }
  bool has_choice() const noexcept { return plain().size() > 1; }
  std::size_t hosts() const noexcept { return layout_.size(); }
  Progress& progress() noexcept { return progress_; }
  /// The column that begins a table.
  Column codec_column() const;
  /// The column that names the baseline of a row.
  Column baseline_column() const;

  /// "f32, average, algorithm auto, 4 ranks on 2 hosts"
  std::string describe() const;
  /// "MPI_Allreduce of f32", and what else belongs to the plain call.
  std::string describe_plain() const;
  /// ", baseline best", ", baseline ring (4)"; nothing for the default.
  std::string describe_choice() const;
  void print_title(const std::string& more = "") const;

  /// "onebit, 64 KiB: "
  static std::string label(const std::string& codec, std::size_t bytes);
  /// What shows "LABEL sample 3 of 9".
  std::function<void(std::size_t done, std::size_t of)> show_samples(const std::string& label);

  /// Chooses a row's baseline, in turn with the call that it will be measured beside. Collective.
  ChosenBaseline choose(const std::function<void()>& call, const std::function<void(MPI_Comm)>& plain_call,
                        const std::string& label);

  /// What a row's JSON begins with.
  Json row(const std::string& codec, const Outcome& outcome, std::size_t count, std::size_t bytes) const;

  /// What the table's reader must know besides; `reasons` are those of all rows.
  std::vector<std::string> notes(const std::vector<Outcome::Reason>& reasons) const;

  struct Report {
    std::vector<std::string> notes{};
    Json rows = Json::array();
    std::string difference{};      ///< what differs that must not; nothing where all is well
    std::function<void()> also{};  ///< writes another file
  };
  /// Prints and writes, by rank 0. Returns the exit code, on every rank alike. Collective.
  int finish(const Report& report) const;

 private:
  Json environment(const std::vector<std::string>& notes) const;

  Session session_;
  std::string suite_;
  const CallArguments& arguments_;
  std::string baseline_text_;
  bool baseline_is_best_;
  std::vector<int> layout_;
  PlainCommunicators plain_;
  Progress progress_;
};

/// The memory of all rows of one tensor, as long as the longest needs it.
struct CallMemory {
  Tensor in;
  Tensor out;
  Tensor other_out;  ///< for another way to make the same call
  Baseline baseline;
};
/// Collective. Errors: UsageError, on every rank alike.
CallMemory allocate_call_memory(const Session& session, const CommonArguments& arguments);

/// A way to make a call, and where its results are.
struct Way {
  std::function<Outcome()> call;
  ConstView out;
};
/// Makes a few calls in two ways that must lead to the same results: whether all ranks hold the same bits
/// and, where both ways compress, both hold the same. Collective.
bool same_bits(const Session& session, const Way& one, const Way& other);

/// "1 rank", "2 ranks".
std::string counted(std::size_t count, const std::string& noun);
/// "same" or "DIFFER"; why the library called plain MPI, or nothing.
std::string bits_cell(bool same);
std::string reason_cell(Outcome::Reason reason);

/// The candidates as JSON, `chosen` where there was no choice.
Json candidates_to_json(const ChosenBaseline& chosen, double median_us);

}  // namespace terse::bench

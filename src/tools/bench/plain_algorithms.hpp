// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <string>
#include <vector>

#include "session.hpp"

namespace terse::bench {

/// A way in which MPI can carry out a plain allreduce.
struct PlainAlgorithm {
  std::string name;       ///< "default", "ring (4)"
  int number = 0;         ///< of Open MPI's component tuned; 0: as MPI decides
  int segment_bytes = 0;  ///< 0: not in segments
};

/// What --baseline says.
struct BaselineChoice {
  std::string text;                          ///< as it was given
  std::vector<PlainAlgorithm> algorithms{};  ///< at least one; the fastest of them is the baseline
  bool is_best = false;                      ///< where there is only the default, that is the best
};

/// "default", "best", or a list of algorithms by their names or numbers. Errors: tools::UsageError.
BaselineChoice parse_baseline(const std::string& text);

/// Lets communicators have algorithms of their own, which Open MPI allows only where it is told so before it
/// starts. Its default decision stays as it is.
void permit_plain_algorithms();

/// For each algorithm of a choice a communicator of the session's ranks whose plain allreduces go by it.
class PlainCommunicators {
 public:
  struct Entry {
    PlainAlgorithm algorithm;
    MPI_Comm comm = MPI_COMM_NULL;  ///< for the default the session's
  };

  /// Leaves MPI's settings as they were. Where an algorithm cannot be had, `best` is the default alone.
  /// Collective. Errors: tools::UsageError, on every rank alike.
  PlainCommunicators(const Session& session, const BaselineChoice& choice);
  ~PlainCommunicators() { free(); }
  PlainCommunicators(const PlainCommunicators&) = delete;
  PlainCommunicators& operator=(const PlainCommunicators&) = delete;

  const std::vector<Entry>& entries() const noexcept { return entries_; }
  /// Why `best` is the default alone, a sentence; empty where it is not.
  const std::string& shortfall() const noexcept { return shortfall_; }

 private:
  void make(const Session& session, const std::vector<PlainAlgorithm>& algorithms);
  void free();

  std::vector<Entry> entries_;
  std::string shortfall_;
};

}  // namespace terse::bench

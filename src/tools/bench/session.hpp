// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace terse::bench {

/// The ranks that take part. A single one may do without MPI: then `comm` is MPI_COMM_NULL.
struct Session {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::string device{};  ///< the name of the CUDA device that holds the tensors; empty: they are on the host

  bool on_device() const noexcept { return !device.empty(); }
  bool is_root() const noexcept { return rank == 0; }
};

/// Where `problem` is not empty on some rank: throws UsageError with the first such rank's sentence, on every
/// rank. Collective.
void agree(const Session& session, const std::string& problem);

/// What `make` returns, unless it throws on some rank: then every rank throws. So a failure on one rank (an
/// environment variable, memory, a file) leaves no other one waiting. Collective.
template <class Make>
std::invoke_result_t<Make> agreed(const Session& session, Make&& make) {
  std::optional<std::invoke_result_t<Make>> result;
  std::string problem;
  try {
    result.emplace(std::forward<Make>(make)());
  } catch (const std::bad_alloc&) {
    problem = "rank " + std::to_string(session.rank) + " has not enough memory for these sizes";
  } catch (const std::exception& error) {
    problem = error.what();
  }
  agree(session, problem);
  return std::move(*result);
}

/// Refuses a file that rank 0 cannot write, before anything is measured. Leaves an existing file as it is; ""
/// is no file. Collective. Errors: UsageError.
void require_writable(const Session& session, const std::string& option, const std::string& path);

/// The largest of all ranks' values. Collective.
double max_over_ranks(const Session& session, double value);
/// Whether all ranks hold the same value. Collective.
bool same_on_all_ranks(const Session& session, std::uint64_t value);

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#include "session.hpp"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "../command_line.hpp"

namespace terse::bench {

void agree(const Session& session, const std::string& problem) {
  if (session.size == 1) {
    if (!problem.empty()) throw tools::UsageError(problem);
    return;
  }
  int failing = problem.empty() ? session.size : session.rank;
  MPI_Allreduce(MPI_IN_PLACE, &failing, 1, MPI_INT, MPI_MIN, session.comm);
  if (failing == session.size) return;
  int length = static_cast<int>(problem.size());
  MPI_Bcast(&length, 1, MPI_INT, failing, session.comm);
  std::string sentence = problem;
  sentence.resize(static_cast<std::size_t>(length));
  MPI_Bcast(sentence.data(), length, MPI_CHAR, failing, session.comm);
  throw tools::UsageError(sentence);
}

void require_writable(const Session& session, const std::string& option, const std::string& path) {
  std::string problem;
  if (session.is_root() && !path.empty()) {
    std::error_code ignored;
    const bool existed = std::filesystem::exists(path, ignored);
    if (std::FILE* file = std::fopen(path.c_str(), "ab")) {
      std::fclose(file);
      if (!existed) std::filesystem::remove(path, ignored);
    } else {
      problem = option + ": cannot write '" + path + "': " + std::strerror(errno);
    }
  }
  agree(session, problem);
}

double max_over_ranks(const Session& session, double value) {
  if (session.size > 1) MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, session.comm);
  return value;
}

bool same_on_all_ranks(const Session& session, std::uint64_t value) {
  if (session.size == 1) return true;
  std::uint64_t extremes[2] = {value, ~value};  // the complement's maximum tells the minimum
  MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_UINT64_T, MPI_MAX, session.comm);
  return extremes[0] == ~extremes[1];
}

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <array>
#include <cstddef>
#include <string_view>

namespace terse::interpose {

/// Gives a group back, also where an error handler of the program throws.
struct Group {
  MPI_Group handle = MPI_GROUP_EMPTY;

  Group() = default;
  ~Group() {
    if (handle != MPI_GROUP_EMPTY && handle != MPI_GROUP_NULL) PMPI_Group_free(&handle);
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
};

/// A communicator of the drop-in's own, of the ranks of `comm`: the one operation on a communicator of the
/// program's, and collective over it. Callbacks of the program's attributes are not called, as they would be
/// by MPI_Comm_dup. Errors on it are returned.
///
/// Returns a code of MPI's. Where it is not MPI_SUCCESS, the error handler of `comm` has been called, and
/// what that throws passes through.
int make_own(MPI_Comm comm, MPI_Comm& own);

/// A communicator's name, which needs no memory.
class Name {
 public:
  /// Returns a code of MPI's, as make_own.
  int read(MPI_Comm comm) { return PMPI_Comm_get_name(comm, text_.data(), &length_); }
  std::string_view text() const noexcept { return {text_.data(), static_cast<std::size_t>(length_)}; }
  /// Whether the drop-in or the library has made the communicator, for itself.
  bool is_own() const noexcept;

 private:
  std::array<char, MPI_MAX_OBJECT_NAME> text_{};
  int length_ = 0;
};

/// Throws Error (communication) where a call of MPI, on a communicator of the drop-in's own, has failed.
void require(int code, const char* what);

}  // namespace terse::interpose

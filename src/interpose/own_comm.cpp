// SPDX-License-Identifier: Apache-2.0
#include "interpose/own_comm.hpp"

#include <string>
#include <terse/error.hpp>

namespace terse::interpose {
namespace {

// What the names of the library's own communicators begin with.
constexpr std::string_view kOwnName = "Terse: ";
constexpr const char* kName = "Terse: drop-in";

}  // namespace

int make_own(MPI_Comm comm, MPI_Comm& own) {
  Group all;
  int code = PMPI_Comm_group(comm, &all.handle);
  if (code == MPI_SUCCESS) code = PMPI_Comm_create(comm, all.handle, &own);
  if (code != MPI_SUCCESS) return code;
  PMPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN);
  PMPI_Comm_set_name(own, kName);
  return code;
}

bool Name::is_own() const noexcept { return text().substr(0, kOwnName.size()) == kOwnName; }

void require(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  PMPI_Error_string(code, text.data(), &length);
  throw Error(ErrorCode::communication,
              std::string(what) + " failed: " + std::string(text.data(), static_cast<std::size_t>(length)));
}

}  // namespace terse::interpose

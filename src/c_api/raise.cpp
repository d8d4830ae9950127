// SPDX-License-Identifier: Apache-2.0
#include "c_api/raise.hpp"

#include <terse/terse.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <optional>
#include <string>
#include <string_view>

namespace terse::c_api {
namespace {

// This thread's last error.
struct Last {
  std::optional<ErrorCode> kind;
  int code = MPI_SUCCESS;
  std::string sentence;
};
thread_local Last last;

bool is_fatal(MPI_Errhandler handler) {
#ifdef MPI_ERRORS_ABORT
  if (handler == MPI_ERRORS_ABORT) return true;
#endif
  return handler == MPI_ERRORS_ARE_FATAL;
}

// MPI is about to end the program and knows only a short text.
void print_if_fatal(MPI_Comm comm, const char* sentence) {
  if (!errors_are_fatal(comm)) return;
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  std::fprintf(stderr, "Terse: rank %d: %s\n", rank, sentence);
  std::fflush(stderr);
}

std::optional<ErrorCode> kind_of(int code) {
  if (const Handles* known = handles_so_far()) {
    const auto at = std::find(known->error_codes.begin(), known->error_codes.end(), code);
    if (at != known->error_codes.end()) return static_cast<ErrorCode>(at - known->error_codes.begin());
  }
  // MPI has no codes to give outside its life
  if (!mpi_is_up() && code == last.code) return last.kind;
  return std::nullopt;
}

void copy_text(std::string_view text, char* string, int* length) {
  constexpr std::string_view kCut = "...";
  constexpr std::size_t kRoom = TERSE_MAX_ERROR_STRING - 1;
  std::size_t n = std::min(text.size(), kRoom);
  std::memcpy(string, text.data(), n);
  if (n < text.size()) std::memcpy(string + n - kCut.size(), kCut.data(), kCut.size());
  string[n] = '\0';
  *length = static_cast<int>(n);
}

}  // namespace

bool errors_are_fatal(MPI_Comm comm) noexcept {
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  if (MPI_Comm_get_errhandler(comm, &handler) != MPI_SUCCESS) return false;
  const bool fatal = is_fatal(handler);
  if (!fatal && handler != MPI_ERRORS_RETURN) {
    MPI_Errhandler_free(&handler);  // a user's: this gives back what get_errhandler took
  }
  return fatal;
}

int raise(const char* where, MPI_Comm comm) noexcept {
  last.code = MPI_ERR_OTHER;
  try {
    const Error error = current_error(where);
    last.kind = error.code();
    last.sentence = error.what();
  } catch (...) {  // there is no memory for a sentence either
    last.kind = ErrorCode::out_of_memory;
    last.sentence.clear();
  }
  try {
    last.code = handles().error_codes[static_cast<std::size_t>(*last.kind)];
  } catch (...) {
    return last.code;  // outside MPI's life there is no handler to call
  }
  const int code = last.code;  // the handler may call Terse
  const MPI_Comm whose = comm == MPI_COMM_NULL ? MPI_COMM_WORLD : comm;
  print_if_fatal(whose, last.sentence.c_str());
  MPI_Comm_call_errhandler(whose, code);
  return code;
}

}  // namespace terse::c_api

using namespace terse::c_api;

static_assert(TERSE_ERR_INVALID_ARGUMENT == 1 + static_cast<int>(terse::ErrorCode::invalid_argument));
static_assert(TERSE_ERR_UNSUPPORTED == 1 + static_cast<int>(terse::ErrorCode::unsupported));
static_assert(TERSE_ERR_MISMATCH == 1 + static_cast<int>(terse::ErrorCode::mismatch));
static_assert(TERSE_ERR_CORRUPT_DATA == 1 + static_cast<int>(terse::ErrorCode::corrupt_data));
static_assert(TERSE_ERR_NON_FINITE == 1 + static_cast<int>(terse::ErrorCode::non_finite));
static_assert(TERSE_ERR_OUT_OF_MEMORY == 1 + static_cast<int>(terse::ErrorCode::out_of_memory));
static_assert(TERSE_ERR_COMMUNICATION == 1 + static_cast<int>(terse::ErrorCode::communication));
static_assert(TERSE_ERR_INVALID_STATE == 1 + static_cast<int>(terse::ErrorCode::invalid_state));
static_assert(TERSE_ERR_DEVICE == 1 + static_cast<int>(terse::ErrorCode::device));

Terse_Errcode Terse_Error_code(int errorcode) {
  const auto kind = kind_of(errorcode);
  return kind ? static_cast<Terse_Errcode>(1 + static_cast<int>(*kind)) : TERSE_ERR_NONE;
}

int Terse_Error_string(int errorcode, char* string, int* resultlen) {
  if (kind_of(errorcode) && errorcode == last.code && !last.sentence.empty()) {
    copy_text(last.sentence, string, resultlen);
    return MPI_SUCCESS;
  }
  if (!mpi_is_up()) {
    copy_text("MPI explains its error codes between MPI_Init and MPI_Finalize", string, resultlen);
    return MPI_SUCCESS;
  }
  static_assert(TERSE_MAX_ERROR_STRING >= MPI_MAX_ERROR_STRING);
  return MPI_Error_string(errorcode, string, resultlen);
}

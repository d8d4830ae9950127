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
#include <stdexcept>
#include <string>
#include <string_view>
#include <terse/error.hpp>
#include <utility>

#include "core/thread_memory.hpp"

namespace terse::c_api {
namespace {

// A thread's last error.
struct Last {
  std::optional<ErrorCode> kind;
  int code = MPI_SUCCESS;
  std::string sentence;
};

// This thread's; null where there is no memory for it.
Last* last() noexcept {
  try {
    return &kept_by_thread<Last>([] {});
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

bool is_fatal(MPI_Errhandler handler) {
#ifdef MPI_ERRORS_ABORT
  if (handler == MPI_ERRORS_ABORT) return true;
#endif
  return handler == MPI_ERRORS_ARE_FATAL;
}

// MPI_Comm_get_errhandler and whether the handler ends the program; returns MPI's code.
int find_whether_fatal(MPI_Comm comm, bool& fatal) {
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  const int code = MPI_Comm_get_errhandler(comm, &handler);
  if (code != MPI_SUCCESS) return code;
  fatal = is_fatal(handler);
  if (fatal || handler == MPI_ERRORS_RETURN) return MPI_SUCCESS;
  return MPI_Errhandler_free(&handler);  // a user's: this gives back what get_errhandler took
}

// For MPI that is about to end the program, and knows only a short text.
void print(MPI_Comm comm, const char* sentence) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  std::fprintf(stderr, "Terse: rank %d: %s\n", rank, sentence);
  std::fflush(stderr);
}

// The sentence's memory is taken over: to remember it cannot fail, but for a thread that has no Last yet.
const char* remember(ErrorCode kind, int code, std::string sentence) noexcept {
  Last* kept = last();
  if (kept == nullptr) return "no memory";
  kept->kind = kind;
  kept->code = code;
  kept->sentence = std::move(sentence);
  return kept->sentence.c_str();
}

// In a catch block.
Failure error_of_terse(const char* where) {
  Failure failure{.kind = ErrorCode::out_of_memory};
  try {
    const Error error = current_error(where);
    failure.kind = error.code();
    failure.sentence = error.what();
  } catch (const std::bad_alloc&) {
    // there is no memory for a sentence either
  }
  return failure;
}

std::optional<ErrorCode> kind_of(int code) {
  if (const Handles* known = handles_so_far()) {
    const auto at = std::find(known->error_codes.begin(), known->error_codes.end(), code);
    if (at != known->error_codes.end()) return static_cast<ErrorCode>(at - known->error_codes.begin());
  }
  // MPI has no codes to give outside its life
  if (mpi_is_up()) return std::nullopt;
  const Last* known = last();
  return known != nullptr && code == known->code ? known->kind : std::nullopt;
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

bool errors_are_fatal(MPI_Comm comm) {
  bool fatal = false;
  check([&] { return find_whether_fatal(comm, fatal); });
  return fatal;
}

Failure current_failure(const char* where) {
  try {
    throw;
  } catch (const HandlerThrew& handler) {
    return {.thrown = handler.what};
  } catch (const MpiFailure& failure) {
    return {.code = failure.code};
  } catch (const Error&) {
    return error_of_terse(where);
  } catch (const std::bad_alloc&) {
    return error_of_terse(where);
  } catch (const std::length_error&) {  // a container of more elements than there can be
    return error_of_terse(where);
  }
}

int report(Failure failure, MPI_Comm comm) {
  const char* sentence = nullptr;
  if (failure.kind) {
    bool has_handler = false;
    try {
      failure.code = handles().error_codes[static_cast<std::size_t>(*failure.kind)];
      has_handler = true;
    } catch (const HandlerThrew& handler) {
      failure.thrown = handler.what;
    } catch (const MpiFailure& mpi) {
      failure.code = mpi.code;
    } catch (const Error&) {
      failure.code = MPI_ERR_OTHER;  // outside MPI's life there is no code of Terse's, and no handler
    }
    const char* remembered = remember(*failure.kind, failure.code, std::move(failure.sentence));
    if (has_handler) sentence = remembered;
  }
  if (failure.thrown) std::rethrow_exception(failure.thrown);
  if (sentence == nullptr) return failure.code;
  const MPI_Comm whose = comm == MPI_COMM_NULL ? MPI_COMM_WORLD : comm;
  bool fatal = false;
  const int code = find_whether_fatal(whose, fatal);
  if (code != MPI_SUCCESS) return code;  // it is no communicator, and MPI has called a handler for that
  if (fatal) print(whose, sentence);
  MPI_Comm_call_errhandler(whose, failure.code);  // which may call Terse, and may throw
  return failure.code;
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
  if (string == nullptr || resultlen == nullptr) {
    return run("Terse_Error_string", MPI_COMM_NULL, []() -> int {
      throw terse::Error(terse::ErrorCode::invalid_argument,
                         "there is nowhere to put the text or its length: a pointer is null");
    });
  }
  const Last* known = last();
  if (known != nullptr && kind_of(errorcode) && errorcode == known->code && !known->sentence.empty()) {
    copy_text(known->sentence, string, resultlen);
    return MPI_SUCCESS;
  }
  if (!mpi_is_up()) {
    copy_text("MPI explains its error codes between MPI_Init and MPI_Finalize", string, resultlen);
    return MPI_SUCCESS;
  }
  static_assert(TERSE_MAX_ERROR_STRING >= MPI_MAX_ERROR_STRING);
  return MPI_Error_string(errorcode, string, resultlen);
}

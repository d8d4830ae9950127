// SPDX-License-Identifier: Apache-2.0
#include "c_api/handles.hpp"

#include <terse/terse.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include "c_api/state.hpp"

namespace terse::c_api {
namespace {

Handles made;
int at_finalize_key = MPI_KEYVAL_INVALID;
std::atomic<bool> complete = false;
std::atomic<bool> finalizing = false;
std::mutex making;

// What MPI_Error_string says; the sentence of an error is Terse_Error_string's.
constexpr std::array<const char*, kErrorCodes> kShortTexts = {
    "Terse: an argument makes no sense", "Terse: not supported",
    "Terse: ranks make different calls", "Terse: corrupt data",
    "Terse: values that are not finite", "Terse: out of memory",
    "Terse: communication failed",       "Terse: a call at the wrong time",
    "Terse: CUDA reported an error",
};
static_assert(kShortTexts.back() != nullptr);

// MPI calls this only where it was given Terse's operation for a reduction of its own. It has no way to
// return an error.
void refuse_average(void*, void*, int*, MPI_Datatype*) {
  std::fputs(
      "Terse: Terse_Op_average() was given to a reduction of MPI's own, which cannot form an average: use it "
      "in "
      "Terse_Allreduce, or MPI_SUM here\n",
      stderr);
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

void release() noexcept {
  for (int* key : {&made.state_key, &at_finalize_key}) {
    if (*key != MPI_KEYVAL_INVALID) MPI_Comm_free_keyval(key);  // attributes stay
  }
  if (made.average != MPI_OP_NULL) MPI_Op_free(&made.average);
  if (made.bfloat16 != MPI_DATATYPE_NULL) MPI_Type_free(&made.bfloat16);
  if (made.float16 != MPI_DATATYPE_NULL) MPI_Type_free(&made.float16);
}

// MPI_Finalize deletes the attributes of MPI_COMM_SELF before anything else, while MPI still works.
int at_finalize(MPI_Comm, int, void*, void*) {
  finalizing = true;
  release();
  return MPI_SUCCESS;
}

void make_two_bytes(const char* name, MPI_Datatype& type) {
  check([&] { return MPI_Type_contiguous(2, MPI_BYTE, &type); });
  check([&] { return MPI_Type_set_name(type, name); });
  check([&] { return MPI_Type_commit(&type); });
}

void make() {
  try {
    make_two_bytes("Terse_Type_float16", made.float16);
    make_two_bytes("Terse_Type_bfloat16", made.bfloat16);
    check([] { return MPI_Op_create(refuse_average, 1, &made.average); });
    check([] { return MPI_Add_error_class(&made.error_class); });
    for (std::size_t i = 0; i < kErrorCodes; ++i) {
      check([&] { return MPI_Add_error_code(made.error_class, &made.error_codes[i]); });
      check([&] { return MPI_Add_error_string(made.error_codes[i], kShortTexts[i]); });
    }
    check([] { return MPI_Comm_create_keyval(copy_state, delete_state, &made.state_key, nullptr); });
    check(
        [] { return MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &at_finalize_key, nullptr); });
    check([] { return MPI_Comm_set_attr(MPI_COMM_SELF, at_finalize_key, nullptr); });
    check([] { return MPI_Comm_free_keyval(&at_finalize_key); });
  } catch (...) {
    release();
    throw;
  }
}

}  // namespace

bool mpi_is_up() noexcept {
  int up = 0;
  int down = 0;
  MPI_Initialized(&up);
  MPI_Finalized(&down);
  return up && !down && !finalizing;
}

const Handles& handles() {
  if (!mpi_is_up()) {
    throw Error(ErrorCode::invalid_state,
                "Terse was called before MPI_Init or after MPI_Finalize: call it in between");
  }
  if (!complete) {
    const std::lock_guard lock(making);
    if (!complete) {
      make();
      complete = true;
    }
  }
  return made;
}

const Handles* handles_so_far() noexcept { return complete ? &made : nullptr; }

}  // namespace terse::c_api

using namespace terse::c_api;

namespace {

// Errors: what an error handler of the program throws.
template <class T>
T handle_or(T Handles::*handle, T none) {
  std::exception_ptr thrown;
  try {
    return mpi_is_up() ? handles().*handle : none;
  } catch (const HandlerThrew& handler) {
    thrown = handler.what;
  } catch (const MpiFailure&) {
    return none;
  }
  std::rethrow_exception(thrown);
}

}  // namespace

MPI_Datatype Terse_Type_float16(void) { return handle_or(&Handles::float16, MPI_DATATYPE_NULL); }
MPI_Datatype Terse_Type_bfloat16(void) { return handle_or(&Handles::bfloat16, MPI_DATATYPE_NULL); }
MPI_Op Terse_Op_average(void) { return handle_or(&Handles::average, MPI_OP_NULL); }
int Terse_Error_class(void) { return handle_or(&Handles::error_class, MPI_ERR_OTHER); }

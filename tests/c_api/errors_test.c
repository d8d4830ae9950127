// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Wrong calls: the same error on all ranks, as an MPI error with a handler, a class, a code and a sentence.
#include "check.h"

enum { kCount = 1000 };

static MPI_Comm comm;
static float in[kCount], out[kCount];
static char last_rank[32];
static int last = 0;

// An error of Terse's, the same on all ranks, whose sentence has the parts; then a good call works.
static void expect_error(int code, Terse_Errcode kind, const char* part, const char* other, int line) {
  int class = MPI_SUCCESS, length = -1;
  char text[TERSE_MAX_ERROR_STRING];
  check_ints(Terse_Error_code(code), kind, "the kind of error", __FILE__, line);
  MPI_Error_class(code, &class);
  check_ints(class, Terse_Error_class(), "its class", __FILE__, line);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_INT(length, strlen(text));
  check_text(text, "Terse_", __FILE__, line);
  check_text(text, part, __FILE__, line);
  check_text(text, other, __FILE__, line);
  char of_rank_0[TERSE_MAX_ERROR_STRING];
  memcpy(of_rank_0, text, sizeof text);
  MPI_Bcast(of_rank_0, TERSE_MAX_ERROR_STRING, MPI_CHAR, 0, MPI_COMM_WORLD);
  check_that(strcmp(of_rank_0, text) == 0, "all ranks have the same sentence", __FILE__, line);
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  check_ints(outcome.result, TERSE_RESULT_NONE, "the outcome of what failed", __FILE__, line);
  for (int i = 0; i < kCount; ++i) in[i] = 3.0f;
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
  CHECK(out[kCount / 2] == 3.0f);
}

static void of_one_rank(void) {
  int code = Terse_Allreduce(last ? NULL : in, out, kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "input is a null pointer", last_rank, __LINE__);
  code = Terse_Allreduce(in, last ? NULL : out, kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "output is a null pointer", last_rank, __LINE__);
  code = Terse_Allreduce(in, out, last ? -5 : kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "count is -5", last_rank, __LINE__);
  code = Terse_Allreduce_c(in, out, last ? -5 : kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "count is -5", last_rank, __LINE__);
  code = Terse_Allreduce(in, last ? MPI_IN_PLACE : out, kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "recvbuf is MPI_IN_PLACE", last_rank, __LINE__);
  code = Terse_Allreduce(in, last ? in + 1 : out, kCount - 1, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "overlap", last_rank, __LINE__);
  // what only Terse has, for something else
  code = Terse_Allreduce(in, out, kCount, last ? MPI_INT : MPI_FLOAT, Terse_Op_average(), comm);
  expect_error(code, TERSE_ERR_UNSUPPORTED, "MPI_INT", last_rank, __LINE__);
  code = Terse_Allreduce(in, out, kCount, last ? MPI_DATATYPE_NULL : MPI_FLOAT, Terse_Op_average(), comm);
  expect_error(code, TERSE_ERR_UNSUPPORTED, "MPI_DATATYPE_NULL", last_rank, __LINE__);
  code = Terse_Allreduce(in, out, kCount, Terse_Type_bfloat16(), last ? MPI_MAX : MPI_SUM, comm);
  expect_error(code, TERSE_ERR_UNSUPPORTED, "Terse_Type_bfloat16", last_rank, __LINE__);
}

static void mismatches(void) {
  if (world_size < 2) return;
  int code = Terse_Allreduce(in, out, last ? kCount - 1 : kCount, MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_MISMATCH, "count is 1000", last_rank, __LINE__);
  code = Terse_Allreduce(in, out, kCount / 2, last ? MPI_DOUBLE : MPI_FLOAT, MPI_SUM, comm);
  expect_error(code, TERSE_ERR_MISMATCH, "dtype is f32", last_rank, __LINE__);
  code = Terse_Allreduce(in, out, kCount, MPI_FLOAT, last ? Terse_Op_average() : MPI_SUM, comm);
  expect_error(code, TERSE_ERR_MISMATCH, "op is sum", last_rank, __LINE__);
  Terse_Feedback feedback;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  code = Terse_Allreduce_with(
      in, out, kCount, MPI_FLOAT, MPI_SUM, comm,
      &(Terse_Options){.size = sizeof(Terse_Options), .feedback = last ? TERSE_FEEDBACK_NULL : feedback});
  expect_error(code, TERSE_ERR_MISMATCH, "feedback is", last_rank, __LINE__);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

static int handler_calls = 0;
static int handler_code = MPI_SUCCESS;
static MPI_Comm handler_comm;

static void handler(MPI_Comm* of, int* code, ...) {
  char text[TERSE_MAX_ERROR_STRING];
  int length = 0;
  ++handler_calls;
  handler_code = *code;
  handler_comm = *of;
  CHECK_INT(Terse_Error_string(*code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "null");
}

static void handlers(void) {
  MPI_Errhandler mine;
  MPI_Comm_create_errhandler(handler, &mine);
  MPI_Comm_set_errhandler(comm, mine);
  for (int i = 1; i <= 3; ++i) {
    const int code = Terse_Allreduce(NULL, out, kCount, MPI_FLOAT, MPI_SUM, comm);
    CHECK_INT(handler_calls, i);
    CHECK_INT(handler_code, code);
    CHECK(handler_comm == comm);
  }
  // calls without a communicator: MPI_COMM_WORLD's
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, mine);
  CHECK_INT(Terse_Error_code(Terse_Feedback_create(NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(handler_calls, 4);
  CHECK(handler_comm == MPI_COMM_WORLD);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  MPI_Errhandler_free(&mine);
}

static void codes(void) {
  char text[TERSE_MAX_ERROR_STRING], mpis[TERSE_MAX_ERROR_STRING];
  int length = 0, class = MPI_SUCCESS;
  CHECK_INT(Terse_Error_code(MPI_SUCCESS), TERSE_ERR_NONE);
  CHECK_INT(Terse_Error_code(MPI_ERR_OTHER), TERSE_ERR_NONE);
  CHECK(Terse_Error_class() > MPI_ERR_LASTCODE);
  // MPI's codes have MPI's text, and so has one of Terse's that was not the last
  CHECK_INT(Terse_Error_string(MPI_ERR_COMM, text, &length), MPI_SUCCESS);
  MPI_Error_string(MPI_ERR_COMM, mpis, &length);
  CHECK(strcmp(text, mpis) == 0);
  const int first = Terse_Allreduce(in, out, kCount, MPI_INT, Terse_Op_average(), comm);
  const int second = Terse_Allreduce(in, NULL, kCount, MPI_FLOAT, MPI_SUM, comm);
  CHECK(first != second);
  CHECK_INT(Terse_Error_code(first), TERSE_ERR_UNSUPPORTED);
  CHECK_INT(Terse_Error_string(first, text, &length), MPI_SUCCESS);
  CHECK(strcmp(text, "Terse: not supported") == 0);
  MPI_Error_string(second, mpis, &length);
  CHECK(strcmp(mpis, "Terse: an argument makes no sense") == 0);
  MPI_Error_class(Terse_Get_outcome(MPI_COMM_NULL, NULL), &class);
  CHECK_INT(class, Terse_Error_class());
  CHECK_INT(Terse_Error_code(Terse_Get_outcome(comm, NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Comm_set_info(MPI_COMM_NULL, MPI_INFO_NULL)), TERSE_ERR_INVALID_ARGUMENT);
}

// Programs that were compiled with an earlier or a later struct.
static void outcomes_of_other_sizes(void) {
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  struct {
    Terse_Outcome known;
    unsigned char more[32];
  } wide;
  memset(&wide, 0xaa, sizeof wide);
  CHECK_INT(Terse_Get_outcome_sized(comm, &wide.known, sizeof wide.known + 16), MPI_SUCCESS);
  CHECK_INT(wide.known.result, TERSE_RESULT_COMPRESSED);
  for (int i = 0; i < 32; ++i) CHECK_INT(wide.more[i], i < 16 ? 0 : 0xaa);
  memset(&wide, 0xaa, sizeof wide);
  CHECK_INT(Terse_Get_outcome_sized(comm, &wide.known, offsetof(Terse_Outcome, algorithm)), MPI_SUCCESS);
  CHECK_INT(wide.known.result, TERSE_RESULT_COMPRESSED);
  CHECK_INT(((unsigned char*)&wide)[offsetof(Terse_Outcome, algorithm)], 0xaa);
}

// A small call is not agreed upon: what is wrong is told to its caller.
static void of_small_calls(void) {
  float few[2] = {1, 1};
  MPI_Comm plain;
  MPI_Comm_dup(MPI_COMM_WORLD, &plain);
  const int code = Terse_Allreduce(few, NULL, 2, MPI_FLOAT, MPI_SUM, plain);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, few, 2, MPI_FLOAT, MPI_SUM, plain), MPI_SUCCESS);
  CHECK(few[1] == (float)world_size);
  MPI_Comm_free(&plain);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  last = world_rank == world_size - 1;
  if (world_size > 1) sprintf(last_rank, "rank %d", world_size - 1);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  of_one_rank();
  mismatches();
  handlers();
  codes();
  outcomes_of_other_sizes();
  of_small_calls();
  MPI_Comm_free(&comm);
  return check_end();
}

// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// One buffer as sendbuf and recvbuf is refused as MPI refuses it, whatever the size, type, codec, algorithm
// and way to call; MPI_IN_PLACE says the same in MPI's words, and works.
#include "check.h"

enum { kMost = 70000 };

static MPI_Comm comm;
static double room[kMost], other[kMost];  // large enough for every type
static char last_rank[32];
static int last = 0;

static void* data_of(int wrong) { return wrong ? (void*)room : (void*)other; }

// The sentence says what to do, names the call and, where one rank alone is wrong, that rank; the data are
// untouched.
static void expect_refusal(int code, const char* part, int line) {
  char text[TERSE_MAX_ERROR_STRING] = "";
  int length = 0;
  check_ints(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT, "the kind of error", __FILE__, line);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  check_text(text, "are the same buffer: pass MPI_IN_PLACE as sendbuf", __FILE__, line);
  check_text(text, part, __FILE__, line);
  for (int i = 0; i < kMost; ++i) {
    if (room[i] != 3.0) {
      check_that(0, "the data are as before", __FILE__, line);
      return;
    }
  }
}

static int wait_for(Terse_Request* request, int begun) {
  CHECK_INT(begun, MPI_SUCCESS);
  const int code = Terse_Wait(request);
  CHECK(*request == TERSE_REQUEST_NULL);
  return code;
}

// Every way to call, where `wrong` says whether this rank is.
static void every_call(int count, MPI_Datatype type, MPI_Op op, int wrong, const char* part) {
  const void* from = room;
  void* to = data_of(wrong);
  const MPI_Count large = count;
  Terse_Request request = TERSE_REQUEST_NULL;
  Terse_Feedback feedback = TERSE_FEEDBACK_NULL;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  const Terse_Options options = {.size = sizeof options, .feedback = feedback};
  expect_refusal(Terse_Allreduce(from, to, count, type, op, comm), part, __LINE__);
  expect_refusal(Terse_Allreduce_c(from, to, large, type, op, comm), part, __LINE__);
  expect_refusal(Terse_Allreduce_with(from, to, large, type, op, comm, &options), part, __LINE__);
  expect_refusal(Terse_Allreduce_with(from, to, large, type, op, comm, NULL), part, __LINE__);
  expect_refusal(Terse_Allreduce_fused(1, &from, &to, &large, type, op, comm, NULL, NULL), part, __LINE__);
  expect_refusal(wait_for(&request, Terse_Iallreduce(from, to, count, type, op, comm, &request)), part,
                 __LINE__);
  expect_refusal(wait_for(&request, Terse_Iallreduce_c(from, to, large, type, op, comm, &request)), part,
                 __LINE__);
  expect_refusal(
      wait_for(&request, Terse_Iallreduce_with(from, to, large, type, op, comm, &options, &request)), part,
      __LINE__);
  expect_refusal(wait_for(&request, Terse_Iallreduce_with(from, to, large, type, op, comm, NULL, &request)),
                 part, __LINE__);
  expect_refusal(
      wait_for(&request, Terse_Iallreduce_fused(1, &from, &to, &large, type, op, comm, NULL, NULL, &request)),
      part, __LINE__);
  expect_refusal(Terse_Allreduce_init(from, to, count, type, op, comm, MPI_INFO_NULL, &request), part,
                 __LINE__);
  expect_refusal(Terse_Allreduce_init_c(from, to, large, type, op, comm, MPI_INFO_NULL, &request), part,
                 __LINE__);
  CHECK(request == TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  // the second of two tensors
  static float first[64], sum[64];
  const void* sources[] = {first, from};
  void* results[] = {sum, to};
  const MPI_Count counts[] = {64, large};
  if (type == MPI_FLOAT) {
    expect_refusal(Terse_Allreduce_fused(2, sources, results, counts, type, op, comm, NULL, NULL),
                   "tensor 1: ", __LINE__);
  }
}

static void in_place(void) {
  static float sum[1000];
  for (int i = 0; i < 1000; ++i) sum[i] = 3.0f;
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, sum, 1000, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
  CHECK(sum[7] == 3.0f);
}

static void with_options(const char* codec, const char* algorithm, const char* min_bytes) {
  const char* const pairs[] = {
      "terse_codec", codec, "terse_algorithm", algorithm, "terse_min_bytes", min_bytes, "terse_check",
      "all",         NULL};
  CHECK_INT(set_options(comm, pairs), MPI_SUCCESS);
  const int counts[] = {1, 2, 1000, kMost};
  const MPI_Datatype types[] = {MPI_FLOAT, MPI_DOUBLE, Terse_Type_float16(), Terse_Type_bfloat16()};
  for (int c = 0; c < 4; ++c) {
    for (int t = 0; t < 4; ++t) {
      every_call(counts[c], types[t], t % 2 == 0 ? MPI_SUM : Terse_Op_average(), 1, "Terse_");
      in_place();
    }
    every_call(counts[c], MPI_FLOAT, MPI_SUM, last, last_rank);  // the others are told, and do not wait
    in_place();
  }
}

// A small call that ranks do not agree on is refused, too.
static void small_calls(void) {
  MPI_Comm plain;
  MPI_Comm_dup(MPI_COMM_WORLD, &plain);
  expect_refusal(Terse_Allreduce(room, room, 1, MPI_FLOAT, MPI_SUM, plain), "Terse_Allreduce: ", __LINE__);
  Terse_Request request = TERSE_REQUEST_NULL;
  const int begun = Terse_Iallreduce(room, room, 1, MPI_FLOAT, MPI_SUM, plain, &request);
  expect_refusal(wait_for(&request, begun), "Terse_Wait: ", __LINE__);
  float one = 1;
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, &one, 1, MPI_FLOAT, MPI_SUM, plain), MPI_SUCCESS);
  CHECK(one == (float)world_size);
  MPI_Comm_free(&plain);
}

// Where there are no elements there is nothing to alias, and both MPI libraries say so; what is null is that
// first of all; what is MPI's is refused by MPI.
static void what_is_not_refused(void) {
  CHECK_INT(Terse_Allreduce(room, room, 0, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  CHECK_INT(MPI_Allreduce(room, room, 0, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  char text[TERSE_MAX_ERROR_STRING] = "";
  int length = 0, class = MPI_SUCCESS;
  const int code = Terse_Allreduce(NULL, NULL, 1000, MPI_FLOAT, MPI_SUM, comm);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "null pointer");
  MPI_Error_class(Terse_Allreduce(room, room, 4, MPI_INT, MPI_SUM, comm), &class);
  CHECK_INT(class, MPI_ERR_BUFFER);
  MPI_Error_class(MPI_Allreduce(room, room, 4, MPI_FLOAT, MPI_SUM, comm), &class);
  CHECK_INT(class, MPI_ERR_BUFFER);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  last = world_rank == world_size - 1;
  if (world_size > 1) sprintf(last_rank, "rank %d", world_size - 1);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  for (int i = 0; i < kMost; ++i) room[i] = 3.0;
  with_options("identity", "auto", "auto");
  with_options("onebit", "auto", "64K");
  with_options("onebit", "two_phase", "0");
  with_options("topk", "gather", "0");
  with_options("cast:f16", "exact", "auto");
  small_calls();
  what_is_not_refused();
  MPI_Comm_free(&comm);
  return check_end();
}

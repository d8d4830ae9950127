// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Wrong nonblocking, persistent and fused calls: the errors of blocking ones, told when the call is over; and
// requests that are none, or are used at the wrong time.
#include "check.h"

enum { kCount = 1000 };

static MPI_Comm comm;
static float in[kCount], out[kCount];
static char last_rank[32];
static int last = 0;

static void expect_sentence(int code, Terse_Errcode kind, const char* call, const char* part, int line) {
  int class = MPI_SUCCESS, length = -1;
  char text[TERSE_MAX_ERROR_STRING] = "";
  check_ints(Terse_Error_code(code), kind, "the kind of error", __FILE__, line);
  MPI_Error_class(code, &class);
  check_ints(class, Terse_Error_class(), "its class", __FILE__, line);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  check_that(strncmp(text, call, strlen(call)) == 0, "the sentence begins with the call", __FILE__, line);
  check_text(text, part, __FILE__, line);
}

// An error that all ranks get with the same sentence; then a good call works.
static void expect_error(int code, Terse_Errcode kind, const char* call, const char* part, int line) {
  char text[TERSE_MAX_ERROR_STRING] = "", of_rank_0[TERSE_MAX_ERROR_STRING];
  int length = 0;
  expect_sentence(code, kind, call, part, line);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  check_text(text, last_rank, __FILE__, line);
  memcpy(of_rank_0, text, sizeof text);
  MPI_Bcast(of_rank_0, TERSE_MAX_ERROR_STRING, MPI_CHAR, 0, MPI_COMM_WORLD);
  check_that(strcmp(of_rank_0, text) == 0, "all ranks have the same sentence", __FILE__, line);
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  if (strncmp(call, "Terse_Allreduce_init", 20) != 0) {  // that makes no call
    check_ints(outcome.result, TERSE_RESULT_NONE, "the outcome of what failed", __FILE__, line);
  }
  for (int i = 0; i < kCount; ++i) in[i] = 3.0f;
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
  CHECK(out[kCount / 2] == 3.0f);
}

// A nonblocking call that begins well on all ranks: what its end says.
static int end_of(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op) {
  Terse_Request request = TERSE_REQUEST_NULL;
  CHECK_INT(Terse_Iallreduce(from, to, count, type, op, comm, &request), MPI_SUCCESS);
  CHECK(request != TERSE_REQUEST_NULL);
  int code = MPI_SUCCESS, flag = 0;
  if (count % 2 == 0) {
    code = Terse_Wait(&request);
  } else {
    while (!flag && code == MPI_SUCCESS) code = Terse_Test(&request, &flag);
    CHECK_INT(flag, 1);
  }
  CHECK(request == TERSE_REQUEST_NULL);
  return code;
}

static void of_one_rank(void) {
  expect_error(end_of(last ? NULL : in, out, kCount, MPI_FLOAT, MPI_SUM), TERSE_ERR_INVALID_ARGUMENT,
               "Terse_Wait: ", "input is a null pointer", __LINE__);
  expect_error(end_of(in, last ? NULL : out, kCount - 1, MPI_FLOAT, MPI_SUM), TERSE_ERR_INVALID_ARGUMENT,
               "Terse_Test: ", "output is a null pointer", __LINE__);
  expect_error(end_of(in, last ? MPI_IN_PLACE : out, kCount, MPI_FLOAT, MPI_SUM), TERSE_ERR_INVALID_ARGUMENT,
               "Terse_Wait: ", "recvbuf is MPI_IN_PLACE", __LINE__);
  expect_error(end_of(in, last ? in + 1 : out, kCount - 2, MPI_FLOAT, MPI_SUM), TERSE_ERR_INVALID_ARGUMENT,
               "Terse_Wait: ", "overlap", __LINE__);
  expect_error(end_of(in, out, kCount, last ? MPI_INT : MPI_FLOAT, Terse_Op_average()), TERSE_ERR_UNSUPPORTED,
               "Terse_Wait: ", "MPI_INT", __LINE__);
  expect_error(end_of(in, out, kCount, Terse_Type_bfloat16(), last ? MPI_MAX : MPI_SUM),
               TERSE_ERR_UNSUPPORTED, "Terse_Wait: ", "Terse_Type_bfloat16", __LINE__);
  Terse_Request request = TERSE_REQUEST_NULL;
  CHECK_INT(Terse_Iallreduce(in, out, last ? -5 : kCount, MPI_FLOAT, MPI_SUM, comm, &request), MPI_SUCCESS);
  expect_error(Terse_Waitall(1, &request), TERSE_ERR_INVALID_ARGUMENT, "Terse_Waitall: ", "count is -5",
               __LINE__);
  if (world_size == 1) return;
  expect_error(end_of(in, out, last ? kCount - 2 : kCount, MPI_FLOAT, MPI_SUM), TERSE_ERR_MISMATCH,
               "Terse_Wait: ", "count is 1000", __LINE__);
  expect_error(end_of(in, out, kCount, MPI_FLOAT, last ? Terse_Op_average() : MPI_SUM), TERSE_ERR_MISMATCH,
               "Terse_Wait: ", "op is sum", __LINE__);
  // blocking here and nonblocking there
  const int code = last ? Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm)
                        : end_of(in, out, kCount, MPI_FLOAT, MPI_SUM);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_MISMATCH);
}

// Nowhere to put the request, on one rank: it makes the call that the others make, large or small.
static void no_place_for_the_request(void) {
  Terse_Request request = TERSE_REQUEST_NULL;
  int code = MPI_SUCCESS;
  for (int count = kCount; count > 0; count -= kCount - 1) {
    out[0] = -1;
    code = Terse_Iallreduce(in, out, count, MPI_FLOAT, MPI_SUM, comm, last ? NULL : &request);
    if (last) {
      expect_sentence(code, TERSE_ERR_INVALID_ARGUMENT, "Terse_Iallreduce: ", "nowhere to put the request",
                      __LINE__);
    } else {
      CHECK_INT(code, MPI_SUCCESS);
      CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
    }
    const float first = out[0];
    CHECK(first != -1);
    CHECK_INT(Terse_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
    CHECK(out[0] == first);
  }
  code =
      Terse_Allreduce_init(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, last ? NULL : &request);
  expect_error(code, TERSE_ERR_INVALID_ARGUMENT, "Terse_Allreduce_init: ", "nowhere to put the request",
               __LINE__);
  CHECK(request == TERSE_REQUEST_NULL);
  code = Terse_Iallreduce(in, out, kCount, MPI_INT, MPI_SUM, comm, NULL);
  expect_sentence(code, TERSE_ERR_INVALID_ARGUMENT, "Terse_Iallreduce: ", "nowhere to put the request",
                  __LINE__);
  code = Terse_Allreduce_init_c(in, out, kCount, MPI_INT, MPI_SUM, comm, MPI_INFO_NULL, NULL);
  expect_sentence(code, TERSE_ERR_INVALID_ARGUMENT, "Terse_Allreduce_init_c: ", "nowhere to put the request",
                  __LINE__);
}

static int init_with(const char* key, const char* value, const void* from, int count,
                     Terse_Request* request) {
  MPI_Info info;
  MPI_Info_create(&info);
  if (key != NULL) MPI_Info_set(info, key, value);
  const int code = Terse_Allreduce_init(from, out, count, MPI_FLOAT, MPI_SUM, comm, info, request);
  MPI_Info_free(&info);
  return code;
}

static void plans(void) {
  Terse_Request request = TERSE_REQUEST_NULL;
  const char* call = "Terse_Allreduce_init: ";
  expect_error(init_with(last ? "terse_codec" : NULL, "twobit", in, kCount, &request),
               TERSE_ERR_INVALID_ARGUMENT, call, "MPI_Info key terse_codec: unknown codec 'twobit'",
               __LINE__);
  expect_error(init_with(last ? "terse_codex" : NULL, "onebit", in, kCount, &request),
               TERSE_ERR_INVALID_ARGUMENT, call, "MPI_Info key terse_codex: unknown option", __LINE__);
  expect_error(init_with(NULL, NULL, last ? NULL : in, kCount, &request), TERSE_ERR_INVALID_ARGUMENT, call,
               "input is a null pointer", __LINE__);
  expect_error(init_with(NULL, NULL, in, last ? -5 : kCount, &request), TERSE_ERR_INVALID_ARGUMENT, call,
               "count is -5", __LINE__);
  if (world_size > 1) {
    expect_error(init_with(last ? "terse_codec" : NULL, "onebit:block=128", in, kCount, &request),
                 TERSE_ERR_MISMATCH, call, "codec is onebit:block=64", __LINE__);
  }
  CHECK(request == TERSE_REQUEST_NULL);
  // at the wrong time
  CHECK_INT(init_with(NULL, NULL, in, kCount, &request), MPI_SUCCESS);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  size_t size = 0;
  expect_sentence(Terse_Start(&request), TERSE_ERR_INVALID_STATE, "Terse_Start: ", "has a call under way",
                  __LINE__);
  expect_sentence(Terse_Request_save(request, NULL, &size), TERSE_ERR_INVALID_STATE,
                  "Terse_Request_save: ", "has a call under way", __LINE__);
  expect_sentence(Terse_Request_load(request, NULL, 0), TERSE_ERR_INVALID_STATE,
                  "Terse_Request_load: ", "has a call under way", __LINE__);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  int flag = 0;
  CHECK_INT(Terse_Test(&request, &flag), MPI_SUCCESS);
  CHECK_INT(flag, 1);
  expect_sentence(Terse_Request_save(request, NULL, NULL), TERSE_ERR_INVALID_ARGUMENT,
                  "Terse_Request_save: ", "nowhere to put the size", __LINE__);
  // a call that fails leaves the request to be started again
  CHECK_INT(Terse_Request_save(request, NULL, &size), MPI_SUCCESS);
  void* save = malloc(size);
  CHECK_INT(Terse_Request_save(request, save, &size), MPI_SUCCESS);
  CHECK_INT(Terse_Request_load(request, save, last ? 0 : size), MPI_SUCCESS);
  if (world_size > 1) {
    CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
    expect_error(Terse_Wait(&request), TERSE_ERR_MISMATCH, "Terse_Wait: ", "feedback is", __LINE__);
  }
  CHECK(request != TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Request_load(request, save, size), MPI_SUCCESS);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  free(save);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
}

static void no_requests(void) {
  Terse_Request none = TERSE_REQUEST_NULL, request;
  int flag = 0;
  size_t size = 0;
  CHECK_INT(Terse_Wait(&none), MPI_SUCCESS);
  CHECK_INT(Terse_Test(&none, &flag), MPI_SUCCESS);
  CHECK_INT(flag, 1);
  CHECK_INT(Terse_Waitall(1, &none), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&none), MPI_SUCCESS);
  const Terse_Errcode kind = TERSE_ERR_INVALID_ARGUMENT;
  expect_sentence(Terse_Start(&none), kind, "Terse_Start: ", "TERSE_REQUEST_NULL", __LINE__);
  expect_sentence(Terse_Start(NULL), kind, "Terse_Start: ", "pointer to the request is null", __LINE__);
  expect_sentence(Terse_Wait(NULL), kind, "Terse_Wait: ", "pointer to the request is null", __LINE__);
  expect_sentence(Terse_Test(NULL, &flag), kind, "Terse_Test: ", "pointer to the request is null", __LINE__);
  expect_sentence(Terse_Test(&none, NULL), kind, "Terse_Test: ", "nowhere to put the flag", __LINE__);
  expect_sentence(Terse_Waitall(-1, &none), kind, "Terse_Waitall: ", "-1 requests", __LINE__);
  expect_sentence(Terse_Waitall(2, NULL), kind, "Terse_Waitall: ", "null pointer", __LINE__);
  expect_sentence(Terse_Request_free(NULL), kind, "Terse_Request_free: ", "pointer to the request is null",
                  __LINE__);
  expect_sentence(Terse_Request_save(none, NULL, &size), kind, "Terse_Request_save: ", "TERSE_REQUEST_NULL",
                  __LINE__);
  expect_sentence(Terse_Request_load(none, NULL, 0), kind, "Terse_Request_load: ", "TERSE_REQUEST_NULL",
                  __LINE__);
  expect_sentence(Terse_Request_load_all(none, NULL, NULL, 0), kind,
                  "Terse_Request_load_all: ", "TERSE_REQUEST_NULL", __LINE__);
  // of a nonblocking call
  CHECK_INT(Terse_Iallreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, &request), MPI_SUCCESS);
  expect_sentence(Terse_Start(&request), kind, "Terse_Start: ", "nonblocking", __LINE__);
  expect_sentence(Terse_Request_save(request, NULL, &size), kind, "Terse_Request_save: ", "nonblocking",
                  __LINE__);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  int class = MPI_SUCCESS;
  MPI_Error_class(Terse_Iallreduce(in, out, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_NULL, &request), &class);
  CHECK_INT(class, MPI_ERR_COMM);
  CHECK_INT(Terse_Error_code(
                Terse_Allreduce_init(in, out, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_NULL, MPI_INFO_NULL, &request)),
            kind);
  MPI_Error_class(Terse_Iallreduce(in, out, 1, MPI_FLOAT, MPI_OP_NULL, comm, &request), &class);
  CHECK_INT(class, MPI_ERR_OP);
  CHECK_INT(Terse_Allreduce_init(in, out, 1, MPI_FLOAT, MPI_OP_NULL, comm, MPI_INFO_NULL, &request),
            MPI_SUCCESS);
  MPI_Error_class(Terse_Start(&request), &class);
  CHECK_INT(class, MPI_ERR_OP);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
}

static void lists(void) {
  float more[3] = {1, 2, 3};
  const void* from[] = {in, MPI_IN_PLACE};
  void* to[] = {out, more};
  MPI_Count counts[] = {kCount, 3};
  const char* call = "Terse_Allreduce_fused: ";
  const Terse_Errcode kind = TERSE_ERR_INVALID_ARGUMENT;
  Terse_Request request = TERSE_REQUEST_NULL;
  int code = Terse_Allreduce_fused(last ? -1 : 2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL);
  expect_error(code, kind, call, "-1 tensors", __LINE__);
  code = Terse_Allreduce_fused(2, from, last ? NULL : to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL);
  expect_error(code, kind, call, "null pointer for 2 tensors", __LINE__);
  counts[1] = last ? -3 : 3;
  code = Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL);
  expect_error(code, kind, call, "tensor 1: the count is -3", __LINE__);
  counts[1] = 3;
  to[1] = last ? NULL : more;
  code = Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL);
  expect_error(code, kind, call, "tensor 1: input is a null pointer", __LINE__);
  to[1] = last ? MPI_IN_PLACE : more;
  CHECK_INT(Terse_Iallreduce_fused(2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL, &request),
            MPI_SUCCESS);
  expect_error(Terse_Wait(&request), kind, "Terse_Wait: ", "tensor 1: recvbuf is MPI_IN_PLACE", __LINE__);
  to[1] = more;
  Terse_Feedback feedbacks[2];
  CHECK_INT(Terse_Feedback_create(&feedbacks[0]), MPI_SUCCESS);
  feedbacks[1] = feedbacks[0];
  code = Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, feedbacks, NULL);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_STATE);
  CHECK_INT(Terse_Feedback_free(&feedbacks[0]), MPI_SUCCESS);
  if (world_size > 1) {
    code = Terse_Allreduce_fused(last ? 1 : 2, from, to, counts, MPI_FLOAT, MPI_SUM, comm, NULL, NULL);
    CHECK_INT(Terse_Error_code(code), TERSE_ERR_MISMATCH);
  }
  code = Terse_Allreduce_fused(2, from, to, counts, MPI_INT, Terse_Op_average(), comm, NULL, NULL);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_UNSUPPORTED);
}

static int handler_calls = 0;
static MPI_Comm handler_comm;

static void handler(MPI_Comm* of, int* code, ...) {
  (void)code;
  ++handler_calls;
  handler_comm = *of;
}

// The communicator's, or the world's where the communicator was freed. Once for each call that returns an
// error.
static void handlers(void) {
  MPI_Errhandler mine;
  MPI_Comm gone;
  Terse_Request requests[3];
  MPI_Comm_create_errhandler(handler, &mine);
  MPI_Comm_dup(comm, &gone);
  MPI_Comm_set_errhandler(gone, mine);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, mine);
  for (int i = 0; i < 3; ++i) {
    CHECK_INT(Terse_Iallreduce(i == 1 ? in : NULL, out, kCount, MPI_FLOAT, MPI_SUM, gone, &requests[i]),
              MPI_SUCCESS);
  }
  expect_sentence(Terse_Waitall(3, requests), TERSE_ERR_INVALID_ARGUMENT, "Terse_Waitall: ", "null",
                  __LINE__);
  CHECK_INT(handler_calls, 1);
  CHECK(handler_comm == gone);
  for (int i = 0; i < 3; ++i) CHECK(requests[i] == TERSE_REQUEST_NULL);
  for (int i = 0; i < 2; ++i) {
    CHECK_INT(Terse_Iallreduce(NULL, out, kCount, MPI_FLOAT, MPI_SUM, gone, &requests[i]), MPI_SUCCESS);
  }
  CHECK_INT(Terse_Error_code(Terse_Request_free(&requests[0])), TERSE_ERR_INVALID_ARGUMENT);
  CHECK(requests[0] == TERSE_REQUEST_NULL);
  CHECK_INT(handler_calls, 2);
  MPI_Comm_free(&gone);
  CHECK_INT(Terse_Error_code(Terse_Wait(&requests[1])), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(handler_calls, 3);
  CHECK(handler_comm == MPI_COMM_WORLD);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Errhandler_free(&mine);
}

// What is Terse's and not for intercommunicators is refused at once; the rest is MPI's.
static void intercommunicators(void) {
  if (world_size < 2) return;
  const int upper = world_rank % 2;
  MPI_Comm part, inter;
  Terse_Request request = TERSE_REQUEST_NULL;
  float value = (float)(1 + upper), sum = 0;
  int remote = 0;
  MPI_Comm_split(MPI_COMM_WORLD, upper, world_rank, &part);
  MPI_Intercomm_create(part, 0, MPI_COMM_WORLD, 1 - upper, 7, &inter);
  MPI_Comm_set_errhandler(inter, MPI_ERRORS_RETURN);
  MPI_Comm_remote_size(inter, &remote);
  CHECK_INT(Terse_Iallreduce(&value, &sum, 1, MPI_FLOAT, MPI_SUM, inter, &request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK(sum == (float)(remote * (2 - upper)));
  const int code = Terse_Iallreduce(&value, &sum, 1, MPI_FLOAT, Terse_Op_average(), inter, &request);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_UNSUPPORTED);
  CHECK(request == TERSE_REQUEST_NULL);
  MPI_Comm_free(&inter);
  MPI_Comm_free(&part);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  last = world_rank == world_size - 1;
  if (world_size > 1) sprintf(last_rank, "rank %d", world_size - 1);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  of_one_rank();
  no_place_for_the_request();
  plans();
  no_requests();
  lists();
  handlers();
  intercommunicators();
  MPI_Comm_free(&comm);
  return check_end();
}

// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2
//
// Before MPI_Init and after MPI_Finalize: every call is refused and none crashes. What hangs on communicators
// at MPI_Finalize does no harm. The user's own attributes live beside Terse's.
#include "check.h"

static void expect_refusals(void) {
  float value = 1, sum = 0;
  char text[TERSE_MAX_ERROR_STRING] = "";
  int length = 0;
  Terse_Outcome outcome;
  MPI_Info info;
  Terse_Feedback feedback;
  CHECK(Terse_Type_float16() == MPI_DATATYPE_NULL);
  CHECK(Terse_Type_bfloat16() == MPI_DATATYPE_NULL);
  CHECK(Terse_Op_average() == MPI_OP_NULL);
  CHECK_INT(Terse_Error_class(), MPI_ERR_OTHER);
  const int code = Terse_Allreduce(&value, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  CHECK_INT(code, MPI_ERR_OTHER);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_STATE);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "before MPI_Init or after MPI_Finalize");
  CHECK_INT(Terse_Error_string(MPI_ERR_COMM, text, &length), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce(&value, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD), MPI_ERR_OTHER);
  CHECK_INT(Terse_Allreduce_c(&value, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_NULL), MPI_ERR_OTHER);
  CHECK_INT(Terse_Get_outcome(MPI_COMM_WORLD, &outcome), MPI_ERR_OTHER);
  CHECK_INT(Terse_Comm_set_info(MPI_COMM_WORLD, MPI_INFO_NULL), MPI_ERR_OTHER);
  CHECK_INT(Terse_Comm_get_info(MPI_COMM_WORLD, &info), MPI_ERR_OTHER);
  Terse_Request request = TERSE_REQUEST_NULL;
  int flag = 0;
  CHECK_INT(Terse_Iallreduce(&value, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Iallreduce(&value, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_NULL, &request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Allreduce_fused(0, NULL, NULL, NULL, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, NULL, NULL),
            MPI_ERR_OTHER);
  CHECK_INT(
      Terse_Allreduce_init(&value, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, MPI_INFO_NULL, &request),
      MPI_ERR_OTHER);
  CHECK_INT(Terse_Start(&request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Wait(&request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Test(&request, &flag), MPI_ERR_OTHER);
  CHECK_INT(Terse_Waitall(1, &request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK(request == TERSE_REQUEST_NULL);
  // residuals need no MPI
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_load(feedback, "not a save", 10), MPI_ERR_OTHER);
  CHECK_INT(Terse_Error_code(MPI_ERR_OTHER), TERSE_ERR_CORRUPT_DATA);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

static int live_copies = 0, copies_made = 0;

// A user's attribute, handed on to every duplicate that the user makes: Terse runs nobody's callbacks.
static int copy(MPI_Comm comm, int key, void* extra, void* value, void* copied, int* flag) {
  (void)comm, (void)key, (void)extra;
  *(void**)copied = value;
  *flag = 1;
  ++live_copies;
  ++copies_made;
  return MPI_SUCCESS;
}
static int drop(MPI_Comm comm, int key, void* value, void* extra) {
  (void)comm, (void)key, (void)value, (void)extra;
  --live_copies;
  return MPI_SUCCESS;
}

static void check_call(MPI_Comm comm, int ranks) {
  float data[300];
  for (int i = 0; i < 300; ++i) data[i] = 1.0f;
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, data, 300, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  for (int i = 0; i < 300; ++i) CHECK(data[i] == (float)ranks);
}

static void attributes_of_the_user(void) {
  int key = MPI_KEYVAL_INVALID, marked = 0;
  MPI_Comm comm, other;
  MPI_Comm_create_keyval(copy, drop, &key, NULL);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  ++live_copies;
  MPI_Comm_set_attr(comm, key, &marked);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  check_call(comm, world_size);
  CHECK_INT(copies_made, 0);
  MPI_Comm_dup(comm, &other);
  check_call(other, world_size);
  CHECK_INT(copies_made, 1);
  CHECK_INT(live_copies, 2);
  MPI_Comm_free(&comm);
  CHECK_INT(live_copies, 1);
  check_call(other, world_size);
  MPI_Comm_disconnect(&other);
  CHECK_INT(live_copies, 0);
  MPI_Comm_free_keyval(&key);
}

// The first attribute of MPI_COMM_SELF to go when MPI ends, or the last: a library's call at that time.
static int call_at_the_end(MPI_Comm comm, int key, void* value, void* extra) {
  (void)comm, (void)key, (void)value, (void)extra;
  float data[2] = {1, 1};
  const int code = Terse_Allreduce(MPI_IN_PLACE, data, 2, MPI_FLOAT, MPI_SUM, MPI_COMM_SELF);
  CHECK(code == MPI_SUCCESS || code == MPI_ERR_OTHER);
  return MPI_SUCCESS;
}

// Persistent requests that outlive MPI: their residuals do, too.
static Terse_Request left_request, left_active;
static float left_data[300], left_active_data[300];

static void leave_requests(MPI_Comm comm) {
  CHECK_INT(Terse_Allreduce_init(MPI_IN_PLACE, left_data, 300, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL,
                                 &left_request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Start(&left_request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&left_request), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, left_active_data, 300, MPI_FLOAT, MPI_SUM, comm, &left_active),
            MPI_SUCCESS);
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Comm_free(&comm);  // which waits for what is under way
}

static void find_requests(void) {
  size_t size = 0;
  CHECK_INT(Terse_Request_save(left_request, NULL, &size), MPI_SUCCESS);
  CHECK(size > sizeof left_data);
  CHECK_INT(Terse_Start(&left_request), MPI_ERR_OTHER);
  CHECK_INT(Terse_Request_free(&left_request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&left_active), MPI_ERR_OTHER);
  CHECK_INT(Terse_Request_free(&left_active), MPI_ERR_OTHER);
  CHECK(left_request == TERSE_REQUEST_NULL && left_active == TERSE_REQUEST_NULL);
}

int main(int argc, char** argv) {
  expect_refusals();
  check_begin(&argc, &argv);
  int early = MPI_KEYVAL_INVALID, late = MPI_KEYVAL_INVALID;
  MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, call_at_the_end, &early, NULL);
  MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, call_at_the_end, &late, NULL);
  MPI_Comm_set_attr(MPI_COMM_SELF, early, NULL);
  attributes_of_the_user();
  // left to MPI_Finalize
  MPI_Comm left;
  MPI_Comm_dup(MPI_COMM_WORLD, &left);
  CHECK_INT(set_onebit(left), MPI_SUCCESS);
  CHECK_INT(set_onebit(MPI_COMM_WORLD), MPI_SUCCESS);
  check_call(left, world_size);
  check_call(MPI_COMM_WORLD, world_size);
  check_call(MPI_COMM_SELF, 1);
  MPI_Comm requests;
  MPI_Comm_dup(left, &requests);
  leave_requests(requests);
  MPI_Comm_set_attr(MPI_COMM_SELF, late, NULL);
  const int status = check_end();
  expect_refusals();
  find_requests();
  return check_failures == 0 ? status : EXIT_FAILURE;
}

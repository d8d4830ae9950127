// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Options of a communicator: set, read, inherited by duplicates, refused.
#define _POSIX_C_SOURCE 200112L  // setenv
#include "check.h"

enum { kCount = 1000 };

static float data[kCount];

// What a call does: result and reason.
static void expect_call(MPI_Comm comm, Terse_Result result, Terse_Reason reason, int line) {
  Terse_Outcome outcome;
  for (int i = 0; i < kCount; ++i) data[i] = 2.0f;
  check_ints(Terse_Allreduce(MPI_IN_PLACE, data, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS,
             "the call", __FILE__, line);
  check_that(data[kCount - 1] == 2.0f, "the average is right", __FILE__, line);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  check_ints(outcome.result, result, "the result", __FILE__, line);
  check_ints(outcome.reason, reason, "the reason", __FILE__, line);
}

static void expect_option(MPI_Comm comm, const char* key, const char* want, int line) {
  MPI_Info info = MPI_INFO_NULL;
  char value[MPI_MAX_INFO_VAL + 1] = "";
  int found = 0;
  if (!CHECK_INT(Terse_Comm_get_info(comm, &info), MPI_SUCCESS)) return;
  MPI_Info_get(info, key, MPI_MAX_INFO_VAL, value, &found);
  check_that(found, key, __FILE__, line);
  check_text(value, want, __FILE__, line);
  MPI_Info_free(&info);
}

static void are_set_and_read(void) {
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  // before any call, then after one: the table's
  for (int round = 0; round < 2; ++round) {
    expect_option(comm, "terse_codec", "identity", __LINE__);
    expect_option(comm, "terse_algorithm", "auto", __LINE__);
    expect_option(comm, "terse_min_bytes", "auto", __LINE__);
    expect_option(comm, "terse_segment_bytes", "auto", __LINE__);
    expect_option(comm, "terse_check", "call", __LINE__);
    expect_call(comm, TERSE_RESULT_EXACT, TERSE_REASON_ASKED, __LINE__);
  }
  const char* const first[] = {"terse_codec",
                               "onebit:block=64",
                               "terse_algorithm",
                               "two_phase",
                               "terse_min_bytes",
                               "0",
                               "unknown_to_terse",
                               "7",
                               NULL};
  CHECK_INT(set_options(comm, first), MPI_SUCCESS);
  expect_call(comm, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  expect_option(comm, "terse_codec", "onebit:block=64", __LINE__);
  expect_option(comm, "terse_algorithm", "two_phase", __LINE__);
  expect_option(comm, "terse_min_bytes", "0", __LINE__);
  // after a call: what is given changes, the rest stays
  const char* const second[] = {"terse_min_bytes", "64K", "terse_check", "payload", NULL};
  CHECK_INT(set_options(comm, second), MPI_SUCCESS);
  expect_call(comm, TERSE_RESULT_EXACT, TERSE_REASON_SMALL, __LINE__);
  expect_option(comm, "terse_codec", "onebit:block=64", __LINE__);
  expect_option(comm, "terse_min_bytes", "65536", __LINE__);
  expect_option(comm, "terse_check", "payload", __LINE__);
  CHECK_INT(Terse_Comm_set_info(comm, MPI_INFO_NULL), MPI_SUCCESS);
  expect_option(comm, "terse_check", "payload", __LINE__);
  // what was read can be set elsewhere
  MPI_Info all;
  MPI_Comm other;
  CHECK_INT(Terse_Comm_get_info(comm, &all), MPI_SUCCESS);
  MPI_Comm_dup(MPI_COMM_WORLD, &other);
  CHECK_INT(Terse_Comm_set_info(other, all), MPI_SUCCESS);
  expect_option(other, "terse_codec", "onebit:block=64", __LINE__);
  expect_option(other, "terse_check", "payload", __LINE__);
  expect_call(other, TERSE_RESULT_EXACT, TERSE_REASON_SMALL, __LINE__);
  MPI_Info_free(&all);
  MPI_Comm_free(&other);
  MPI_Comm_free(&comm);
}

// Options, not outcomes; what is set on one afterwards is not set on the other.
static void duplicates_inherit(void) {
  MPI_Comm first, second, third, part;
  MPI_Comm_dup(MPI_COMM_WORLD, &first);
  CHECK_INT(set_onebit(first), MPI_SUCCESS);
  expect_call(first, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  MPI_Comm_dup(first, &second);
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(second, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_NONE);
  expect_option(second, "terse_codec", "onebit:block=64", __LINE__);
  const char* const exact[] = {"terse_algorithm", "exact", NULL};
  CHECK_INT(set_options(first, exact), MPI_SUCCESS);
  MPI_Comm_dup(second, &third);
  MPI_Comm_free(&second);
  expect_call(third, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  expect_call(first, TERSE_RESULT_EXACT, TERSE_REASON_ASKED, __LINE__);
  MPI_Comm_split(third, 0, world_rank, &part);  // MPI hands attributes on to duplicates only
  expect_call(part, TERSE_RESULT_EXACT, TERSE_REASON_ASKED, __LINE__);
  MPI_Comm_free(&part);
  MPI_Comm_free(&third);
  MPI_Comm_free(&first);
}

// One rank's or all ranks', and the options stay as they were.
static void what_makes_no_sense(void) {
  const struct {
    const char* key;
    const char* value;
    const char* part;
    const char* other;
  } rows[] = {
      {"terse_codec", "twobit", "MPI_Info key terse_codec: unknown codec 'twobit'", "onebit"},
      {"terse_codec", "onebit:block=7", "MPI_Info key terse_codec", "block"},
      {"terse_algorithm", "fast", "MPI_Info key terse_algorithm", "two_phase"},
      {"terse_min_bytes", "-1", "MPI_Info key terse_min_bytes", "64K"},
      {"terse_segment_bytes", "0", "MPI_Info key terse_segment_bytes", "at least 1"},
      {"terse_check", "none", "MPI_Info key terse_check", "payload"},
      {"terse_codek", "onebit", "MPI_Info key terse_codek: unknown option 'codek'",
       "codec, algorithm, min_bytes, segment_bytes, check"},
      {"terse_", "1", "MPI_Info key terse_: unknown option ''", "codec"},
  };
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  char last_rank[32] = "";
  if (world_size > 1) sprintf(last_rank, "rank %d", world_size - 1);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    for (int all = 0; all < 2; ++all) {
      const char* const bad[] = {"terse_check", "all", rows[i].key, rows[i].value, NULL};
      const char* const good[] = {"terse_check", "all", NULL};
      const int code = set_options(comm, all || world_rank == world_size - 1 ? bad : good);
      char text[TERSE_MAX_ERROR_STRING];
      int length = 0;
      CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT);
      CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
      CHECK_TEXT(text, "Terse_Comm_set_info");
      CHECK_TEXT(text, rows[i].part);
      CHECK_TEXT(text, rows[i].other);
      if (!all) CHECK_TEXT(text, last_rank);
      expect_option(comm, "terse_check", "call", __LINE__);
      expect_option(comm, "terse_codec", "onebit:block=64", __LINE__);
    }
  }
  expect_call(comm, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  if (world_size > 1) {
    const char* const mine[] = {"terse_segment_bytes", world_rank == 0 ? "1M" : "2M", NULL};
    const int code = set_options(comm, mine);
    char text[TERSE_MAX_ERROR_STRING];
    int length = 0;
    CHECK_INT(Terse_Error_code(code), TERSE_ERR_MISMATCH);
    CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
    CHECK_TEXT(text, "segment_bytes is 1048576 on rank 0, 2097152 on rank");
    expect_call(comm, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  }
  CHECK_INT(Terse_Error_code(Terse_Comm_get_info(comm, NULL)), TERSE_ERR_INVALID_ARGUMENT);
  MPI_Comm_free(&comm);
}

static void override_the_environment(void) {
  MPI_Comm comm, other;
  setenv("TERSE_CODEC", "cast:f16", 1);
  setenv("TERSE_CHECK", "all", 1);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  expect_option(comm, "terse_codec", "cast:f16", __LINE__);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  expect_option(comm, "terse_codec", "onebit:block=64", __LINE__);
  expect_option(comm, "terse_check", "all", __LINE__);
  unsetenv("TERSE_CODEC");
  unsetenv("TERSE_CHECK");
  expect_option(comm, "terse_check", "all", __LINE__);  // in force since it was made
  MPI_Comm_dup(MPI_COMM_WORLD, &other);
  setenv("TERSE_CHECK", "never", 1);
  MPI_Info info;
  CHECK_INT(Terse_Error_code(Terse_Comm_get_info(other, &info)), TERSE_ERR_INVALID_ARGUMENT);
  const int code = Terse_Allreduce(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, other);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT);
  unsetenv("TERSE_CHECK");
  expect_call(other, TERSE_RESULT_EXACT, TERSE_REASON_ASKED, __LINE__);
  MPI_Comm_free(&other);
  MPI_Comm_free(&comm);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  are_set_and_read();
  duplicates_inherit();
  what_makes_no_sense();
  override_the_environment();
  return check_end();
}

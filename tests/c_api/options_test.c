// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Options of a call: a program of another version, keys of the call's own beside the communicator's,
// residuals, a stream, the tensor's name; what is wrong with them on one rank is told to all.
#include "check.h"

enum { kCount = 1000 };

static MPI_Comm comm;  // which compresses whatever the size
static float in[kCount], out[kCount];
static char last_rank[32];
static int last = 0;

// Every call that has options, made to its end.
typedef int Call(const Terse_Options* options);

static int blocking(const Terse_Options* options) {
  return Terse_Allreduce_with(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm, options);
}
static int nonblocking(const Terse_Options* options) {
  Terse_Request request = TERSE_REQUEST_NULL;
  const int code =
      Terse_Iallreduce_with(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm, options, &request);
  return code == MPI_SUCCESS ? Terse_Wait(&request) : code;
}
static int fused(const Terse_Options* options) {
  const void* from[] = {in, in + 600};
  void* to[] = {out, out + 600};
  const MPI_Count counts[] = {600, kCount - 600};
  return Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, Terse_Op_average(), comm, NULL, options);
}
static int nonblocking_fused(const Terse_Options* options) {
  const void* from[] = {in, in + 600};
  void* to[] = {out, out + 600};
  const MPI_Count counts[] = {600, kCount - 600};
  Terse_Request request = TERSE_REQUEST_NULL;
  const int code = Terse_Iallreduce_fused(2, from, to, counts, MPI_FLOAT, Terse_Op_average(), comm, NULL,
                                          options, &request);
  return code == MPI_SUCCESS ? Terse_Wait(&request) : code;
}

enum { kCalls = 4, kFirstFused = 2 };
static Call* const calls[kCalls] = {blocking, nonblocking, fused, nonblocking_fused};

static void expect_outcome(Terse_Result result, Terse_Reason reason, int line) {
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  check_ints(outcome.result, result, "the result", __FILE__, line);
  check_ints(outcome.reason, reason, "the reason", __FILE__, line);
}

// A call of values that every codec here keeps, and what its outcome says.
static void expect_call(Call* call, const Terse_Options* options, Terse_Result result, Terse_Reason reason,
                        int line) {
  for (int i = 0; i < kCount; ++i) in[i] = i % 3 == 0 ? 2.0f : -2.0f;
  memset(out, 0, sizeof out);
  check_ints(call(options), MPI_SUCCESS, "the call", __FILE__, line);
  check_that(memcmp(in, out, sizeof in) == 0, "the average is right", __FILE__, line);
  expect_outcome(result, reason, line);
}

// An error that all ranks get with the same sentence, in which `part` and `other` are, of one rank's options
// or of all ranks'. Nothing is written, and the communicator's options are what they were.
static void expect_error(Call* call, const Terse_Options* options, Terse_Errcode kind, const char* part,
                         const char* other, int line) {
  char text[TERSE_MAX_ERROR_STRING] = "", of_rank_0[TERSE_MAX_ERROR_STRING];
  int length = 0;
  for (int i = 0; i < kCount; ++i) out[i] = -7.0f;
  const int code = call(options);
  check_ints(Terse_Error_code(code), kind, "the kind of error", __FILE__, line);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  check_text(text, part, __FILE__, line);
  check_text(text, other, __FILE__, line);
  memcpy(of_rank_0, text, sizeof text);
  MPI_Bcast(of_rank_0, TERSE_MAX_ERROR_STRING, MPI_CHAR, 0, MPI_COMM_WORLD);
  check_that(strcmp(of_rank_0, text) == 0, "all ranks have the same sentence", __FILE__, line);
  check_that(out[0] == -7.0f && out[kCount - 1] == -7.0f, "nothing is written", __FILE__, line);
  expect_call(blocking, NULL, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, line);
}

// The info of a call with one key; the last rank alone has it where `everywhere` is 0.
static MPI_Info info_of(const char* key, const char* value, int everywhere) {
  MPI_Info info;
  MPI_Info_create(&info);
  if (everywhere || last) MPI_Info_set(info, key, value);
  return info;
}

// Programs that were compiled with an earlier or a later struct, or forgot to set the size.
static void sizes(void) {
  const Terse_Options good = {.size = sizeof good};
  for (int c = 0; c < kCalls; ++c) {
    expect_call(calls[c], NULL, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    expect_call(calls[c], &good, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    Terse_Options wrong = {.size = last ? 0 : sizeof wrong};
    expect_error(calls[c], &wrong, TERSE_ERR_INVALID_ARGUMENT, "Terse_Options::size is 0", last_rank,
                 __LINE__);
    if (last) wrong.size = sizeof wrong - 1;
    expect_error(calls[c], &wrong, TERSE_ERR_INVALID_ARGUMENT, "sizeof(Terse_Options)", last_rank, __LINE__);
    struct {
      Terse_Options known;
      unsigned char more[24];
    } later;
    memset(&later, 0, sizeof later);
    later.known.size = sizeof later;
    expect_call(calls[c], &later.known, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    later.more[23] = last ? 1 : 0;
    expect_error(calls[c], &later.known, TERSE_ERR_INVALID_ARGUMENT, "does not know", last_rank, __LINE__);
    later.known.size = sizeof later.known;  // what is behind it is not looked at
    expect_call(calls[c], &later.known, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  }
}

// A key of the call goes before the communicator's, for this call; what has no key is the communicator's.
static void keys(void) {
  const struct {
    const char* key;
    const char* value;
    Terse_Result result;
    Terse_Reason reason;
  } rows[] = {
      {"terse_codec", "identity", TERSE_RESULT_EXACT, TERSE_REASON_ASKED},
      {"terse_codec", "cast:bf16", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      {"terse_algorithm", "exact", TERSE_RESULT_EXACT, TERSE_REASON_ASKED},
      {"terse_min_bytes", "64K", TERSE_RESULT_EXACT, TERSE_REASON_SMALL},
      {"terse_segment_bytes", "1K", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      {"terse_check", "payload", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      // the communicator's alone, so not even read
      {"terse_threads", "many", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      {"terse_progress", "never", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      {"terse_cuda_aware", "perhaps", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
      // not Terse's
      {"codec", "identity", TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    for (int c = 0; c < kCalls; ++c) {
      Terse_Options options = {.size = sizeof options, .info = info_of(rows[i].key, rows[i].value, 1)};
      expect_call(calls[c], &options, rows[i].result, rows[i].reason, __LINE__);
      MPI_Info_free(&options.info);
      expect_call(calls[c], NULL, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    }
  }
  // no info is none at all, said in MPI's words or not
  const Terse_Options none[] = {{.size = sizeof none[0]}, {.size = sizeof none[0], .info = MPI_INFO_NULL}};
  for (int c = 0; c < kCalls; ++c) {
    expect_call(calls[c], &none[0], TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    expect_call(calls[c], &none[1], TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  }
  // the codec of a call is the one that is used: 16 bits of an element are sent instead of one
  if (world_size == 1) return;
  Terse_Outcome by_communicator, by_call;
  Terse_Options options = {.size = sizeof options, .info = info_of("terse_codec", "cast:bf16", 1)};
  expect_call(blocking, NULL, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  CHECK_INT(Terse_Get_outcome(comm, &by_communicator), MPI_SUCCESS);
  expect_call(blocking, &options, TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  CHECK_INT(Terse_Get_outcome(comm, &by_call), MPI_SUCCESS);
  CHECK(by_call.bytes_sent > 4 * by_communicator.bytes_sent);
  MPI_Info_free(&options.info);
}

static void wrong_keys(void) {
  const struct {
    const char* key;
    const char* value;
    const char* part;
  } rows[] = {
      {"terse_codec", "twobit", "MPI_Info key terse_codec: unknown codec 'twobit'"},
      {"terse_algorithm", "fast", "MPI_Info key terse_algorithm"},
      {"terse_min_bytes", "-1", "MPI_Info key terse_min_bytes"},
      {"terse_segment_bytes", "0", "MPI_Info key terse_segment_bytes"},
      {"terse_check", "none", "MPI_Info key terse_check"},
      {"terse_codek", "onebit", "MPI_Info key terse_codek: unknown option 'codek'"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    for (int c = 0; c < kCalls; ++c) {
      for (int everywhere = 0; everywhere < 2; ++everywhere) {
        Terse_Options options = {.size = sizeof options,
                                 .info = info_of(rows[i].key, rows[i].value, everywhere)};
        expect_error(calls[c], &options, TERSE_ERR_INVALID_ARGUMENT, rows[i].part,
                     everywhere ? "" : last_rank, __LINE__);
        MPI_Info_free(&options.info);
      }
    }
  }
  if (world_size == 1) return;
  // ranks whose calls differ
  for (int c = 0; c < kCalls; ++c) {
    Terse_Options options = {.size = sizeof options, .info = info_of("terse_codec", "onebit:block=128", 0)};
    expect_error(calls[c], &options, TERSE_ERR_MISMATCH, "block=64", "block=128", __LINE__);
    MPI_Info_free(&options.info);
  }
}

// Options and info are read when a nonblocking call begins, and are the caller's again.
static void are_the_callers_again(void) {
  char name[] = "layer 1";
  Terse_Request request = TERSE_REQUEST_NULL;
  Terse_Options options = {
      .size = sizeof options, .info = info_of("terse_algorithm", "exact", 1), .tensor = name};
  for (int i = 0; i < kCount; ++i) in[i] = 1.0f;
  CHECK_INT(Terse_Iallreduce_with(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, &options, &request),
            MPI_SUCCESS);
  MPI_Info_free(&options.info);
  memset(&options, 0xaa, sizeof options);
  memset(name, 'x', sizeof name - 1);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK(out[0] == (float)world_size && out[kCount - 1] == (float)world_size);
  expect_outcome(TERSE_RESULT_EXACT, TERSE_REASON_ASKED, __LINE__);
}

static size_t size_of_save(Terse_Feedback feedback) {
  size_t size = 0;
  CHECK_INT(Terse_Feedback_save(feedback, NULL, &size), MPI_SUCCESS);
  return size;
}

// Those of the options are of one tensor: a list has its own.
static void residuals(void) {
  Terse_Feedback of_call, of_list[2];
  CHECK_INT(Terse_Feedback_create(&of_call), MPI_SUCCESS);
  for (int t = 0; t < 2; ++t) CHECK_INT(Terse_Feedback_create(&of_list[t]), MPI_SUCCESS);
  for (int c = kFirstFused; c < kCalls; ++c) {
    expect_error(calls[c], &(Terse_Options){.size = sizeof(Terse_Options), .feedback = of_call},
                 TERSE_ERR_INVALID_ARGUMENT, "list", "feedback", __LINE__);
    expect_error(
        calls[c],
        &(Terse_Options){.size = sizeof(Terse_Options), .feedback = last ? of_call : TERSE_FEEDBACK_NULL},
        TERSE_ERR_INVALID_ARGUMENT, "list", last_rank, __LINE__);
  }
  CHECK_INT(size_of_save(of_call), 0);
  for (int c = 0; c < kFirstFused; ++c) {
    expect_call(calls[c], &(Terse_Options){.size = sizeof(Terse_Options), .feedback = of_call},
                TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  }
  CHECK(size_of_save(of_call) > 4 * kCount);
  // a list's, beside options of the call
  const void* from[] = {in, in + 600};
  void* to[] = {out, out + 600};
  const MPI_Count counts[] = {600, kCount - 600};
  Terse_Options options = {.size = sizeof options, .info = info_of("terse_codec", "onebit:block=8", 1)};
  CHECK_INT(
      Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, Terse_Op_average(), comm, of_list, &options),
      MPI_SUCCESS);
  expect_outcome(TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  for (int t = 0; t < 2; ++t) CHECK(size_of_save(of_list[t]) > 0);
  // they belong to that codec
  const int code =
      Terse_Allreduce_fused(2, from, to, counts, MPI_FLOAT, Terse_Op_average(), comm, of_list, NULL);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_STATE);
  MPI_Info_free(&options.info);
  for (int t = 0; t < 2; ++t) CHECK_INT(Terse_Feedback_free(&of_list[t]), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&of_call), MPI_SUCCESS);
}

// Null: the communicator's, which is the legacy default one. (What a stream does: tests/device.)
static void streams(void) {
  CHECK_INT(Terse_Comm_set_stream(comm, NULL), MPI_SUCCESS);
  for (int c = 0; c < kCalls; ++c) {
    expect_call(calls[c], &(Terse_Options){.size = sizeof(Terse_Options), .stream = NULL},
                TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
  }
}

// Ranks that mean different tensors of one size.
static void names(void) {
  for (int c = 0; c < kCalls; ++c) {
    expect_call(calls[c], &(Terse_Options){.size = sizeof(Terse_Options), .tensor = "layer 1"},
                TERSE_RESULT_COMPRESSED, TERSE_REASON_NONE, __LINE__);
    if (world_size == 1) continue;
    const Terse_Options options = {.size = sizeof options, .tensor = last ? "layer 2" : "layer 1"};
    expect_error(calls[c], &options, TERSE_ERR_MISMATCH, "layer 1", "layer 2", __LINE__);
    expect_error(calls[c], &options, TERSE_ERR_MISMATCH, "tensor", last_rank, __LINE__);
  }
}

// What is MPI's goes on to MPI, whatever the options of the call are; wrong ones are refused all the same.
static void passed_on(void) {
  int numbers[50], sums[50];
  for (int i = 0; i < 50; ++i) numbers[i] = i;
  Terse_Request request = TERSE_REQUEST_NULL;
  Terse_Options options = {
      .size = sizeof options, .info = info_of("terse_codec", "cast:f16", 1), .tensor = "numbers"};
  CHECK_INT(Terse_Allreduce_with(numbers, sums, 50, MPI_INT, MPI_SUM, comm, &options), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(sums[i], world_size * i);
  expect_outcome(TERSE_RESULT_EXACT, TERSE_REASON_PASSED_ON, __LINE__);
  memset(sums, 0, sizeof sums);
  CHECK_INT(Terse_Iallreduce_with(numbers, sums, 50, MPI_INT, MPI_SUM, comm, &options, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(sums[i], world_size * i);
  options.size = 1;
  const int code = Terse_Allreduce_with(numbers, sums, 50, MPI_INT, MPI_SUM, comm, &options);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(
      Terse_Error_code(Terse_Iallreduce_with(numbers, sums, 50, MPI_INT, MPI_SUM, comm, &options, &request)),
      TERSE_ERR_INVALID_ARGUMENT);
  CHECK(request == TERSE_REQUEST_NULL);
  MPI_Info_free(&options.info);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  last = world_rank == world_size - 1;
  if (world_size > 1) sprintf(last_rank, "rank %d", world_size - 1);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  sizes();
  keys();
  wrong_keys();
  are_the_callers_again();
  residuals();
  streams();
  names();
  passed_on();
  MPI_Comm_free(&comm);
  return check_end();
}

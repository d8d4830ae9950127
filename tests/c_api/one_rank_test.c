// SPDX-License-Identifier: Apache-2.0
// ranks: 1
//
// On one rank nothing is sent: with algorithm=auto nothing is left out either, whatever the codec and
// min_bytes are. An algorithm that is named encodes and decodes as on any number of ranks.
#include "check.h"

enum { kCount = 5000 };

static float in[kCount], out[kCount];

static Terse_Outcome outcome_of(MPI_Comm comm) {
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  return outcome;
}

static void expect_exact(MPI_Comm comm, int line) {
  const Terse_Outcome outcome = outcome_of(comm);
  check_ints(outcome.result, TERSE_RESULT_EXACT, "the result", __FILE__, line);
  check_ints(outcome.reason, TERSE_REASON_SLOWER, "the reason", __FILE__, line);
  check_ints((long long)outcome.exact_count, kCount, "elements that went uncompressed", __FILE__, line);
  check_that(memcmp(in, out, sizeof in) == 0, "the output is the input", __FILE__, line);
  memset(out, 0, sizeof out);
}

static void automatic(const char* codec, const char* min_bytes) {
  MPI_Comm comm;
  Terse_Feedback feedback;
  Terse_Request request = TERSE_REQUEST_NULL;
  const char* const pairs[] = {"terse_codec", codec, "terse_algorithm", "auto", "terse_min_bytes",
                               min_bytes,     NULL};
  MPI_Comm_dup(MPI_COMM_SELF, &comm);
  CHECK_INT(set_options(comm, pairs), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  expect_exact(comm, __LINE__);
  for (int again = 0; again < 2; ++again) {
    CHECK_INT(Terse_Allreduce_with(in, out, kCount, MPI_FLOAT, MPI_SUM, comm,
                                   &(Terse_Options){.size = sizeof(Terse_Options), .feedback = feedback}),
              MPI_SUCCESS);
    expect_exact(comm, __LINE__);
  }
  CHECK_INT(Terse_Iallreduce(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm, &request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  expect_exact(comm, __LINE__);
  CHECK_INT(Terse_Allreduce_init(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  expect_exact(comm, __LINE__);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  MPI_Comm_free(&comm);
}

static void named(const char* codec, const char* algorithm) {
  MPI_Comm comm;
  const char* const pairs[] = {"terse_codec", codec, "terse_algorithm", algorithm, "terse_min_bytes",
                               "0",           NULL};
  MPI_Comm_dup(MPI_COMM_SELF, &comm);
  CHECK_INT(set_options(comm, pairs), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  const Terse_Outcome outcome = outcome_of(comm);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  CHECK(strcmp(outcome.algorithm, algorithm) == 0);
  CHECK(memcmp(in, out, sizeof in) != 0);  // these values do not survive it
  MPI_Comm_free(&comm);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  for (int i = 0; i < kCount; ++i) in[i] = 0.1f + (float)(i % 777);
  const char* const codecs[] = {"onebit", "topk", "cast:bf16"};
  for (int c = 0; c < 3; ++c) {
    automatic(codecs[c], "0");
    automatic(codecs[c], "auto");
    named(codecs[c], strcmp(codecs[c], "topk") == 0 ? "gather" : "two_phase");
  }
  named("onebit", "gather");
  return check_end();
}

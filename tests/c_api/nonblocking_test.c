// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Nonblocking and fused calls: results bit-identical to those of blocking ones; many at once, ended in any
// order.
#include "values.h"

static const int kCounts[] = {0, 1, 63, 64, 65, 997};
enum { kNumberOfCounts = 6 };

static void expect_same(const void* got, const void* want, int t, int count, int line) {
  check_that(memcmp(got, want, bytes_at(t) * (size_t)count) == 0, "the same bits", __FILE__, line);
}

static int all_are(const float* data, int count, float value) {
  for (int i = 0; i < count; ++i) {
    if (data[i] != value) return 0;
  }
  return 1;
}

// One tensor of each type, operation and count, in place or not.
static void as_blocking(MPI_Comm comm) {
  for (int variant = 0; variant < kTypes * 2 * 2 * kNumberOfCounts; ++variant) {
    const int t = variant % kTypes, in_place = variant / kTypes % 2;
    const int count = kCounts[variant / (4 * kTypes)];
    const MPI_Op op = variant / (2 * kTypes) % 2 ? MPI_SUM : Terse_Op_average();
    const size_t bytes = bytes_at(t) * (size_t)count;
    void *in = room_for(t, count), *out = room_for(t, count), *want = room_for(t, count);
    Terse_Request request = TERSE_REQUEST_NULL;
    fill(in, t, count, variant);
    CHECK_INT(Terse_Allreduce(in, want, count, type_at(t), op, comm), MPI_SUCCESS);
    if (in_place) memcpy(out, in, bytes);
    const void* from = in_place ? MPI_IN_PLACE : in;
    if (variant % 3 == 0) {
      CHECK_INT(Terse_Iallreduce_c(from, out, count, type_at(t), op, comm, &request), MPI_SUCCESS);
    } else {
      CHECK_INT(Terse_Iallreduce(from, out, count, type_at(t), op, comm, &request), MPI_SUCCESS);
    }
    CHECK(request != TERSE_REQUEST_NULL);
    int flag = 0;
    if (variant % 2 == 0) {
      while (!flag) CHECK_INT(Terse_Test(&request, &flag), MPI_SUCCESS);
    } else {
      CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
    }
    CHECK(request == TERSE_REQUEST_NULL);
    expect_same(out, want, t, count, __LINE__);
    free(in);
    free(out);
    free(want);
  }
}

// Many at once. Ranks wait for them in different orders, by different calls, with blocking calls in between.
static void in_any_order(MPI_Comm comm) {
  enum { kCalls = 9 };
  void *in[kCalls], *out[kCalls], *want[kCalls];
  Terse_Request requests[kCalls];
  int numbers = 0, largest = 0, tested = 1, flag = 0;
  for (int i = 0; i < kCalls; ++i) {
    const int t = i % kTypes, count = 1000 * i + 1;
    in[i] = room_for(t, count);
    out[i] = room_for(t, count);
    want[i] = room_for(t, count);
    fill(in[i], t, count, i);
    CHECK_INT(Terse_Allreduce(in[i], want[i], count, type_at(t), MPI_SUM, comm), MPI_SUCCESS);
  }
  for (int i = 0; i < kCalls; ++i) {
    const int t = i % kTypes;
    CHECK_INT(Terse_Iallreduce(in[i], out[i], 1000 * i + 1, type_at(t), MPI_SUM, comm, &requests[i]),
              MPI_SUCCESS);
    // a blocking call, of MPI's, of Terse's, which some ranks make when the first call is over for them
    if (i == 2 && world_rank == 0) CHECK_INT(Terse_Wait(&requests[0]), MPI_SUCCESS);
    numbers = world_rank;
    if (i == 2) CHECK_INT(Terse_Allreduce(&numbers, &largest, 1, MPI_INT, MPI_MAX, comm), MPI_SUCCESS);
    if (i == 2) CHECK_INT(largest, world_size - 1);
    if (i == 4) CHECK_INT(Terse_Allreduce(in[3], out[2], 65, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  }
  // what was overwritten
  CHECK_INT(Terse_Wait(&requests[2]), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce(in[2], out[2], 2001, type_at(2), MPI_SUM, comm), MPI_SUCCESS);
  if (world_rank % 2 == 0) {
    for (int i = 0; i < kCalls; ++i)
      CHECK_INT(Terse_Wait(&requests[(i * 2 + world_rank) % kCalls]), MPI_SUCCESS);
  } else {
    while (!flag) CHECK_INT(Terse_Test(&requests[7], &flag), MPI_SUCCESS);
    for (int i = kCalls - 1; i > 4; --i) CHECK_INT(Terse_Wait(&requests[i]), MPI_SUCCESS);
    CHECK_INT(Terse_Waitall(kCalls, requests), MPI_SUCCESS);
  }
  for (int i = 0; i < kCalls; ++i) {
    CHECK(requests[i] == TERSE_REQUEST_NULL);
    CHECK_INT(Terse_Test(&requests[i], &tested), MPI_SUCCESS);
    CHECK_INT(tested, 1);
    expect_same(out[i], want[i], i % kTypes, 1000 * i + 1, __LINE__);
    free(in[i]);
    free(out[i]);
    free(want[i]);
  }
}

// What is MPI's goes on as requests of MPI's, and Terse's go on beside them.
static void passed_on(MPI_Comm comm) {
  int numbers[50], most[50];
  static float one[3000], other[3000];
  Terse_Request requests[2], late;
  Terse_Outcome outcome;
  for (int i = 0; i < 50; ++i) numbers[i] = world_rank + i;
  for (int i = 0; i < 3000; ++i) one[i] = 1.0f;
  CHECK_INT(Terse_Iallreduce(one, other, 3000, MPI_FLOAT, MPI_SUM, comm, &requests[0]), MPI_SUCCESS);
  // rank 0 ends Terse's call before it begins MPI's, for which the others wait
  if (world_rank == 0) CHECK_INT(Terse_Wait(&requests[0]), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce(numbers, most, 50, MPI_INT, MPI_MAX, comm, &requests[1]), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&requests[1]), MPI_SUCCESS);
  CHECK(requests[1] == TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_EXACT);
  CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
  CHECK_INT(outcome.exact_count, 50);
  CHECK_INT(Terse_Waitall(2, requests), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(most[i], world_size - 1 + i);
  CHECK(all_are(other, 3000, (float)world_size));
  // in place, ended by Test; and the outcome is of what ended last
  CHECK_INT(Terse_Iallreduce(one, other, 3000, MPI_FLOAT, MPI_SUM, comm, &late), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce_c(MPI_IN_PLACE, numbers, 50, MPI_INT, MPI_MAX, comm, &requests[1]), MPI_SUCCESS);
  int flag = 0;
  while (!flag) CHECK_INT(Terse_Test(&requests[1], &flag), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(numbers[i], world_size - 1 + i);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
  CHECK_INT(Terse_Wait(&late), MPI_SUCCESS);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK(outcome.reason != TERSE_REASON_PASSED_ON);
  CHECK(strcmp(outcome.algorithm, "") != 0);
}

// Two communicators, whose requests ranks wait for in different orders.
static void of_two_communicators(MPI_Comm comm) {
  static float a[5000], b[5000];
  MPI_Comm other;
  MPI_Comm_dup(comm, &other);
  for (int i = 0; i < 5000; ++i) a[i] = b[i] = 1.0f;
  Terse_Request requests[3] = {TERSE_REQUEST_NULL, TERSE_REQUEST_NULL, TERSE_REQUEST_NULL};
  const int first = world_rank % 2;
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, a, 5000, MPI_FLOAT, MPI_SUM, comm, &requests[2 * first]),
            MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, b, 5000, MPI_FLOAT, MPI_SUM, other, &requests[2 * (1 - first)]),
            MPI_SUCCESS);
  CHECK_INT(Terse_Waitall(3, requests), MPI_SUCCESS);
  CHECK(all_are(a, 5000, (float)world_size) && all_are(b, 5000, (float)world_size));
  MPI_Comm_free(&other);
  CHECK_INT(Terse_Waitall(0, NULL), MPI_SUCCESS);
}

// A communicator that is freed, or gets other options, while calls are under way.
static void whose_communicator_goes(MPI_Comm comm) {
  static float a[5000], b[5000];
  int numbers[3] = {1, 2, 3};
  MPI_Comm gone;
  MPI_Comm_dup(comm, &gone);
  for (int i = 0; i < 5000; ++i) a[i] = b[i] = 1.0f;
  Terse_Request requests[3];
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, a, 5000, MPI_FLOAT, MPI_SUM, gone, &requests[0]), MPI_SUCCESS);
  if (world_rank == 0) CHECK_INT(Terse_Wait(&requests[0]), MPI_SUCCESS);
  const char* const pairs[] = {"terse_codec", "identity", NULL};
  CHECK_INT(set_options(gone, pairs), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, b, 5000, MPI_FLOAT, MPI_SUM, gone, &requests[1]), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, numbers, 3, MPI_INT, MPI_SUM, gone, &requests[2]), MPI_SUCCESS);
  if (world_rank == 0) CHECK_INT(Terse_Wait(&requests[1]), MPI_SUCCESS);
  MPI_Comm_free(&gone);
  CHECK_INT(Terse_Waitall(3, requests), MPI_SUCCESS);
  CHECK(all_are(a, 5000, (float)world_size) && all_are(b, 5000, (float)world_size));
  for (int i = 0; i < 3; ++i) CHECK_INT(numbers[i], world_size * (i + 1));
}

// Steps of a training, with residuals.
static void with_feedback(MPI_Comm comm) {
  enum { kCount = 997 };
  for (int t = 0; t < kTypes; ++t) {
    Terse_Feedback blocking, nonblocking;
    CHECK_INT(Terse_Feedback_create(&blocking), MPI_SUCCESS);
    CHECK_INT(Terse_Feedback_create(&nonblocking), MPI_SUCCESS);
    void *in = room_for(t, kCount), *out = room_for(t, kCount), *want = room_for(t, kCount);
    for (int step = 0; step < 4; ++step) {
      Terse_Request request;
      fill(in, t, kCount, step);
      CHECK_INT(Terse_Allreduce_with(in, want, kCount, type_at(t), Terse_Op_average(), comm,
                                     &(Terse_Options){.size = sizeof(Terse_Options), .feedback = blocking}),
                MPI_SUCCESS);
      Terse_Options options = {.size = sizeof options, .feedback = nonblocking};
      CHECK_INT(
          Terse_Iallreduce_with(in, out, kCount, type_at(t), Terse_Op_average(), comm, &options, &request),
          MPI_SUCCESS);
      memset(&options, 0, sizeof options);  // the caller's again
      CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
      expect_same(out, want, t, kCount, __LINE__);
    }
    free(in);
    free(out);
    free(want);
    CHECK_INT(Terse_Feedback_free(&blocking), MPI_SUCCESS);
    CHECK_INT(Terse_Feedback_free(&nonblocking), MPI_SUCCESS);
  }
}

// A fused call, blocking and not, beside a call for each tensor; every other tensor in place.
static void fused(MPI_Comm comm, MPI_Op op, int with_residuals) {
  for (int t = 0; t < kTypes; ++t) {
    void *in[kNumberOfCounts], *want[kNumberOfCounts], *out[2][kNumberOfCounts];
    MPI_Count counts[kNumberOfCounts];
    Terse_Feedback alone[kNumberOfCounts], of[2][kNumberOfCounts];
    for (int i = 0; i < kNumberOfCounts; ++i) {
      counts[i] = kCounts[i];
      in[i] = room_for(t, kCounts[i]);
      want[i] = room_for(t, kCounts[i]);
      CHECK_INT(Terse_Feedback_create(&alone[i]), MPI_SUCCESS);
      for (int k = 0; k < 2; ++k) {
        out[k][i] = room_for(t, kCounts[i]);
        CHECK_INT(Terse_Feedback_create(&of[k][i]), MPI_SUCCESS);
      }
    }
    for (int step = 0; step < 3; ++step) {
      for (int i = 0; i < kNumberOfCounts; ++i) {
        fill(in[i], t, kCounts[i], step * 10 + i);
        CHECK_INT(Terse_Allreduce_with(
                      in[i], want[i], kCounts[i], type_at(t), op, comm,
                      &(Terse_Options){.size = sizeof(Terse_Options),
                                       .feedback = with_residuals ? alone[i] : TERSE_FEEDBACK_NULL}),
                  MPI_SUCCESS);
      }
      for (int k = 0; k < 2; ++k) {
        const void* from[kNumberOfCounts];
        for (int i = 0; i < kNumberOfCounts; ++i) {
          from[i] = i % 2 == 0 ? MPI_IN_PLACE : in[i];
          if (i % 2 == 0) memcpy(out[k][i], in[i], bytes_at(t) * (size_t)kCounts[i]);
        }
        const Terse_Feedback* feedbacks = with_residuals ? of[k] : NULL;
        if (k == 0) {
          CHECK_INT(Terse_Allreduce_fused(kNumberOfCounts, from, out[k], counts, type_at(t), op, comm,
                                          feedbacks, NULL),
                    MPI_SUCCESS);
        } else {
          Terse_Request request;
          CHECK_INT(Terse_Iallreduce_fused(kNumberOfCounts, from, out[k], counts, type_at(t), op, comm,
                                           feedbacks, NULL, &request),
                    MPI_SUCCESS);
          memset((void*)from, 0, sizeof from);  // lists are the caller's again
          CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
        }
        for (int i = 0; i < kNumberOfCounts; ++i) expect_same(out[k][i], want[i], t, kCounts[i], __LINE__);
      }
    }
    for (int i = 0; i < kNumberOfCounts; ++i) {
      free(in[i]);
      free(want[i]);
      CHECK_INT(Terse_Feedback_free(&alone[i]), MPI_SUCCESS);
      for (int k = 0; k < 2; ++k) {
        free(out[k][i]);
        CHECK_INT(Terse_Feedback_free(&of[k][i]), MPI_SUCCESS);
      }
    }
  }
}

// Lists that are MPI's, or empty.
static void other_lists(MPI_Comm comm) {
  int a[3] = {1, 2, 3}, b[2] = {world_rank, 7}, c[2];
  const void* from[] = {MPI_IN_PLACE, b};
  void* to[] = {a, c};
  const MPI_Count counts[] = {3, 2};
  Terse_Outcome outcome;
  Terse_Request request;
  CHECK_INT(Terse_Allreduce_fused(2, from, to, counts, MPI_INT, MPI_MAX, comm, NULL, NULL), MPI_SUCCESS);
  CHECK_INT(a[2], 3);
  CHECK_INT(c[0], world_size - 1);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
  CHECK_INT(outcome.exact_count, 5);
  CHECK_INT(Terse_Iallreduce_fused(2, from, to, counts, MPI_INT, MPI_SUM, comm, NULL, NULL, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK_INT(a[1], 2 * world_size);
  CHECK_INT(c[1], 7 * world_size);
  CHECK_INT(Terse_Allreduce_fused(0, NULL, NULL, NULL, MPI_FLOAT, MPI_SUM, comm, NULL, NULL), MPI_SUCCESS);
  CHECK_INT(Terse_Iallreduce_fused(0, NULL, NULL, NULL, MPI_INT, MPI_SUM, comm, NULL, NULL, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
}

// Freed under way: over, and the result is there.
static void freed_under_way(MPI_Comm comm) {
  float data[1000];
  for (int i = 0; i < 1000; ++i) data[i] = 1.0f;
  Terse_Request request;
  CHECK_INT(Terse_Iallreduce(MPI_IN_PLACE, data, 1000, MPI_FLOAT, MPI_SUM, comm, &request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK(request == TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK(all_are(data, 1000, (float)world_size));
}

static void all_of_it(MPI_Comm comm) {
  as_blocking(comm);
  in_any_order(comm);
  passed_on(comm);
  of_two_communicators(comm);
  whose_communicator_goes(comm);
  with_feedback(comm);
  fused(comm, MPI_SUM, 0);
  fused(comm, Terse_Op_average(), 1);
  other_lists(comm);
  freed_under_way(comm);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  const char* const codecs[] = {"identity", "onebit:block=64"};
  for (int c = 0; c < 2; ++c) {
    for (int thread = 0; thread < 2; ++thread) {
      if (thread && provided != MPI_THREAD_MULTIPLE) continue;
      MPI_Comm comm;
      MPI_Comm_dup(MPI_COMM_WORLD, &comm);
      const char* const pairs[] = {
          "terse_codec", codecs[c],        "terse_algorithm",           "two_phase", "terse_min_bytes",
          "0",           "terse_progress", thread ? "thread" : "calls", NULL};
      CHECK_INT(set_options(comm, pairs), MPI_SUCCESS);
      all_of_it(comm);
      MPI_Comm_free(&comm);
    }
  }
  all_of_it(MPI_COMM_WORLD);  // MPI's reductions, as long as nobody has asked for a codec
  return check_end();
}

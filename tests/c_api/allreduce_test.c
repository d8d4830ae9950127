// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3 4
//
// Which calls are Terse's and which MPI's; what comes out of either; what the outcome says.
#include "check.h"

enum { kCount = 3000 };

static float value_of(int rank, int i) { return (float)((rank + 1) * (i % 7 - 3)) * 0.37f; }

// Nothing is lossy unless asked for: the same bits as MPI_Allreduce.
static void sums_are_mpis(void) {
  static float in[kCount], out[kCount], want[kCount];
  static double in64[kCount], out64[kCount], want64[kCount];
  for (int i = 0; i < kCount; ++i) in64[i] = in[i] = value_of(world_rank, i);
  MPI_Allreduce(in, want, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
  CHECK(memcmp(out, want, sizeof want) == 0);
  for (int i = 0; i < kCount; ++i) CHECK(in[i] == value_of(world_rank, i));
  MPI_Allreduce(in64, want64, kCount, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  CHECK_INT(Terse_Allreduce_c(in64, out64, kCount, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
  CHECK(memcmp(out64, want64, sizeof want64) == 0);
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(MPI_COMM_WORLD, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_EXACT);
  CHECK_INT(outcome.reason, TERSE_REASON_ASKED);
  CHECK_INT(outcome.exact_count, kCount);
  CHECK(strcmp(outcome.algorithm, "exact") == 0);
  // in place
  memcpy(out, in, sizeof in);
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, out, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
  CHECK(memcmp(out, want, sizeof want) == 0);
  CHECK_INT(Terse_Allreduce(NULL, NULL, 0, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
}

static void averages(void) {
  static float in[kCount], out[kCount], want[kCount];
  for (int i = 0; i < kCount; ++i) in[i] = value_of(world_rank, i);
  MPI_Allreduce(in, want, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  for (int i = 0; i < kCount; ++i) want[i] /= (float)world_size;
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, Terse_Op_average(), MPI_COMM_WORLD), MPI_SUCCESS);
  CHECK(memcmp(out, want, sizeof want) == 0);
}

// Ones add up to the number of ranks; MPI itself takes these types for no numbers.
static void types_of_two_bytes(void) {
  const unsigned short float16_of[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};
  const unsigned short bfloat16_of[] = {0, 0x3f80, 0x4000, 0x4040, 0x4080};
  const MPI_Datatype types[] = {Terse_Type_float16(), Terse_Type_bfloat16()};
  CHECK(types[0] != MPI_DATATYPE_NULL && types[1] != MPI_DATATYPE_NULL && types[0] != types[1]);
  CHECK(types[0] == Terse_Type_float16());
  for (int t = 0; t < 2; ++t) {
    const unsigned short* of = t == 0 ? float16_of : bfloat16_of;
    unsigned short in[100], out[100];
    for (int i = 0; i < 100; ++i) in[i] = of[1];
    int size = 0;
    MPI_Type_size(types[t], &size);
    CHECK_INT(size, 2);
    CHECK_INT(Terse_Allreduce(in, out, 100, types[t], MPI_SUM, MPI_COMM_WORLD), MPI_SUCCESS);
    for (int i = 0; i < 100; ++i) CHECK_INT(out[i], of[world_size]);
    CHECK_INT(Terse_Allreduce(in, out, 100, types[t], Terse_Op_average(), MPI_COMM_WORLD), MPI_SUCCESS);
    for (int i = 0; i < 100; ++i) CHECK_INT(out[i], of[1]);
    int class = MPI_SUCCESS;
    MPI_Error_class(MPI_Allreduce(in, out, 100, types[t], MPI_SUM, MPI_COMM_WORLD), &class);
    CHECK_INT(class, MPI_ERR_OP);
  }
}

// Values of one magnitude, of which onebit loses nothing.
static void compressed(void) {
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  static float in[kCount], out[kCount];
  for (int i = 0; i < kCount; ++i) in[i] = i % 3 == 0 ? 2.0f : -2.0f;
  CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  for (int i = 0; i < kCount; ++i) CHECK(out[i] == in[i] * (float)world_size);
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  CHECK_INT(outcome.reason, TERSE_REASON_NONE);
  CHECK(strcmp(outcome.algorithm, "two_phase") == 0);
  CHECK_INT(outcome.exact_count, 0);
  CHECK(world_size == 1 || (outcome.bytes_sent > 0 && outcome.bytes_sent < sizeof in));
  // a value that is not finite
  in[17] = -1.0f / 0.0f;
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, in, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
  CHECK(in[17] == -1.0f / 0.0f);
  CHECK(in[kCount - 1] == -2.0f);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  CHECK_INT(outcome.reason, TERSE_REASON_NON_FINITE);
  CHECK(outcome.exact_count > 0);
  // another communicator's outcome is its own
  MPI_Comm other;
  MPI_Comm_dup(MPI_COMM_WORLD, &other);
  CHECK_INT(Terse_Get_outcome(other, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_NONE);
  CHECK(outcome.algorithm[0] == '\0');
  MPI_Comm_free(&other);
  MPI_Comm_free(&comm);
}

static void expect_passed_on(MPI_Comm comm, int count) {
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_EXACT);
  CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
  CHECK_INT(outcome.exact_count, count);
  CHECK(outcome.algorithm[0] == '\0');
}

static void add_pairs(void* in, void* inout, int* count, MPI_Datatype* type) {
  (void)type;
  for (int i = 0; i < 2 * *count; ++i) ((int*)inout)[i] += ((int*)in)[i];
}

// Whatever the options say.
static void all_else_is_mpis(void) {
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  const int ranks_sum = world_size * (world_size - 1) / 2;
  int numbers[50], sums[50];
  for (int i = 0; i < 50; ++i) numbers[i] = world_rank + i;
  CHECK_INT(Terse_Allreduce(numbers, sums, 50, MPI_INT, MPI_SUM, comm), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(sums[i], ranks_sum + world_size * i);
  expect_passed_on(comm, 50);
  CHECK_INT(Terse_Allreduce_c(MPI_IN_PLACE, numbers, 50, MPI_INT, MPI_MAX, comm), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(numbers[i], world_size - 1 + i);
  float large[3] = {(float)world_rank, -(float)world_rank, 0.3f}, most[3];
  CHECK_INT(Terse_Allreduce(large, most, 3, MPI_FLOAT, MPI_MAX, comm), MPI_SUCCESS);
  CHECK(most[0] == (float)(world_size - 1) && most[1] == 0.0f && most[2] == 0.3f);
  expect_passed_on(comm, 3);
  struct {
    float value;
    int at;
  } mine = {(float)(world_rank % 2), world_rank}, found;
  CHECK_INT(Terse_Allreduce(&mine, &found, 1, MPI_FLOAT_INT, MPI_MAXLOC, comm), MPI_SUCCESS);
  CHECK_INT(found.at, world_size == 1 ? 0 : 1);
  MPI_Datatype pair;
  MPI_Op add;
  MPI_Type_contiguous(2, MPI_INT, &pair);
  MPI_Type_commit(&pair);
  MPI_Op_create(add_pairs, 1, &add);
  for (int i = 0; i < 50; ++i) numbers[i] = world_rank;
  CHECK_INT(Terse_Allreduce(numbers, sums, 25, pair, add, comm), MPI_SUCCESS);
  for (int i = 0; i < 50; ++i) CHECK_INT(sums[i], ranks_sum);
  expect_passed_on(comm, 25);
  // residuals have no say in it
  Terse_Feedback feedback;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  const Terse_Options options = {.size = sizeof options, .feedback = feedback};
  CHECK_INT(Terse_Allreduce_with(numbers, sums, 25, pair, add, comm, &options), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce_with(numbers, sums, 50, MPI_INT, MPI_SUM, comm, &options), MPI_SUCCESS);
  size_t size = 1;
  CHECK_INT(Terse_Feedback_save(feedback, NULL, &size), MPI_SUCCESS);
  CHECK_INT(size, 0);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  MPI_Op_free(&add);
  MPI_Type_free(&pair);
  MPI_Comm_free(&comm);
}

static void intercommunicators_are_mpis(void) {
  if (world_size < 2) return;
  const int upper = world_rank % 2;
  MPI_Comm part, inter;
  MPI_Comm_split(MPI_COMM_WORLD, upper, world_rank, &part);
  MPI_Intercomm_create(part, 0, MPI_COMM_WORLD, 1 - upper, 7, &inter);
  MPI_Comm_set_errhandler(inter, MPI_ERRORS_RETURN);
  float value = (float)(1 + upper), sum = 0;
  int remote = 0;
  MPI_Comm_remote_size(inter, &remote);
  CHECK_INT(Terse_Allreduce(&value, &sum, 1, MPI_FLOAT, MPI_SUM, inter), MPI_SUCCESS);
  CHECK(sum == (float)(remote * (2 - upper)));
  expect_passed_on(inter, 1);
  const int code = Terse_Allreduce(&value, &sum, 1, MPI_FLOAT, Terse_Op_average(), inter);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_UNSUPPORTED);
  CHECK_INT(Terse_Error_code(set_onebit(inter)), TERSE_ERR_INVALID_ARGUMENT);
  MPI_Comm_free(&inter);
  MPI_Comm_free(&part);
}

static void what_mpi_refuses(void) {
  float value = 1, sum = 0;
  int class = MPI_SUCCESS;
  MPI_Error_class(Terse_Allreduce(&value, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_NULL), &class);
  CHECK_INT(class, MPI_ERR_COMM);
  MPI_Error_class(Terse_Allreduce(&value, &sum, 1, MPI_FLOAT, MPI_OP_NULL, MPI_COMM_WORLD), &class);
  CHECK_INT(class, MPI_ERR_OP);
  MPI_Error_class(Terse_Allreduce(&value, &sum, 1, MPI_DATATYPE_NULL, MPI_SUM, MPI_COMM_WORLD), &class);
  CHECK(class == MPI_ERR_TYPE || class == MPI_ERR_OP);  // whichever MPI looks at first
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(MPI_COMM_WORLD, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_NONE);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  sums_are_mpis();
  averages();
  types_of_two_bytes();
  compressed();
  all_else_is_mpis();
  intercommunicators_are_mpis();
  what_mpi_refuses();
  return check_end();
}

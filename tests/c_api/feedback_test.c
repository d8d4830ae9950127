// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Residuals: what is left out goes in later; saved, loaded, dealt out to other ranks, forgotten.
#include "check.h"

enum { kCount = 1001, kSteps = 4 };

typedef struct Save {
  void* bytes;
  size_t size;
} Save;

static Save save_of(Terse_Feedback feedback) {
  Save save = {NULL, 0};
  CHECK_INT(Terse_Feedback_save(feedback, NULL, &save.size), MPI_SUCCESS);
  save.bytes = malloc(save.size + 1);
  const size_t size = save.size;
  CHECK_INT(Terse_Feedback_save(feedback, save.bytes, &save.size), MPI_SUCCESS);
  CHECK_INT(save.size, size);
  return save;
}

static int same(Save a, Save b) { return a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0; }

static float value_of(int rank, int i, int step) {
  return (float)((i * 37 + step * 11 + rank * 5) % 101 - 50) / 64.0f;
}

static void fill(float* data, int step) {
  for (int i = 0; i < kCount; ++i) data[i] = value_of(world_rank, i, step);
}

// One step of a training: `out` is the average.
static void call(MPI_Comm comm, Terse_Feedback feedback, int step, float* out) {
  fill(out, step);
  CHECK_INT(Terse_Allreduce_with(MPI_IN_PLACE, out, kCount, MPI_FLOAT, Terse_Op_average(), comm,
                                 &(Terse_Options){.size = sizeof(Terse_Options), .feedback = feedback}),
            MPI_SUCCESS);
}

// The sum of outputs stays near that of the inputs with feedback, and drifts off without.
static void nothing_is_lost(MPI_Comm comm) {
  static double sum[kCount], blind[kCount];
  static float out[kCount];
  Terse_Feedback feedback;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  double error = 0, blind_error = 0;
  for (int step = 0; step < 50; ++step) {
    call(comm, feedback, 0, out);
    for (int i = 0; i < kCount; ++i) sum[i] += out[i];
    fill(out, 0);
    CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, out, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
    for (int i = 0; i < kCount; ++i) blind[i] += out[i];
  }
  for (int i = 0; i < kCount; ++i) {
    double want = 0;
    for (int rank = 0; rank < world_size; ++rank) want += (double)value_of(rank, i, 0) / world_size;
    error += (sum[i] / 50 - want) * (sum[i] / 50 - want);
    blind_error += (blind[i] / 50 - want) * (blind[i] / 50 - want);
  }
  CHECK(error < 0.05 * blind_error);
  CHECK(blind_error > 0);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  CHECK(feedback == TERSE_FEEDBACK_NULL);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

static void go_on_from_a_save(MPI_Comm comm) {
  static float one[kCount], other[kCount];
  Terse_Feedback through, resumed;
  CHECK_INT(Terse_Feedback_create(&through), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_create(&resumed), MPI_SUCCESS);
  Save never_used = save_of(resumed);
  CHECK_INT(never_used.size, 0);
  for (int step = 0; step < kSteps; ++step) call(comm, through, step, one);
  Save half_way = save_of(through);
  CHECK(half_way.size > 4 * kCount);
  CHECK_INT(Terse_Feedback_load(resumed, half_way.bytes, half_way.size), MPI_SUCCESS);
  for (int step = kSteps; step < 2 * kSteps; ++step) {
    call(comm, through, step, one);
    call(comm, resumed, step, other);
    CHECK(memcmp(one, other, sizeof one) == 0);
  }
  Save a = save_of(through), b = save_of(resumed);
  CHECK(same(a, b));
  CHECK(!same(a, half_way));
  // too small a buffer is left alone, and its caller told
  size_t size = half_way.size - 1;
  const unsigned char first = ((unsigned char*)half_way.bytes)[0];
  ((unsigned char*)half_way.bytes)[0] = 0;
  CHECK_INT(Terse_Error_code(Terse_Feedback_save(through, half_way.bytes, &size)),
            TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(size, a.size);
  CHECK_INT(((unsigned char*)half_way.bytes)[0], 0);
  ((unsigned char*)half_way.bytes)[0] = first;
  // damaged saves change nothing
  ((unsigned char*)half_way.bytes)[half_way.size / 2] ^= 1;
  CHECK_INT(Terse_Error_code(Terse_Feedback_load(resumed, half_way.bytes, half_way.size)),
            TERSE_ERR_CORRUPT_DATA);
  CHECK_INT(Terse_Error_code(Terse_Feedback_load(resumed, a.bytes, a.size - 1)), TERSE_ERR_CORRUPT_DATA);
  CHECK_INT(Terse_Error_code(Terse_Feedback_load(resumed, NULL, 5)), TERSE_ERR_INVALID_ARGUMENT);
  Save after = save_of(resumed);
  CHECK(same(after, b));
  // a save of one that was never used makes one that never was
  CHECK_INT(Terse_Feedback_load(resumed, never_used.bytes, never_used.size), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_save(resumed, NULL, &size), MPI_SUCCESS);
  CHECK_INT(size, 0);
  free(after.bytes);
  free(a.bytes);
  free(b.bytes);
  free(half_way.bytes);
  free(never_used.bytes);
  CHECK_INT(Terse_Feedback_free(&through), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&resumed), MPI_SUCCESS);
}

static void serve_one_tensor_until_reset(MPI_Comm comm) {
  static float data[kCount];
  Terse_Feedback feedback;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  call(comm, feedback, 0, data);
  const Terse_Options options = {.size = sizeof options, .feedback = feedback};
  int code =
      Terse_Allreduce_with(MPI_IN_PLACE, data, kCount - 1, MPI_FLOAT, Terse_Op_average(), comm, &options);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_STATE);
  char text[TERSE_MAX_ERROR_STRING];
  int length = 0;
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "1001 elements");
  CHECK_INT(Terse_Feedback_reset(feedback), MPI_SUCCESS);
  code = Terse_Allreduce_with(MPI_IN_PLACE, data, kCount - 1, MPI_FLOAT, Terse_Op_average(), comm, &options);
  CHECK_INT(code, MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

// All ranks' saves, loaded by each rank alone: what is owed then comes out of its next calls.
static void deal_out_to_other_ranks(MPI_Comm comm) {
  static float data[kCount];
  Terse_Feedback feedback, alone;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_create(&alone), MPI_SUCCESS);
  static double owed[kCount];
  for (int i = 0; i < kCount; ++i) owed[i] = 0;
  for (int step = 0; step < kSteps; ++step) {
    fill(data, step);
    static float exact[kCount];
    MPI_Allreduce(data, exact, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    call(comm, feedback, step, data);
    for (int i = 0; i < kCount; ++i) owed[i] += (double)exact[i] / world_size - data[i];
  }
  Save mine = save_of(feedback);
  int* sizes = malloc(sizeof(int) * (size_t)world_size);
  int* offsets = malloc(sizeof(int) * (size_t)world_size);
  int size = (int)mine.size, total = 0;
  MPI_Allgather(&size, 1, MPI_INT, sizes, 1, MPI_INT, MPI_COMM_WORLD);
  for (int r = 0; r < world_size; ++r) {
    offsets[r] = total;
    total += sizes[r];
  }
  char* all = malloc((size_t)total);
  MPI_Allgatherv(mine.bytes, size, MPI_BYTE, all, sizes, offsets, MPI_BYTE, MPI_COMM_WORLD);
  const void** saves = malloc(sizeof(void*) * (size_t)world_size);
  size_t* bytes = malloc(sizeof(size_t) * (size_t)world_size);
  for (int r = 0; r < world_size; ++r) {
    saves[r] = all + offsets[r];
    bytes[r] = (size_t)sizes[r];
  }
  CHECK_INT(Terse_Feedback_load_all(alone, saves, bytes, world_size), MPI_SUCCESS);
  // zeros in: what is owed comes out, a bit more with each call
  MPI_Comm self;
  MPI_Comm_dup(MPI_COMM_SELF, &self);
  CHECK_INT(set_onebit(self), MPI_SUCCESS);
  double before = 0, after = 0;
  for (int i = 0; i < kCount; ++i) before += owed[i] * owed[i];
  for (int step = 0; step < 60; ++step) {
    for (int i = 0; i < kCount; ++i) data[i] = 0;
    CHECK_INT(Terse_Allreduce_with(MPI_IN_PLACE, data, kCount, MPI_FLOAT, Terse_Op_average(), self,
                                   &(Terse_Options){.size = sizeof(Terse_Options), .feedback = alone}),
              MPI_SUCCESS);
    for (int i = 0; i < kCount; ++i) owed[i] -= data[i];
  }
  for (int i = 0; i < kCount; ++i) after += owed[i] * owed[i];
  CHECK(before > 0);
  CHECK(after < 0.05 * before);
  // what is not the saves of all ranks
  Save held = save_of(alone);
  CHECK_INT(Terse_Error_code(Terse_Feedback_load_all(alone, saves, bytes, 0)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_load_all(alone, NULL, bytes, 1)), TERSE_ERR_INVALID_ARGUMENT);
  if (world_size > 1) {
    CHECK_INT(Terse_Error_code(Terse_Feedback_load_all(alone, saves, bytes, 1)), TERSE_ERR_INVALID_ARGUMENT);
  }
  Save still = save_of(alone);
  CHECK(same(held, still));
  free(held.bytes);
  free(still.bytes);
  free(bytes);
  free(saves);
  free(all);
  free(offsets);
  free(sizes);
  free(mine.bytes);
  MPI_Comm_free(&self);
  CHECK_INT(Terse_Feedback_free(&alone), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

// Residuals in bf16: half the save, the sum of outputs still near that of the inputs, one kind for all ranks.
static void half_the_memory(MPI_Comm comm) {
  static float data[kCount];
  static double sum[kCount];
  Terse_Feedback half, full;
  CHECK_INT(Terse_Feedback_create_bf16(&half), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_create(&full), MPI_SUCCESS);
  for (int step = 0; step < 50; ++step) {
    call(comm, half, 0, data);
    for (int i = 0; i < kCount; ++i) sum[i] += data[i];
    call(comm, full, 0, data);
  }
  double error = 0, size = 0;
  for (int i = 0; i < kCount; ++i) {
    double want = 0;
    for (int rank = 0; rank < world_size; ++rank) want += (double)value_of(rank, i, 0) / world_size;
    error += (sum[i] / 50 - want) * (sum[i] / 50 - want);
    size += want * want;
  }
  CHECK(error < 0.01 * size);
  Save halves = save_of(half), all = save_of(full);
  CHECK(all.size - halves.size >= 2 * kCount);
  CHECK(halves.size >= 2 * kCount);
  CHECK_INT(Terse_Feedback_reset(half), MPI_SUCCESS);
  call(comm, half, 0, data);
  CHECK_INT(Terse_Feedback_free(&half), MPI_SUCCESS);

  CHECK_INT(Terse_Feedback_create_bf16(&half), MPI_SUCCESS);
  static double wide[kCount];
  int code = Terse_Allreduce_with(MPI_IN_PLACE, wide, kCount, MPI_DOUBLE, MPI_SUM, comm,
                                  &(Terse_Options){.size = sizeof(Terse_Options), .feedback = half});
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_UNSUPPORTED);
  char text[TERSE_MAX_ERROR_STRING];
  int length = 0;
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "residuals in bf16 does not serve a tensor of f64");
  if (world_size > 1) {
    CHECK_INT(Terse_Feedback_reset(full), MPI_SUCCESS);
    code = Terse_Allreduce_with(
        MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, comm,
        &(Terse_Options){.size = sizeof(Terse_Options), .feedback = world_rank == 1 ? half : full});
    CHECK_INT(Terse_Error_code(code), TERSE_ERR_MISMATCH);
    CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
    CHECK_TEXT(text, "residuals in bf16 on rank 1");
  }
  free(halves.bytes);
  free(all.bytes);
  CHECK_INT(Terse_Feedback_free(&half), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&full), MPI_SUCCESS);
}

static void no_handle(void) {
  size_t size = 0;
  CHECK_INT(Terse_Error_code(Terse_Feedback_create(NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_create_bf16(NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_free(NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_reset(TERSE_FEEDBACK_NULL)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_save(TERSE_FEEDBACK_NULL, NULL, &size)),
            TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Feedback_load(TERSE_FEEDBACK_NULL, NULL, 0)), TERSE_ERR_INVALID_ARGUMENT);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  MPI_Comm comm;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  nothing_is_lost(comm);
  go_on_from_a_save(comm);
  serve_one_tensor_until_reset(comm);
  deal_out_to_other_ranks(comm);
  half_the_memory(comm);
  no_handle();
  MPI_Comm_free(&comm);
  return check_end();
}

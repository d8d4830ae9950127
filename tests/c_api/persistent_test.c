// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Persistent calls: bit-identical to Terse_Allreduce_with a Terse_Feedback, with residuals that are saved
// and loaded.
#include "values.h"

enum { kCount = 997, kSteps = 4 };

typedef struct Save {
  void* bytes;
  size_t size;
} Save;

static Save save_of(Terse_Request request) {
  Save save = {NULL, 0};
  CHECK_INT(Terse_Request_save(request, NULL, &save.size), MPI_SUCCESS);
  save.bytes = malloc(save.size + 1);
  CHECK_INT(Terse_Request_save(request, save.bytes, &save.size), MPI_SUCCESS);
  return save;
}

static Save save_of_feedback(Terse_Feedback feedback) {
  Save save = {NULL, 0};
  CHECK_INT(Terse_Feedback_save(feedback, NULL, &save.size), MPI_SUCCESS);
  save.bytes = malloc(save.size + 1);
  CHECK_INT(Terse_Feedback_save(feedback, save.bytes, &save.size), MPI_SUCCESS);
  return save;
}

static int same(Save a, Save b) { return a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0; }

static int all_are(const float* data, int count, float value) {
  for (int i = 0; i < count; ++i) {
    if (data[i] != value) return 0;
  }
  return 1;
}

// A call, ended by Terse_Wait or Terse_Test.
static void begin_and_end(Terse_Request* request, int step) {
  CHECK_INT(Terse_Start(request), MPI_SUCCESS);
  int flag = 0;
  while (step % 2 == 0 && !flag) CHECK_INT(Terse_Test(request, &flag), MPI_SUCCESS);
  if (step % 2 != 0) CHECK_INT(Terse_Wait(request), MPI_SUCCESS);
  CHECK(*request != TERSE_REQUEST_NULL);
}

// Steps of a training beside those of blocking calls: results, and what is saved, exchanged half way.
static void as_blocking(MPI_Comm comm, MPI_Info info, int loses, int in_place, MPI_Op op) {
  static const int counts[] = {0, 1, 63, 64, 65, kCount};
  for (int variant = 0; variant < 6 * kTypes; ++variant) {
    const int t = variant % kTypes, count = counts[variant / kTypes];
    const size_t bytes = bytes_at(t) * (size_t)count;
    void *in = room_for(t, count), *out = room_for(t, count), *want = room_for(t, count);
    Terse_Feedback feedback;
    Terse_Request request = TERSE_REQUEST_NULL, resumed = TERSE_REQUEST_NULL;
    const void* from = in_place ? MPI_IN_PLACE : in;
    CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
    CHECK_INT(Terse_Allreduce_init(from, out, count, type_at(t), op, comm, info, &request), MPI_SUCCESS);
    CHECK_INT(Terse_Allreduce_init_c(from, out, count, type_at(t), op, comm, info, &resumed), MPI_SUCCESS);
    const Terse_Options options = {.size = sizeof options, .feedback = feedback};
    Save never = save_of(request);
    CHECK_INT(never.size, 0);
    for (int step = 0; step < 2 * kSteps; ++step) {
      fill(in, t, count, step);
      CHECK_INT(Terse_Allreduce_with(in, want, count, type_at(t), op, comm, &options), MPI_SUCCESS);
      if (in_place) memcpy(out, in, bytes);
      begin_and_end(step < kSteps ? &request : &resumed, step);
      CHECK(memcmp(out, want, bytes) == 0);
      if (step != kSteps - 1) continue;
      Save save = save_of(request), other = save_of_feedback(feedback);
      CHECK(same(save, other));
      CHECK(loses ? save.size > bytes : save.size == 0);
      CHECK_INT(Terse_Request_load(resumed, save.bytes, save.size), MPI_SUCCESS);
      CHECK_INT(Terse_Feedback_load(feedback, save.bytes, save.size), MPI_SUCCESS);
      free(save.bytes);
      free(other.bytes);
    }
    // forgotten, it begins anew
    CHECK_INT(Terse_Request_load(resumed, never.bytes, 0), MPI_SUCCESS);
    CHECK_INT(Terse_Feedback_reset(feedback), MPI_SUCCESS);
    fill(in, t, count, 0);
    CHECK_INT(Terse_Allreduce_with(in, want, count, type_at(t), op, comm, &options), MPI_SUCCESS);
    if (in_place) memcpy(out, in, bytes);
    begin_and_end(&resumed, 1);
    CHECK(memcmp(out, want, bytes) == 0);
    free(never.bytes);
    free(in);
    free(out);
    free(want);
    CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
    CHECK_INT(Terse_Request_free(&resumed), MPI_SUCCESS);
    CHECK(request == TERSE_REQUEST_NULL && resumed == TERSE_REQUEST_NULL);
    CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  }
}

// All ranks' saves, for each rank alone, as Terse_Feedback_load_all deals them out.
static void dealt_out(MPI_Comm comm) {
  static float data[kCount], want[kCount];
  Terse_Request request, alone;
  Terse_Feedback feedback;
  MPI_Comm self;
  CHECK_INT(
      Terse_Allreduce_init(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &request),
      MPI_SUCCESS);
  fill(data, 0, kCount, 3);
  begin_and_end(&request, 0);
  Save mine = save_of(request);
  unsigned long long size = mine.size, most = 0;
  MPI_Allreduce(&size, &most, 1, MPI_UNSIGNED_LONG_LONG, MPI_MAX, comm);
  char* all = malloc((size_t)most * (size_t)world_size);
  unsigned long long* sizes = malloc(sizeof *sizes * (size_t)world_size);
  mine.bytes = realloc(mine.bytes, (size_t)most);
  MPI_Allgather(mine.bytes, (int)most, MPI_BYTE, all, (int)most, MPI_BYTE, comm);
  MPI_Allgather(&size, 1, MPI_UNSIGNED_LONG_LONG, sizes, 1, MPI_UNSIGNED_LONG_LONG, comm);
  const void** saves = malloc(sizeof *saves * (size_t)world_size);
  size_t* bytes = malloc(sizeof *bytes * (size_t)world_size);
  for (int r = 0; r < world_size; ++r) {
    saves[r] = all + (size_t)r * (size_t)most;
    bytes[r] = (size_t)sizes[r];
  }
  MPI_Comm_dup(MPI_COMM_SELF, &self);
  CHECK_INT(set_onebit(self), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce_init(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, self, MPI_INFO_NULL, &alone),
            MPI_SUCCESS);
  CHECK_INT(Terse_Request_load_all(alone, saves, bytes, world_size), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_load_all(feedback, saves, bytes, world_size), MPI_SUCCESS);
  for (int step = 0; step < kSteps; ++step) {
    fill(data, 0, kCount, step);
    memcpy(want, data, sizeof data);
    begin_and_end(&alone, step);
    CHECK_INT(Terse_Allreduce_with(MPI_IN_PLACE, want, kCount, MPI_FLOAT, MPI_SUM, self,
                                   &(Terse_Options){.size = sizeof(Terse_Options), .feedback = feedback}),
              MPI_SUCCESS);
    CHECK(memcmp(data, want, sizeof data) == 0);
  }
  CHECK_INT(Terse_Error_code(Terse_Request_load_all(alone, saves, bytes, 0)), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_code(Terse_Request_load(alone, "not a save", 10)), TERSE_ERR_CORRUPT_DATA);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&alone), MPI_SUCCESS);
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
  MPI_Comm_free(&self);
  free(mine.bytes);
  free(all);
  free(sizes);
  free(saves);
  free(bytes);
}

// The info's options are these calls' alone. The communicator's may change: what has no key follows.
static void options(MPI_Comm parent) {
  static float data[kCount], other[kCount];
  MPI_Comm comm;
  MPI_Info info;
  Terse_Outcome outcome;
  Terse_Request request, plain;
  MPI_Comm_dup(parent, &comm);
  const char* const lossless[] = {"terse_codec", "identity", NULL};
  CHECK_INT(set_options(comm, lossless), MPI_SUCCESS);
  MPI_Info_create(&info);
  MPI_Info_set(info, "terse_codec", "onebit:block=64");
  MPI_Info_set(info, "somebody_elses", "key");
  CHECK_INT(Terse_Allreduce_init_c(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, comm, info, &request),
            MPI_SUCCESS);
  MPI_Info_free(&info);
  CHECK_INT(
      Terse_Allreduce_init(MPI_IN_PLACE, other, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &plain),
      MPI_SUCCESS);
  for (int i = 0; i < kCount; ++i) data[i] = other[i] = 1.0f;
  // two under way, ended in different orders
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Start(&plain), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(world_rank % 2 ? &plain : &request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(world_rank % 2 ? &request : &plain), MPI_SUCCESS);
  CHECK(all_are(data, kCount, (float)world_size) && all_are(other, kCount, (float)world_size));
  Terse_Request both[] = {plain, TERSE_REQUEST_NULL, request};
  CHECK_INT(Terse_Waitall(3, both), MPI_SUCCESS);  // inactive
  CHECK(both[0] == plain && both[2] == request);
  begin_and_end(&plain, 1);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.reason, TERSE_REASON_ASKED);
  begin_and_end(&request, 1);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  // new options, with calls under way, some of which are over on rank 0 alone
  for (int i = 0; i < kCount; ++i) data[i] = other[i] = 1.0f;
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Start(&plain), MPI_SUCCESS);
  if (world_rank == 0) CHECK_INT(Terse_Wait(&plain), MPI_SUCCESS);
  if (world_rank == 0) CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&plain), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK(all_are(data, kCount, (float)world_size) && all_are(other, kCount, (float)world_size));
  begin_and_end(&plain, 1);
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  begin_and_end(&request, 0);  // its residuals go on
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK_INT(outcome.result, TERSE_RESULT_COMPRESSED);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&plain), MPI_SUCCESS);
  MPI_Comm_free(&comm);
}

static void passed_on(MPI_Comm comm) {
  static int numbers[50], most[50];
  Terse_Request request;
  Terse_Outcome outcome;
  size_t size = 1;
  CHECK_INT(Terse_Allreduce_init(numbers, most, 50, MPI_INT, MPI_MAX, comm, MPI_INFO_NULL, &request),
            MPI_SUCCESS);
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < 50; ++i) numbers[i] = world_rank + i * step;
    begin_and_end(&request, step);
    for (int i = 0; i < 50; ++i) CHECK_INT(most[i], world_size - 1 + i * step);
    CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
    CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
    CHECK_INT(outcome.exact_count, 50);
  }
  CHECK_INT(Terse_Request_save(request, NULL, &size), MPI_SUCCESS);
  CHECK_INT(size, 0);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
}

// Freed while a call is under way, before or after its communicator.
static void freed(MPI_Comm parent) {
  static float data[kCount];
  MPI_Comm comm;
  Terse_Request request, late;
  MPI_Comm_dup(parent, &comm);
  for (int i = 0; i < kCount; ++i) data[i] = 1.0f;
  CHECK_INT(
      Terse_Allreduce_init(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &request),
      MPI_SUCCESS);
  CHECK_INT(Terse_Allreduce_init(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &late),
            MPI_SUCCESS);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  CHECK(all_are(data, kCount, (float)world_size));
  CHECK_INT(Terse_Start(&late), MPI_SUCCESS);
  MPI_Comm_free(&comm);
  CHECK_INT(Terse_Wait(&late), MPI_SUCCESS);
  CHECK(all_are(data, kCount, (float)(world_size * world_size)));
  // no more calls, but its residuals
  char text[TERSE_MAX_ERROR_STRING];
  int length = 0;
  const int code = Terse_Start(&late);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_STATE);
  Terse_Error_string(code, text, &length);
  CHECK_TEXT(text, "Terse_Start: the communicator of the request was freed");
  Save save = save_of(late);
  CHECK(save.size > sizeof data);
  free(save.bytes);
  CHECK_INT(Terse_Request_free(&late), MPI_SUCCESS);
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  MPI_Comm comm;
  MPI_Info info;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  as_blocking(comm, MPI_INFO_NULL, 1, 0, Terse_Op_average());
  as_blocking(comm, MPI_INFO_NULL, 1, 1, MPI_SUM);
  MPI_Info_create(&info);
  MPI_Info_set(info, "terse_segment_bytes", "512");  // of which results do not depend
  as_blocking(comm, info, 1, 0, MPI_SUM);
  as_blocking(MPI_COMM_WORLD, info, 0, 1, Terse_Op_average());
  MPI_Info_free(&info);
  dealt_out(comm);
  options(comm);
  passed_on(comm);
  freed(comm);
  MPI_Comm_free(&comm);
  return check_end();
}

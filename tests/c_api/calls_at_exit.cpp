// SPDX-License-Identifier: Apache-2.0
//
// Calls as the process and its threads end: from a handler of atexit, from the destructor of a global, which
// finalizes MPI, and from the destructor of a thread_local object of a thread that ends. Good ones, and wrong
// ones whose sentence is asked for. The arguments are a codec
// and an algorithm.
#include <cstdlib>
#include <thread>
#include <vector>

#include "check.h"

namespace {

constexpr int kCount = 70000;
int places = 0;
const char* codec = "onebit";
const char* algorithm = "two_phase";

void call(MPI_Comm comm) {
  const char* const pairs[] = {"terse_codec", codec,  "terse_algorithm", algorithm, "terse_min_bytes",
                               "0",           nullptr};
  CHECK_INT(set_options(comm, pairs), MPI_SUCCESS);
  MPI_Info info = MPI_INFO_NULL;
  char value[MPI_MAX_INFO_VAL + 1] = "";
  int found = 0;
  CHECK_INT(Terse_Comm_get_info(comm, &info), MPI_SUCCESS);
  MPI_Info_get(info, "terse_algorithm", MPI_MAX_INFO_VAL, value, &found);
  CHECK_TEXT(value, algorithm);
  MPI_Info_free(&info);
  std::vector<float> in(kCount, static_cast<float>(world_rank + 1));
  std::vector<float> out(kCount, -1);
  const float sum = static_cast<float>(world_size * (world_size + 1)) / 2;
  CHECK_INT(Terse_Allreduce(in.data(), out.data(), kCount, MPI_FLOAT, MPI_SUM, comm), MPI_SUCCESS);
  CHECK(out.front() == sum && out.back() == sum);
  Terse_Request request = TERSE_REQUEST_NULL;
  CHECK_INT(Terse_Iallreduce(in.data(), out.data(), kCount, MPI_FLOAT, Terse_Op_average(), comm, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK(out[kCount / 2] == sum / static_cast<float>(world_size));
  Terse_Outcome outcome;
  CHECK_INT(Terse_Get_outcome(comm, &outcome), MPI_SUCCESS);
  CHECK(outcome.result != TERSE_RESULT_NONE && outcome.algorithm[0] != '\0');
  // the sentence is this thread's
  char text[TERSE_MAX_ERROR_STRING] = "";
  int length = 0;
  const int code = Terse_Allreduce(nullptr, out.data(), kCount, MPI_FLOAT, MPI_SUM, comm);
  CHECK_INT(Terse_Error_code(code), TERSE_ERR_INVALID_ARGUMENT);
  CHECK_INT(Terse_Error_string(code, text, &length), MPI_SUCCESS);
  CHECK_TEXT(text, "input is a null pointer");
  CHECK_INT(Terse_Error_code(Terse_Feedback_reset(TERSE_FEEDBACK_NULL)), TERSE_ERR_INVALID_ARGUMENT);
}

// Made before anything of the library's, so destroyed after it.
struct AtTheEnd {
  AtTheEnd() = default;
  AtTheEnd(const AtTheEnd&) = delete;
  AtTheEnd& operator=(const AtTheEnd&) = delete;
  ~AtTheEnd() {
    call(MPI_COMM_WORLD);
    ++places;
    CHECK_INT(places, 4);
    std::_Exit(check_end());  // what main() returns is an error
  }
};
AtTheEnd at_the_end;

struct AtThreadEnd {
  AtThreadEnd() = default;
  AtThreadEnd(const AtThreadEnd&) = delete;
  AtThreadEnd& operator=(const AtThreadEnd&) = delete;
  ~AtThreadEnd() {
    if (comm == MPI_COMM_NULL) return;
    call(comm);
    ++places;
  }
  MPI_Comm comm = MPI_COMM_NULL;
};
thread_local AtThreadEnd at_thread_end;

}  // namespace

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  if (argc > 1) codec = argv[1];
  if (argc > 2) algorithm = argv[2];
  MPI_Comm of_thread = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &of_thread);
  MPI_Comm_set_errhandler(of_thread, MPI_ERRORS_RETURN);
  std::thread([&] {
    at_thread_end.comm = of_thread;  // made before the thread's first call
    call(of_thread);
    ++places;
  }).join();
  MPI_Comm_free(&of_thread);
  call(MPI_COMM_WORLD);
  std::atexit([] {
    call(MPI_COMM_WORLD);
    ++places;
  });
  return EXIT_FAILURE;
}

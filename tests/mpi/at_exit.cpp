// SPDX-License-Identifier: Apache-2.0
//
// Calls while the process exits, of every codec: in destructors of thread_local objects, of the main thread
// and of another one, in a handler of atexit, and in the destructor of a global that was made before anything
// of the library's. The last of them ends MPI. Prints "good" on rank 0 where all went well; else exits
// with 3.
#include <mpi.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <terse/terse.hpp>
#include <thread>
#include <vector>

namespace {

struct Calls {
  terse::Communicator world{MPI_COMM_WORLD, {.policy = {.min_bytes = 0}}};
  std::vector<std::string> specs;
  int made = 0;
  bool bad = false;
};
Calls* calls = nullptr;  // never destroyed

void fail(const std::string& what) {
  std::fprintf(stderr, "at_exit: %s\n", what.c_str());
  calls->bad = true;
}

// One call of each codec: of a constant, which these codecs send as it is, and which others keep finite.
void call_all(const char* when) {
  const int rank = calls->world.rank();
  const int size = calls->world.size();
  for (const std::string& spec : calls->specs) {
    const std::string name = spec.substr(0, spec.find_first_of(":+"));
    const bool exact = name == "identity" || name == "lossless" || name == "onebit" || name == "quant";
    std::vector<float> data(5000, static_cast<float>(rank + 1));
    try {
      calls->world.allreduce(terse::view(data), terse::Op::sum, {.policy = {.codec = spec}});
    } catch (const std::exception& error) {
      fail(std::string(when) + ", " + spec + ": " + error.what());
      continue;
    }
    const float want = static_cast<float>(size * (size + 1)) / 2;
    for (const float v : data) {
      if (!std::isfinite(v) || (exact && std::abs(v - want) > 0.01f * want)) {
        fail(std::string(when) + ", " + spec + ": " + std::to_string(v));
        break;
      }
    }
  }
  ++calls->made;
}

struct Global {
  ~Global() {
    if (calls == nullptr) return;
    call_all("in the destructor of a global");
    const bool good = !calls->bad && calls->made == 6;
    if (calls->world.rank() == 0) std::printf("at_exit: %s, %d times\n", good ? "good" : "BAD", calls->made);
    std::fflush(nullptr);
    calls->world.free();
    MPI_Finalize();
    if (!good) _exit(3);
  }
};
Global global;

struct OfAThread {
  ~OfAThread() {
    if (used) call_all("in the destructor of a thread_local object");
  }
  bool used = false;
};
thread_local OfAThread of_a_thread;

}  // namespace

int main(int argc, char** argv) {
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  calls = new Calls;
  for (const terse::CodecEntry& row : terse::codecs()) {
    calls->specs.insert(calls->specs.end(), row.examples.begin(), row.examples.end());
  }
  // a thread that calls before its end, and one that does not; on one that MPI does not serve, neither
  if (provided == MPI_THREAD_MULTIPLE || provided == MPI_THREAD_SERIALIZED) {
    std::thread([] {
      of_a_thread.used = true;
      call_all("on another thread");
    }).join();
    std::thread([] { of_a_thread.used = true; }).join();
  } else {
    calls->made += 3;
  }
  of_a_thread.used = true;
  std::atexit([] { call_all("in a handler of atexit"); });
  return 0;
}

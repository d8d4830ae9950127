// SPDX-License-Identifier: Apache-2.0
//
// For tests with more ranks than cores, preloaded: MPICH over UCX, which Debian has, polls without end where
// a rank waits, and keeps its core from the rank that it waits for until the system takes it away. It polls
// by this function of UCX, which here gives the core away where nothing has come. (Open MPI does it by
// itself: mpi_yield_when_idle.)
#include <dlfcn.h>
#include <sched.h>

extern "C" unsigned ucp_worker_progress(void* worker) {
  static const auto progress = reinterpret_cast<unsigned (*)(void*)>(dlsym(RTLD_NEXT, "ucp_worker_progress"));
  constexpr int kPatience = 100;  // what comes soon is not slowed down
  thread_local int idle = 0;
  const unsigned events = progress(worker);
  idle = events != 0 ? 0 : idle + 1;
  if (idle == kPatience) {
    idle = 0;
    sched_yield();
  }
  return events;
}

// SPDX-License-Identifier: Apache-2.0
#include "support/watchdog.hpp"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>

#include "support/stack_dump.hpp"

namespace terse::test {

Watchdog::Watchdog(int rank) : rank_(rank) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  patience_ *= 5;
#endif
  if (const char* text = std::getenv("TERSE_TEST_TIMEOUT_S"))
    patience_ = std::chrono::seconds(std::atoi(text));
  prepare_stack_dumps();
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watchdog::now_at(const std::string& where) {
  const std::lock_guard lock(mutex_);
  where_ = where;
  since_ = std::chrono::steady_clock::now();
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, std::chrono::milliseconds(500));
    if (stop_ || std::chrono::steady_clock::now() - since_ < patience_) continue;
    std::fprintf(stderr, "[rank %d] hangs: %s has not ended after %lld s\n", rank_, where_.c_str(),
                 static_cast<long long>(patience_.count()));
    std::fputs(dump_all_stacks("[rank " + std::to_string(rank_) + "]").c_str(), stderr);
    std::fflush(nullptr);
    std::this_thread::sleep_for(std::chrono::seconds(2));  // for the others to say where they are
    MPI_Abort(MPI_COMM_WORLD, 3);
    std::_Exit(3);
  }
}

}  // namespace terse::test

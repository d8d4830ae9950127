// SPDX-License-Identifier: Apache-2.0
//
// What threads keep: one object a thread and place, there until the thread's last moment, and then gone.
#include "core/thread_memory.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace terse::test {
namespace {

std::atomic<int> made{0};
std::atomic<int> gone{0};

struct Counted {
  Counted() { ++made; }
  ~Counted() { ++gone; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  int value = 0;
};

Counted& here() {
  return kept_by_thread<Counted>([] {});
}
Counted& elsewhere() {
  return kept_by_thread<Counted>([] {});
}

TEST(ThreadMemory, IsOneForEachThreadAndPlace) {
  here().value = 1;
  elsewhere().value = 2;
  EXPECT_EQ(here().value, 1);
  EXPECT_EQ(elsewhere().value, 2);
  EXPECT_EQ(&here(), &here());
  std::thread([] { EXPECT_EQ(here().value, 0) << "another thread's"; }).join();
  EXPECT_EQ(here().value, 1);
}

TEST(ThreadMemory, IsGoneWithItsThread) {
  const int before = made - gone;
  std::vector<std::thread> threads;
  for (int t = 0; t < 20; ++t) {
    threads.emplace_back([] {
      here().value = 3;
      if (elsewhere().value == 0) here().value = 4;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made - gone, before);
}

std::atomic<int> seen_late{-1};

struct UsesItLate {
  ~UsesItLate() {
    seen_late = here().value;
    here().value = 9;
  }
  int touched = 0;
};
thread_local UsesItLate late;

// Destructors of thread_local objects run before what a thread keeps is destroyed, in whatever order they
// were made.
TEST(ThreadMemory, IsThereInDestructorsOfThreadLocalObjects) {
  for (const bool first : {true, false}) {
    const int before = made - gone;
    std::thread([first] {
      if (first) late.touched = 1;
      here().value = 7;
      if (!first) late.touched = 1;
    }).join();
    EXPECT_EQ(seen_late, 7);
    EXPECT_EQ(made - gone, before);
  }
}

struct MakesAnother {
  ~MakesAnother() { elsewhere().value = 5; }
};

// An object's destructor may use others, also such that are gone already: these are made anew, and go too.
TEST(ThreadMemory, IsMadeAnewWhereItIsUsedAfterItsEnd) {
  const int before = made - gone;
  const int made_before = made;
  std::thread([] {
    kept_by_thread<MakesAnother>([] {});
    elsewhere().value = 1;
  }).join();
  EXPECT_EQ(made - gone, before);
  EXPECT_EQ(made - made_before, 2);
}

struct Refuses {
  Refuses() {
    if (refuses) throw std::runtime_error("no");
  }
  static inline bool refuses = true;
};

TEST(ThreadMemory, IsTriedAgainWhereItCouldNotBeMade) {
  const auto use = [] { return &kept_by_thread<Refuses>([] {}); };
  EXPECT_THROW(use(), std::runtime_error);
  Refuses::refuses = false;
  EXPECT_NE(use(), nullptr);
}

}  // namespace
}  // namespace terse::test

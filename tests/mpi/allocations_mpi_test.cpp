// SPDX-License-Identifier: Apache-2.0
// ranks: 1 3
//
// A call after the first takes no memory from operator new. (What MPI takes is its own.)
#include <gtest/gtest.h>
#include <mpi.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <terse/communicator.hpp>
#include <vector>

#include "codec/rounds.hpp"
#include "support/mpi_ranks.hpp"

namespace {

std::atomic<std::size_t> taken{0};

void* take(std::size_t bytes, std::size_t alignment) {
  ++taken;
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Not inlined, where compilers would see that memory of operator new is given back by std::free.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return take(bytes, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return take(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return take(bytes, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace terse::test {
namespace {

/// What a call takes once it has been made a few times.
template <class Work>
std::size_t taken_by(Work&& work) {
  for (int i = 0; i < 3; ++i) work();
  const std::size_t before = taken;
  for (int i = 0; i < 10; ++i) work();
  return taken - before;
}

bool adds(const Codec& codec, int ranks) {
  return rounds_of(codec) != nullptr && static_cast<std::size_t>(ranks) <= rounds_of(codec)->most_ranks();
}

TEST(Allocations, NoneAfterTheFirstCalls) {
  Communicator world(MPI_COMM_WORLD);
  for (const char* spec :
       {"onebit:block=1024,scale=l1", "cast:bf16", "identity", "topk:ratio=0.01", "threshold:ratio=0.01",
        "topk:ratio=0.05,block=256", "randomk:ratio=0.05", "sum8", "sum4:block=64", "hadamard+onebit"}) {
    for (const char* algorithm : {"two_phase", "gather", "summed", "exact", "auto"}) {
      for (const Check check : {Check::call, Check::payload}) {
        if (std::string(algorithm) == "auto" && (spec[0] != 'o' || check == Check::payload)) continue;
        if (std::string(algorithm) == "two_phase" && make_codec(spec)->traits().whole_tensor) continue;
        if (std::string(algorithm) == "summed" && !adds(*make_codec(spec), world.size())) continue;
        SCOPED_TRACE(std::string(spec) + " " + algorithm);
        std::vector<float> data(30000, 1.0f);
        std::vector<float> other(3000, 1.0f);
        Feedback feedback;
        Feedback second;
        CallOptions options{
            .policy = {.codec = spec, .algorithm = algorithm, .segment_bytes = 32 << 10, .check = check}};
        if (std::string(spec) != "cast:bf16") options.feedback = &feedback;
        EXPECT_EQ(taken_by([&] { world.allreduce(view(data), Op::average, options); }), 0u) << "blocking";
        EXPECT_EQ(taken_by([&] { world.iallreduce(view(data), Op::average, options).wait(); }), 0u)
            << "nonblocking";
        Plan plan = world.allreduce_init(view(data), Op::average, options);
        EXPECT_EQ(taken_by([&] {
                    plan.start();
                    plan.wait();
                  }),
                  0u)
            << "persistent";
        feedback.reset();
        const std::vector<terse::Tensor> list = {{view(data), options.feedback},
                                                 {view(other), options.feedback ? &second : nullptr}};
        const CallOptions of_the_list{.policy = options.policy};
        EXPECT_EQ(taken_by([&] { world.allreduce(list, Op::average, of_the_list); }), 0u) << "list";
      }
    }
  }
}

/// As many tensors as a model has.
TEST(Allocations, NoneHoweverManyTensorsThereAre) {
  Communicator world(MPI_COMM_WORLD);
  const CallOptions options{.policy = {.codec = "onebit", .min_bytes = 0}};
  std::vector<float> data(100000, 1.0f);
  std::vector<Plan> plans;
  for (std::size_t i = 0; i < 100; ++i) {
    plans.push_back(world.allreduce_init(view(data).slice(0, 1000 * (i + 1)), Op::average, options));
  }
  EXPECT_EQ(taken_by([&] {
              for (Plan& plan : plans) {
                plan.start();
                plan.wait();
              }
            }),
            0u);
}

}  // namespace
}  // namespace terse::test

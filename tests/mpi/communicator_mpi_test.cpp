// SPDX-License-Identifier: Apache-2.0
//
// Communicators: of any communicator, many of them, moved, freed; options from all their sources.
#include <gtest/gtest.h>
#include <mpi.h>
#include <pthread.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

/// A compressed and an exact call; what comes out depends on nobody outside the communicator.
void check_use(Communicator& comm, MPI_Comm raw, std::uint64_t seed) {
  ASSERT_EQ(comm.rank(), rank_of(raw));
  ASSERT_EQ(comm.size(), size_of_comm(raw));
  const auto me = static_cast<std::size_t>(comm.rank());
  Rehearsal rehearsal(comm.size(), 300, DType::f32, 64, Op::average);
  Feedback feedback;
  for (std::uint64_t step = 0; step < 2; ++step) {
    const auto inputs = rehearsal.next(seed + step);
    Tensor data(inputs[me], DType::f32);
    comm.allreduce(data.view(), Op::average, compressing("onebit:block=64", &feedback));
    ASSERT_TRUE(rehearsal.agrees(comm.rank(), data, &feedback));
    ASSERT_TRUE(same_on_all(raw, data.bytes()));
  }
  std::vector<double> one(3, 1.0);
  comm.allreduce(view(one), Op::sum);
  ASSERT_EQ(one, std::vector<double>(3, comm.size()));
}

TEST(Communicator, OfTheWorldAndOfItself) {
  Communicator world(MPI_COMM_WORLD);
  check_use(world, MPI_COMM_WORLD, 1);
  Communicator self(MPI_COMM_SELF);
  check_use(self, MPI_COMM_SELF, 2);
  EXPECT_EQ(self.size(), 1);
}

TEST(Communicator, OfPartsSplitInDifferentWays) {
  Communicator world(MPI_COMM_WORLD);
  const int rank = world_rank();
  const int size = world_size();
  const struct {
    int color;
    int key;
  } splits[] = {
      {rank % 2, rank}, {rank / 2, -rank}, {rank == 0 ? 0 : 1, rank}, {rank % 3, size - rank}, {0, -rank}};
  std::uint64_t seed = 10;
  for (const auto& [color, key] : splits) {
    const SubComm part(color, key);
    Communicator comm(part.get());
    check_use(comm, part.get(), ++seed * 10);
    check_use(world, MPI_COMM_WORLD, seed * 10 + 5);  // in turn with the whole
  }
}

/// Only some ranks call: a library that used the world's communicator would hang here.
TEST(Communicator, OnlySomeRanksCall) {
  const bool inside = world_rank() % 2 == 0;
  const SubComm part(inside ? 0 : MPI_UNDEFINED, world_rank());
  if (inside) {
    Communicator comm(part.get());
    for (std::uint64_t seed = 0; seed < 3; ++seed) check_use(comm, part.get(), seed);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(Communicator, ManyAreMadeAndFreed) {
  for (int k = 0; k < 60; ++k) {
    Communicator comm(k % 3 == 0 ? MPI_COMM_SELF : MPI_COMM_WORLD);
    std::vector<float> data(10, 1.0f);
    comm.allreduce(view(data), Op::average, compressing("onebit:block=8"));
    EXPECT_EQ(data[9], 1.0f);
    if (k % 2 == 0) comm.free();
  }
  std::vector<Communicator> many;
  for (int k = 0; k < 20; ++k) many.emplace_back(MPI_COMM_WORLD);
  for (Communicator& comm : many) {
    std::vector<float> data(10, 1.0f);
    comm.allreduce(view(data), Op::sum, compressing("onebit:block=8"));
    EXPECT_EQ(data[0], static_cast<float>(world_size()));
  }
}

TEST(Communicator, MovesAndIsFreed) {
  Communicator a(MPI_COMM_WORLD);
  Communicator b(std::move(a));
  check_use(b, MPI_COMM_WORLD, 3);
  std::vector<float> data(4, 1.0f);
  const auto refused = [&](Communicator& comm) {
    EXPECT_TRUE(is_error(error_of([&] { comm.allreduce(view(data), Op::sum); }), "invalid_state"));
    EXPECT_TRUE(is_error(error_of([&] { static_cast<void>(comm.rank()); }), "invalid_state"));
    EXPECT_TRUE(is_error(error_of([&] { static_cast<void>(comm.size()); }), "invalid_state"));
    EXPECT_TRUE(is_error(error_of([&] { static_cast<void>(comm.options()); }), "invalid_state"));
    comm.free();  // once more does nothing
  };
  refused(a);
  Communicator c(MPI_COMM_SELF);
  c = std::move(b);
  check_use(c, MPI_COMM_WORLD, 4);
  refused(b);
  c.free();
  refused(c);
  c = Communicator(MPI_COMM_WORLD);
  check_use(c, MPI_COMM_WORLD, 5);
}

// Of what the program has on its communicator nothing is touched: no attribute is copied, a receive from any
// rank with any tag takes no message of the library's, and what the program has under way there arrives.
TEST(Communicator, LooksOnlyAtTheProgramsCommunicator) {
  static int copied = 0;
  static int deleted = 0;
  const SubComm part(0, -world_rank());  // in another order than the world's
  int key = MPI_KEYVAL_INVALID;
  MPI_Comm_create_keyval(
      [](MPI_Comm, int, void*, void*, void*, int* flag) {
        ++copied;
        *flag = 0;
        return MPI_ERR_OTHER;
      },
      [](MPI_Comm, int, void*, void*) {
        ++deleted;
        return MPI_SUCCESS;
      },
      &key, nullptr);
  copied = deleted = 0;
  MPI_Comm_set_attr(part.get(), key, nullptr);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(part.get(), &handler);
  const int next = (rank_of(part.get()) + 1) % size_of_comm(part.get());
  std::array<int, 2> sent = {world_rank(), 17};
  std::array<int, 2> received = {-1, -1};
  std::array<MPI_Request, 2> requests{};
  MPI_Irecv(received.data(), 2, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, part.get(), &requests[0]);
  {
    Communicator comm(part.get());
    check_use(comm, part.get(), 1);
    MPI_Isend(sent.data(), 2, MPI_INT, next, 5, part.get(), &requests[1]);
    check_use(comm, part.get(), 2);
    comm.free();
  }
  MPI_Waitall(2, requests.data(), MPI_STATUSES_IGNORE);
  EXPECT_EQ(received[1], 17);
  EXPECT_EQ(copied, 0);
  EXPECT_EQ(deleted, 0);
  MPI_Errhandler after = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(part.get(), &after);
  EXPECT_EQ(after, handler);
  MPI_Comm_free_keyval(&key);
}

TEST(Communicator, RefusesWhatIsNoIntracommunicator) {
  EXPECT_TRUE(
      is_error(error_of([] { Communicator c(MPI_COMM_NULL); }), "invalid_argument", {"MPI_COMM_NULL"}));
}

/// Calls `work` on a thread whose stack has so many bytes, thread-local storage and all.
void on_small_stack(std::size_t bytes, std::function<void()> work) {
  pthread_attr_t attributes;
  pthread_t thread{};
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, bytes), 0);
  const auto call = [](void* argument) -> void* {
    (*static_cast<std::function<void()>*>(argument))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, call, &work), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

/// Fibres, Go's threads and musl's have stacks of 128 KiB and less.
TEST(Communicator, IsUsedOnAThreadWithASmallStack) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need a larger stack";
#endif
  int provided = 0;
  MPI_Query_thread(&provided);
  if (provided < MPI_THREAD_SERIALIZED) GTEST_SKIP() << "this MPI does not provide MPI_THREAD_SERIALIZED";
  on_small_stack(std::size_t{16} << 10, [] {});
#ifdef OPEN_MPI
  constexpr std::size_t kStack = std::size_t{48} << 10;
#else
  constexpr std::size_t kStack = std::size_t{256} << 10;  // MPICH's own MPI_Allreduce needs more than 128 KiB
#endif
  std::string errors;
  on_small_stack(kStack, [&] {
    Communicator comm(MPI_COMM_WORLD);
    for (const CodecEntry& row : codecs()) {
      for (const std::string& spec : row.examples) {
        for (const DType dtype : {DType::f32, DType::f64}) {
          const auto codec = make_codec(spec);
          if (!codec->supports(dtype)) continue;
          Tensor data(std::vector<double>(5001, 1.0), dtype);
          Feedback feedback;
          const bool has_feedback = codec->traits().contractive;
          errors += error_of([&] {
            comm.allreduce(data.view(), Op::average, compressing(codec, has_feedback ? &feedback : nullptr));
          });
        }
      }
    }
  });
  EXPECT_EQ(errors, "");
}

/// Different Communicators in different threads at once, with a codec in common.
TEST(Communicator, ThreadsUseDifferentOnes) {
  int provided = 0;
  MPI_Query_thread(&provided);
  if (provided != MPI_THREAD_MULTIPLE) GTEST_SKIP() << "this MPI does not provide MPI_THREAD_MULTIPLE";
  const auto codec = make_codec("onebit:block=64");
  std::vector<Communicator> comms;
  for (int t = 0; t < 3; ++t) comms.emplace_back(MPI_COMM_WORLD);
  std::vector<std::string> errors(comms.size());
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < comms.size(); ++t) {
    threads.emplace_back([&, t] {
      errors[t] = error_of([&] {
        Feedback feedback;
        for (int step = 0; step < 10; ++step) {
          std::vector<float> data(1000, static_cast<float>(t + 1));
          comms[t].allreduce(view(data), Op::sum, compressing(codec, &feedback));
          for (const float v : data) {
            if (v != static_cast<float>(t + 1) * static_cast<float>(comms[t].size()))
              throw std::runtime_error("wrong sum");
          }
        }
      });
    });
  }
  for (auto& thread : threads) thread.join();
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

/// Sets an environment variable while it lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { unsetenv(name_); }

 private:
  const char* name_;
};

TEST(Options, ComeFromCallThenCommunicatorThenEnvironmentThenTable) {
  const Variable codec("TERSE_CODEC", "onebit:block=64");
  const Variable algorithm("TERSE_ALGORITHM", "two_phase");
  const Variable min_bytes("TERSE_MIN_BYTES", "1K");
  const Variable segment("TERSE_SEGMENT_BYTES", "2M");
  const Variable check("TERSE_CHECK", "payload");
  Communicator plain(MPI_COMM_WORLD);
  const Policy& environments = plain.options().policy;
  ASSERT_TRUE(environments.codec.codec());
  EXPECT_EQ(environments.codec.codec()->name(), "onebit");
  EXPECT_EQ(environments.codec.codec()->traits().block, 64u);
  EXPECT_EQ(environments.algorithm, "two_phase");
  EXPECT_EQ(environments.min_bytes, 1024u);
  EXPECT_EQ(environments.segment_bytes, std::size_t{2} << 20);
  EXPECT_EQ(environments.check, Check::payload);

  Communicator own(MPI_COMM_WORLD, {.policy = {.codec = "cast:bf16", .min_bytes = 8}});
  EXPECT_EQ(own.options().policy.codec.codec()->spec(), "cast:bf16");
  EXPECT_EQ(own.options().policy.min_bytes, 8u);
  EXPECT_EQ(own.options().policy.algorithm, "two_phase");

  std::vector<float> data(255, 1.0f);  // 1020 bytes
  const auto reason = [&](Communicator& comm, const Policy& policy) {
    const auto outcome = comm.allreduce(view(data), Op::sum, {.policy = policy});
    return std::string(name(outcome.result)) + "/" + std::string(name(outcome.reason));
  };
  EXPECT_EQ(reason(plain, {}), "exact/small");
  EXPECT_EQ(reason(plain, {.min_bytes = 1020}), "compressed/none");
  EXPECT_EQ(reason(own, {}), "compressed/none");
  EXPECT_EQ(reason(own, {.codec = "identity"}), "exact/asked");
  EXPECT_EQ(reason(own, {.algorithm = "exact"}), "exact/asked");
  unsetenv("TERSE_CODEC");
  Communicator bare(MPI_COMM_WORLD);
  EXPECT_EQ(bare.options().policy.codec.codec()->name(), "identity");
}

TEST(Options, AnEnvironmentThatMakesNoSenseIsRefusedByName) {
  const struct {
    const char* variable;
    const char* value;
  } rows[] = {{"TERSE_CODEC", "onebit:block=7"}, {"TERSE_CODEC", "twobit"},       {"TERSE_ALGORITHM", "fast"},
              {"TERSE_MIN_BYTES", "-1"},         {"TERSE_SEGMENT_BYTES", "4 MB"}, {"TERSE_CHECK", "none"}};
  for (const auto& [variable, value] : rows) {
    const Variable set(variable, value);
    const auto error = error_of([] { Communicator c(MPI_COMM_WORLD); });
    EXPECT_TRUE(is_error(error, "invalid_argument", {variable})) << value;
  }
  for (const Policy& bad : {Policy{.codec = "twobit"}, Policy{.algorithm = "fast"}}) {
    EXPECT_TRUE(
        is_error(error_of([&] { Communicator c(MPI_COMM_WORLD, {.policy = bad}); }), "invalid_argument"));
  }
}

/// One rank's environment, or options, differ: nobody gets a Communicator, all hear why.
TEST(Options, RanksMustHaveTheSame) {
  if (world_size() < 2) return;
  const bool last = world_rank() == world_size() - 1;
  const std::string culprit = "rank " + std::to_string(world_size() - 1);
  const auto make = [](const CommunicatorOptions& options = {}) {
    const auto error = error_of([&] { Communicator c(MPI_COMM_WORLD, options); });
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
    return error;
  };
  {
    std::optional<Variable> codec;
    if (last) codec.emplace("TERSE_CODEC", "onebit");
    EXPECT_TRUE(is_error(make(), "mismatch", {"codec", "identity", "onebit", culprit, "TERSE_"}));
  }
  {
    std::optional<Variable> codec;
    if (last) codec.emplace("TERSE_CODEC", "twobit");
    EXPECT_TRUE(is_error(make(), "invalid_argument", {"TERSE_CODEC", "twobit", culprit}));
  }
  {
    std::optional<Variable> check;
    if (last) check.emplace("TERSE_CHECK", "all");
    EXPECT_TRUE(is_error(make(), "mismatch", {"check", "call", "all", culprit}));
  }
  EXPECT_TRUE(is_error(make({.policy = {.min_bytes = last ? 1u : 2u}}), "mismatch", {"min_bytes", culprit}));
  EXPECT_EQ(make(), "");
}

}  // namespace
}  // namespace terse::test

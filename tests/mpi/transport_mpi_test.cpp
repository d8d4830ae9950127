// SPDX-License-Identifier: Apache-2.0
//
// MpiTransport keeps the contract of transport.hpp.
#include <gtest/gtest.h>
#include <mpi.h>

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "support/caller_mode.hpp"
#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"
#include "support/tensor.hpp"
#include "transport/mpi_transport.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
using Wait = Transport::Wait;

Bytes pattern(std::size_t bytes, int from, int to) {
  Bytes data(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    data[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(from * 31 + to));
  return data;
}

void finish(Transport& t, std::deque<Operation>& operations) {
  for (Operation& o : operations) {
    while (!o.done) t.progress(Wait::yes);
  }
}

TEST(MpiTransport, AllPairsAtOnceAnySize) {
  MpiTransport t(MPI_COMM_WORLD);
  ASSERT_EQ(t.rank(), world_rank());
  ASSERT_EQ(t.size(), world_size());
  bool sent_told = true;
  for (const Wait wait : {Wait::yes, Wait::no}) {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{300007}}) {
      const int tag = t.take_tags(2);
      std::deque<Operation> operations;
      std::deque<Bytes> out, in;
      for (int peer = 0; peer < t.size(); ++peer) {
        for (int channel = 0; channel < 2; ++channel) {
          in.emplace_back(bytes + 100, std::byte{0x77});  // room for more than comes
          t.receive(in.back(), peer, tag + channel, operations.emplace_back());
        }
      }
      for (int peer = 0; peer < t.size(); ++peer) {
        for (int channel = 0; channel < 2; ++channel) {
          out.push_back(pattern(bytes + static_cast<std::size_t>(channel), t.rank(), peer));
          t.send(out.back(), peer, tag + channel, operations.emplace_back());
        }
      }
      if (wait == Wait::yes) {
        finish(t, operations);
      } else {
        for (Operation& o : operations) {
          while (!o.done) t.progress(Wait::no);
        }
      }
      for (std::size_t k = 0; k < in.size(); ++k) {
        const auto want = pattern(bytes + k % 2, static_cast<int>(k / 2), t.rank());
        ASSERT_EQ(operations[k].bytes, want.size());
        in[k].resize(want.size());
        ASSERT_EQ(in[k] == want, true) << bytes << " bytes from " << k / 2;
        sent_told = sent_told && operations[in.size() + k].bytes == out[k].size();
      }
    }
  }
  EXPECT_TRUE(sent_told) << "operation.bytes of a send";
  t.free();
}

TEST(MpiTransport, OneTagKeepsTheOrder) {
  MpiTransport t(MPI_COMM_WORLD);
  const int tag = t.take_tags(1);
  const int to = (t.rank() + 1) % t.size();
  const int from = (t.rank() + t.size() - 1) % t.size();
  std::deque<Operation> operations;
  std::deque<Bytes> out, in;
  for (std::size_t k = 0; k < 50; ++k) {
    out.emplace_back(1 + k % 3 * 50000, static_cast<std::byte>(k));
    in.emplace_back(100001);
    t.send(out.back(), to, tag, operations.emplace_back());
    t.receive(in.back(), from, tag, operations.emplace_back());
  }
  finish(t, operations);
  for (std::size_t k = 0; k < 50; ++k) {
    EXPECT_EQ(operations[2 * k + 1].bytes, 1 + k % 3 * 50000);
    EXPECT_EQ(in[k][0], static_cast<std::byte>(k));
  }
  t.free();
}

TEST(MpiTransport, ProgressWithoutOperationsReturns) {
  MpiTransport t(MPI_COMM_WORLD);
  t.progress(Wait::no);
  t.progress(Wait::yes);
  t.free();
}

TEST(MpiTransport, SumsUnderWay) {
  MpiTransport t(MPI_COMM_WORLD);
  const auto ranks = static_cast<float>(t.size());
  // several on their way, beside a blocking one
  std::vector<float> first(1000, static_cast<float>(t.rank()));
  std::vector<float> second(3, 1.0f);
  std::vector<float> sums(3);
  std::vector<float> third(5, 2.0f);
  std::deque<Operation> operations;
  t.start_all_reduce(ConstView(view(first)), view(first), operations.emplace_back());
  t.start_all_reduce(ConstView(view(second)), view(sums), operations.emplace_back());
  t.all_reduce(ConstView(view(third)), view(third));
  finish(t, operations);
  EXPECT_EQ(first, std::vector<float>(1000, ranks * (ranks - 1) / 2));
  EXPECT_EQ(second, std::vector<float>(3, 1.0f));
  EXPECT_EQ(sums, std::vector<float>(3, ranks));
  EXPECT_EQ(third, std::vector<float>(5, 2 * ranks));
  t.free();
}

TEST(MpiTransport, PlainSums) {
  MpiTransport t(MPI_COMM_WORLD);
  for (const DType dtype : kAllDTypes) {
    for (const std::size_t count : {0u, 1u, 1000u, 70001u}) {
      for (const bool in_place : {false, true}) {
        SerialModel::Matrix inputs;
        for (int r = 0; r < t.size(); ++r) inputs.push_back(exact_values(count, dtype, count, r));
        Tensor in(inputs[static_cast<std::size_t>(t.rank())], dtype, 1);
        const Tensor before = in;
        Tensor out(count, dtype, 1);
        t.all_reduce(in.view(), in_place ? in.view() : out.view());
        const Tensor& got = in_place ? in : out;
        ASSERT_EQ(got.doubles() == plain_sum(inputs), true) << name(dtype) << " " << count;
        ASSERT_TRUE(got.guards_intact());
        ASSERT_TRUE(in_place || in.same_bits(before));
      }
    }
  }
  t.free();
}

/// Bytes, at the ends of what their sums may be, addends, and maxima, subnormal ones among them: in place,
/// blocking or not, of many counts; and the same where a rank flushes subnormals to zero.
TEST(MpiTransport, BytesAddendsAndMaxima) {
  MpiTransport t(MPI_COMM_WORLD);
  const int most = 127 / t.size();
  constexpr float kSubnormal = 0x1p-140F;
  constexpr double kWideSubnormal = 0x1p-1070;
  for (const bool flushes : {false, true}) {
    for (const std::size_t count : {0u, 1u, 31u, 1000u, 70001u}) {
      for (const bool blocks : {true, false}) {
        std::vector<std::int8_t> codes(count);
        std::vector<float> floats(count);
        std::vector<double> doubles(count);
        std::vector<float> addends(count, kSubnormal);
        std::vector<double> wide_addends(count, kWideSubnormal);
        for (std::size_t i = 0; i < count; ++i) {
          codes[i] = static_cast<std::int8_t>(i % 2 == 0 ? most : -most);
          const int turn = (static_cast<int>(i % 8) + t.rank()) % t.size();
          floats[i] = kSubnormal * static_cast<float>(turn);
          doubles[i] = i % 3 == 0 ? kWideSubnormal * turn : turn;
        }
        {
          std::deque<Operation> operations;
          const auto reduce = [&](Reduction what, void* data) {
            if (blocks) return t.all_reduce(what, data, data, count);
            t.start_all_reduce(what, data, data, count, operations.emplace_back());
          };
          const CallerModeScope caller(flushes && t.rank() == 0 ? CallerMode::flushes : CallerMode::plain);
          reduce(Reduction::sum_int8, codes.data());
          reduce(Reduction::max_f32, floats.data());
          reduce(Reduction::max_f64, doubles.data());
          reduce(Reduction::addends_f32, addends.data());
          reduce(Reduction::addends_f64, wide_addends.data());
          finish(t, operations);
        }
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_EQ(codes[i], (i % 2 == 0 ? most : -most) * t.size());
          ASSERT_EQ(floats[i], kSubnormal * static_cast<float>(t.size() - 1));
          ASSERT_EQ(doubles[i], (i % 3 == 0 ? kWideSubnormal : 1.0) * (t.size() - 1));
          ASSERT_EQ(addends[i], kSubnormal * static_cast<float>(t.size()));
          ASSERT_EQ(wide_addends[i], kWideSubnormal * t.size());
        }
      }
    }
  }
  t.free();
}

TEST(MpiTransport, TransportsOverOneCommunicatorDoNotMix) {
  MpiTransport a(MPI_COMM_WORLD);
  MpiTransport b(MPI_COMM_WORLD);
  const int to = (a.rank() + 1) % a.size();
  const int from = (a.rank() + a.size() - 1) % a.size();
  std::deque<Operation> of_a, of_b;
  const Bytes one = pattern(10, 1, 1);
  const Bytes two = pattern(10, 2, 2);
  Bytes in_a(10), in_b(10);
  b.send(two, to, 0, of_b.emplace_back());
  a.send(one, to, 0, of_a.emplace_back());
  a.receive(in_a, from, 0, of_a.emplace_back());
  b.receive(in_b, from, 0, of_b.emplace_back());
  finish(a, of_a);
  finish(b, of_b);
  EXPECT_EQ(in_a == one && in_b == two, true);
  a.free();
  b.free();
}

TEST(MpiTransport, TagsStayInRangeAndComeRoundLate) {
  MpiTransport t(MPI_COMM_WORLD);
  void* limit = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &found);
  ASSERT_TRUE(found);
  const int most = *static_cast<int*>(limit);
  const int first = t.take_tags(2);
  ASSERT_GE(first, 0);
  for (int k = 1; k < 100000; ++k) {
    const int tag = t.take_tags(2);
    ASSERT_GE(tag, 0);
    ASSERT_LE(tag, most - 1);
    ASSERT_TRUE(k >= 5000 || (tag != first && tag != first + 1)) << k;
  }
  t.free();
}

TEST(MpiTransport, AfterAbandonItOnlyRefuses) {
  {
    MpiTransport t(MPI_COMM_WORLD);
    Bytes in(8);
    Operation operation;
    t.receive(in, t.rank(), t.take_tags(1), operation);
    t.abandon();
    const std::array<std::function<void()>, 5> calls = {
        [&] { t.progress(Wait::no); },
        [&] { t.send(in, t.rank(), 0, operation); },
        [&] { t.receive(in, t.rank(), 0, operation); },
        [&] {
          t.all_reduce(ConstView(in.data(), 2, DType::f32), View{in.data(), 2, DType::f32});
        },
        [&] {
          t.start_all_reduce(ConstView(in.data(), 2, DType::f32), View{in.data(), 2, DType::f32}, operation);
        },
    };
    for (const auto& call : calls) EXPECT_TRUE(is_error(error_of(call), "communication"));
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

/// Wrong uses, of which none gets as far as MPI. (The death test's process is a copy of this rank's.)
TEST(MpiTransportDeathTest, RefusesWhatNoScheduleDoes) {
  MpiTransport t(MPI_COMM_WORLD);
  Bytes bytes(8);
  Operation operation;
  EXPECT_DEATH(t.take_tags(0), "more tags than MPI has");
  EXPECT_DEATH(t.send(bytes, t.size(), 0, operation), "a rank that its communicator does not have");
  EXPECT_DEATH(t.receive(bytes, -1, 0, operation), "a rank that its communicator does not have");
  EXPECT_DEATH(t.send(bytes, 0, -1, operation), "a tag that MPI does not allow");
  EXPECT_DEATH(t.send({static_cast<std::byte*>(nullptr), 8}, 0, 0, operation), "has no memory");
  EXPECT_DEATH(t.all_reduce(Reduction::sum_f32, nullptr, bytes.data(), 2), "has no memory");
  Bytes in(8);
  Operation received;
  t.receive(in, t.rank(), 0, received);
  EXPECT_DEATH(t.free(), "operations are on their way");
  t.send(bytes, t.rank(), 0, operation);
  while (!received.done || !operation.done) t.progress(Wait::yes);
  t.free();
  EXPECT_DEATH(t.send(bytes, 0, 0, operation), "after its communicator was freed");
  EXPECT_DEATH(t.all_reduce(Reduction::sum_f32, bytes.data(), bytes.data(), 2), "after its communicator was");
}

/// One operation for two transfers is over twice.
TEST(MpiTransportDeathTest, RefusesAnOperationThatIsUnderWayAlready) {
  MpiTransport t(MPI_COMM_WORLD);
  Bytes out(8), in(8);
  Operation both;
  const auto exchange = [&] {
    t.receive(in, t.rank(), 0, both);
    t.send(out, t.rank(), 0, both);
    for (int i = 0; i < 1000; ++i) t.progress(Wait::no);
  };
  EXPECT_DEATH(exchange(), "ends more often than it began");
  t.free();
}

TEST(MpiTransport, RefusesWhatIsNoIntracommunicator) {
  EXPECT_TRUE(
      is_error(error_of([] { MpiTransport t(MPI_COMM_NULL); }), "invalid_argument", {"MPI_COMM_NULL"}));
  if (world_size() < 2) return;
  const bool low = world_rank() == 0;
  const SubComm half(low ? 0 : 1, world_rank());
  MPI_Comm inter = MPI_COMM_NULL;
  MPI_Intercomm_create(half.get(), 0, MPI_COMM_WORLD, low ? 1 : 0, 7, &inter);
  EXPECT_TRUE(is_error(error_of([&] { MpiTransport t(inter); }), "invalid_argument", {"intercommunicator"}));
  MPI_Comm_free(&inter);
}

}  // namespace
}  // namespace terse::test

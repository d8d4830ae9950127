// SPDX-License-Identifier: Apache-2.0
//
// The transport that the other tests stand on.
#include "support/thread_transport.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <terse/error.hpp>
#include <vector>

#include "support/tensor.hpp"

namespace terse::test {
namespace {

std::vector<std::byte> message(std::size_t bytes, int value) {
  return {bytes, static_cast<std::byte>(value)};
}

void finish(Transport& t, std::initializer_list<Operation*> operations) {
  for (Operation* o : operations) {
    while (!o->done) t.progress(Transport::Wait::yes);
  }
}

TEST(ThreadTransport, KeepsTheOrderOfEachPairAndTag) {
  for (std::uint64_t seed = 1; seed < 20; ++seed) {
    run_ranks(3,
              [&](ThreadTransport& t) {
                const int tag = t.take_tags(2);
                std::array<std::array<Operation, 20>, 6> operations{};
                std::vector<std::vector<std::byte>> out, in;
                for (int to = 0; to < 3; ++to) {
                  for (int k = 0; k < 20; ++k) out.push_back(message(static_cast<std::size_t>(k), k));
                  in.resize(in.size() + 20, std::vector<std::byte>(32));
                }
                for (std::size_t to = 0; to < 3; ++to) {
                  for (std::size_t k = 0; k < 20; ++k) {
                    const int channel = tag + static_cast<int>(k % 2);
                    t.send(out[to * 20 + k], static_cast<int>(to), channel, operations[to][k]);
                    t.receive(in[to * 20 + k], static_cast<int>(to), channel, operations[3 + to][k]);
                  }
                }
                while (t.in_flight() > 0) t.progress(Transport::Wait::yes);
                for (std::size_t from = 0; from < 3; ++from) {
                  for (std::size_t k = 0; k < 20; ++k) {
                    EXPECT_EQ(operations[3 + from][k].bytes, k);
                    for (std::size_t b = 0; b < k; ++b)
                      EXPECT_EQ(in[from * 20 + k][b], static_cast<std::byte>(k));
                  }
                }
              },
              {.seed = seed, .max_delay_us = seed % 2 == 0 ? 200 : 0});
  }
}

TEST(ThreadTransport, Collectives) {
  run_ranks(4, [](ThreadTransport& t) {
    for (const DType dtype : kAllDTypes) {
      Tensor started(std::vector<double>{2.0 + t.rank(), 0.25, 1}, dtype);
      Operation operation;
      t.start_all_reduce(started.view(), started.view(), operation);
      Tensor data(std::vector<double>{1.0 + t.rank(), 0.5}, dtype);
      t.all_reduce(data.view(), data.view());
      EXPECT_EQ(data.doubles(), (std::vector<double>{10, 2}));
      finish(t, {&operation});
      EXPECT_EQ(started.doubles(), (std::vector<double>{14, 1, 4}));
    }
  });
}

TEST(ThreadTransport, BytesAndMaxima) {
  run_ranks(3, [](ThreadTransport& t) {
    std::vector<std::int8_t> codes = {42, -42, 1};
    t.all_reduce(Reduction::sum_int8, codes.data(), codes.data(), codes.size());
    EXPECT_EQ(codes, (std::vector<std::int8_t>{126, -126, 3}));
    std::vector<float> floats = {static_cast<float>(t.rank()), 0x1p-149F};
    std::vector<double> doubles = {static_cast<double>(2 - t.rank())};
    Operation first;
    Operation second;
    t.start_all_reduce(Reduction::max_f32, floats.data(), floats.data(), floats.size(), first);
    t.start_all_reduce(Reduction::max_f64, doubles.data(), doubles.data(), doubles.size(), second);
    finish(t, {&first, &second});
    EXPECT_EQ(floats, (std::vector<float>{2, 0x1p-149F}));
    EXPECT_EQ(doubles, std::vector<double>{2});
  });
}

std::string first_error(int ranks, const std::function<void(ThreadTransport&)>& body,
                        const ThreadOptions& options = {}) {
  for (const auto& error : try_ranks(ranks, body, options)) {
    if (error) return sentence_of(error);
  }
  return "";
}

void expect_names(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
}

TEST(ThreadTransport, ADeadlockIsAnErrorThatDrawsThePicture) {
  const auto text = first_error(2, [](ThreadTransport& t) {
    std::byte byte{};
    Operation operation;
    if (t.rank() == 1) t.receive({&byte, 1}, 0, 5, operation);
    if (t.rank() == 1) finish(t, {&operation});
  });
  expect_names(
      text, {"communication", "deadlock", "rank 0 has ended", "rank 1 waits", "receive from 0 under tag 5"});
}

/// The ranks count as busy, by messages to themselves, until both have posted the receive that never ends.
TEST(ThreadTransport, APollingHangIsAnErrorToo) {
  std::atomic<int> posted = 0;
  const auto text = first_error(2,
                                [&](ThreadTransport& t) {
                                  std::byte byte{};
                                  Operation operation;
                                  t.receive({&byte, 1}, 1 - t.rank(), 5, operation);
                                  ++posted;
                                  while (posted < 2) {
                                    const auto out = message(1, 1);
                                    auto in = message(1, 0);
                                    Operation sent;
                                    Operation received;
                                    t.receive(in, t.rank(), 6, received);
                                    t.send(out, t.rank(), 6, sent);
                                    finish(t, {&sent, &received});
                                  }
                                  while (!operation.done) t.progress(Transport::Wait::no);
                                },
                                {.patience_s = 0.5});
  expect_names(text, {"no progress", "receive from 1 under tag 5"});
}

TEST(ThreadTransport, BrokenRulesAreErrors) {
  expect_names(first_error(2,
                           [](ThreadTransport& t) {
                             auto out = message(9, 1);
                             std::vector<std::byte> in(8);
                             Operation operation;
                             if (t.rank() == 0) t.send(out, 1, 0, operation);
                             if (t.rank() == 1) t.receive(in, 0, 0, operation);
                             finish(t, {&operation});
                           }),
               {"9 bytes", "rank 0", "does not fit the 8"});
  expect_names(first_error(2,
                           [](ThreadTransport& t) {
                             auto out = message(9, 1);
                             Operation operation;
                             t.send(out, 1 - t.rank(), 0, operation);
                             out[3] = std::byte{7};
                             finish(t, {&operation});
                           }),
               {"changed the bytes"});
  expect_names(first_error(2,
                           [](ThreadTransport& t) {
                             std::vector<double> values(t.rank() == 0 ? 1 : 2);
                             Operation operation;
                             t.start_all_reduce(ConstView(view(values)), view(values), operation);
                             finish(t, {&operation});
                           }),
               {"collective 0", "start_all_reduce of", "8", "16"});
  expect_names(first_error(1,
                           [](ThreadTransport& t) {
                             auto out = message(1, 1);
                             static Operation operation;
                             t.send(out, 0, 0, operation);
                           }),
               {"left over", "ended with"});
}

TEST(ThreadTransport, RanksExceptionsComeBack) {
  const auto errors = try_ranks(3, [](ThreadTransport& t) {
    if (t.rank() == 1) throw Error(ErrorCode::corrupt_data, "rank one's own");
  });
  EXPECT_EQ(sentence_of(errors[0]), "");
  EXPECT_EQ(sentence_of(errors[1]), "corrupt_data: rank one's own");
  EXPECT_THROW(run_ranks(2, [](ThreadTransport&) { throw std::runtime_error("x"); }), std::runtime_error);
}

TEST(ThreadTransport, AfterAbandonEveryCallThrows) {
  run_ranks(1, [](ThreadTransport& t) {
    std::byte byte{};
    Operation operation;
    t.receive({&byte, 1}, 0, 0, operation);
    t.abandon();
    EXPECT_EQ(t.in_flight(), 0u);
    EXPECT_THROW(t.progress(Transport::Wait::no), Error);
    EXPECT_THROW(t.take_tags(1), Error);
    EXPECT_THROW(t.receive({&byte, 1}, 0, 0, operation), Error);
  });
}

}  // namespace
}  // namespace terse::test

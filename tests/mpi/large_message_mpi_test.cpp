// SPDX-License-Identifier: Apache-2.0
// ranks: 2
//
// What int cannot count. Needs memory: skipped, with the reason, where there is not enough.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include "support/mpi_ranks.hpp"
#include "transport/mpi_transport.hpp"

namespace terse::test {
namespace {

constexpr std::size_t kGiB = std::size_t{1} << 30;

/// Bytes that the machine has to spare, as rank 0 sees it.
std::size_t memory_available() {
  unsigned long long bytes = 0;
  std::ifstream in("/proc/meminfo");
  for (std::string key, rest; in >> key && std::getline(in, rest);) {
    if (key == "MemAvailable:") bytes = std::strtoull(rest.c_str(), nullptr, 10) * 1024;
  }
  MPI_Bcast(&bytes, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
  return bytes;
}

bool asked_for_large() { return std::getenv("TERSE_TEST_LARGE") != nullptr; }

struct Release {
  void operator()(void* p) const { std::free(p); }
};
std::unique_ptr<std::byte, Release> allocate(std::size_t bytes) {
  return std::unique_ptr<std::byte, Release>(static_cast<std::byte*>(std::malloc(bytes)));
}

std::byte at_place(std::size_t i) { return static_cast<std::byte>((i >> 20) * 13 + i % 251); }

TEST(LargeMessage, OfMoreThanTwoGigabytesArrivesWhole) {
  if (memory_available() < 12 * kGiB) GTEST_SKIP() << "needs 12 GiB of free memory";
  MpiTransport t(MPI_COMM_WORLD);
  const std::size_t bytes = (std::size_t{1} << 31) + 17;
  const auto data = allocate(bytes);
  ASSERT_NE(data, nullptr);
  constexpr std::size_t kStride = 4099;
  Operation operation;
  if (t.rank() == 0) {
    std::memset(data.get(), 0, bytes);
    for (std::size_t i = 0; i < bytes; i += kStride) data.get()[i] = at_place(i);
    data.get()[bytes - 1] = std::byte{0x5A};
    t.send({data.get(), bytes}, 1, 0, operation);
  } else {
    t.receive({data.get(), bytes}, 0, 0, operation);
  }
  while (!operation.done) t.progress(Transport::Wait::yes);
  EXPECT_EQ(operation.bytes, bytes);
  if (t.rank() == 1) {
    EXPECT_EQ(data.get()[bytes - 1], std::byte{0x5A});
    for (std::size_t i = 0; i < bytes; i += kStride) ASSERT_EQ(data.get()[i], at_place(i)) << i;
  }
  t.free();
}

TEST(LargeMessage, ShorterThanItsRoomIsMeasuredRight) {
  if (memory_available() < 12 * kGiB) GTEST_SKIP() << "needs 12 GiB of free memory";
  MpiTransport t(MPI_COMM_WORLD);
  const std::size_t room = (std::size_t{1} << 31) + 17;
  Operation operation;
  std::byte few[5] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}};
  const auto data = allocate(t.rank() == 1 ? room : 1);  // never touched beyond the message
  if (t.rank() == 0) t.send(few, 1, 0, operation);
  if (t.rank() == 1) t.receive({data.get(), room}, 0, 0, operation);
  while (!operation.done) t.progress(Transport::Wait::yes);
  if (t.rank() == 1) {
    EXPECT_EQ(operation.bytes, 5u);
    EXPECT_EQ(std::memcmp(data.get(), few, 5), 0);
  }
  t.free();
}

/// A reduction in more than one call of MPI's.
TEST(LargeMessage, SumsOfMoreThanABillionElements) {
  if (!asked_for_large()) GTEST_SKIP() << "takes a minute: set TERSE_TEST_LARGE=1";
  if (memory_available() < 16 * kGiB) GTEST_SKIP() << "needs 16 GiB of free memory";
  MpiTransport t(MPI_COMM_WORLD);
  const std::size_t count = (std::size_t{1} << 30) + 7;
  const auto data = allocate(count * 2);
  ASSERT_NE(data, nullptr);
  auto* values = reinterpret_cast<bfloat16*>(data.get());
  for (std::size_t i = 0; i < count; ++i) values[i] = bfloat16(static_cast<float>(i % 5 + 1));
  const View view{data.get(), count, DType::bf16};
  t.all_reduce(view, view);
  for (std::size_t i = 0; i < count; ++i)
    ASSERT_EQ(static_cast<float>(values[i]), 2.0f * static_cast<float>(i % 5 + 1));
  t.free();
}

}  // namespace
}  // namespace terse::test

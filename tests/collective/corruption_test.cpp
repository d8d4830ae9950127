// SPDX-License-Identifier: Apache-2.0
//
// Bytes that change on the way: an Error, on all ranks together where there is still something to send; never
// a hang.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

enum class Phase { to_owner = 0, to_all = 1 };

/// Flips a bit of the first message between two ranks in one phase of the first call.
ThreadOptions flipping(Phase phase, int from, int to, std::size_t byte, std::atomic<int>& flips,
                       std::uint64_t seed) {
  ThreadOptions options{.seed = seed, .patience_s = 20};
  options.tamper = [=, &flips](int f, int t, int tag, std::vector<std::byte>& bytes) {
    if (f != from || t != to || tag % Schedule::kChannels != static_cast<int>(phase) || flips > 0) return;
    if (byte >= bytes.size()) return;
    bytes[byte] ^= std::byte{0x10};
    ++flips;
  };
  return options;
}

std::string kind(const std::string& error) { return error.substr(0, error.find(':')); }

TEST(Corruption, OfAHeaderInPhaseOneFailsOnAllRanks) {
  std::uint64_t seed = 0;
  for (const int ranks : {2, 3, 5}) {
    for (std::size_t byte = 0; byte < 16; ++byte) {
      for (const bool checksum : {false, true}) {
        const int from = static_cast<int>(byte) % ranks;
        const int to = (from + 1 + static_cast<int>(byte) % (ranks - 1)) % ranks;
        Rig rig({.ranks = ranks,
                 .count = 1000,
                 .codec = "onebit:block=64",
                 .segment_bytes = 2000,
                 .checksum = checksum});
        SCOPED_TRACE(text_of(rig.setting()) + ", byte " + std::to_string(byte) + " from " +
                     std::to_string(from) + " to " + std::to_string(to));
        std::atomic<int> flips = 0;
        const auto result = rig.call(exact_inputs(rig.setting(), 1),
                                     flipping(Phase::to_owner, from, to, byte, flips, ++seed));
        ASSERT_EQ(flips, 1);
        for (const std::string& error : result.errors) ASSERT_EQ(kind(error), "corrupt_data") << error;
      }
    }
  }
}

TEST(Corruption, OfAnyByteIsSeenByChecksumsInBothPhases) {
  std::uint64_t seed = 0;
  for (const char* spec : {"onebit:block=64", "identity", "cast:bf16"}) {
    for (const Phase phase : {Phase::to_owner, Phase::to_all}) {
      for (std::size_t byte = 0; byte < 60; byte += 1 + byte / 16) {
        Rig rig({.ranks = 3, .count = 1000, .codec = spec, .segment_bytes = 2000, .checksum = true});
        SCOPED_TRACE(text_of(rig.setting()) + ", byte " + std::to_string(byte));
        std::atomic<int> flips = 0;
        const auto result =
            rig.call(exact_inputs(rig.setting(), 1), flipping(phase, 1, 2, byte, flips, ++seed));
        if (flips == 0) continue;  // beyond the message's end
        for (const std::string& error : result.errors) ASSERT_EQ(kind(error), "corrupt_data") << error;
      }
    }
  }
}

/// Without checksums a flipped sign may pass, but then it does so on all ranks alike.
TEST(Corruption, OfAPayloadInPhaseOneGivesTheSameBitsOrAnError) {
  for (std::size_t byte = 16; byte < 30; ++byte) {
    Rig rig({.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000});
    std::atomic<int> flips = 0;
    const auto result =
        rig.call(exact_inputs(rig.setting(), 1), flipping(Phase::to_owner, 1, 2, byte, flips, byte));
    ASSERT_EQ(flips, 1);
    for (std::size_t r = 0; r < 3; ++r) {
      ASSERT_EQ(kind(result.errors[r]), kind(result.errors[0]));
      ASSERT_TRUE(result.errors[0].empty() || kind(result.errors[0]) == "corrupt_data") << result.errors[0];
      ASSERT_TRUE(!result.errors[0].empty() || result.out[r].same_bits(result.out[0]));
    }
  }
}

void check_phase_two(bool with_nan, bool checksum) {
  for (std::size_t byte = 0; byte < 16; ++byte) {
    Rig rig(
        {.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 800, .checksum = checksum});
    SCOPED_TRACE(text_of(rig.setting()) + ", byte " + std::to_string(byte));
    auto inputs = exact_inputs(rig.setting(), 1);
    if (with_nan) inputs[0][990] = std::nan("");
    std::atomic<int> flips = 0;
    const auto result = rig.call(inputs, flipping(Phase::to_all, 0, 2, byte, flips, byte + 1));
    ASSERT_EQ(flips, 1);
    ASSERT_EQ(kind(result.errors[2]), "corrupt_data") << result.errors[2];
    for (std::size_t r = 0; r < 3; ++r) {
      ASSERT_TRUE(kind(result.errors[r]) == "corrupt_data" || (result.errors[r].empty() && !checksum))
          << "rank " << r << ": " << result.errors[r];
    }
  }
}

/// The last messages of a call: who receives the bytes throws; with checksums the others are told.
TEST(Corruption, OfAHeaderInPhaseTwoNeverHangs) {
  for (const bool checksum : {false, true}) check_phase_two(false, checksum);
}

/// Nor when other pieces must be sent again, which the rank that gave up will not do.
TEST(Corruption, OfAHeaderInPhaseTwoNeverHangsWithPiecesToSendAgain) {
  for (const bool checksum : {false, true}) check_phase_two(true, checksum);
}

/// Cut short or gone: a message of another length.
TEST(Corruption, TruncatedMessagesFailOnAllRanks) {
  for (const std::size_t keep : {0u, 1u, 15u, 16u, 20u}) {
    Rig rig({.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000});
    ThreadOptions options{.patience_s = 20};
    options.tamper = [keep](int from, int to, int tag, std::vector<std::byte>& bytes) {
      if (from == 0 && to == 1 && tag % Schedule::kChannels == 0) bytes.resize(std::min(keep, bytes.size()));
    };
    const auto result = rig.call(exact_inputs(rig.setting(), 1), options);
    for (const std::string& error : result.errors)
      ASSERT_EQ(kind(error), "corrupt_data") << keep << ": " << error;
  }
}

}  // namespace
}  // namespace terse::test

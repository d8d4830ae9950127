// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <terse/codec.hpp>

#include "codec/arithmetic.hpp"

// Random numbers that can be drawn again, anywhere: Philox4x32-10 (Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011). Its key is a codec's seed and the stream, its counter an eighth of the
// element's position in the tensor, and the call; of the eight halves of the four words that it gives, an
// element has the one of its position modulo 8, the low half of a word first. These are the numbers of
// cuRAND's curandStatePhilox4_32_10_t after curand_init(stream * 2^32 + seed, call, 4 * (position / 8)).

namespace terse::inline v0_1 {

using PhiloxWords = std::array<std::uint32_t, 4>;

inline constexpr std::uint32_t kPhiloxFactors[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::uint32_t kPhiloxSteps[2] = {0x9E3779B9u, 0xBB67AE85u};  // of the key, after each round
inline constexpr int kPhiloxRounds = 10;

/// Philox4x32-10 of a counter under a key.
TERSE_HOST_DEVICE constexpr PhiloxWords philox(PhiloxWords counter, std::uint32_t key0, std::uint32_t key1) {
  // as numbers, since arrays of constants are the host's
  constexpr std::uint32_t kFactor0 = kPhiloxFactors[0];
  constexpr std::uint32_t kFactor1 = kPhiloxFactors[1];
  constexpr std::uint32_t kStep0 = kPhiloxSteps[0];
  constexpr std::uint32_t kStep1 = kPhiloxSteps[1];
#ifdef __CUDA_ARCH__
#pragma unroll 1  // kernels draw in loops that are unrolled
#endif
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t a = std::uint64_t{kFactor0} * counter[0];
    const std::uint64_t b = std::uint64_t{kFactor1} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
    key0 += kStep0;
    key1 += kStep1;
  }
  return counter;
}

/// The four words of a counter under a seed, for a stream and a call.
TERSE_HOST_DEVICE constexpr PhiloxWords random_words(std::uint32_t seed, const RandomKey& key,
                                                     std::uint64_t counter) {
  return philox({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                 static_cast<std::uint32_t>(key.call), static_cast<std::uint32_t>(key.call >> 32)},
                seed, key.stream);
}

/// The 32 random bits that the element at `key.position` shares with the next one, or the one before.
TERSE_HOST_DEVICE constexpr std::uint32_t random_word(std::uint32_t seed, const RandomKey& key) {
  const PhiloxWords words = random_words(seed, key, key.position / 8);
  const auto number = key.position % 8 / 2;  // not as an index: a device keeps words in registers
  return number == 0 ? words[0] : number == 1 ? words[1] : number == 2 ? words[2] : words[3];
}

/// The 16 random bits of the element at `key.position`.
TERSE_HOST_DEVICE constexpr std::uint16_t random_half(std::uint32_t seed, const RandomKey& key) {
  const std::uint32_t word = random_word(seed, key);
  return static_cast<std::uint16_t>(key.position % 2 == 0 ? word : word >> 16);
}

/// The middle of the 2^-16 of [0, 1) that these bits stand for, which a float has exactly: below a number as
/// often as it should be, but for 2^-17.
template <class A>
TERSE_HOST_DEVICE constexpr A random_unit(std::uint16_t half) {
  return (static_cast<A>(half) + static_cast<A>(0.5)) * static_cast<A>(0x1p-16);
}

}  // namespace terse::inline v0_1

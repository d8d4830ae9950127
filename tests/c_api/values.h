// SPDX-License-Identifier: Apache-2.0
#ifndef TERSE_TESTS_C_API_VALUES_H
#define TERSE_TESTS_C_API_VALUES_H

// Tensors of every type of Terse's. Their sums over a few ranks are exact, so that MPI's order does not show.
#include <stdint.h>

#include "check.h"

enum { kTypes = 4 };

static inline MPI_Datatype type_at(int t) {
  const MPI_Datatype types[kTypes] = {MPI_FLOAT, MPI_DOUBLE, Terse_Type_float16(), Terse_Type_bfloat16()};
  return types[t];
}

static inline size_t bytes_at(int t) {
  static const size_t bytes[kTypes] = {4, 8, 2, 2};
  return bytes[t];
}

// A binary16 of k / 64.
static inline uint16_t half_of(int k) {
  if (k == 0) return 0;
  const unsigned magnitude = (unsigned)(k < 0 ? -k : k);
  unsigned exponent = 0;
  while (magnitude >> (exponent + 1) != 0) ++exponent;
  return (uint16_t)((k < 0 ? 0x8000u : 0u) | (exponent + 9) << 10 | (magnitude << (10 - exponent) & 0x3ffu));
}

// Multiples of 1/64 up to 40/64, other ones for each rank and step.
static inline void fill(void* data, int t, int count, int step) {
  for (int i = 0; i < count; ++i) {
    const uint32_t mixed =
        ((uint32_t)i * 2654435761u) ^ ((uint32_t)(step * 131 + world_rank * 17 + 7) * 40503u);
    const int k = (int)((mixed >> 11 ^ mixed) % 81u) - 40;
    const float value = (float)k / 64.0f;
    if (t == 0) ((float*)data)[i] = value;
    if (t == 1) ((double*)data)[i] = value;
    if (t == 2) ((uint16_t*)data)[i] = half_of(k);
    if (t == 3) {
      uint32_t bits;
      memcpy(&bits, &value, sizeof bits);
      ((uint16_t*)data)[i] = (uint16_t)(bits >> 16);
    }
  }
}

// A tensor of bytes that malloc gives, so that a sanitizer sees what is beyond.
static inline void* room_for(int t, int count) { return malloc(bytes_at(t) * (size_t)count + 1); }

#endif

// SPDX-License-Identifier: Apache-2.0
#include "triad.hpp"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace terse::bench {
namespace {

constexpr std::size_t kUnit = 1024;  // elements that every kernel's stride divides

// Compiled for the instruction set of each function that it becomes a part of.
[[gnu::always_inline]] inline void loop(float* __restrict a, const float* __restrict b,
                                        const float* __restrict c, float s, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) a[i] = b[i] + s * c[i];
}

[[gnu::noinline]] void plain(float* __restrict a, const float* __restrict b, const float* __restrict c,
                             float s, std::size_t count) {
  loop(a, b, c, s, count);
}

#if defined(__x86_64__)
[[gnu::noinline, gnu::target("avx2")]] void plain_avx2(float* __restrict a, const float* __restrict b,
                                                       const float* __restrict c, float s,
                                                       std::size_t count) {
  loop(a, b, c, s, count);
}

[[gnu::noinline, gnu::target("avx512f")]] void plain_avx512(float* __restrict a, const float* __restrict b,
                                                            const float* __restrict c, float s,
                                                            std::size_t count) {
  loop(a, b, c, s, count);
}

[[gnu::noinline]] void streaming_sse2(float* a, const float* b, const float* c, float s, std::size_t count) {
  const __m128 factor = _mm_set1_ps(s);
  for (std::size_t i = 0; i < count; i += 4) {
    _mm_stream_ps(a + i, _mm_add_ps(_mm_load_ps(b + i), _mm_mul_ps(factor, _mm_load_ps(c + i))));
  }
  _mm_sfence();
}

[[gnu::noinline, gnu::target("avx2")]] void streaming_avx2(float* a, const float* b, const float* c, float s,
                                                           std::size_t count) {
  const __m256 factor = _mm256_set1_ps(s);
  for (std::size_t i = 0; i < count; i += 8) {
    _mm256_stream_ps(a + i,
                     _mm256_add_ps(_mm256_load_ps(b + i), _mm256_mul_ps(factor, _mm256_load_ps(c + i))));
  }
  _mm_sfence();
}

[[gnu::noinline, gnu::target("avx512f")]] void streaming_avx512(float* a, const float* b, const float* c,
                                                                float s, std::size_t count) {
  const __m512 factor = _mm512_set1_ps(s);
  for (std::size_t i = 0; i < count; i += 16) {
    _mm512_stream_ps(a + i,
                     _mm512_add_ps(_mm512_load_ps(b + i), _mm512_mul_ps(factor, _mm512_load_ps(c + i))));
  }
  _mm_sfence();
}
#endif

std::size_t elements(std::size_t array_bytes) {
  return (array_bytes / sizeof(float) + kUnit - 1) / kUnit * kUnit;
}

}  // namespace

std::vector<TriadKernel> triad_kernels() {
  std::vector<TriadKernel> kernels;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    return {{"plain, AVX-512", plain_avx512}, {"streaming, AVX-512", streaming_avx512}};
  }
  if (__builtin_cpu_supports("avx2")) {
    return {{"plain, AVX2", plain_avx2}, {"streaming, AVX2", streaming_avx2}};
  }
  return {{"plain, SSE2", plain}, {"streaming, SSE2", streaming_sse2}};
#else
  return {{"plain", plain}};
#endif
}

Triad::Triad(std::size_t array_bytes)
    : a_(elements(array_bytes), DType::f32),
      b_(elements(array_bytes), DType::f32),
      c_(elements(array_bytes), DType::f32) {
  for (float& value : b_.view().as<float>()) value = 1;
  for (float& value : c_.view().as<float>()) value = 2;
}

double Triad::run(const TriadKernel& kernel) const {
  const View a = a_.view();
  const auto begin = std::chrono::steady_clock::now();
  kernel.run(a.as<float>().data(), b_.view().as<float>().data(), c_.view().as<float>().data(), 3.0f, a.count);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return kBytesPerElement * static_cast<double>(a.count) * 1e-9 / seconds.count();
}

}  // namespace terse::bench

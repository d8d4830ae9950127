// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif
#if defined(__aarch64__)
#include <cstdint>
#endif

namespace terse::inline v0_1 {

/// While one of these lives, its thread computes in the default floating-point mode: rounding to nearest
/// even, subnormals kept, no exception trapped. At its end the mode and the exception flags that it has found
/// are back. So the results of what runs in between depend on values alone, and the caller sees nothing of
/// it.
///
/// Must not live across a call of MPI: operations of the program may run there, which expect its own mode.
/// Takes less than 20 ns (bin/floating-point-overhead). x87, which Terse does not use, is left alone.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() noexcept : found_(read()) {
#if defined(__SSE2__)
    if ((found_ & ~kFlags) != kDefault) write(kDefault);
#elif defined(__aarch64__)
    if (found_.mode != 0) write({0, found_.flags});
#else
    std::feholdexcept(&found_);
    std::fesetround(FE_TONEAREST);
#endif
  }
  ~DefaultFloatingPoint() {
#if defined(__SSE2__)
    if (read() != found_) write(found_);  // most often nothing has changed, and reading is the cheaper half
#elif defined(__aarch64__)
    write(found_);
#else
    std::fesetenv(&found_);
#endif
  }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
#if defined(__SSE2__)
  using Environment = unsigned;                 // MXCSR
  static constexpr unsigned kDefault = 0x1F80;  // all exceptions masked, nothing else set
  static constexpr unsigned kFlags = 0x3F;
  // The barriers keep loads and stores, and so what is computed with what was loaded, on their side.
  static Environment read() noexcept {
    asm volatile("" ::: "memory");
    return _mm_getcsr();
  }
  static void write(Environment environment) noexcept {
    asm volatile("" ::: "memory");
    _mm_setcsr(environment);
    asm volatile("" ::: "memory");
  }
#elif defined(__aarch64__)
  struct Environment {
    std::uint64_t mode;   // FPCR: all zeros is the default
    std::uint64_t flags;  // FPSR
  };
  static Environment read() noexcept {
    Environment environment;
    asm volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(environment.mode), "=r"(environment.flags)::"memory");
    return environment;
  }
  static void write(Environment environment) noexcept {
    asm volatile("msr fpcr, %0\n\tmsr fpsr, %1" ::"r"(environment.mode), "r"(environment.flags) : "memory");
  }
#else
  using Environment = std::fenv_t;
  static Environment read() noexcept { return {}; }
#endif

  Environment found_;
};

}  // namespace terse::inline v0_1

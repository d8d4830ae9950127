// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfenv>
#include <cstdint>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace terse::test {

/// Floating-point modes that a program may call the library in.
enum class CallerMode : std::uint8_t {
  plain,
  flushes,  ///< subnormals are zero, going in and coming out, as -ffast-math and Intel's compilers have it
  rounds_up,
  rounds_to_zero,
  traps  ///< every exception ends the program, the inexact one too
};
inline constexpr CallerMode kAllCallerModes[] = {CallerMode::plain, CallerMode::flushes,
                                                 CallerMode::rounds_up, CallerMode::rounds_to_zero,
                                                 CallerMode::traps};

/// Sets a mode, with no exception flagged but those of `flags`, and gives back what there was. unchanged()
/// says whether mode and flags are still those that were set.
class CallerModeScope {
 public:
  explicit CallerModeScope(CallerMode mode, int flags = 0) : mode_(mode), flags_(flags) {
    std::fegetenv(&before_);
    std::feclearexcept(FE_ALL_EXCEPT);
    std::feraiseexcept(flags);
    switch (mode) {
      case CallerMode::plain:
        break;
      case CallerMode::flushes:
#if defined(__SSE2__)
        _mm_setcsr(_mm_getcsr() | kFlushes);
#endif
        break;
      case CallerMode::rounds_up:
        std::fesetround(FE_UPWARD);
        break;
      case CallerMode::rounds_to_zero:
        std::fesetround(FE_TOWARDZERO);
        break;
      case CallerMode::traps:
        std::feclearexcept(FE_ALL_EXCEPT);  // what is flagged would trap at once
        flags_ = 0;
        feenableexcept(FE_ALL_EXCEPT);
        break;
    }
  }
  ~CallerModeScope() { std::fesetenv(&before_); }
  CallerModeScope(const CallerModeScope&) = delete;
  CallerModeScope& operator=(const CallerModeScope&) = delete;

  bool unchanged() const {
    if (std::fetestexcept(FE_ALL_EXCEPT) != flags_) return false;
    const int rounding = mode_ == CallerMode::rounds_up        ? FE_UPWARD
                         : mode_ == CallerMode::rounds_to_zero ? FE_TOWARDZERO
                                                               : FE_TONEAREST;
    if (std::fegetround() != rounding) return false;
    if ((fegetexcept() == FE_ALL_EXCEPT) != (mode_ == CallerMode::traps)) return false;
#if defined(__SSE2__)
    if (((_mm_getcsr() & kFlushes) == kFlushes) != (mode_ == CallerMode::flushes)) return false;
#endif
    return true;
  }

 private:
  static constexpr unsigned kFlushes = 0x8040;
  CallerMode mode_;
  int flags_;
  std::fenv_t before_{};
};

}  // namespace terse::test

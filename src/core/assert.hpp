// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <type_traits>

namespace terse::inline v0_1 {

/// A value that a failed assertion shows.
class AssertedValue {
 public:
  template <class T>
  requires std::integral<T> || std::is_enum_v<T> AssertedValue(T value)
      : number_(static_cast<std::uint64_t>(value)), negative_(static_cast<std::int64_t>(value) < 0) {
    if constexpr (std::unsigned_integral<T>) negative_ = false;
  }
  AssertedValue(std::string_view text) : text_(text), is_text_(true) {}

  void print() const noexcept;

 private:
  std::uint64_t number_ = 0;
  bool negative_ = false;
  std::string_view text_{};
  bool is_text_ = false;
};

/// Prints all that to the standard error output and ends the program with abort().
[[noreturn, gnu::cold, gnu::noinline]] void assertion_failed(
    const char* sentence, const char* expression, const char* file, int line, const char* names,
    std::initializer_list<AssertedValue> values) noexcept;

}  // namespace terse::inline v0_1

#if defined(__FILE_NAME__)  // without the directories of the machine that compiled it
#define TERSE_FILE_NAME __FILE_NAME__
#else
#define TERSE_FILE_NAME __FILE__
#endif

/// An invariant of the library's own, which holds unless the library is wrong: what a caller, another rank or
/// the network may do wrong is an Error instead. In all builds:
///
///     TERSE_ASSERT(slot < sizes_.size(), "a step names a slot that its schedule does not have", slot);
///
/// prints the sentence, the condition, where it stands and the values, and ends the program: to go on would
/// mean wrong sums, or to leave the other ranks waiting. Where it holds, it costs a comparison.
#define TERSE_ASSERT(condition, sentence, ...)                                                 \
  do {                                                                                         \
    if (!(condition)) [[unlikely]] {                                                           \
      ::terse::assertion_failed(sentence, #condition, TERSE_FILE_NAME, __LINE__, #__VA_ARGS__, \
                                {__VA_ARGS__});                                                \
    }                                                                                          \
  } while (false)

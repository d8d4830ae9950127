// SPDX-License-Identifier: Apache-2.0
#include "core/assert.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace terse::inline v0_1 {

void AssertedValue::print() const noexcept {
  if (is_text_) {
    std::fprintf(stderr, "%.*s", static_cast<int>(text_.size()), text_.data());
  } else if (negative_) {
    std::fprintf(stderr, "%" PRId64, static_cast<std::int64_t>(number_));
  } else {
    std::fprintf(stderr, "%" PRIu64, number_);
  }
}

void assertion_failed(const char* sentence, const char* expression, const char* file, int line,
                      const char* names, std::initializer_list<AssertedValue> values) noexcept {
  std::fprintf(stderr, "Terse: internal error: %s\n  %s:%d: %s does not hold", sentence, file, line,
               expression);
  if (values.size() != 0) {
    std::fprintf(stderr, ", where %s is", names);
    const char* separator = " ";
    for (const AssertedValue& value : values) {
      std::fputs(separator, stderr);
      value.print();
      separator = ", ";
    }
  }
  std::fputs("\n  Please report this.\n", stderr);
  std::fflush(stderr);
  std::abort();
}

}  // namespace terse::inline v0_1

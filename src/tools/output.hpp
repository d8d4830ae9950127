// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>

namespace terse::tools {

/// One value by a printf pattern.
inline std::string format(const char* pattern, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

/// Prints `words`, wrapped at 100 columns, after `label`; further lines are indented by the label's length.
inline void print_wrapped(const std::string& label, std::string_view words) {
  constexpr std::size_t kColumns = 100;
  const std::string indent(label.size(), ' ');
  std::string line = label;
  bool fresh = true;
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(' '), words.size());
    if (!fresh && line.size() + 1 + end > kColumns) {
      std::cout << line << '\n';
      line = indent;
      fresh = true;
    }
    if (!fresh) line += ' ';
    line += words.substr(0, end);
    fresh = false;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  std::cout << line << '\n';
}

/// The MPI library's name and version: its string may go on with who built it, where and with which options.
inline std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string_view whole(text.data(), static_cast<std::size_t>(length));
  std::string name(whole.substr(0, whole.find_first_of("\n,")));
  std::replace(name.begin(), name.end(), '\t', ' ');
  return name;
}

}  // namespace terse::tools

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../output.hpp"

namespace terse::bench {

using tools::format;
using tools::print_wrapped;

/// Keys in the order in which they are written.
using Json = nlohmann::ordered_json;

/// A column of a table: rows are printed as they are measured, so its width is known beforehand.
struct Column {
  std::string heading;
  std::size_t width = 0;  ///< at least the heading's
  enum class Align : std::uint8_t { left, right } align = Align::right;
};

/// An aligned table on standard output.
class Table {
 public:
  explicit Table(std::vector<Column> columns);
  void print_heading() const { print_row(headings()); }
  void print_row(const std::vector<std::string>& cells) const;

 private:
  std::vector<std::string> headings() const;
  std::vector<Column> columns_;
};

/// A line on the terminal that says what is going on; nothing where standard error is no terminal.
class Progress {
 public:
  enum class Use : std::uint8_t { off, on_terminal };
  explicit Progress(Use use);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Takes the place of the line shown before; not more often than the eye follows.
  void show(const std::string& text);
  /// Must come before anything else is printed.
  void clear();

 private:
  bool enabled_;
  std::size_t shown_ = 0;
  std::chrono::steady_clock::time_point last_{};
};

/// Writes {"version":1,"environment":...,"rows":[...]}. Errors: std::runtime_error.
void write_json(const std::string& path, const Json& environment, const Json& rows);

/// Four digits: "41.20 us", "105.2 ms", "1.616 s".
std::string format_time(double us);
/// "512 KiB", "2.88 MiB".
std::string format_bytes(double bytes);
/// "0.6021", "3.1e-08".
std::string format_error(double relative);

}  // namespace terse::bench

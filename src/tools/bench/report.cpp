// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>

namespace terse::bench {
namespace {

constexpr std::size_t kProgressColumns = 78;
constexpr std::chrono::milliseconds kProgressInterval{100};

/// Whether what is written to standard error reaches a terminal. A launcher reads it through a pipe and
/// passes it on to its own standard error, so that is looked at too where the system shows it.
bool stderr_reaches_terminal() {
  if (isatty(STDERR_FILENO) != 0) return true;
  std::error_code error;
  const auto mine = std::filesystem::read_symlink("/proc/self/fd/2", error);
  if (error || !mine.native().starts_with("pipe:")) return false;
  const auto launchers = std::filesystem::read_symlink("/proc/" + std::to_string(getppid()) + "/fd/2", error);
  return !error &&
         (launchers.native().starts_with("/dev/pts/") || launchers.native().starts_with("/dev/tty"));
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
  for (Column& column : columns_) column.width = std::max(column.width, column.heading.size());
}

std::vector<std::string> Table::headings() const {
  std::vector<std::string> cells;
  for (const Column& column : columns_) cells.push_back(column.heading);
  return cells;
}

void Table::print_row(const std::vector<std::string>& cells) const {
  std::string line;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    const std::string padding(columns_[i].width - std::min(columns_[i].width, cells[i].size()), ' ');
    if (i != 0) line += "  ";
    line += columns_[i].align == Column::Align::left ? cells[i] + padding : padding + cells[i];
  }
  line.erase(line.find_last_not_of(' ') + 1);
  std::cout << line << std::endl;
}

Progress::Progress(Use use) : enabled_(use == Use::on_terminal && stderr_reaches_terminal()) {}

void Progress::show(const std::string& text) {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (shown_ != 0 && now - last_ < kProgressInterval) return;
  last_ = now;
  std::string line = text.substr(0, kProgressColumns);
  const std::size_t length = line.size();
  line.resize(std::max(line.size(), shown_), ' ');
  shown_ = length;
  std::cerr << '\r' << line << std::flush;
}

void Progress::clear() {
  if (shown_ == 0) return;
  std::cerr << '\r' << std::string(shown_, ' ') << '\r' << std::flush;
  shown_ = 0;
}

void write_json(const std::string& path, const Json& environment, const Json& rows) {
  std::ofstream file(path);
  file << Json{{"version", 1}, {"environment", environment}, {"rows", rows}}.dump(2) << '\n';
  if (!file.flush()) throw std::runtime_error("--json: '" + path + "' could not be written to its end");
}

std::string format_time(double us) {
  constexpr std::array kUnits = {" us", " ms", " s"};
  std::size_t unit = 0;
  while (us >= 999.95 && unit + 1 < kUnits.size()) {
    us /= 1000;
    ++unit;
  }
  return format(us < 9.9995 ? "%.3f" : us < 99.995 ? "%.2f" : "%.1f", us) + kUnits[unit];
}

std::string format_bytes(double bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return format(bytes == std::floor(bytes) ? "%.0f "
                : bytes < 99.95            ? "%.2f "
                                           : "%.1f ",
                bytes) +
         kUnits[unit];
}

std::string format_error(double relative) {
  return relative == 0 || relative >= 1e-3 ? format("%.4f", relative) : format("%.0e", relative);
}

}  // namespace terse::bench

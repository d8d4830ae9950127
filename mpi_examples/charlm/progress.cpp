// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <system_error>

namespace charlm {
namespace {

constexpr const char* kStartOfLine = "\r\x1b[K";  // and clear it

/// mpirun may give its ranks a terminal of their own, even where its output goes to a file. So what our
/// parent writes to must be a terminal too, as far as the system tells.
bool on_terminal() {
  if (isatty(STDOUT_FILENO) == 0) return false;
  std::error_code error;
  const auto output = std::filesystem::path("/proc") / std::to_string(getppid()) / "fd" / "1";
  const std::string target = std::filesystem::read_symlink(output, error).string();
  return error || target.starts_with("/dev/pts/") || target.starts_with("/dev/tty") ||
         target == "/dev/console";
}

}  // namespace

Progress::Progress() : terminal_(on_terminal()) {}

void Progress::line(const std::string& text) {
  std::cout << (terminal_ ? kStartOfLine : "") << text << std::endl;
}

void Progress::overwrite(const std::string& text) {
  const auto now = Clock::now();
  if (!terminal_ || now - written_ < std::chrono::milliseconds(200)) return;
  std::cout << kStartOfLine << text << std::flush;
  written_ = now;
}

}  // namespace charlm

// SPDX-License-Identifier: Apache-2.0
#include "plot.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <sstream>
#include <stdexcept>

#include "../command_line.hpp"
#include "report.hpp"

namespace terse::bench {
namespace {

constexpr std::size_t kMostTics = 10;

/// A string literal of gnuplot's.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char letter : text) result += letter == '\'' ? "''" : std::string(1, letter);
  return result + "'";
}

/// "('4 KiB' 4096, ...)" at the sizes measured, thinned out where there are many.
std::string size_tics(const std::vector<Curve>& curves) {
  std::vector<double> sizes;
  for (const Curve& curve : curves) {
    for (const Curve::Point& point : curve.points) sizes.push_back(point.bytes);
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  const std::size_t stride = (sizes.size() + kMostTics - 1) / kMostTics;
  std::string tics;
  for (std::size_t i = 0; i < sizes.size(); i += stride) {
    tics += (tics.empty() ? "(" : ", ") + quoted(format_bytes(sizes[i])) + " " + format("%.0f", sizes[i]);
  }
  return tics + ")";
}

/// "('10 us' 10, '100 us' 100, '1 ms' 1000, ...)" from one power of ten to another.
std::string time_tics(int first, int last) {
  constexpr std::array kUnits = {"ns", "us", "ms", "s"};
  std::string tics;
  for (int power = first; power <= last; ++power) {
    const int unit = std::clamp((power + 3) / 3, 0, 3);
    const double number = std::pow(10.0, power + 3 - 3 * unit);
    tics += (tics.empty() ? "(" : ", ") +
            quoted(format("%.0f ", number) + kUnits[static_cast<std::size_t>(unit)]) + " " +
            format("%g", std::pow(10.0, power));
  }
  return tics + ")";
}

std::string script(const std::string& path, const std::string& title, const std::vector<Curve>& curves) {
  double low_us = INFINITY;
  double high_us = 0;
  double low_bytes = INFINITY;
  double high_bytes = 0;
  for (const Curve& curve : curves) {
    for (const Curve::Point& point : curve.points) {
      low_us = std::min(low_us, point.us);
      high_us = std::max(high_us, point.us);
      low_bytes = std::min(low_bytes, point.bytes);
      high_bytes = std::max(high_bytes, point.bytes);
    }
  }
  const int first = static_cast<int>(std::floor(std::log10(low_us)));
  const int last = std::max(first + 1, static_cast<int>(std::ceil(std::log10(high_us))));

  std::ostringstream out;
  if (path.ends_with(".svg")) {
    out << "set terminal svg size 900,560 font 'sans,14' background rgb 'white'\n";
  } else {
    out << "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {set terminal pngcairo size 900,560 font "
           "'sans,11'} "
           "else {set terminal png size 900,560}\n";
  }
  out << "set output " << quoted(path) << "\nset title " << quoted(title) << " noenhanced\n"
      << "set logscale xy\nset grid xtics ytics\nset key top left reverse Left samplen 3 noenhanced\n"
      << "set xlabel 'bytes of the tensor'\nset ylabel 'time of a call (median)'\n"
      << "set xrange [" << low_bytes / 1.5 << ":" << high_bytes * 1.5 << "]\nset xtics " << size_tics(curves)
      << "\nset yrange [" << 0.9 * std::pow(10.0, first) << ":" << 1.1 * std::pow(10.0, last)
      << "]\nset ytics " << time_tics(first, last) << "\nset colorsequence podo\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    out << "$curve" << i << " << END\n";
    for (const Curve::Point& point : curves[i].points) out << point.bytes << ' ' << point.us << '\n';
    out << "END\n";
  }
  out << "plot ";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    out << (i == 0 ? "" : ", ") << "$curve" << i << " using 1:2 with linespoints linewidth 2 linetype "
        << i + 2 << " pointtype " << 5 + 2 * (i % 5)
        << (curves[i].role == Curve::Role::baseline ? " dashtype 2 linecolor rgb 'black'" : "") << " title "
        << quoted(curves[i].label);
  }
  out << '\n';
  return out.str();
}

/// Runs gnuplot on a script. Returns its exit status.
int run_gnuplot(const std::string& text) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0)
    throw std::runtime_error(std::string("--plot: no pipe to gnuplot: ") + std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::string program = "gnuplot";
  std::array<char*, 2> arguments = {program.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, "gnuplot", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[0]);
  if (error != 0) {
    close(ends[1]);
    throw std::runtime_error(error == ENOENT
                                 ? "--plot needs gnuplot, which is not installed: there is no picture"
                                 : std::string("--plot: gnuplot cannot be started: ") + std::strerror(error));
  }
  const auto handler = std::signal(SIGPIPE, SIG_IGN);  // it may end before it has read all
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = write(ends[1], rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  close(ends[1]);
  std::signal(SIGPIPE, handler);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

void require_plottable(const Session& session, const std::string& path) {
  if (!path.empty() && !path.ends_with(".png") && !path.ends_with(".svg")) {
    throw tools::UsageError("--plot: '" + path + "' ends neither in .png nor in .svg");
  }
  require_writable(session, "--plot", path);
}

void write_plot(const std::string& path, const std::string& title, const std::vector<Curve>& curves) {
  if (run_gnuplot(script(path, title, curves)) != 0) {
    throw std::runtime_error("--plot: gnuplot failed: see its message above");
  }
}

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "session.hpp"

namespace terse::bench {

/// A line of a plot of times over sizes.
struct Curve {
  struct Point {
    double bytes;
    double us;
  };
  enum class Role : std::uint8_t { measured, baseline };

  std::string label;
  Role role = Role::measured;
  std::vector<Point> points{};  ///< ascending
};

/// Refuses a --plot file that is neither .png nor .svg or cannot be written. Collective. Errors: UsageError.
void require_plottable(const Session& session, const std::string& path);

/// Draws the curves, both axes logarithmic, into a .png or .svg file. Needs gnuplot.
/// Errors: std::runtime_error, a sentence.
void write_plot(const std::string& path, const std::string& title, const std::vector<Curve>& curves);

}  // namespace terse::bench

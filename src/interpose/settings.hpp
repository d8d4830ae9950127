// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/communicator.hpp>
#include <vector>

namespace terse::interpose {

/// How a call's tensor is told from the others that a program reduces, beside communicator, count and
/// datatype: by where its data lies, by the place in the program that makes the call, or as the k-th call of
/// a step of `period` calls.
enum class Key : std::uint8_t { address, site, sequence };

/// Numbers from `least` to `most`.
struct Interval {
  std::uint64_t least = 0;
  std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  bool contains(std::uint64_t number) const noexcept { return least <= number && number <= most; }
};

/// Which calls of MPI_Allreduce are compressed, and how. A row of the rule table each.
struct Rule {
  std::string name = "TERSE_CODEC";
  // which calls
  bool f32 = true;
  bool f64 = true;
  Interval bytes{};      ///< of the tensor
  Interval comm_size{};  ///< ranks
  std::string
      comm_name{};  ///< as MPI_Comm_get_name has it when the first call may be this rule's; empty: any
  std::uint64_t after = 0;  ///< matching calls of a communicator that are passed on first
  // how
  bool passes = false;  ///< codec=none: they are passed on
  bool feedback = true;
  Key key = Key::address;
  std::uint64_t period = 1;
  std::uint64_t sample = 509;  ///< two calls in so many are passed on, to be compared with; 0: none
  Policy policy{};

  ResidualType residual_for(DType dtype) const {
    return residual_type_for(dtype, policy.residual.value_or(ResidualType::full));
  }
  bool serves(DType dtype) const { return dtype == DType::f32 ? f32 : dtype == DType::f64 && f64; }
};

/// What TERSE_ variables and the file that TERSE_CONFIG names ask for.
struct Settings {
  std::vector<Rule> rules{};      ///< the first one that matches a call decides; none: nothing is done
  std::string report = "stderr";  ///< or off, or a file for JSON
  std::optional<std::size_t>
      feedback_bytes{};  ///< the most that a communicator's residuals may take on a rank
};

/// A row: TERSE_NAME in the environment, `name` in a section of the file, --name of `terse run`.
struct SettingInfo {
  std::string_view name;
  std::string_view default_value;
  std::string_view help;
  bool of_a_rule;  ///< false: of the process, and not in a section
};
/// "TERSE_MIN_BYTES" of "min_bytes".
std::string variable_of(std::string_view name);
/// All of them, those of options() that a rule takes included.
std::span<const SettingInfo> setting_infos();

/// Reads the environment and the file. Errors: invalid_argument, naming variable, or file and line, and what
/// is allowed.
Settings read_settings();
/// Whether the environment asks for rules at all, sound or not.
bool rules_are_asked_for();
/// The rules of a file's text. `file` is what the sentences call it. Errors: as read_settings.
std::vector<Rule> parse_rules(const std::string& text, const std::string& file);

/// Tensors of fewer bytes are never compressed where min_bytes is auto: as in Communicator.
inline constexpr std::uint64_t kAlwaysExact = 2048;
/// The fewest bytes that a rule may compress; the largest number for one that never does.
std::uint64_t threshold(const Rule& rule);

/// The rules, canonically: equal for those that do the same.
std::string describe(const Settings& settings);

}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/program_options.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace terse::tools {

/// A command line that makes no sense, in a sentence that says what is wrong and what is allowed. Exit
/// code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
inline constexpr int kUsageExit = 2;

/// "a, b, c" of the names that a range holds.
template <class Range, class NameOf>
std::string list_names(const Range& range, NameOf name_of) {
  std::string list;
  for (const auto& item : range) {
    if (!list.empty()) list += ", ";
    list += name_of(item);
  }
  return list;
}

/// The options of `arguments`, which has no other words. `program` is what the sentences call it:
/// "terse-bench codec". Errors: UsageError.
inline boost::program_options::variables_map parse_command_line(
    const std::string& program, const boost::program_options::options_description& options,
    const std::vector<std::string>& arguments) {
  namespace po = boost::program_options;
  const auto allowed = [&] {
    return "; " + program + " has " +
           list_names(options.options(), [](const auto& option) { return "--" + option->long_name(); });
  };
  po::variables_map values;
  try {
    const po::parsed_options parsed =
        po::command_line_parser(arguments)
            .options(options)
            .style(po::command_line_style::default_style & ~po::command_line_style::allow_guessing)
            .run();
    for (const po::option& option : parsed.options) {
      if (option.position_key != -1) {
        throw UsageError("'" + option.value.front() + "' belongs to no option" + allowed());
      }
    }
    po::store(parsed, values);
    po::notify(values);
  } catch (const po::unknown_option& error) {
    throw UsageError("there is no option '" + error.get_option_name() + "'" + allowed());
  } catch (const po::error& error) {
    throw UsageError(std::string(error.what()) + ": see " + program + " --help");
  }
  return values;
}

}  // namespace terse::tools

// SPDX-License-Identifier: Apache-2.0
#include "codec/spec.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace terse::inline v0_1 {
namespace {

[[noreturn]] void refuse(const CodecEntry& entry, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, "codec " + entry.name + ": " + what);
}

std::string list_options(const CodecEntry& entry) {
  if (entry.options.empty()) return "it has no options";
  std::string text = "its options are ";
  for (const CodecOption& option : entry.options) {
    if (&option != &entry.options.front()) text += ", ";
    text += option.name;
  }
  return text;
}

const std::string& value_of(const CodecArguments& arguments, std::string_view option) {
  return arguments.find(option)->second;
}

}  // namespace

std::vector<std::string_view> spec_parts(std::string_view spec) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < spec.size(); ++i) {
    if (spec[i] != '+' || (i + 1 < spec.size() && !letter(spec[i + 1]))) continue;
    parts.push_back(spec.substr(begin, i - begin));
    begin = i + 1;
  }
  parts.push_back(spec.substr(begin));
  return parts;
}

std::string_view spec_name(std::string_view spec) { return spec.substr(0, spec.find(':')); }

CodecArguments parse_arguments(const CodecEntry& entry, std::string_view spec) {
  CodecArguments given;
  if (const auto colon = spec.find(':'); colon != std::string_view::npos) {
    std::string_view rest = spec.substr(colon + 1);
    while (true) {
      const auto comma = rest.find(',');
      const std::string_view part = rest.substr(0, comma);
      const auto equals = part.find('=');
      const auto option =
          std::find_if(entry.options.begin(), entry.options.end(), [&](const CodecOption& candidate) {
            return equals == std::string_view::npos ? candidate.positional
                                                    : candidate.name == part.substr(0, equals);
          });
      if (option == entry.options.end() || part.empty()) {
        refuse(entry, "'" + std::string(part) + "' is no option=value of it: " + list_options(entry));
      }
      const auto value = equals == std::string_view::npos ? part : part.substr(equals + 1);
      if (value.empty()) refuse(entry, "option " + option->name + " has no value");
      if (!given.emplace(option->name, value).second)
        refuse(entry, "option " + option->name + " stands twice");
      if (comma == std::string_view::npos) break;
      rest = rest.substr(comma + 1);
    }
  }
  for (const CodecOption& option : entry.options) {
    const auto chosen = option.positional ? given.find(option.name) : given.end();
    const auto preset = chosen == given.end() ? entry.presets.end() : entry.presets.find(chosen->second);
    if (preset == entry.presets.end()) continue;
    given.erase(chosen);
    given.insert(preset->second.begin(), preset->second.end());  // what is there stays
    break;
  }
  for (const CodecOption& option : entry.options) {
    if (given.contains(option.name)) continue;
    if (option.default_value.empty()) {
      refuse(entry, "option " + option.name + " is missing (" + option.help + ")");
    }
    given.emplace(option.name, option.default_value);
  }
  return given;
}

std::string canonical_spec(const CodecEntry& entry, const CodecArguments& arguments) {
  std::string spec = entry.name;
  char separator = ':';
  for (const CodecOption& option : entry.options) {
    const std::string& value = value_of(arguments, option.name);
    if (option.positional && value == option.default_value) continue;
    spec += std::exchange(separator, ',');
    if (!option.positional) spec += option.name + "=";
    spec += value;
  }
  return spec;
}

std::string number_text(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

std::size_t count_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                           std::size_t low, std::size_t high) {
  const std::string& text = value_of(arguments, option);
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high) {
    refuse(entry, std::string(option) + "=" + text + " is not a whole number from " + std::to_string(low) +
                      " to " + std::to_string(high));
  }
  return value;
}

double number_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                       double low, double high) {
  const std::string& text = value_of(arguments, option);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value > low && value <= high)) {
    refuse(entry, std::string(option) + "=" + text + " is not a number above " + number_text(low) +
                      " and up to " + number_text(high));
  }
  return value;
}

std::size_t choice_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                            std::initializer_list<std::string_view> choices) {
  const std::string& text = value_of(arguments, option);
  const auto at = std::find(choices.begin(), choices.end(), text);
  if (at == choices.end()) {
    std::string list;
    for (const std::string_view choice : choices) {
      if (!list.empty()) list += " or ";
      list += choice;
    }
    refuse(entry, std::string(option) + "=" + text + " is unknown: use " + list);
  }
  return static_cast<std::size_t>(at - choices.begin());
}

}  // namespace terse::inline v0_1

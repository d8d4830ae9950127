// SPDX-License-Identifier: Apache-2.0
#include "interpose/settings.hpp"

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <terse/error.hpp>

#include "core/floating_point.hpp"

namespace terse::interpose {
namespace {

namespace po = boost::program_options;

[[noreturn]] void refuse(const std::string& sentence) { throw Error(ErrorCode::invalid_argument, sentence); }
[[noreturn]] void refuse(std::string_view name, std::string_view value, std::string_view allowed) {
  refuse(std::string(name) + "=" + std::string(value) + " makes no sense: " + std::string(allowed));
}

[[noreturn]] void refuse_line(const std::string& where, const std::string& line, const char* what) {
  refuse(where + ": '" + line + "' " + what);
}

// The number that stands in a setting's text from `begin` on.
std::uint64_t number_of(std::string_view name, std::string_view text, std::string_view allowed,
                        std::size_t begin = 0) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) refuse(name, text, allowed);
  return number;
}

// Bytes as the library's own options have them.
std::uint64_t bytes_of(std::string_view name, std::string_view text) {
  Policy parsed;
  try {
    set_option(parsed, "min_bytes", text);
  } catch (const Error&) {
    parsed.min_bytes = kAutoBytes;
  }
  if (parsed.min_bytes == kAutoBytes) refuse(name, text, "use bytes such as 4096, 64K or 1G");
  return *parsed.min_bytes;
}

// A, A:B, A: or :B
template <class NumberOf>
Interval interval_of(std::string_view name, std::string_view text, NumberOf&& number) {
  Interval interval;
  const std::size_t colon = text.find(':');
  if (text.empty() || text == ":") refuse(name, text, "use FROM:TO, FROM:, :TO or one number");
  if (colon == std::string_view::npos) {
    interval.least = interval.most = number(text);
  } else {
    if (colon != 0) interval.least = number(text.substr(0, colon));
    if (colon + 1 != text.size()) interval.most = number(text.substr(colon + 1));
  }
  if (interval.least > interval.most) refuse(name, text, "the first number is the larger one");
  return interval;
}

void set_datatype(Rule& rule, std::string_view text) {
  if (text == "any") {
    rule.f32 = rule.f64 = true;
  } else if (text == "f32" || text == "f64") {
    rule.f32 = text == "f32";
    rule.f64 = !rule.f32;
  } else {
    refuse("datatype", text, "use any, f32 (MPI_FLOAT, MPI_REAL) or f64 (MPI_DOUBLE, MPI_DOUBLE_PRECISION)");
  }
}

void set_key(Rule& rule, std::string_view text) {
  constexpr std::string_view kSequence = "sequence:";
  constexpr std::string_view kAllowed = "use address, site, or sequence:N for steps of N calls";
  if (text == "address") {
    rule.key = Key::address;
  } else if (text == "site") {
    rule.key = Key::site;
  } else if (text.substr(0, kSequence.size()) == kSequence) {
    rule.key = Key::sequence;
    rule.period = number_of("key", text, kAllowed, kSequence.size());
    if (rule.period == 0) refuse("key", text, kAllowed);
  } else {
    refuse("key", text, kAllowed);
  }
}

constexpr std::string_view kSampleAllowed = "use a number of calls, at least 4, or 0";

// The rows that the library does not have.
struct Row {
  SettingInfo info;
  void (*set)(Rule&, std::string_view);
};
constexpr std::array<Row, 8> kRuleRows = {{
    {{"datatype", "any", "whose calls: any (f32 and f64), f32 or f64", true}, set_datatype},
    {{"bytes", ":", "tensors of how many bytes: FROM:TO, such as 64K: or 1M:1G", true},
     [](Rule& rule, std::string_view text) {
       rule.bytes = interval_of("bytes", text, [](std::string_view part) { return bytes_of("bytes", part); });
     }},
    {{"comm_size", ":", "communicators of how many ranks: FROM:TO, such as 8: or 64", true},
     [](Rule& rule, std::string_view text) {
       rule.comm_size = interval_of("comm_size", text, [](std::string_view part) {
         return number_of("comm_size", part, "use ranks FROM:TO, such as 8: or 64");
       });
     }},
    {{"comm_name", "", "the communicator of this name (MPI_Comm_set_name); none: any", true},
     [](Rule& rule, std::string_view text) { rule.comm_name = text; }},
    {{"after", "0", "calls of a communicator that are passed on first, as in a warm-up", true},
     [](Rule& rule, std::string_view text) {
       rule.after = number_of("after", text, "use a number of calls");
     }},
    {{"feedback", "on", "on: what a call leaves out is added to the tensor's next one; or off", true},
     [](Rule& rule, std::string_view text) {
       if (text != "on" && text != "off") refuse("feedback", text, "use on or off");
       rule.feedback = text == "on";
     }},
    {{"key", "address",
      "what tells tensors apart, beside communicator, count and datatype: address (of the data), site (the "
      "place of the call), or sequence:N (the k-th of every N calls)",
      true},
     set_key},
    {{"sample", "509", "two calls in so many are passed on, for the report to compare with; 0: none", true},
     [](Rule& rule, std::string_view text) {
       rule.sample = number_of("sample", text, kSampleAllowed);
       if (rule.sample != 0 && rule.sample < 4) refuse("sample", text, kSampleAllowed);
     }},
}};
constexpr std::array<SettingInfo, 3> kProcessRows = {{
    {"config", "", "a file of rules, each a [section] of these settings; the first that matches decides",
     false},
    {"report", "stderr",
     "at MPI_Finalize, what was compressed and what it gained: stderr, off, or a file for JSON", false},
    {"feedback_mb", "auto",
     "megabytes that the residuals of one communicator may take on a rank: auto is a quarter of its share of "
     "the node's memory",
     false},
}};
// Those of the library that a rule may set. What must stay exact, such as a norm or a loss, is small: so a
// rule has a threshold, where the library's min_bytes is auto.
constexpr std::array<SettingInfo, 6> kLibraryRows = {{
    {"codec", "",
     "codec and its options, such as onebit or cast:bf16 (see `terse codecs`); in a file also none: the "
     "calls are passed on",
     true},
    {"algorithm", "auto", "auto, which is the one that suits the codec, or one of `terse info`", true},
    {"min_bytes", "64K",
     "tensors of fewer bytes are passed on; auto: short trials say from which size on compression pays",
     true},
    {"segment_bytes", "auto",
     "bytes of elements in one segment of the pipeline, over all ranks: auto, or such as 4M", true},
    {"check", "call", "call (all ranks make the same call) or payload (checksums of all messages too)", true},
    {"residual", "full",
     "what feedback keeps: full (in the tensor's type), or bf16: half the memory, somewhat less exact, for "
     "f32 "
     "(f64 tensors keep f64)",
     true},
}};

bool is_the_library_s(std::string_view name) {
  return std::any_of(kLibraryRows.begin(), kLibraryRows.end(),
                     [&](const SettingInfo& row) { return row.name == name; });
}

void set(Rule& rule, std::string_view name, std::string_view value) {
  if (is_the_library_s(name)) {
    set_option(rule.policy, name, value);
    return;
  }
  const auto row =
      std::find_if(kRuleRows.begin(), kRuleRows.end(), [&](const Row& r) { return r.info.name == name; });
  if (row != kRuleRows.end()) {
    row->set(rule, value);
    return;
  }
  std::string list;
  for (const SettingInfo& info : setting_infos()) {
    if (info.of_a_rule) list += (list.empty() ? "" : ", ") + std::string(info.name);
  }
  refuse("a rule has no setting '" + std::string(name) + "': the settings are " + list);
}

// Every setting once, in the order of the help. Constant, since calls from destructors and handlers of atexit
// must find it.
constexpr auto kAllRows = [] {
  std::array<SettingInfo, kLibraryRows.size() + kRuleRows.size() + kProcessRows.size()> all{};
  std::size_t at = 0;
  for (const SettingInfo& info : kLibraryRows) all[at++] = info;
  for (const Row& row : kRuleRows) all[at++] = row.info;
  for (const SettingInfo& info : kProcessRows) all[at++] = info;
  return all;
}();

// Error feedback is sound only with a codec that leaves out less than it was given. An algorithm for parts is
// there to do as others do, whether or not that is sound.
bool may_keep_residuals(const Rule& rule) {
  const CodecTraits& traits = rule.policy.codec.codec()->traits();
  return traits.contractive || traits.splittable || rule.policy.algorithm == "exact";
}

// What is not set gets the table's default, and what no rule can do without is there. `without_feedback` says
// how to turn feedback off where the rule was written.
void complete(Rule& rule, std::string_view without_feedback) {
  if (rule.passes) return;
  if (!rule.policy.codec.chosen()) {
    refuse("rule " + rule.name + " names no codec: add codec=..., such as onebit, or none");
  }
  const auto& codec = rule.policy.codec.codec();
  if (codec->traits().lossless) rule.feedback = false;
  if (rule.feedback && !may_keep_residuals(rule)) {
    refuse("rule " + rule.name + " adds what a call leaves out to the tensor's next one, which codec " +
           codec->spec() +
           " does not allow: it is no contraction, so that residuals may grow without bound. Turn that off, "
           "by " +
           std::string(without_feedback) + ", or choose a codec that is one (see `terse codecs`)");
  }
  if (rule.policy.residual == ResidualType::bf16 && !rule.f32) {
    refuse("rule " + rule.name +
           " has residual=bf16, which f64 tensors do not take, and serves no others: leave "
           "it out, or take datatype=any or f32");
  }
  rule.f32 = rule.f32 && codec->supports(DType::f32);
  rule.f64 = rule.f64 && codec->supports(DType::f64);
  for (const SettingInfo& row : kLibraryRows) {
    if (get_option(rule.policy, row.name).empty()) set_option(rule.policy, row.name, row.default_value);
  }
}

// The variable's value; empty counts as not set.
std::optional<std::string> variable(std::string_view name) {
  const char* value = std::getenv(variable_of(name).c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

// A mistake, with where it was made in front.
template <class F>
void at(const std::string& where, F&& work) {
  try {
    work();
  } catch (...) {
    throw current_error(where);
  }
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

std::string variable_of(std::string_view name) {
  std::string variable = "TERSE_";
  // not std::toupper, which in a Turkish locale has no capital for i
  for (const char c : name) variable += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return variable;
}

std::span<const SettingInfo> setting_infos() { return kAllRows; }

bool rules_are_asked_for() { return variable("codec") || variable("config"); }

std::vector<Rule> parse_rules(const std::string& text, const std::string& file) {
  const DefaultFloatingPoint here;  // codecs have options that are fractions
  std::vector<Rule> rules;
  std::vector<std::string> headers;  // by rule: where it begins
  std::set<std::string> names;
  std::set<std::string> seen;  // settings of the section
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const std::string where = file + ":" + std::to_string(number);
    line = trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    if (line.front() == '[') {
      if (line.size() < 3 || line.back() != ']') refuse_line(where, line, "is no [name] of a rule");
      Rule rule;
      rule.name = trimmed(line.substr(1, line.size() - 2));
      if (!names.insert(rule.name).second) refuse(where + ": there is a rule [" + rule.name + "] already");
      rules.push_back(std::move(rule));
      headers.push_back(where);
      seen.clear();
      continue;
    }
    if (rules.empty()) refuse_line(where, line, "stands before the first [rule]");
    at(where, [&] {
      // a line at a time, since the parser does not say which one it objects to
      std::istringstream one(line);
      std::vector<po::option> parsed;
      try {
        parsed = po::parse_config_file(one, po::options_description(), true).options;
      } catch (const po::error&) {
        refuse("'" + line + "' is no name=value");
      }
      for (const po::option& option : parsed) {
        if (!seen.insert(option.string_key).second) refuse(option.string_key + " is set twice in one rule");
        const std::string value = option.value.empty() ? "" : option.value.front();
        if (option.string_key == "codec" && value == "none") {
          rules.back().passes = true;
        } else {
          set(rules.back(), option.string_key, value);
        }
      }
    });
  }
  for (std::size_t i = 0; i < rules.size(); ++i) {
    at(headers[i], [&] { complete(rules[i], "feedback = off in its section"); });
  }
  return rules;
}

Settings read_settings() {
  const DefaultFloatingPoint here;
  Settings settings;
  if (const auto file = variable("config")) {
    std::ifstream in(*file);
    std::stringstream text;
    if (!in || !(text << in.rdbuf()))
      refuse("TERSE_CONFIG: the file " + *file + " cannot be read, or is empty");
    settings.rules = parse_rules(text.str(), *file);
    if (settings.rules.empty()) refuse("TERSE_CONFIG: the file " + *file + " has no [rule]");
  }
  if (variable("codec")) {
    Rule rule;
    for (const SettingInfo& info : setting_infos()) {
      const auto value = variable(info.name);
      if (info.of_a_rule && value) at(variable_of(info.name), [&] { set(rule, info.name, *value); });
    }
    at("TERSE_CODEC",
       [&] { complete(rule, "--feedback off of `terse run` or TERSE_FEEDBACK=off in the environment"); });
    settings.rules.push_back(std::move(rule));
  }
  // what the library would look for at the first call
  if (!settings.rules.empty()) static_cast<void>(options_from_environment());
  settings.report = variable("report").value_or(settings.report);
  if (const auto megabytes = variable("feedback_mb"); megabytes && *megabytes != "auto") {
    constexpr std::string_view kAllowed = "use a number of megabytes, or auto";
    const std::uint64_t number = number_of("TERSE_FEEDBACK_MB", *megabytes, kAllowed);
    if (number > std::numeric_limits<std::size_t>::max() >> 20)
      refuse("TERSE_FEEDBACK_MB", *megabytes, kAllowed);
    settings.feedback_bytes = number << 20;
  }
  return settings;
}

std::uint64_t threshold(const Rule& rule) {
  if (rule.passes) return std::numeric_limits<std::uint64_t>::max();
  const std::size_t min_bytes = rule.policy.min_bytes.value_or(kAutoBytes);
  return std::max<std::uint64_t>({1, rule.bytes.least, min_bytes == kAutoBytes ? kAlwaysExact : min_bytes});
}

std::string describe(const Settings& settings) {
  const DefaultFloatingPoint here;  // codecs' options that are fractions are printed
  std::string text;
  const auto interval = [](const Interval& i) {
    return std::to_string(i.least) + ":" + std::to_string(i.most);
  };
  for (const Rule& rule : settings.rules) {
    text += "[" + rule.name + "]" + (rule.passes ? " codec=none" : "");
    for (const SettingInfo& row : kLibraryRows) {
      text += " " + std::string(row.name) + "=" + get_option(rule.policy, row.name);
    }
    text += " f32=" + std::to_string(rule.f32) + " f64=" + std::to_string(rule.f64) +
            " bytes=" + interval(rule.bytes) + " comm_size=" + interval(rule.comm_size) +
            " comm_name=" + rule.comm_name + " after=" + std::to_string(rule.after) +
            " feedback=" + std::to_string(rule.feedback) +
            " key=" + std::to_string(static_cast<int>(rule.key)) + ":" + std::to_string(rule.period) +
            " sample=" + std::to_string(rule.sample) + "\n";
  }
  return text;
}

}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
#include "interpose/tally.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "core/floating_point.hpp"

namespace terse::interpose {
namespace {

using Json = nlohmann::ordered_json;

// One row a number of an Entry. Over ranks, bytes add up; of counts and times the largest one is the job's.
struct Number {
  const char* name;
  std::uint64_t Entry::*of;
};
constexpr std::array<Number, 11> kCounts = {{{"calls", &Entry::calls},
                                             {"compressed", &Entry::compressed},
                                             {"warm_up", &Entry::warm_up},
                                             {"sampled", &Entry::sampled},
                                             {"compared", &Entry::compared},
                                             {"slower", &Entry::slower},
                                             {"other_exact", &Entry::other_exact},
                                             {"non_finite", &Entry::non_finite},
                                             {"non_finite_elements", &Entry::elements_again},
                                             {"fresh_residuals", &Entry::fresh},
                                             {"started_over", &Entry::started_over}}};
constexpr std::array<Number, 4> kBytes = {{{"bytes_before", &Entry::bytes_before},
                                           {"bytes_after", &Entry::bytes_after},
                                           {"timed_bytes", &Entry::timed_bytes},
                                           {"sampled_bytes", &Entry::sampled_bytes}}};
// Between ranks in nanoseconds, in the report in seconds.
constexpr std::array<Number, 2> kTimes = {
    {{"seconds", &Entry::nanoseconds}, {"sampled_seconds", &Entry::sampled_nanoseconds}}};

template <class F>
void for_all_numbers(F&& visit) {
  for (const Number& number : kCounts) visit(number);
  for (const Number& number : kBytes) visit(number);
  for (const Number& number : kTimes) visit(number);
}

double in_seconds(std::uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }

Json to_json(const Entry& entry) {
  Json json;
  for_all_numbers([&](const Number& number) { json[number.name] = entry.*number.of; });
  return json;
}

Entry entry_of(const Json& json) {
  Entry entry;
  for_all_numbers(
      [&](const Number& number) { entry.*number.of = json.at(number.name).get<std::uint64_t>(); });
  return entry;
}

// The same calls, of another rank.
void merge(Entry& into, const Entry& rank) {
  const auto larger = [&](const Number& number) {
    into.*number.of = std::max(into.*number.of, rank.*number.of);
  };
  for (const Number& count : kCounts) larger(count);
  for (const Number& bytes : kBytes) into.*bytes.of += rank.*bytes.of;
  for (const Number& time : kTimes) larger(time);
}

// Other calls.
void add(Entry& into, const Entry& more) {
  for_all_numbers([&](const Number& number) { into.*number.of += more.*number.of; });
}

// Calls of several sizes, and what they have saved by those of their size that went uncompressed.
struct Sum {
  Entry entry{};
  std::optional<double> saved{};

  void add(const Entry& of_a_size) {
    if (of_a_size.timed_bytes > 0 && of_a_size.sampled_bytes > 0) {
      const double exact_seconds_a_byte =
          in_seconds(of_a_size.sampled_nanoseconds) / static_cast<double>(of_a_size.sampled_bytes);
      saved = saved.value_or(0) + exact_seconds_a_byte * static_cast<double>(of_a_size.timed_bytes) -
              in_seconds(of_a_size.nanoseconds);
    }
    interpose::add(entry, of_a_size);
  }
  void add(const Sum& more) {
    if (more.saved) saved = saved.value_or(0) + *more.saved;
    interpose::add(entry, more.entry);
  }
  Json to_json() const {
    Json json = interpose::to_json(entry);
    for (const Number& time : kTimes) json[time.name] = in_seconds(entry.*time.of);
    json["ratio"] =
        entry.bytes_after > 0
            ? Json(static_cast<double>(entry.bytes_before) / static_cast<double>(entry.bytes_after))
            : Json();
    json["seconds_saved"] = saved ? Json(*saved) : Json();
    return json;
  }
};

// A number with so many significant digits, as printf's %g has it in the locale "C".
std::string digits(double value, int count) {
  std::array<char, 64> text{};
  return {
      text.data(),
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::general, count).ptr};
}
// With so many decimals, as %f. `value` has not many digits before those.
std::string decimals(double value, int count) {
  std::array<char, 512> text{};
  return {text.data(),
          std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, count).ptr};
}

std::string bytes_in_words(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "KB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < kUnits.size(); ++unit) bytes /= 1000;
  return (unit == 0 ? decimals(bytes, 0) : digits(bytes, 3)) + " " + kUnits[unit];
}

std::string plural(std::uint64_t n, const char* one) {
  return std::to_string(n) + " " + one + (n == 1 ? "" : "s");
}
std::string calls_in_words(std::uint64_t calls) { return plural(calls, "call"); }

// "3 exact (1 sampled, 2 in the warm-up)"
std::string exact_in_words(const Json& json) {
  constexpr std::array<std::pair<const char*, const char*>, 4> kWhy = {
      {{"warm_up", "in the warm-up"},
       {"sampled", "to compare with"},
       {"slower", "where compression is slower"},
       {"other_exact", "for other reasons"}}};
  std::uint64_t exact = 0;
  std::string list;
  for (const auto& [name, words] : kWhy) {
    const std::uint64_t count = json.at(name);
    exact += count;
    if (count != 0) list += (list.empty() ? "" : ", ") + std::to_string(count) + " " + words;
  }
  return exact == 0 ? "" : ", " + std::to_string(exact) + " exact (" + list + ")";
}

std::string numbers_in_words(const Json& json) {
  std::string text = calls_in_words(json.at("calls")) + ": " +
                     std::to_string(json.at("compressed").get<std::uint64_t>()) + " compressed" +
                     exact_in_words(json);
  if (!json.at("ratio").is_null()) {
    text += "; " + bytes_in_words(json.at("bytes_before")) + " -> " + bytes_in_words(json.at("bytes_after")) +
            ", " + "1/" + decimals(json.at("ratio"), 1);
  }
  if (!json.at("seconds_saved").is_null()) {
    const double saved = json.at("seconds_saved");
    text += "; " + digits(json.at("seconds"), 3) + " s, " + digits(std::abs(saved), 3) + " s " +
            (saved >= 0 ? "less than" : "MORE than") + " plain MPI by " +
            plural(json.at("compared"), "timed call");
  } else if (json.at("seconds").get<double>() > 0) {
    text += "; " + digits(json.at("seconds"), 3) + " s";
  }
  return text;
}

}  // namespace

std::string site_name(const void* site) {
  Dl_info info{};
  if (dladdr(site, &info) == 0 || info.dli_fname == nullptr) return "an unknown place";
  const std::string path = info.dli_fname;
  const auto offset = static_cast<const char*>(site) - static_cast<const char*>(info.dli_fbase);
  std::array<char, 32> hex{};
  std::snprintf(hex.data(), hex.size(), "+0x%tx", offset);
  std::string text = path.substr(path.find_last_of('/') + 1) + hex.data();
  if (info.dli_sname != nullptr) {
    const std::unique_ptr<char, decltype(&std::free)> clear(
        abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr), &std::free);
    text += std::string(" (") + (clear ? clear.get() : info.dli_sname) + ")";
  }
  return text;
}

void Tally::add(std::size_t rule, const void* site, std::uint64_t bytes, const Entry& more) {
  interpose::add(entries_[{rule, site, std::bit_width(bytes)}], more);
}

Json Tally::to_json(const Settings& settings, const std::map<std::size_t, double>& residual_squares) const {
  Json rules = Json::array();
  for (std::size_t i = 0; i < settings.rules.size(); ++i) {
    std::map<std::pair<std::string, int>, Entry> rows;  // places of code that has no file share a name
    for (const auto& [at, entry] : entries_) {
      const auto& [rule, site, size] = at;
      if (rule == i) interpose::add(rows[{site_name(site), size}], entry);
    }
    Json list = Json::array();
    for (const auto& [at, entry] : rows) {
      Json row = {{"site", at.first}, {"size", at.second}};
      row.update(interpose::to_json(entry));
      list.push_back(row);
    }
    const auto squares = residual_squares.find(i);
    rules.push_back({{"rows", list}, {"squares", squares == residual_squares.end() ? 0.0 : squares->second}});
  }
  return rules;
}

Json merge(const std::vector<Json>& of_ranks, const Settings& settings) {
  const DefaultFloatingPoint here;
  Json rules = Json::array();
  Json warnings = Json::array();
  std::uint64_t taken = 0;
  for (std::size_t i = 0; i < settings.rules.size(); ++i) {
    const Rule& rule = settings.rules[i];
    std::map<std::pair<std::string, int>, Entry> rows;
    double squares = 0;
    for (const Json& rank : of_ranks) {
      const Json& mine = rank.at("rules").at(i);
      squares += mine.at("squares").get<double>();
      for (const Json& row : mine.at("rows")) {
        merge(rows[{row.at("site").get<std::string>(), row.at("size").get<int>()}], entry_of(row));
      }
    }
    std::map<std::string, Sum> sites;
    for (const auto& [at, entry] : rows) sites[at.first].add(entry);
    Sum sum;
    Json list = Json::array();
    for (const auto& [site, numbers] : sites) {
      sum.add(numbers);
      Json named = {{"site", site}};
      named.update(numbers.to_json());
      list.push_back(named);
    }
    const Json all = sum.to_json();
    Json row = {{"name", rule.name},
                {"codec", rule.passes ? "none" : get_option(rule.policy, "codec")},
                {"algorithm", rule.policy.algorithm}};
    row.update(all);
    row["residual_norm"] = std::sqrt(squares);
    row["sites"] = list;
    rules.push_back(row);
    taken += sum.entry.calls;
    if (rule.feedback && 2 * sum.entry.fresh > sum.entry.compressed && sum.entry.compressed >= 4) {
      warnings.push_back("rule " + rule.name +
                         ": most of its compressed calls found no residual, so what they left "
                         "out is lost: the program reduces temporaries, or residuals do not fit "
                         "TERSE_FEEDBACK_MB. Try key=sequence:N, or key=site where each place of a call "
                         "has one tensor");
    }
    if (sum.entry.started_over != 0) {
      warnings.push_back("rule " + rule.name + ": in " + calls_in_words(sum.entry.started_over) +
                         " ranks had residuals of different tensors, and started over. Try key=sequence:N, "
                         "or key=site where each place of a call has one tensor");
    }
    if (sum.saved.value_or(0) < 0) {
      warnings.push_back("rule " + rule.name + ": it took more time than plain MPI would have");
    }
  }
  std::uint64_t passed = 0;
  for (const Json& rank : of_ranks) passed = std::max(passed, rank.at("passed_on").get<std::uint64_t>());
  if (taken == 0 && passed == 0) {
    warnings.push_back(
        "no call of MPI_Allreduce by the program was seen: it makes none, or makes them past the "
        "drop-in, by functions that it takes from the MPI library itself (dlopen and dlsym)");
  }
  return {{"version", 1},        {"ranks", of_ranks.size()}, {"calls", taken},
          {"passed_on", passed}, {"rules", rules},           {"warnings", warnings}};
}

std::string in_words(const Json& report) {
  const DefaultFloatingPoint here;
  std::string text = "Terse: " + calls_in_words(report.at("calls")) + " of MPI_Allreduce taken, " +
                     calls_in_words(report.at("passed_on")) + " passed on; " +
                     plural(report.at("ranks"), "rank") + "\n";
  for (const Json& rule : report.at("rules")) {
    if (rule.at("codec") == "none") continue;
    text += "  rule " + rule.at("name").get<std::string>() + " (" + rule.at("codec").get<std::string>() +
            ", algorithm " + rule.at("algorithm").get<std::string>() + ")\n    " + numbers_in_words(rule) +
            "\n";
    if (const std::uint64_t calls = rule.at("non_finite"); calls != 0) {
      text += "    values that were not finite went exactly, in " + calls_in_words(calls) + ", with " +
              plural(rule.at("non_finite_elements"), "element") + " around them\n";
    }
    if (rule.at("residual_norm").get<double>() > 0) {
      text += "    residuals at the end, over all ranks: norm " + digits(rule.at("residual_norm"), 4) + "\n";
    }
    if (rule.at("sites").size() > 1) {
      for (const Json& site : rule.at("sites")) {
        text += "    at " + site.at("site").get<std::string>() + ": " + numbers_in_words(site) + "\n";
      }
    }
  }
  for (const Json& warning : report.at("warnings")) text += "  WARNING: " + warning.get<std::string>() + "\n";
  return text;
}

}  // namespace terse::interpose

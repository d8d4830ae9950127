// SPDX-License-Identifier: Apache-2.0
#include "interpose/tally.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

namespace terse::interpose {
namespace {

using Json = nlohmann::ordered_json;

// One row a number of an Entry: how those of ranks, or of sites, become one.
struct Counter {
  const char* name;
  std::uint64_t Entry::*of;
};
struct Amount {
  const char* name;
  double Entry::*of;
  bool adds;  // over ranks; else the largest counts
};
constexpr std::array<Counter, 11> kCounters = {{{"calls", &Entry::calls},
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
constexpr std::array<Amount, 6> kAmounts = {{{"bytes_before", &Entry::bytes_before, true},
                                             {"bytes_after", &Entry::bytes_after, true},
                                             {"timed_bytes", &Entry::timed_bytes, true},
                                             {"seconds", &Entry::seconds, false},
                                             {"sampled_bytes", &Entry::sampled_bytes, true},
                                             {"sampled_seconds", &Entry::sampled_seconds, false}}};

Json to_json(const Entry& entry) {
  Json json;
  for (const Counter& counter : kCounters) json[counter.name] = entry.*counter.of;
  for (const Amount& amount : kAmounts) json[amount.name] = entry.*amount.of;
  return json;
}

Entry entry_of(const Json& json) {
  Entry entry;
  for (const Counter& counter : kCounters) entry.*counter.of = json.at(counter.name).get<std::uint64_t>();
  for (const Amount& amount : kAmounts) entry.*amount.of = json.at(amount.name).get<double>();
  return entry;
}

// The same calls, of another rank.
void merge(Entry& into, const Entry& rank) {
  for (const Counter& counter : kCounters) into.*counter.of = std::max(into.*counter.of, rank.*counter.of);
  for (const Amount& amount : kAmounts) {
    double& mine = into.*amount.of;
    mine = amount.adds ? mine + rank.*amount.of : std::max(mine, rank.*amount.of);
  }
}

// Other calls.
void add(Entry& into, const Entry& more) {
  for (const Counter& counter : kCounters) into.*counter.of += more.*counter.of;
  for (const Amount& amount : kAmounts) into.*amount.of += more.*amount.of;
}

// Calls of several sizes, and what they have saved by those of their size that went exactly.
struct Sum {
  Entry entry{};
  std::optional<double> saved{};

  void add(const Entry& of_a_size) {
    if (of_a_size.timed_bytes > 0 && of_a_size.sampled_bytes > 0) {
      saved = saved.value_or(0) +
              of_a_size.sampled_seconds / of_a_size.sampled_bytes * of_a_size.timed_bytes - of_a_size.seconds;
    }
    interpose::add(entry, of_a_size);
  }
  void add(const Sum& more) {
    if (more.saved) saved = saved.value_or(0) + *more.saved;
    interpose::add(entry, more.entry);
  }
  Json to_json() const {
    Json json = interpose::to_json(entry);
    json["ratio"] = entry.bytes_after > 0 ? Json(entry.bytes_before / entry.bytes_after) : Json();
    json["seconds_saved"] = saved ? Json(*saved) : Json();
    return json;
  }
};

std::string format(const char* pattern, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

std::string bytes_in_words(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "KB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < kUnits.size(); ++unit) bytes /= 1000;
  return format(unit == 0 ? "%.0f " : "%.3g ", bytes) + kUnits[unit];
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
            ", " + format("1/%.1f", json.at("ratio"));
  }
  if (!json.at("seconds_saved").is_null()) {
    const double saved = json.at("seconds_saved");
    text += format("; %.3g s", json.at("seconds")) + ", " + format("%.3g s ", std::abs(saved)) +
            (saved >= 0 ? "less than" : "MORE than") + " plain MPI by " +
            plural(json.at("compared"), "timed call");
  } else if (json.at("seconds").get<double>() > 0) {
    text += format("; %.3g s", json.at("seconds"));
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
                {"codec", rule.passes ? "none" : get_option(rule.options, "codec")},
                {"algorithm", rule.options.algorithm}};
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
  return {{"version", 1},        {"ranks", of_ranks.size()}, {"calls", taken},
          {"passed_on", passed}, {"rules", rules},           {"warnings", warnings}};
}

std::string in_words(const Json& report) {
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
      text += format("    residuals at the end, over all ranks: norm %.4g\n", rule.at("residual_norm"));
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

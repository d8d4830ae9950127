// SPDX-License-Identifier: Apache-2.0
#include "collective/agreement.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <span>

#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kRecordBytes = 1024;  // what a rank tells of itself: failed, code, length, text
constexpr std::size_t kTextBytes = kRecordBytes - 4;

struct Party {
  bool failed = false;
  ErrorCode code = ErrorCode::mismatch;
  std::string text;
};

// "rank 3", "ranks 0-2, 5"
std::string list_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t j = i;
    while (j + 1 < ranks.size() && ranks[j + 1] == ranks[j] + 1) ++j;
    if (i != 0) text += ", ";
    text += std::to_string(ranks[i]);
    if (j > i) text += (j == i + 1 ? ", " : "-") + std::to_string(ranks[j]);
    i = j + 1;
  }
  return text;
}

std::map<std::string, std::string> fields_of(const std::string& text) {
  std::map<std::string, std::string> fields;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::size_t equals = text.find('=', at);
    if (equals < end) fields[text.substr(at, equals - at)] = text.substr(equals + 1, end - equals - 1);
    at = end + 1;
  }
  return fields;
}

// For each distinct value in the order of its first rank: "VALUE on ranks ..."
std::string list_values(const std::vector<std::pair<std::string, std::vector<int>>>& groups,
                        const char* join) {
  std::string text;
  for (const auto& [value, ranks] : groups) {
    if (!text.empty()) text += ", ";
    text += value + join + list_ranks(ranks);
  }
  return text;
}

void add_to_group(std::vector<std::pair<std::string, std::vector<int>>>& groups, const std::string& value,
                  int rank) {
  const auto group =
      std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == value; });
  if (group != groups.end()) {
    group->second.push_back(rank);
  } else {
    groups.push_back({value, {rank}});
  }
}

[[noreturn]] void throw_failures(const std::vector<Party>& parties) {
  std::vector<std::pair<std::string, std::vector<int>>> groups;
  std::optional<ErrorCode> code;
  for (std::size_t r = 0; r < parties.size(); ++r) {
    if (!parties[r].failed) continue;
    if (!code) code = parties[r].code;
    add_to_group(groups, parties[r].text, static_cast<int>(r));
  }
  std::string sentence = "the call failed";
  for (const auto& [text, ranks] : groups) sentence += " on " + list_ranks(ranks) + ": " + text + ";";
  sentence.back() = '.';
  throw Error(code.value_or(ErrorCode::mismatch), sentence);
}

[[noreturn]] void throw_mismatch(const std::vector<Party>& parties) {
  std::vector<std::map<std::string, std::string>> fields;
  fields.reserve(parties.size());
  for (const Party& party : parties) fields.push_back(fields_of(party.text));
  std::set<std::string> names;
  for (const auto& of_rank : fields) {
    for (const auto& [name, value] : of_rank) names.insert(name);
  }
  std::string differences;
  for (const std::string& name : names) {
    std::vector<std::pair<std::string, std::vector<int>>> groups;
    for (std::size_t r = 0; r < parties.size(); ++r) {
      const auto value = fields[r].find(name);
      add_to_group(groups, value == fields[r].end() ? "none" : value->second, static_cast<int>(r));
    }
    if (groups.size() > 1) {
      differences += (differences.empty() ? "" : "; ") + name + " is " + list_values(groups, " on ");
    }
  }
  if (differences.empty()) differences = "their arguments are too long to tell apart here";
  throw Error(
      ErrorCode::mismatch,
      "ranks make different calls: " + differences +
          ". All ranks must make the same calls with the same arguments, and see the same TERSE_ variables "
          "(mpirun -x).");
}

}  // namespace

Agreement::Agreement(Transport& transport, const Fields& fields, const std::optional<Error>& failure)
    : transport_(transport) {
  if (failure) {
    failure_ = failure->code();
    text_ = failure->what();
  } else {
    for (const auto& [name, value] : fields) text_ += std::string(name) + "=" + value + "\n";
  }
}

Agreement::~Agreement() {
  if (started_ && !operation_.done) transport_.abandon();
}

void Agreement::start() {
  const std::uint64_t h = hash(std::as_bytes(std::span(text_)));
  words_ = {h, ~h, failure_ ? 1u : 0u};
  transport_.start_max(words_, operation_);
  started_ = true;
}

void Agreement::require() {
  if (transport_.size() > 1) {
    start();
    while (!done()) transport_.progress(Transport::Wait::yes);
    if (!reached()) explain();
  } else if (failure_) {
    throw Error(*failure_, text_);
  }
}

bool Agreement::reached() const noexcept { return words_[0] == ~words_[1] && words_[2] == 0; }

void Agreement::explain() {
  std::vector<std::byte> mine(kRecordBytes);
  const std::size_t length = std::min(text_.size(), kTextBytes);
  mine[0] = std::byte{failure_.has_value()};
  mine[1] = std::byte{static_cast<std::uint8_t>(failure_.value_or(ErrorCode::mismatch))};
  store(mine.data() + 2, static_cast<std::uint16_t>(length));
  std::memcpy(mine.data() + 4, text_.data(), length);
  std::vector<std::byte> all(kRecordBytes * static_cast<std::size_t>(transport_.size()));
  transport_.all_gather(mine, all);

  std::vector<Party> parties;
  bool failed = false;
  for (std::size_t at = 0; at < all.size(); at += kRecordBytes) {
    const std::byte* record = all.data() + at;
    const auto* text = reinterpret_cast<const char*>(record + 4);
    parties.push_back({record[0] != std::byte{0}, static_cast<ErrorCode>(record[1]),
                       std::string(text, load<std::uint16_t>(record + 2))});
    failed = failed || parties.back().failed;
  }
  if (failed) throw_failures(parties);
  throw_mismatch(parties);
}

}  // namespace terse::inline v0_1

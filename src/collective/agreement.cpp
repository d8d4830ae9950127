// SPDX-License-Identifier: Apache-2.0
#include "collective/agreement.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <span>

#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// What a rank tells of itself: failed, code, length, text, and a hash of all that.
constexpr std::size_t kRecordBytes = 1024;  // at most
constexpr std::size_t kTextAt = 4;
constexpr std::size_t kTextBytes = kRecordBytes - kTextAt - sizeof(std::uint64_t);

struct Party {
  bool heard = true;
  bool failed = false;
  ErrorCode code = ErrorCode::mismatch;
  std::string text;
};

std::span<std::byte> write_record(std::span<std::byte> memory, const std::string& text,
                                  const std::optional<Error>& failure, std::uint64_t place) {
  const std::size_t length = std::min(text.size(), kTextBytes);
  const std::size_t body = kTextAt + length;
  memory[0] = std::byte{failure.has_value()};
  memory[1] = std::byte{static_cast<std::uint8_t>(failure ? failure->code() : ErrorCode::mismatch)};
  store(memory.data() + 2, static_cast<std::uint16_t>(length));
  std::memcpy(memory.data() + kTextAt, text.data(), length);
  store(memory.data() + body, hash(memory.first(body), place));
  return memory.first(body + sizeof(std::uint64_t));
}

Party read_record(std::span<const std::byte> record, std::uint64_t place) {
  Party unheard = {.heard = false,
                   .failed = true,
                   .code = ErrorCode::corrupt_data,
                   .text = "its error report came corrupt"};
  if (record.size() < kTextAt) return unheard;
  const std::size_t body = kTextAt + load<std::uint16_t>(record.data() + 2);
  if (record.size() != body + sizeof(std::uint64_t) ||
      load<std::uint64_t>(record.data() + body) != hash(record.first(body), place)) {
    return unheard;
  }
  const auto* text = reinterpret_cast<const char*>(record.data() + kTextAt);
  return {.failed = record[0] != std::byte{0},
          .code = static_cast<ErrorCode>(record[1]),
          .text = std::string(text, body - kTextAt)};
}

std::uint64_t place_of(int tag, int rank) {
  return static_cast<std::uint64_t>(tag) << 32 | static_cast<std::uint64_t>(rank);
}

std::span<std::byte> record_of(std::span<std::byte> records, int rank) {
  return records.subspan(kRecordBytes * static_cast<std::size_t>(rank), kRecordBytes);
}

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

Error failures_of(const std::vector<Party>& parties) {
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
  return {code.value_or(ErrorCode::mismatch), sentence};
}

Error mismatch_of(const std::vector<Party>& parties) {
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
  return {
      ErrorCode::mismatch,
      "ranks make different calls: " + differences +
          ". All ranks must make the same calls with the same arguments, and see the same TERSE_ variables "
          "(mpirun -x)."};
}

}  // namespace

void Agreement::start(std::uint64_t digest, Stand stand, int tag) {
  const std::array<std::uint64_t, 3> words = {digest, ~digest, static_cast<std::uint64_t>(stand)};
  maximum_.start(words, tag);
}

bool Agreement::reached() const noexcept {
  const auto words = maximum_.values();
  return words[0] == ~words[1] && words[2] != static_cast<std::uint64_t>(Stand::failed);
}

bool Agreement::any_host_tensor() const noexcept {
  return maximum_.values()[2] == static_cast<std::uint64_t>(Stand::host_tensor);
}

ErrorReports::~ErrorReports() {
  if (!done()) transport_.abandon();
}

std::size_t ErrorReports::bytes(int ranks) noexcept { return kRecordBytes * static_cast<std::size_t>(ranks); }

void ErrorReports::start(const Fields& fields, const std::optional<Error>& failure, int tag,
                         std::span<std::byte> memory, Hears hears) {
  std::string text;
  if (failure) {
    text = failure->what();
  } else {
    for (const auto& [name, value] : fields) text.append(name).append("=").append(value).append("\n");
  }
  const int me = transport_.rank();
  tag_ = tag;
  memory_ = memory;
  const auto mine = write_record(record_of(memory, me), text, failure, place_of(tag, me));
  own_bytes_ = mine.size();
  bytes_sent_ = 0;
  const auto ranks = static_cast<std::size_t>(transport_.size());
  sent_.assign(ranks, Operation{.done = true});
  heard_.assign(ranks, Operation{.done = true});
  for (int r = 0; r < transport_.size(); ++r) {
    if (r == me) continue;
    const auto at = static_cast<std::size_t>(r);
    if (hears == Hears::yes) transport_.receive(record_of(memory, r), r, tag, heard_[at]);
    transport_.send(mine, r, tag, sent_[at]);
    bytes_sent_ += mine.size();
  }
}

bool ErrorReports::done() const noexcept {
  const auto ended = [](const Operation& operation) { return operation.done; };
  return std::all_of(sent_.begin(), sent_.end(), ended) && std::all_of(heard_.begin(), heard_.end(), ended);
}

Error ErrorReports::Verdict::agreed() const {
  if (error) return *error;
  if (unheard) return *unheard;
  return {ErrorCode::mismatch, "ranks make different calls, in arguments too long to tell apart here"};
}

ErrorReports::Verdict ErrorReports::verdict() const {
  std::vector<Party> parties;
  for (int r = 0; r < transport_.size(); ++r) {
    const std::size_t bytes = r == transport_.rank() ? own_bytes_ : heard_[static_cast<std::size_t>(r)].bytes;
    parties.push_back(read_record(record_of(memory_, r).first(bytes), place_of(tag_, r)));
  }
  if (std::any_of(parties.begin(), parties.end(), [](const Party& p) { return p.heard && p.failed; })) {
    return {.error = failures_of(parties)};
  }
  for (std::size_t r = 0; r < parties.size(); ++r) {
    if (!parties[r].heard) {
      return {.unheard = Error(parties[r].code, "of rank " + std::to_string(r) + ": " + parties[r].text)};
    }
  }
  if (std::any_of(parties.begin(), parties.end(),
                  [&](const Party& p) { return p.text != parties[0].text; })) {
    return {.error = mismatch_of(parties)};
  }
  return {};
}

void require_agreement(Transport& transport, const ErrorReports::Fields& fields,
                       const std::optional<Error>& failure) {
  std::string text;
  for (const auto& [name, value] : fields) text.append(name).append("=").append(value).append("\n");
  require_agreement(transport, hash(std::as_bytes(std::span(text))), fields, failure, transport.take_tags(2));
}

void require_agreement(Transport& transport, std::uint64_t digest, const ErrorReports::Fields& fields,
                       const std::optional<Error>& failure, int tag) {
  if (transport.size() == 1) {
    if (failure) throw AgreedError(*failure);
    return;
  }
  struct Parts {
    Agreement agreement;
    ErrorReports reports;
    std::vector<std::byte> memory;
  };
  auto parts =
      std::unique_ptr<Parts>(new Parts{Agreement(transport), ErrorReports(transport),
                                       std::vector<std::byte>(ErrorReports::bytes(transport.size()))});
  try {
    parts->agreement.start(failure ? 0 : digest, failure ? Agreement::Stand::failed : Agreement::Stand::well,
                           tag);
    while (parts->agreement.advance(), !parts->agreement.done()) transport.progress(Transport::Wait::yes);
    if (parts->agreement.reached()) return;
    parts->reports.start(fields, failure, tag + 1, parts->memory, ErrorReports::Hears::yes);
    while (!parts->reports.done()) transport.progress(Transport::Wait::yes);
  } catch (...) {
    transport.abandon();
    static_cast<void>(parts.release());  // messages may still be on their way
    throw;
  }
  throw AgreedError(parts->reports.verdict().agreed());
}

}  // namespace terse::inline v0_1

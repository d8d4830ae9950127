// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <terse/codec.hpp>

#include "codec/cast.hpp"
#include "codec/identity.hpp"
#include "codec/onebit.hpp"
#include "codec/spec.hpp"
#include "codec/threshold.hpp"
#include "codec/topk.hpp"

namespace terse::inline v0_1 {
namespace {

struct Table {
  std::mutex mutex;
  std::vector<CodecEntry> rows = {identity_entry(), cast_entry(), onebit_entry(), topk_entry(),
                                  threshold_entry()};
};

Table& table() {
  static Table instance;
  return instance;
}

const CodecEntry* find(const std::vector<CodecEntry>& rows, std::string_view name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const CodecEntry& r) { return r.name == name; });
  return row == rows.end() ? nullptr : &*row;
}

}  // namespace

std::vector<CodecEntry> codecs() {
  const std::lock_guard lock(table().mutex);
  return table().rows;
}

void register_codec(CodecEntry entry) {
  if (entry.name.empty() || entry.name.find_first_of(":=,+ \t\n") != std::string::npos) {
    throw Error(ErrorCode::invalid_argument,
                "a codec cannot be called '" + entry.name + "': use letters, digits, '_' and '-'");
  }
  if (!entry.make && !entry.compose) {
    throw Error(ErrorCode::invalid_argument,
                "codec " + entry.name + " is registered without a function to make it");
  }
  const std::lock_guard lock(table().mutex);
  if (find(table().rows, entry.name)) {
    throw Error(ErrorCode::invalid_argument,
                "there is a codec " + entry.name + " already: choose another name");
  }
  table().rows.push_back(std::move(entry));
}

std::shared_ptr<const Codec> make_codec(std::string_view spec) {
  const std::vector<CodecEntry> rows = codecs();
  const auto row_of = [&](std::string_view part) -> const CodecEntry& {
    const std::string_view name = spec_name(part);
    if (const CodecEntry* row = find(rows, name)) return *row;
    std::string list;
    for (const CodecEntry& r : rows) list += (list.empty() ? "" : ", ") + r.name;
    throw Error(ErrorCode::invalid_argument, "unknown codec '" + std::string(name) + "' in '" +
                                                 std::string(spec) + "': the codecs are " + list);
  };
  const auto refuse = [&](const CodecEntry& row, const char* why) {
    throw Error(ErrorCode::invalid_argument, "codec " + row.name + " in '" + std::string(spec) + "': " + why);
  };
  const std::vector<std::string_view> parts = spec_parts(spec);
  // those that take what comes behind them, from the last one on; then those that take what stands before
  std::size_t end = parts.size();
  while (end > 1 && row_of(parts[end - 1]).follows) --end;
  std::shared_ptr<const Codec> codec;
  for (std::size_t i = end; i-- > 0;) {
    const CodecEntry& row = row_of(parts[i]);
    const CodecArguments arguments = parse_arguments(row, parts[i]);
    if (i == end - 1) {
      if (!row.make) refuse(row, "it is nothing by itself: put + and another codec behind it");
      codec = row.make(arguments);
    } else if (row.follows) {
      refuse(row, "it goes behind all others");
    } else if (!row.compose) {
      refuse(row, "it does not go in front of another codec");
    } else {
      codec = row.compose(arguments, codec);
    }
  }
  for (; end < parts.size(); ++end) {
    const CodecEntry& row = row_of(parts[end]);
    codec = row.compose(parse_arguments(row, parts[end]), codec);
  }
  return codec;
}

}  // namespace terse::inline v0_1

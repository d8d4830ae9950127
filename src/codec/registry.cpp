// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <mutex>
#include <terse/codec.hpp>

#include "codec/cast.hpp"
#include "codec/identity.hpp"
#include "codec/onebit.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

struct Table {
  std::mutex mutex;
  std::vector<CodecEntry> rows = {identity_entry(), cast_entry(), onebit_entry()};
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
  if (!entry.make) {
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
  const std::string_view name = spec_name(spec);
  const CodecEntry* row = find(rows, name);
  if (!row) {
    std::string list;
    for (const CodecEntry& r : rows) list += (list.empty() ? "" : ", ") + r.name;
    throw Error(ErrorCode::invalid_argument, "unknown codec '" + std::string(name) + "' in '" +
                                                 std::string(spec) + "': the codecs are " + list);
  }
  return row->make(parse_arguments(*row, spec));
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <mutex>
#include <string_view>
#include <terse/codec.hpp>

#include "codec/cast.hpp"
#include "codec/device_codec.hpp"
#include "codec/hadamard.hpp"
#include "codec/identity.hpp"
#include "codec/lossless.hpp"
#include "codec/natural.hpp"
#include "codec/onebit.hpp"
#include "codec/quant.hpp"
#include "codec/randomk.hpp"
#include "codec/spec.hpp"
#include "codec/sum.hpp"
#include "codec/ternary.hpp"
#include "codec/threshold.hpp"
#include "codec/topk.hpp"
#include "codec/zfp.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

// Rows that need a library; those that this build is without are known by name alone.
struct Absent {
  std::string_view name;
  std::string_view library;
  std::string_view package;
  std::string_view option;
};
constexpr std::array kAbsent = {
#ifndef TERSE_HAS_ZSTD
    Absent{"lossless", "zstd", "libzstd-dev", "TERSE_ZSTD"},
#endif
#ifndef TERSE_HAS_ZFP
    Absent{"zfp", "zfp", "libzfp-dev", "TERSE_ZFP"},
#endif
    Absent{},
};

struct Table {
  std::mutex mutex;
  std::vector<CodecEntry> rows = {
      identity_entry(), cast_entry(),      onebit_entry(),  ternary_entry(), quant_entry(), natural_entry(),
      topk_entry(),     threshold_entry(), randomk_entry(), sum8_entry(),    sum4_entry(),  hadamard_entry(),
#ifdef TERSE_HAS_ZFP
      zfp_entry(),
#endif
#ifdef TERSE_HAS_ZSTD
      lossless_entry(),
#endif
  };
};

Table& table() {
  static Table& instance = *new Table;  // for calls while the process exits, too
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
  const DefaultFloatingPoint mode;
  const std::vector<CodecEntry> rows = codecs();
  const auto row_of = [&](std::string_view part) -> const CodecEntry& {
    const std::string_view name = spec_name(part);
    if (const CodecEntry* row = find(rows, name)) return *row;
    for (const Absent& absent : kAbsent) {
      if (absent.name != name || name.empty()) continue;
      throw Error(ErrorCode::invalid_argument, "codec " + std::string(name) + " in '" + std::string(spec) +
                                                   "': this build of Terse has no " +
                                                   std::string(absent.library) + "; install " +
                                                   std::string(absent.package) + " (Debian) and build with " +
                                                   std::string(absent.option) + "=ON");
    }
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

std::string device_codec_names() {
  std::vector<std::string> names;
  for (const CodecEntry& row : codecs()) {
    const auto on_devices = [](const std::string& spec) { return make_codec(spec)->supports(Memory::cuda); };
    if (std::any_of(row.examples.begin(), row.examples.end(), on_devices)) names.push_back(row.name);
  }
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i) {
    list += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  }
  return list;
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "api/options.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {
namespace {

// One row an option, of a policy or of a communicator. A new option is a row here and a field of Policy or of
// CommunicatorOptions.
struct Row {
  constexpr Row(OptionInfo i, void (*setter)(Policy&, std::string_view), std::string (*getter)(const Policy&))
      : info(i), set_in_policy(setter), get_from_policy(getter) {
    info.of_policy = true;
  }
  constexpr Row(OptionInfo i, void (*setter)(CommunicatorOptions&, std::string_view),
                std::string (*getter)(const CommunicatorOptions&))
      : info(i), set_in_communicator(setter), get_from_communicator(getter) {
    info.of_policy = false;
  }

  OptionInfo info;
  void (*set_in_policy)(Policy&, std::string_view) = nullptr;
  std::string (*get_from_policy)(const Policy&) = nullptr;
  void (*set_in_communicator)(CommunicatorOptions&, std::string_view) = nullptr;
  std::string (*get_from_communicator)(const CommunicatorOptions&) = nullptr;

  void set(CommunicatorOptions& options, std::string_view value) const {
    if (info.of_policy) return set_in_policy(options.policy, value);
    set_in_communicator(options, value);
  }
};

std::string text_of(const std::optional<std::size_t>& bytes) { return bytes ? std::to_string(*bytes) : ""; }

constexpr std::array<std::string_view, 3> kChecks = {"call", "all", "payload"};
constexpr std::array<std::string_view, 2> kProgress = {"calls", "thread"};
constexpr std::array<std::string_view, 2> kResidualTypes = {"full", "bf16"};
constexpr std::array<std::string_view, 3> kCudaAware = {"auto", "on", "off"};
constexpr std::size_t kMostThreads = 1024;

[[noreturn]] void refuse(std::string_view option, std::string_view value, const std::string& allowed) {
  throw Error(ErrorCode::invalid_argument,
              std::string(option) + "=" + std::string(value) + " makes no sense: " + allowed);
}

// An enumeration whose values have these names, in their order.
template <class E, std::size_t kNames>
void set_choice(std::optional<E>& to, std::string_view option, std::string_view value,
                const std::array<std::string_view, kNames>& names) {
  const auto found = std::find(names.begin(), names.end(), value);
  if (found != names.end()) {
    to = static_cast<E>(found - names.begin());
    return;
  }
  std::string list = "use ";
  for (std::size_t i = 0; i < kNames; ++i) {
    list.append(i == 0 ? "" : i + 1 == kNames ? " or " : ", ").append(names[i]);
  }
  refuse(option, value, list);
}

template <class E, std::size_t kNames>
std::string name_of(const std::optional<E>& choice, const std::array<std::string_view, kNames>& names) {
  return std::string(choice ? names[static_cast<std::size_t>(*choice)] : "");
}

constexpr std::array<Row, 9> kRows = {{
    {{"codec", "identity", "codec and its options, such as onebit or cast:bf16 (see `terse codecs`)"},
     [](Policy& p, std::string_view v) { p.codec = make_codec(v); },
     [](const Policy& p) { return p.codec.codec() ? p.codec.codec()->spec() : p.codec.spec(); }},
    {{"algorithm", "auto",
      "auto, or one of the algorithms; auto compresses where a short trial says that it pays"},
     [](Policy& p, std::string_view v) {
       if (v != "auto") find_algorithm(v);
       p.algorithm = v;
     },
     [](const Policy& p) { return p.algorithm; }},
    {{"min_bytes", "auto",
      "tensors of fewer bytes are reduced exactly: auto, or bytes such as 64K; auto goes with "
      "algorithm=auto"},
     [](Policy& p, std::string_view v) {
       p.min_bytes = v == "auto" ? kAutoBytes : parse_bytes("min_bytes", v);
     },
     [](const Policy& p) { return p.min_bytes == kAutoBytes ? "auto" : text_of(p.min_bytes); }},
    {{"segment_bytes", "auto",
      "bytes of elements in one segment of the pipeline, over all ranks: auto, or bytes such as 4M; results "
      "do not depend on it, but for the last bits of randomk by summed"},
     [](Policy& p, std::string_view v) {
       const std::size_t bytes = v == "auto" ? kAutoSegment : parse_bytes("segment_bytes", v);
       if (bytes == 0) refuse("segment_bytes", v, "use auto, or at least 1");
       p.segment_bytes = bytes;
     },
     [](const Policy& p) { return p.segment_bytes == kAutoSegment ? "auto" : text_of(p.segment_bytes); }},
    {{"check", "call", "call (all ranks make the same call), all (small calls too), payload (checksums too)"},
     [](Policy& p, std::string_view v) { set_choice(p.check, "check", v, kChecks); },
     [](const Policy& p) { return name_of(p.check, kChecks); }},
    {{"threads", "1",
      "threads of a rank that encode and decode, for ranks with idle cores; results do not depend on it"},
     [](CommunicatorOptions& o, std::string_view v) {
       std::size_t threads = 0;
       const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), threads);
       if (error != std::errc{} || end != v.data() + v.size() || threads == 0 || threads > kMostThreads) {
         refuse("threads", v, "use a number from 1 to " + std::to_string(kMostThreads));
       }
       o.threads = threads;
     },
     [](const CommunicatorOptions& o) { return text_of(o.threads); }},
    {{"progress", "calls",
      "who makes progress with nonblocking calls: calls, or thread (needs MPI_THREAD_MULTIPLE)"},
     [](CommunicatorOptions& o, std::string_view v) { set_choice(o.progress, "progress", v, kProgress); },
     [](const CommunicatorOptions& o) { return name_of(o.progress, kProgress); }},
    {{"residual", "full",
      "how persistent calls and buckets keep residuals: full, as sums are, or bf16, half the memory of f32"},
     [](Policy& p, std::string_view v) { set_choice(p.residual, "residual", v, kResidualTypes); },
     [](const Policy& p) { return name_of(p.residual, kResidualTypes); }},
    {{"cuda_aware", "auto",
      "whether MPI is given pointers to device memory: auto (MPI says whether it takes them), on or off"},
     [](CommunicatorOptions& o, std::string_view v) {
       set_choice(o.cuda_aware, "cuda_aware", v, kCudaAware);
     },
     [](const CommunicatorOptions& o) { return name_of(o.cuda_aware, kCudaAware); }},
}};

constexpr auto kInfos = [] {
  std::array<OptionInfo, kRows.size()> infos{};
  for (std::size_t i = 0; i < kRows.size(); ++i) infos[i] = kRows[i].info;
  return infos;
}();

const Row& find_row(std::string_view name) {
  const auto row =
      std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return r.info.name == name; });
  if (row != kRows.end()) return *row;
  std::string list;
  for (const Row& r : kRows) list += (list.empty() ? "" : ", ") + std::string(r.info.name);
  throw Error(ErrorCode::invalid_argument,
              "unknown option '" + std::string(name) + "': the options are " + list);
}

// A row of a policy: what a call may have for itself.
const Row& policy_row(std::string_view name) {
  const Row& row = find_row(name);
  if (row.info.of_policy) return row;
  throw Error(ErrorCode::invalid_argument, std::string(name) +
                                               " is an option of a Communicator, for all of its calls: it "
                                               "cannot be set for one of them");
}

}  // namespace

std::size_t parse_bytes(std::string_view option, std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::size_t shift = 0;
  if (!unit.empty()) {
    const auto letter = static_cast<char>(std::toupper(static_cast<unsigned char>(unit.front())));
    if (const auto power = kUnits.find(letter); power != std::string_view::npos) {
      shift = 10 * (power + 1);
      unit.remove_prefix(1);
      if (unit == "iB") unit = {};
    }
    if (unit == "B") unit = {};
  }
  if (error != std::errc{} || !unit.empty() || value > (std::numeric_limits<std::size_t>::max() >> shift)) {
    refuse(option, text, "use a whole number of bytes, with K, M, G or T if you like (64K)");
  }
  return value << shift;
}

std::span<const OptionInfo> options() noexcept { return kInfos; }

void set_option(CommunicatorOptions& options, std::string_view name, std::string_view value) {
  find_row(name).set(options, value);
}

void set_option(Policy& policy, std::string_view name, std::string_view value) {
  policy_row(name).set_in_policy(policy, value);
}

std::string get_option(const CommunicatorOptions& options, std::string_view name) {
  const Row& row = find_row(name);
  return row.info.of_policy ? row.get_from_policy(options.policy) : row.get_from_communicator(options);
}

std::string get_option(const Policy& policy, std::string_view name) {
  return policy_row(name).get_from_policy(policy);
}

CommunicatorOptions options_from_environment() {
  CommunicatorOptions options;
  for (const Row& row : kRows) {
    std::string variable = "TERSE_" + std::string(row.info.name);
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const char* value = std::getenv(variable.c_str());
    if (!value || *value == '\0') continue;
    try {
      row.set(options, value);
    } catch (const Error& error) {
      throw Error(error.code(), "environment variable " + variable + ": " + error.what());
    }
  }
  return options;
}

const CommunicatorOptions& default_options() {
  static const CommunicatorOptions& defaults = *[] {
    auto* made = new CommunicatorOptions;  // never destroyed, for calls while the process exits
    for (const Row& row : kRows) row.set(*made, row.info.default_value);
    return made;
  }();
  return defaults;
}

CommunicatorOptions overlay(const CommunicatorOptions& first, const CommunicatorOptions& second) {
  CommunicatorOptions merged = first;
  if (!merged.threads) merged.threads = second.threads;
  if (!merged.progress) merged.progress = second.progress;
  if (!merged.cuda_aware) merged.cuda_aware = second.cuda_aware;
  if (!merged.failure) merged.failure = second.failure;
  Policy& policy = merged.policy;
  if (!policy.codec.chosen()) policy.codec = second.policy.codec;
  if (policy.algorithm.empty()) policy.algorithm = second.policy.algorithm;
  if (!policy.min_bytes) policy.min_bytes = second.policy.min_bytes;
  if (!policy.segment_bytes) policy.segment_bytes = second.policy.segment_bytes;
  if (!policy.check) policy.check = second.policy.check;
  if (!policy.residual) policy.residual = second.policy.residual;
  return merged;
}

}  // namespace terse::inline v0_1

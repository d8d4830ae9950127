// SPDX-License-Identifier: Apache-2.0
//
// Open MPI's component tuned takes an algorithm from control variables when a communicator is made (MPI 3.1,
// 14.3.6): so they are set, a communicator is duplicated, and they are set back.
#include "plain_algorithms.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "../command_line.hpp"

namespace terse::bench {
namespace {

constexpr const char* kPermission = "coll_tuned_use_dynamic_rules";
constexpr const char* kAlgorithm = "coll_tuned_allreduce_algorithm";
constexpr const char* kSegment = "coll_tuned_allreduce_algorithm_segmentsize";
constexpr std::string_view kDefault = "default";
constexpr std::string_view kBest = "best";

struct Row {
  std::string_view name;  ///< as Open MPI calls it
  int number;
  int segment_bytes;
  bool in_best;
};
constexpr std::array kRows = {Row{"basic_linear", 1, 0, false},        Row{"nonoverlapping", 2, 0, false},
                              Row{"recursive_doubling", 3, 0, true},   Row{"ring", 4, 0, true},
                              Row{"segmented_ring", 5, 1 << 20, true}, Row{"rabenseifner", 6, 0, false}};

PlainAlgorithm algorithm_of(const Row& row) {
  return {std::string(row.name) + " (" + std::to_string(row.number) + ")", row.number, row.segment_bytes};
}

PlainAlgorithm parse_algorithm(std::string_view text) {
  if (text == kDefault) return {std::string(text)};
  const auto found = std::find_if(kRows.begin(), kRows.end(), [&](const Row& row) {
    return text == row.name || text == std::to_string(row.number);
  });
  if (found == kRows.end()) {
    throw tools::UsageError("--baseline: '" + std::string(text) +
                            "' is no plain algorithm: use best by itself, or one or several of default, " +
                            tools::list_names(kRows, [](const Row& row) { return algorithm_of(row).name; }) +
                            ", with commas between");
  }
  return algorithm_of(*found);
}

/// MPI's interface for tools while this lives. It ends before MPI does: Open MPI 4.1 crashes otherwise.
class ToolsInterface {
 public:
  ToolsInterface() {
    int provided = 0;
    works_ = MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) == MPI_SUCCESS;
  }
  ~ToolsInterface() {
    if (works_) MPI_T_finalize();
  }
  ToolsInterface(const ToolsInterface&) = delete;
  ToolsInterface& operator=(const ToolsInterface&) = delete;

  bool works() const noexcept { return works_; }

 private:
  bool works_;
};

/// A control variable that is one number. The interface for tools must live longer.
class Variable {
 public:
  explicit Variable(const std::string& name) {
    int index = 0;
    int count = 0;
    if (MPI_T_cvar_get_index(name.c_str(), &index) != MPI_SUCCESS) return;
    if (MPI_T_cvar_handle_alloc(index, nullptr, &handle_, &count) != MPI_SUCCESS) return;
    const auto datatype = datatype_of(index);
    is_bool_ = datatype == MPI_C_BOOL;
    exists_ = count == 1 && (is_bool_ || datatype == MPI_INT);
  }
  ~Variable() {
    if (handle_ != MPI_T_CVAR_HANDLE_NULL) MPI_T_cvar_handle_free(&handle_);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

  /// Nothing where there is no such variable.
  std::optional<int> read() const {
    bool flag = false;
    int number = 0;
    void* const value = is_bool_ ? static_cast<void*>(&flag) : &number;
    if (!exists_ || MPI_T_cvar_read(handle_, value) != MPI_SUCCESS) return std::nullopt;
    return is_bool_ ? int{flag} : number;
  }
  /// Whether MPI takes the number.
  bool write(int number) const {
    return exists_ && !is_bool_ && MPI_T_cvar_write(handle_, &number) == MPI_SUCCESS;
  }

  static std::string name_of(int index) {
    std::array<char, 256> name{};
    int length = name.size();
    describe(index, name.data(), length);
    return name.data();
  }

 private:
  static MPI_Datatype datatype_of(int index) {
    int length = 0;
    return describe(index, nullptr, length);
  }
  static MPI_Datatype describe(int index, char* name, int& length) {
    int verbosity = 0;
    MPI_Datatype datatype = MPI_DATATYPE_NULL;
    int words = 0;
    int bind = 0;
    int scope = 0;
    MPI_T_cvar_get_info(index, name, &length, &verbosity, &datatype, nullptr, nullptr, &words, &bind, &scope);
    return datatype;
  }

  MPI_T_cvar_handle handle_ = MPI_T_CVAR_HANDLE_NULL;
  bool exists_ = false;
  bool is_bool_ = false;
};

/// Sets back what a variable was.
class Restored : public Variable {
 public:
  explicit Restored(const std::string& name) : Variable(name), before_(read()) {}
  ~Restored() {
    if (before_) write(*before_);
  }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  std::optional<int> before_;
};

/// "han" where that component has the first word on an allreduce, and not tuned.
std::string component_before_tuned() {
  // They have none, pass calls on, or are for communicators of other kinds.
  constexpr std::array kNoRivals = {"accelerator", "cuda",       "demo", "ftagree", "inter",
                                    "libnbc",      "monitoring", "self", "sync",    "tuned"};
  constexpr std::string_view kBegin = "coll_";
  constexpr std::string_view kEnd = "_priority";
  const int of_tuned = Variable("coll_tuned_priority").read().value_or(0);
  int count = 0;
  MPI_T_cvar_get_num(&count);
  for (int i = 0; i < count; ++i) {
    const std::string name = Variable::name_of(i);
    if (!name.starts_with(kBegin) || !name.ends_with(kEnd)) continue;
    if (name.size() < kBegin.size() + kEnd.size()) continue;
    std::string component = name.substr(kBegin.size(), name.size() - kBegin.size() - kEnd.size());
    if (component.find('_') != std::string::npos) continue;
    if (std::find(kNoRivals.begin(), kNoRivals.end(), component) != kNoRivals.end()) continue;
    if (Variable(name).read().value_or(of_tuned) > of_tuned) return component;
  }
  return "";
}

/// Why communicators of `session` cannot have algorithms of their own; empty where they can.
std::string obstacle(const Session& session) {
  if (session.size == 1) return "one rank has no algorithms to choose from";
  if (!Variable(kAlgorithm).read() || !Variable(kSegment).read()) {
    return std::string("this MPI has no variable ") + kAlgorithm +
           ", by which Open MPI's component tuned takes an algorithm";
  }
  if (Variable(kPermission).read() != 1) {
    return std::string("Open MPI takes no algorithm while ") + kPermission + " is off";
  }
  if (const std::string other = component_before_tuned(); !other.empty()) {
    return "Open MPI's component " + other +
           " comes before tuned, which has the algorithms: start with --mca coll_" + other + "_priority 0";
  }
  return "";
}

}  // namespace

BaselineChoice parse_baseline(const std::string& text) {
  BaselineChoice choice{.text = text, .is_best = text == kBest};
  if (choice.is_best) {
    choice.algorithms.push_back({std::string(kDefault)});
    for (const Row& row : kRows) {
      if (row.in_best) choice.algorithms.push_back(algorithm_of(row));
    }
    return choice;
  }
  for (std::string_view rest = text;;) {
    const auto comma = rest.find(',');
    choice.algorithms.push_back(parse_algorithm(rest.substr(0, comma)));
    if (comma == std::string_view::npos) return choice;
    rest.remove_prefix(comma + 1);
  }
}

void permit_plain_algorithms() {
  setenv((std::string("OMPI_MCA_") + kPermission).c_str(), "1", 0);  // 0: who has set it knows better
}

PlainCommunicators::PlainCommunicators(const Session& session, const BaselineChoice& choice) {
  try {
    make(session, choice.algorithms);
  } catch (const tools::UsageError& error) {
    free();
    if (!choice.is_best) throw tools::UsageError("--baseline: " + std::string(error.what()));
    entries_ = {{choice.algorithms.front(), session.comm}};
    shortfall_ = "best is MPI's default alone: " + std::string(error.what()) + ".";
  }
}

void PlainCommunicators::make(const Session& session, const std::vector<PlainAlgorithm>& algorithms) {
  std::optional<ToolsInterface> tools;
  for (const PlainAlgorithm& algorithm : algorithms) {
    if (algorithm.number == 0) {
      entries_.push_back({algorithm, session.comm});
      continue;
    }
    if (!tools) {
      tools.emplace();
      agree(session, tools->works() ? obstacle(session) : "MPI's interface for tools does not start");
    }
    const Restored number(kAlgorithm);
    const Restored segment(kSegment);
    const bool taken = number.write(algorithm.number) && segment.write(algorithm.segment_bytes);
    agree(session, taken ? "" : "this Open MPI has no algorithm " + algorithm.name);
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_dup(session.comm, &comm);
    entries_.push_back({algorithm, comm});
  }
}

void PlainCommunicators::free() {
  for (Entry& entry : entries_) {
    if (entry.algorithm.number != 0) MPI_Comm_free(&entry.comm);
  }
  entries_.clear();
}

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#include "interpose/drop_in.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <terse/error.hpp>
#include <utility>

#include "interpose/chain.hpp"

namespace terse::interpose {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRefused = 2;  // exit code of a program whose settings make no sense
constexpr std::size_t kTextBytes = 4096;
// How the library names its own communicators.
constexpr std::string_view kOwnName = "Terse: ";

int world_rank() {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

std::string name_of(MPI_Comm comm) {
  std::array<char, MPI_MAX_OBJECT_NAME> name{};
  int length = 0;
  PMPI_Comm_get_name(comm, name.data(), &length);
  return {name.data(), static_cast<std::size_t>(length)};
}

std::uint64_t hash_of(const std::string& text) {  // FNV-1a
  std::uint64_t h = 14695981039346656037u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return h;
}

// Whether it has processes that are not of MPI_COMM_WORLD: of a spawned or connected program, which need not
// have the drop-in, or the same rules. All members see the same.
bool reaches_beyond_world(MPI_Comm comm) {
  std::array<MPI_Group, 3> groups{};
  int beyond = 0;
  PMPI_Comm_group(comm, groups.data());
  PMPI_Comm_group(MPI_COMM_WORLD, &groups[1]);
  PMPI_Group_difference(groups[0], groups[1], &groups[2]);
  PMPI_Group_size(groups[2], &beyond);
  for (MPI_Group& group : groups) {
    if (group != MPI_GROUP_EMPTY) PMPI_Group_free(&group);
  }
  return beyond != 0;
}

// What the kernel lets this process and those beside it take, where it is less than all: Linux's memory.max
// of the control group and of those around it.
std::size_t memory_of_group(std::size_t all) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.compare(0, 3, "0::") != 0) continue;
    for (std::filesystem::path group = line.substr(3);; group = group.parent_path()) {
      std::ifstream file("/sys/fs/cgroup" + group.string() + "/memory.max");
      std::size_t most = 0;
      if (file >> most) all = std::min(all, most);
      if (!group.has_relative_path()) break;
    }
  }
  return all;
}

// A quarter of what each rank of this node has of its memory. Collective over MPI_COMM_WORLD.
std::size_t share_of_memory() {
  MPI_Comm node = MPI_COMM_NULL;
  int ranks = 1;
  PMPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  PMPI_Comm_size(node, &ranks);
  PMPI_Comm_free(&node);
  const auto pages = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return memory_of_group(pages * page) / 4 / static_cast<std::size_t>(ranks);
}

// Ends the program on all ranks; `culprit` says why.
[[noreturn]] void refuse_to_start(bool culprit, const std::string& sentence) {
  if (culprit) {
    std::fprintf(stderr, "Terse: rank %d: %s\n", world_rank(), sentence.c_str());
    std::fflush(stderr);
  }
  chain().finalize();
  std::fflush(nullptr);
  _exit(kRefused);  // the program's own last words would be about work that it has not begun
}

// Every rank's text on rank 0, in rank order; elsewhere nothing. Collective over MPI_COMM_WORLD.
std::vector<std::string> gather(const std::string& mine) {
  int size = 0;
  PMPI_Comm_size(MPI_COMM_WORLD, &size);
  const bool root = world_rank() == 0;
  const int length = static_cast<int>(mine.size());
  std::vector<int> lengths(root ? static_cast<std::size_t>(size) : 0);
  PMPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
  std::vector<int> offsets(lengths.size());
  int total = 0;
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    offsets[r] = total;
    total += lengths[r];
  }
  std::string all(static_cast<std::size_t>(total), '\0');
  PMPI_Gatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, 0,
               MPI_COMM_WORLD);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    texts.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(lengths[r])));
  }
  return texts;
}

// The line of a text that goes over a place in it.
std::string line_at(const std::string& text, std::size_t at) {
  const std::size_t before = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  return begin >= text.size() ? "none" : text.substr(begin, text.find('\n', begin) - begin);
}

// The settings of ranks that do not agree. Collective over MPI_COMM_WORLD.
std::string difference(const std::string& mine) {
  const std::vector<std::string> texts = gather(mine.substr(0, kTextBytes));
  for (std::size_t r = 1; r < texts.size(); ++r) {
    if (texts[r] == texts[0]) continue;
    const auto [here, there] =
        std::mismatch(texts[0].begin(), texts[0].end(), texts[r].begin(), texts[r].end());
    const auto line = static_cast<std::size_t>(here - texts[0].begin());
    return "ranks have different settings: rank 0 has " + line_at(texts[0], line) + ", rank " +
           std::to_string(r) + " has " + line_at(texts[r], line) +
           ". All ranks must see the same TERSE_ variables and the same file: start the program by `terse "
           "run` on each rank, or pass the variables on (mpirun -x)";
  }
  return "ranks have different settings";
}

enum class Sample : std::uint8_t { no, first, timed };

// Two calls in succession go exactly, in the middle of every `sample`. The second is timed: after a
// compressed one, what plain MPI uses is no longer in the caches.
Sample sample_at(const Rule& rule, std::uint64_t call) {
  if (rule.sample == 0) return Sample::no;
  const std::uint64_t at = call % rule.sample;
  const std::uint64_t timed = rule.sample / 2 - 1;
  return at == timed ? Sample::timed : at + 1 == timed ? Sample::first : Sample::no;
}

// What only a call finds out, such as a codec that its algorithm cannot take: tried on this rank alone.
void try_out(const Rule& rule) {
  if (rule.passes || !(rule.f32 || rule.f64)) return;
  std::array<double, 512> memory{};
  const View tensor{memory.data(), memory.size(), rule.f64 ? DType::f64 : DType::f32};
  Communicator self(MPI_COMM_SELF, rule.options);
  Feedback feedback(rule.residual_for(tensor.dtype));
  AllreduceOptions options = rule.options;
  options.feedback = rule.feedback ? &feedback : nullptr;
  try {
    self.allreduce(tensor, options);
  } catch (const Error& error) {
    throw Error(error.code(), "rule " + rule.name + ": " + error.what());
  }
}

// Names of files and functions may be of any bytes.
std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

bool goes_to_file(const std::string& report) { return report != "stderr" && report != "off"; }

// Makes the report's file where there is none: so it is known at the beginning that it can be written. And
// notes where that is, since the program may go elsewhere.
void open_report(Settings& settings) {
  if (!goes_to_file(settings.report) || world_rank() != 0) return;
  settings.report = std::filesystem::absolute(settings.report).string();
  if (!std::ofstream(settings.report, std::ios::app)) {
    throw Error(ErrorCode::invalid_argument, "TERSE_REPORT: the file " + settings.report +
                                                 " cannot be written: name another, or stderr, or off");
  }
}

}  // namespace

std::atomic<DropIn*> DropIn::active_{nullptr};

DropIn::DropIn(Settings settings) : settings_(std::move(settings)) {
  threshold_ = std::numeric_limits<std::uint64_t>::max();
  for (const Rule& rule : settings_.rules) threshold_ = std::min(threshold_, threshold(rule));
  const auto add = [&](MPI_Datatype type) {
    int size = 0;
    if (type == MPI_DATATYPE_NULL || PMPI_Type_size(type, &size) != MPI_SUCCESS) return;
    if (size == 4) types_.emplace_back(type, DType::f32);
    if (size == 8) types_.emplace_back(type, DType::f64);
  };
  for (const MPI_Datatype type :
       {MPI_FLOAT, MPI_DOUBLE, MPI_REAL, MPI_DOUBLE_PRECISION, MPI_REAL4, MPI_REAL8}) {
    add(type);
  }
  PMPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &DropIn::delete_state, &key_, this);
}

void DropIn::start() {
  static std::atomic_flag done;
  if (done.test_and_set()) return;
  Settings settings;
  std::string failure;
  try {
    settings = read_settings();
    if (!settings.rules.empty()) open_report(settings);
    for (const Rule& rule : settings.rules) try_out(rule);
  } catch (...) {
    failure = current_error().what();
  }
  const std::string text = describe(settings);
  const std::uint64_t h = hash_of(text);
  int size = 0;
  PMPI_Comm_size(MPI_COMM_WORLD, &size);
  const auto culprit = static_cast<std::uint64_t>(failure.empty() ? 0 : size - world_rank());
  // the largest of each over all ranks: whether there are rules anywhere, their hash and its complement, and
  // how far from the end the first rank is that fails
  std::array<std::uint64_t, 4> words = {settings.rules.empty() ? 0u : 1u, h, ~h, culprit};
  PMPI_Allreduce(MPI_IN_PLACE, words.data(), static_cast<int>(words.size()), MPI_UINT64_T, MPI_MAX,
                 MPI_COMM_WORLD);
  if (words[3] != 0) refuse_to_start(culprit == words[3], failure);
  if (words[0] == 0) return;
  if (words[1] != ~words[2]) {
    const std::string sentence = difference(text);
    refuse_to_start(world_rank() == 0, sentence);
  }
  std::uint64_t room = settings.feedback_bytes.value_or(share_of_memory());
  PMPI_Allreduce(MPI_IN_PLACE, &room, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
  auto* made = new DropIn(std::move(settings));  // for the life of the process: its threads may still call
  made->feedback_bytes_ = room;
  active_.store(made, std::memory_order_release);
}

void DropIn::finish() noexcept {
  DropIn* drop_in = active_.exchange(nullptr);
  if (drop_in == nullptr) return;
  try {
    drop_in->report();
  } catch (...) {
    std::fprintf(stderr, "Terse: there is no report: %s\n", current_error().what());
  }
}

std::optional<DType> DropIn::dtype_of(MPI_Datatype datatype) const noexcept {
  for (const auto& [type, dtype] : types_) {
    if (type == datatype) return dtype;
  }
  return std::nullopt;
}

bool DropIn::concerns(int count, MPI_Datatype datatype, MPI_Op op) const noexcept {
  // 8 bytes are the most that an element may have here
  return count > 0 && 8 * static_cast<std::uint64_t>(count) >= threshold_ && op == MPI_SUM &&
         dtype_of(datatype).has_value();
}

CommState& DropIn::state_of(MPI_Comm comm) {
  void* held = nullptr;
  int found = 0;
  PMPI_Comm_get_attr(comm, key_, &held, &found);
  if (found) return *static_cast<CommState*>(held);
  auto state = std::make_unique<CommState>();
  int inter = 0;
  int size = 1;
  PMPI_Comm_test_inter(comm, &inter);
  PMPI_Comm_size(comm, &size);
  state->size = static_cast<std::uint64_t>(size);
  state->name = name_of(comm);
  state->matched.resize(settings_.rules.size());
  state->own = state->name.compare(0, kOwnName.size(), kOwnName) == 0;
  state->passes = state->own || inter != 0 || size == 1 || reaches_beyond_world(comm);
  if (!state->passes) agree_on_name(comm, *state);
  PMPI_Comm_set_attr(comm, key_, state.get());
  const std::lock_guard lock(mutex_);
  return **states_.insert(state.release()).first;
}

// A communicator's name is each rank's own affair. Where a rule asks for it, it counts if all have the same.
void DropIn::agree_on_name(MPI_Comm comm, CommState& state) const {
  const bool asked = std::any_of(settings_.rules.begin(), settings_.rules.end(),
                                 [](const Rule& rule) { return !rule.comm_name.empty(); });
  if (!asked) return;
  const std::uint64_t h = hash_of(state.name);
  std::array<std::uint64_t, 2> words = {h, ~h};
  PMPI_Allreduce(MPI_IN_PLACE, words.data(), 2, MPI_UINT64_T, MPI_MAX, comm);
  if (words[0] != ~words[1]) state.name.clear();
}

int DropIn::delete_state(MPI_Comm, int, void* value, void* extra) noexcept {
  auto* state = static_cast<CommState*>(value);
  auto* self = static_cast<DropIn*>(extra);
  // in MPI_Finalize, to free what hangs on it would be to communicate: that is left to MPI
  if (active() == nullptr) return MPI_SUCCESS;
  {
    const std::lock_guard lock(self->mutex_);
    self->states_.erase(state);
  }
  delete state;
  return MPI_SUCCESS;
}

std::optional<std::size_t> DropIn::match(const CommState& state, DType dtype, std::uint64_t bytes) const {
  for (std::size_t i = 0; i < settings_.rules.size(); ++i) {
    const Rule& rule = settings_.rules[i];
    if (rule.serves(dtype) && rule.bytes.contains(bytes) && rule.comm_size.contains(state.size) &&
        (rule.comm_name.empty() || rule.comm_name == state.name)) {
      if (bytes < threshold(rule)) return std::nullopt;  // the rule leaves it alone
      return i;
    }
  }
  return std::nullopt;
}

std::optional<int> DropIn::allreduce(const Arguments& call) noexcept {
  try {
    if (call.comm == MPI_COMM_NULL || call.recvbuf == MPI_IN_PLACE) return std::nullopt;
    CommState& state = state_of(call.comm);
    if (state.passes) {
      if (!state.own) count_passed_on();
      return std::nullopt;
    }
    const DType dtype = *dtype_of(call.datatype);
    const std::size_t bytes = static_cast<std::size_t>(call.count) * size_of(dtype);
    const auto at = match(state, dtype, bytes);
    if (!at) {
      count_passed_on();
      return std::nullopt;
    }
    const Rule& rule = settings_.rules[*at];
    const double on_wire = 2.0 * static_cast<double>(state.size - 1) * static_cast<double>(bytes) /
                           static_cast<double>(state.size);
    // exact, until it turns out otherwise
    Entry entry{.calls = 1, .bytes_before = on_wire, .bytes_after = on_wire};
    int code = MPI_SUCCESS;
    const std::uint64_t matched = state.matched[*at]++;
    if (matched < rule.after) {
      entry.warm_up = 1;
      code = chain().allreduce(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
    } else if (const Sample sample = sample_at(rule, matched - rule.after); sample != Sample::no) {
      const double start = PMPI_Wtime();
      code = chain().allreduce(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
      entry.sampled = 1;
      if (sample == Sample::timed) {
        entry.compared = 1;
        entry.sampled_seconds = PMPI_Wtime() - start;
        entry.sampled_bytes = on_wire;
      }
    } else {
      code = compress(call, state, *at, dtype, entry);
    }
    const std::lock_guard lock(mutex_);
    tally_.add(*at, call.site, bytes, entry);
    return code;
  } catch (...) {
    std::fprintf(stderr, "Terse: rank %d: MPI_Allreduce: %s\n", world_rank(), current_error().what());
    std::fflush(stderr);
    PMPI_Comm_call_errhandler(call.comm, MPI_ERR_OTHER);
    return MPI_ERR_OTHER;
  }
}

Tensor* DropIn::make_tensor(CommState& state, const TensorKey& key) const {
  const ResidualType type = settings_.rules[key.rule].residual_for(key.dtype);
  const std::size_t of_an_element = size_of(residual_of(key.dtype, type));
  const std::size_t chunk = key.count / state.size + 1;
  return state.tensors.make(key, (key.count + chunk) * of_an_element, feedback_bytes_, type);
}

int DropIn::compress(const Arguments& call, CommState& state, std::size_t at, DType dtype, Entry& entry) {
  const Rule& rule = settings_.rules[at];
  const auto count = static_cast<std::size_t>(call.count);
  const bool in_place = call.sendbuf == MPI_IN_PLACE || call.sendbuf == call.recvbuf;
  const void* data = in_place ? call.recvbuf : call.sendbuf;
  AllreduceOptions options = rule.options;
  options.op = Op::sum;
  if (memory_of(data) == Memory::cuda || memory_of(call.recvbuf) == Memory::cuda) {
    options.failure = Error(ErrorCode::unsupported, "the tensor lies in device memory");
  }

  TensorKey key{.rule = at, .dtype = dtype, .count = count};
  Tensor* tensor = nullptr;
  if (rule.feedback) {
    switch (rule.key) {
      case Key::address:
        key.which = reinterpret_cast<std::uintptr_t>(data);
        break;
      case Key::site:
        key.which = reinterpret_cast<std::uintptr_t>(call.site);
        break;
      case Key::sequence:
        key.which = (state.matched[at] - 1) % rule.period;
        break;
    }
    tensor = state.tensors.find(key);
    if (tensor == nullptr) {
      entry.fresh = 1;
      tensor = make_tensor(state, key);
    }
  }
  if (!state.communicator) state.communicator.emplace(call.comm, rule.options);

  const View out{call.recvbuf, count, dtype};
  const ConstView in{data, count, dtype};
  Outcome outcome;
  const double start = PMPI_Wtime();
  for (bool again = false;; again = true) {
    options.feedback = tensor == nullptr ? nullptr : &tensor->feedback;
    options.tensor = tensor == nullptr ? "" : std::to_string(tensor->ordinal);
    try {
      outcome = state.communicator->allreduce(in, out, options);
      break;
    } catch (const Error& error) {
      // both are found, and thrown on all ranks, before anything is written
      if (error.code() == ErrorCode::unsupported) {
        entry.other_exact = 1;
        return chain().allreduce(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
      }
      if (error.code() != ErrorCode::mismatch || !rule.feedback || again) throw;
      // perhaps it was about residuals alone: once more, with fresh ones
      std::uint64_t ordinal = state.tensors.next_ordinal();
      PMPI_Allreduce(MPI_IN_PLACE, &ordinal, 1, MPI_UINT64_T, MPI_MAX, call.comm);
      state.tensors.go_on_from(ordinal);
      tensor = make_tensor(state, key);
      entry.fresh = 1;
      entry.started_over = 1;
    }
  }
  const double seconds = PMPI_Wtime() - start;

  if (outcome.result == Outcome::Result::exact) {
    (outcome.reason == Outcome::Reason::slower ? entry.slower : entry.other_exact) = 1;
    entry.fresh = 0;  // it needed none
    return MPI_SUCCESS;
  }
  entry.compressed = 1;
  entry.non_finite = outcome.reason == Outcome::Reason::non_finite ? 1 : 0;
  entry.elements_again = outcome.exact_count;
  entry.bytes_after = static_cast<double>(outcome.bytes_sent);
  if (entry.fresh == 0) {
    entry.seconds = seconds;
    entry.timed_bytes = entry.bytes_before;
  }
  return MPI_SUCCESS;
}

void DropIn::report() {
  std::string mine;  // empty where this rank has nothing to tell
  try {
    std::map<std::size_t, double> squares;
    const std::lock_guard lock(mutex_);
    for (const CommState* state : states_) {
      for (const auto& [rule, sum] : state->tensors.squares()) squares[rule] += sum;
    }
    const Json word = {{"passed_on", passed_on_.load()}, {"rules", tally_.to_json(settings_, squares)}};
    mine = text_of(word, -1);
  } catch (...) {
    mine.clear();  // the others wait for a word
  }
  const std::vector<std::string> texts = gather(mine);
  if (texts.empty() || settings_.report == "off") return;  // rank 0 decides
  std::vector<Json> of_ranks;
  of_ranks.reserve(texts.size());
  for (const std::string& text : texts) {
    if (!text.empty()) of_ranks.push_back(Json::parse(text));
  }
  const Json report = merge(of_ranks, settings_);
  if (settings_.report == "stderr") {
    std::cerr << in_words(report) << std::flush;
  } else if (!(std::ofstream(settings_.report) << text_of(report, 2) << '\n' << std::flush)) {
    throw Error(ErrorCode::invalid_state, settings_.report + " cannot be written");
  }
}

}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
#include "interpose/drop_in.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <terse/error.hpp>
#include <utility>

#include "core/floating_point.hpp"
#include "interpose/chain.hpp"
#include "interpose/own_comm.hpp"

namespace terse::interpose {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRefused = 2;  // exit code of a program whose settings make no sense
constexpr std::size_t kTextBytes = 4096;

// Whole nanoseconds, and no arithmetic in the program's floating-point mode.
using Clock = std::chrono::steady_clock;
std::uint64_t nanoseconds_since(Clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

// What plain MPI sends at the least for a tensor, on a rank.
std::uint64_t least_on_wire(std::uint64_t bytes, std::uint64_t ranks) {
  return 2 * (ranks - 1) * bytes / ranks;
}

// What the drop-in or the library has thrown.
struct Failure {
  ErrorCode code;
  std::string sentence;
};

// Does work of the drop-in's own, in which no error handler of the program is called.
template <class F>
std::optional<Failure> attempt(F&& work) {
  try {
    work();
    return std::nullopt;
  } catch (const std::bad_alloc&) {
    return Failure{ErrorCode::out_of_memory, "no memory"};  // few enough characters to need none
  } catch (const Error& error) {
    return Failure{error.code(), error.what()};
  } catch (const std::exception& error) {
    return Failure{ErrorCode::invalid_state, error.what()};
  }
}

int world_rank() {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

void say(const std::string& sentence) {
  std::fprintf(stderr, "Terse: rank %d: %s\n", world_rank(), sentence.c_str());
  std::fflush(stderr);
}

// The sentence, and the communicator's error handler, which may throw.
int raise(MPI_Comm comm, const std::string& sentence) {
  say("MPI_Allreduce: " + sentence);
  PMPI_Comm_call_errhandler(comm, MPI_ERR_OTHER);
  return MPI_ERR_OTHER;
}

std::uint64_t hash_of(std::string_view text) {  // FNV-1a
  std::uint64_t h = 14695981039346656037u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return h;
}

// Whether it has processes that are not of MPI_COMM_WORLD: of a spawned or connected program, which need not
// have the drop-in, or the same rules. All members see the same.
int find_beyond_world(MPI_Comm comm, bool& beyond) {
  int count = 0;
  Group mine;
  Group all;
  Group others;
  int code = PMPI_Comm_group(comm, &mine.handle);
  if (code == MPI_SUCCESS) code = PMPI_Comm_group(MPI_COMM_WORLD, &all.handle);
  if (code == MPI_SUCCESS) code = PMPI_Group_difference(mine.handle, all.handle, &others.handle);
  if (code == MPI_SUCCESS) code = PMPI_Group_size(others.handle, &count);
  beyond = count != 0;
  return code;
}

// What the kernel lets this process and those beside it take, where it is less than all: Linux's memory.max
// of the control group and of those around it.
std::size_t memory_of_group(std::size_t all) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.compare(0, 3, "0::") != 0) continue;
    for (std::filesystem::path group = line.substr(3);; group = group.parent_path()) {
      std::ifstream file("/sys/fs/cgroup" + group.string() + "/memory.max");
      std::string text;
      std::size_t most = 0;
      if (std::getline(file, text) &&
          std::from_chars(text.data(), text.data() + text.size(), most).ec == std::errc{}) {
        all = std::min(all, most);
      }
      if (!group.has_relative_path()) break;
    }
  }
  return all;
}

// A quarter of what each rank of this node has of its memory. Collective over `talk`.
std::size_t share_of_memory(MPI_Comm talk) {
  MPI_Comm node = MPI_COMM_NULL;
  int ranks = 1;
  require(PMPI_Comm_split_type(talk, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
  require(PMPI_Comm_size(node, &ranks), "MPI_Comm_size");
  require(PMPI_Comm_free(&node), "MPI_Comm_free");
  const auto pages = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page = static_cast<std::size_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return memory_of_group(pages * page) / 4 / static_cast<std::size_t>(ranks);
}

// Ends the program on all ranks; `culprit` says why.
[[noreturn]] void refuse_to_start(MPI_Comm talk, bool culprit, const std::string& sentence) {
  if (culprit) say(sentence);
  PMPI_Comm_free(&talk);
  chain().finalize();
  std::fflush(nullptr);
  _exit(kRefused);  // the program's handlers of exit would report work that it has not begun
}

// Every rank's text on rank 0, in rank order; elsewhere nothing. Collective over `talk`.
std::vector<std::string> gather(MPI_Comm talk, const std::string& mine) {
  int size = 0;
  int rank = 0;
  require(PMPI_Comm_size(talk, &size), "MPI_Comm_size");
  require(PMPI_Comm_rank(talk, &rank), "MPI_Comm_rank");
  const int length = static_cast<int>(mine.size());
  std::vector<int> lengths(rank == 0 ? static_cast<std::size_t>(size) : 0);
  require(PMPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, talk), "MPI_Gather");
  std::vector<int> offsets(lengths.size());
  int total = 0;
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    offsets[r] = total;
    total += lengths[r];
  }
  std::string all(static_cast<std::size_t>(total), '\0');
  require(PMPI_Gatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, 0,
                       talk),
          "MPI_Gatherv");
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

// The settings of ranks that do not agree. Collective over `talk`.
std::string difference(MPI_Comm talk, const std::string& mine) {
  const std::vector<std::string> texts = gather(talk, mine.substr(0, kTextBytes));
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

// Two calls in succession go uncompressed, in the middle of every `sample`. The second is timed: after a
// compressed one, what plain MPI uses is no longer in the caches.
Sample sample_at(const Rule& rule, std::uint64_t call) {
  if (rule.sample == 0) return Sample::no;
  const std::uint64_t at = call % rule.sample;
  const std::uint64_t timed = rule.sample / 2 - 1;
  return at == timed ? Sample::timed : at + 1 == timed ? Sample::first : Sample::no;
}

// What only a call finds out, such as a codec that its algorithm cannot take: tried on this rank alone.
void try_out(const Rule& rule, MPI_Comm self) {
  if (rule.passes || !(rule.f32 || rule.f64)) return;
  std::array<double, 512> memory{};
  const View tensor{memory.data(), memory.size(), rule.f64 ? DType::f64 : DType::f32};
  Communicator alone(self, {.policy = rule.policy});
  Feedback feedback(rule.residual_for(tensor.dtype));
  try {
    alone.allreduce({tensor, rule.feedback ? &feedback : nullptr}, Op::sum);
  } catch (const Error& error) {
    throw Error(error.code(), "rule " + rule.name + ": " + error.what());
  }
}

void try_out(const std::vector<Rule>& rules) {
  if (rules.empty()) return;
  MPI_Comm self = MPI_COMM_NULL;
  require(make_own(MPI_COMM_SELF, self), "MPI_Comm_create");
  const auto failure = attempt([&] {
    for (const Rule& rule : rules) try_out(rule, self);
  });
  PMPI_Comm_free(&self);
  if (failure) throw Error(failure->code, failure->sentence);
}

int pass_on(const Arguments& call) {
  return chain().allreduce(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
}

const void* data_of(const Arguments& call) {
  return call.sendbuf == MPI_IN_PLACE ? call.recvbuf : call.sendbuf;
}

// Why MPI must have the call as it is, whatever the size: null where Terse can make it.
const char* why_not(const Arguments& call, std::size_t bytes) {
  const void* data = data_of(call);
  if (data == nullptr || call.recvbuf == nullptr) return "a buffer is null";
  if (call.sendbuf != MPI_IN_PLACE) {
    const auto in = reinterpret_cast<std::uintptr_t>(data);
    const auto out = reinterpret_cast<std::uintptr_t>(call.recvbuf);
    if (in < out + bytes && out < in + bytes) return "the buffers overlap";
  }
  if (memory_of(data) == Memory::cuda || memory_of(call.recvbuf) == Memory::cuda) {
    return "the tensor lies in device memory";
  }
  return nullptr;
}

// Names of files and functions may be of any bytes.
std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

bool goes_to_file(const std::string& report) { return report != "stderr" && report != "off"; }

// Writes a text to a file, or adds it; whether that worked.
bool write_file(const std::string& path, const char* mode, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), mode);
  if (file == nullptr) return false;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && written;
}

// Makes the report's file where there is none: so it is known at the beginning that it can be written. And
// notes where that is, since the program may go elsewhere.
void open_report(Settings& settings) {
  if (!goes_to_file(settings.report) || world_rank() != 0) return;
  settings.report = std::filesystem::absolute(settings.report).string();
  if (!write_file(settings.report, "a", "")) {
    throw Error(ErrorCode::invalid_argument, "TERSE_REPORT: the file " + settings.report +
                                                 " cannot be written: name another, or stderr, or off");
  }
}

}  // namespace

std::atomic<DropIn*> DropIn::active_{nullptr};

DropIn::DropIn(Settings settings) : settings_(std::move(settings)) {
  threshold_ = std::numeric_limits<std::uint64_t>::max();
  for (const Rule& rule : settings_.rules) {
    threshold_ = std::min(threshold_, threshold(rule));
    feedback_ = feedback_ || (rule.feedback && !rule.passes);
  }
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
  try {
    Settings settings;
    std::string failure;
    try {
      settings = read_settings();
      if (!settings.rules.empty()) open_report(settings);
      try_out(settings.rules);
    } catch (...) {
      failure = current_error().what();
    }
    MPI_Comm talk = MPI_COMM_NULL;
    require(make_own(MPI_COMM_WORLD, talk), "MPI_Comm_create");
    const std::string text = describe(settings);
    const std::uint64_t h = hash_of(text);
    const int rank = world_rank();
    int size = 0;
    require(PMPI_Comm_size(talk, &size), "MPI_Comm_size");
    const auto culprit = static_cast<std::uint64_t>(failure.empty() ? 0 : size - rank);
    const std::uint64_t reports = rank == 0 && settings.report != "off" ? 1 : 0;
    // the largest of each over all ranks: whether there are rules anywhere, their hash and its complement,
    // how far from the end the first rank is that fails, and whether rank 0 wants a report
    std::array<std::uint64_t, 5> words = {settings.rules.empty() ? 0u : 1u, h, ~h, culprit, reports};
    require(PMPI_Allreduce(MPI_IN_PLACE, words.data(), static_cast<int>(words.size()), MPI_UINT64_T, MPI_MAX,
                           talk),
            "MPI_Allreduce");
    if (words[3] != 0) refuse_to_start(talk, culprit == words[3], failure);
    if (words[0] == 0) {
      PMPI_Comm_free(&talk);
      return;
    }
    if (words[1] != ~words[2]) {
      const std::string sentence = difference(talk, text);
      refuse_to_start(talk, rank == 0, sentence);
    }
    const std::size_t share = share_of_memory(talk);
    std::uint64_t room = settings.feedback_bytes.value_or(share);
    require(PMPI_Allreduce(MPI_IN_PLACE, &room, 1, MPI_UINT64_T, MPI_MIN, talk), "MPI_Allreduce");
    auto* made = new DropIn(std::move(settings));  // for the life of the process: its threads may still call
    made->feedback_bytes_ = room;
    if (words[4] != 0) {
      made->talk_ = talk;
    } else {
      PMPI_Comm_free(&talk);
    }
    active_.store(made, std::memory_order_release);
  } catch (...) {
    // the ranks have lost each other, so that none can tell whether others go on
    say(current_error("the drop-in cannot start").what());
    PMPI_Abort(MPI_COMM_WORLD, kRefused);
  }
}

void DropIn::finish() {
  DropIn* drop_in = active_.exchange(nullptr);
  if (drop_in == nullptr || drop_in->talk_ == MPI_COMM_NULL) return;
  if (const auto failure = attempt([&] { drop_in->report(); })) {
    say("there is no report: " + failure->sentence);
  }
  PMPI_Comm_free(&drop_in->talk_);
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

int DropIn::find_state(MPI_Comm comm, CommState*& state) {
  void* held = nullptr;
  int found = 0;
  int code = PMPI_Comm_get_attr(comm, key_, &held, &found);
  if (code != MPI_SUCCESS) return code;
  if (found) {
    state = static_cast<CommState*>(held);
    return code;
  }
  Name name;
  code = name.read(comm);
  if (code != MPI_SUCCESS) return code;
  std::unique_ptr<CommState> made;
  if (const auto failure = attempt([&] {
        made = std::make_unique<CommState>();
        made->matched.resize(settings_.rules.size());
      })) {
    return raise(comm, failure->sentence);
  }
  made->own = name.is_own();
  int inter = 0;
  int size = 1;
  code = PMPI_Comm_test_inter(comm, &inter);
  if (code == MPI_SUCCESS) code = PMPI_Comm_size(comm, &size);
  made->size = static_cast<std::uint64_t>(size);
  bool passes = made->own || inter != 0 || size == 1;
  if (code == MPI_SUCCESS && !passes) code = find_beyond_world(comm, passes);
  made->passes = passes;
  if (code == MPI_SUCCESS) code = PMPI_Comm_set_attr(comm, key_, made.get());
  if (code != MPI_SUCCESS) return code;
  state = made.release();  // the attribute's from here on
  // one that is not listed is missing from the report, and nothing else
  static_cast<void>(attempt([&] {
    const std::lock_guard lock(mutex_);
    states_.insert(state);
  }));
  return code;
}

// A communicator's name is each rank's own affair. Where a rule asks for it, it counts if all have the same.
int DropIn::agree_on_name(MPI_Comm comm, CommState& state) const {
  if (state.talk == MPI_COMM_NULL) {
    if (const int code = make_own(comm, state.talk); code != MPI_SUCCESS) return code;
  }
  Name mine;
  if (const int code = mine.read(comm); code != MPI_SUCCESS) return code;
  const auto failure = attempt([&] {
    const std::uint64_t h = hash_of(mine.text());
    std::array<std::uint64_t, 2> words = {h, ~h};
    require(PMPI_Allreduce(MPI_IN_PLACE, words.data(), 2, MPI_UINT64_T, MPI_MAX, state.talk),
            "MPI_Allreduce");
    state.name = std::string(words[0] == ~words[1] ? mine.text() : "");
  });
  return failure ? raise(comm, failure->sentence) : MPI_SUCCESS;
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
  MPI_Comm talk = state->talk;
  // by name, since a destructor does not communicate while an exception of the program's unwinds
  if (state->communicator) static_cast<void>(attempt([&] { state->communicator->free(); }));
  delete state;
  if (talk != MPI_COMM_NULL) PMPI_Comm_free(&talk);
  return MPI_SUCCESS;
}

int DropIn::match(MPI_Comm comm, CommState& state, DType dtype, std::uint64_t bytes,
                  std::optional<std::size_t>& at) const {
  for (std::size_t i = 0; i < settings_.rules.size(); ++i) {
    const Rule& rule = settings_.rules[i];
    if (!rule.serves(dtype) || !rule.bytes.contains(bytes) || !rule.comm_size.contains(state.size)) continue;
    if (!rule.comm_name.empty()) {
      if (!state.name) {
        if (const int code = agree_on_name(comm, state); code != MPI_SUCCESS) return code;
      }
      if (rule.comm_name != *state.name) continue;
    }
    if (bytes >= threshold(rule)) at = i;  // otherwise the rule leaves it alone
    break;
  }
  return MPI_SUCCESS;
}

std::optional<int> DropIn::allreduce(const Arguments& call) {
  if (call.comm == MPI_COMM_NULL || call.recvbuf == MPI_IN_PLACE) return std::nullopt;
  CommState* found = nullptr;
  if (const int code = find_state(call.comm, found); code != MPI_SUCCESS) return code;
  CommState& state = *found;
  if (state.passes) {
    if (!state.own) count_passed_on();
    return std::nullopt;
  }
  const DType dtype = *dtype_of(call.datatype);
  const std::size_t bytes = static_cast<std::size_t>(call.count) * size_of(dtype);
  std::optional<std::size_t> at;
  if (const int code = match(call.comm, state, dtype, bytes, at); code != MPI_SUCCESS) return code;
  if (!at) {
    count_passed_on();
    return std::nullopt;
  }
  const Rule& rule = settings_.rules[*at];
  const std::uint64_t on_wire = least_on_wire(bytes, state.size);
  // exact, until it turns out otherwise
  Entry entry{.calls = 1, .bytes_before = on_wire, .bytes_after = on_wire};
  int code = MPI_SUCCESS;
  // also of a call that fails, perhaps on this rank alone: ranks must count alike
  const std::uint64_t matched = state.matched[*at]++;
  if (matched < rule.after) {
    entry.warm_up = 1;
    code = pass_on(call);
  } else if (const Sample sample = sample_at(rule, matched - rule.after); sample != Sample::no) {
    const Clock::time_point start = Clock::now();
    code = pass_on(call);
    entry.sampled = 1;
    if (sample == Sample::timed) {
      entry.compared = 1;
      entry.sampled_nanoseconds = nanoseconds_since(start);
      entry.sampled_bytes = on_wire;
    }
  } else {
    code = compress(call, state, *at, dtype, entry);
  }
  if (code != MPI_SUCCESS) return code;  // the report is about calls that came about
  static_cast<void>(attempt([&] {
    const std::lock_guard lock(mutex_);
    tally_.add(*at, call.site, bytes, entry);
  }));
  return code;
}

Tensor* DropIn::make_tensor(CommState& state, const TensorKey& key) const {
  const ResidualType type = settings_.rules[key.rule].residual_for(key.dtype);
  const std::size_t of_an_element = size_of(residual_of(key.dtype, type));
  const std::size_t chunk = key.count / state.size + 1;
  return state.tensors.make(key, (key.count + chunk) * of_an_element, feedback_bytes_, type);
}

// Null where the rule is without feedback, or there is no room.
Tensor* DropIn::find_tensor(const Arguments& call, CommState& state, TensorKey& key, Entry& entry) const {
  const Rule& rule = settings_.rules[key.rule];
  if (!rule.feedback) return nullptr;
  switch (rule.key) {
    case Key::address:
      key.which = reinterpret_cast<std::uintptr_t>(data_of(call));
      break;
    case Key::site:
      key.which = reinterpret_cast<std::uintptr_t>(call.site);
      break;
    case Key::sequence:
      key.which = (state.matched[key.rule] - 1) % rule.period;
      break;
  }
  if (Tensor* tensor = state.tensors.find(key)) return tensor;
  entry.fresh = 1;
  return make_tensor(state, key);
}

int DropIn::compress(const Arguments& call, CommState& state, std::size_t at, DType dtype, Entry& entry) {
  if (state.talk == MPI_COMM_NULL) {
    if (const int code = make_own(call.comm, state.talk); code != MPI_SUCCESS) return code;
  }
  bool compressed = false;
  const auto failure = attempt([&] { compressed = try_compress(call, state, at, dtype, entry); });
  if (failure) return raise(call.comm, failure->sentence);
  if (compressed) return MPI_SUCCESS;
  entry.other_exact = 1;
  entry.fresh = 0;
  return pass_on(call);
}

// The next tensor is of the same ordinal on all ranks. Returns whether they mean one of the same rule, type
// and count now. Collective over the state's ranks.
bool DropIn::agree_on_ordinals(CommState& state, const TensorKey& key) const {
  const std::uint64_t h =
      hash_of(std::to_string(key.rule) + " " + std::to_string(static_cast<int>(key.dtype)) + " " +
              std::to_string(key.count));
  std::array<std::uint64_t, 3> words = {state.tensors.next_ordinal(), h, ~h};
  require(PMPI_Allreduce(MPI_IN_PLACE, words.data(), static_cast<int>(words.size()), MPI_UINT64_T, MPI_MAX,
                         state.talk),
          "MPI_Allreduce");
  state.tensors.go_on_from(words[0]);
  return words[1] == ~words[2];
}

// False where all ranks are to pass the call on.
bool DropIn::try_compress(const Arguments& call, CommState& state, std::size_t at, DType dtype,
                          Entry& entry) {
  const Rule& rule = settings_.rules[at];
  const auto count = static_cast<std::size_t>(call.count);
  CallOptions options;
  TensorKey key{.rule = at, .dtype = dtype, .count = count};
  Tensor* tensor = nullptr;
  try {
    tensor = find_tensor(call, state, key, entry);
    if (const char* why = why_not(call, count * size_of(dtype))) {
      options.failure = Error(ErrorCode::unsupported, why);
    }
  } catch (...) {
    options.failure = current_error();  // the others are told, since they would wait
  }
  if (!state.communicator) state.communicator.emplace(state.talk, CommunicatorOptions{.policy = rule.policy});

  const View out{call.recvbuf, count, dtype};
  const ConstView in{data_of(call), count, dtype};
  Outcome outcome;
  const Clock::time_point start = Clock::now();
  for (bool again = false;; again = true) {
    Feedback* const residuals = tensor == nullptr ? nullptr : &tensor->feedback;
    options.tensor = tensor == nullptr ? "" : std::to_string(tensor->ordinal);
    try {
      outcome = state.communicator->allreduce({in, out, residuals}, Op::sum, options);
      break;
    } catch (const Error& error) {
      // both are found, and thrown on all ranks, before anything is written
      if (error.code() == ErrorCode::unsupported) return false;
      if (error.code() != ErrorCode::mismatch || !feedback_ || again) throw;
      // perhaps it was about residuals alone: once more, with fresh ones. Not where ranks make different
      // calls, which other rules may take on other ranks
      if (!agree_on_ordinals(state, key)) {
        if (entry.fresh != 0) state.tensors.drop(key);
        throw;
      }
      if (!rule.feedback) throw;
      tensor = make_tensor(state, key);
      entry.fresh = 1;
      entry.started_over = 1;
    }
  }
  const std::uint64_t nanoseconds = nanoseconds_since(start);

  if (outcome.result == Outcome::Result::exact) {
    (outcome.reason == Outcome::Reason::slower ? entry.slower : entry.other_exact) = 1;
    entry.fresh = 0;  // it needed none
    return true;
  }
  entry.compressed = 1;
  entry.non_finite = outcome.reason == Outcome::Reason::non_finite ? 1 : 0;
  entry.elements_again = outcome.exact_count;
  entry.bytes_after = outcome.bytes_sent;
  if (entry.fresh == 0) {
    entry.nanoseconds = nanoseconds;
    entry.timed_bytes = entry.bytes_before;
  }
  return true;
}

// What this rank has to tell: JSON.
std::string DropIn::word() {
  const DefaultFloatingPoint here;
  std::map<std::size_t, double> squares;
  const std::lock_guard lock(mutex_);
  for (const CommState* state : states_) {
    for (const auto& [rule, sum] : state->tensors.squares()) squares[rule] += sum;
  }
  return text_of({{"passed_on", passed_on_.load()}, {"rules", tally_.to_json(settings_, squares)}}, -1);
}

void DropIn::report() {
  std::string mine;  // empty where this rank has nothing to tell: the others wait for a word
  static_cast<void>(attempt([&] { mine = word(); }));
  const std::vector<std::string> texts = gather(talk_, mine);
  if (texts.empty()) return;  // rank 0 writes it
  const DefaultFloatingPoint here;
  std::vector<Json> of_ranks;
  of_ranks.reserve(texts.size());
  for (const std::string& text : texts) {
    if (!text.empty()) of_ranks.push_back(Json::parse(text));
  }
  const Json report = merge(of_ranks, settings_);
  if (settings_.report == "stderr") {
    std::fputs(in_words(report).c_str(), stderr);
    std::fflush(stderr);
  } else if (!write_file(settings_.report, "w", text_of(report, 2) + "\n")) {
    throw Error(ErrorCode::invalid_state, settings_.report + " cannot be written");
  }
}

}  // namespace terse::interpose

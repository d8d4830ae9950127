// SPDX-License-Identifier: Apache-2.0
//
// overlap: how much of a nonblocking allreduce is hidden behind computation, beside MPI_Iallreduce.
//
// Overlap is that of the OSU Micro-Benchmarks (Ohio State University, https://mvapich.cse.ohio-state.edu/
// benchmarks, osu_iallreduce): first the pure time of start and wait; then computation of that length between
// them, with test calls between its slices, and
//     overlap = max(0, 100 - 100 (total - compute) / pure).
// OSU takes `compute` from the overlapped run. Here it is the time of the same computation by itself, so that
// what a progress thread takes from it counts as not hidden.
//
// What a codec and MPI do on the host's core cannot be hidden behind what the host computes on it. So there
// is a second figure, of the wire alone:
//     hidden wire = 100 (1 - waited / waited alone)
// where a call has waited whenever test had nothing left to do, computation was over and the call was not:
// the time inside start, test and wait less that of codec and MPI. `waited alone` is the same of a call
// without computation: the pure time less that of codec and MPI. Both are taken in calls of their own, which
// do not block in wait, where waiting and working look alike, but sleep between tests: they have waited while
// they slept. 100 % means that no time was spent waiting for the wire or the other ranks.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "call_bench.hpp"
#include "computation.hpp"
#include "statistics.hpp"
#include "suite.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

constexpr std::chrono::microseconds kNap{20};  // between two looks of who counts how long it waits
constexpr double kLeastWait = 0.01;            // of the pure time: less than that is no wire worth hiding
constexpr std::size_t kSamplesOfLength = 5;    // which say how long the computation is to be

constexpr std::string_view kNotes =
    R"(A row begins with calls whose results are compared with the blocking call's. Then, as in the OSU
micro-benchmarks (osu_iallreduce), the time of iallreduce and wait is measured; then iallreduce,
computation of that length with a test call after each slice of it, and wait. MPI_Iallreduce with
MPI_Test goes the same way beside its own computation. All are measured in turn, as in terse-bench
allreduce; a time is that of the slowest rank.

  pure          iallreduce and wait
  compute       the computation by itself: busy is a fixed amount of arithmetic, sleep a device that
                computes for a fixed time while its host's thread sleeps
  total         iallreduce, computation and tests, wait
  overlap       max(0, 100 - 100 (total - compute) / pure) percent
  hidden wire   100 (1 - waited / waited alone) percent: at 100 no time is spent waiting for the wire.
                A call has waited where computation was over and test had nothing to do: its time in
                start, test and wait less what codec and MPI had to do; alone is a call without
                computation. Measured by calls that sleep for 20 us between tests instead of
                blocking. With --progress thread the thread's work is waited for, too. "-" where
                calls wait for less than 1 % of their time
  MPI ...       the same of MPI_Iallreduce
  bits          whether all ranks end with the same bits, those of the blocking call
  exact         why the library called plain MPI instead: small, slower, or asked for
)";

constexpr std::string_view kSlices = "100";

struct Arguments : CallArguments {
  Computation::Kind compute = Computation::Kind::busy;
  std::string compute_text{};
  std::size_t slices = 0;
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_call_options(options);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("compute", text("KIND")->default_value("busy"),
      "what goes on meanwhile: busy, or sleep, as for a device");
  add("slices", text("N")->default_value(std::string(kSlices)),
      "parts of the computation: a test after each");
  add_library_options(options);
  return options;
}

Arguments parse(const po::variables_map& values) {
  Arguments arguments{call_arguments(values)};
  arguments.compute_text = values["compute"].as<std::string>();
  if (arguments.compute_text != "busy" && arguments.compute_text != "sleep") {
    throw tools::UsageError("--compute: '" + arguments.compute_text + "' is neither busy nor sleep");
  }
  if (arguments.compute_text == "sleep") arguments.compute = Computation::Kind::sleep;
  arguments.slices = parse_count("--slices", values["slices"].as<std::string>(), 1);
  return arguments;
}

/// The times of one library's calls.
struct Times {
  double pure_us = 0;
  double compute_us = 0;
  double total_us = 0;

  double overlap() const { return std::max(0.0, 100 - 100 * (total_us - compute_us) / pure_us); }
};

/// What one row found.
struct Row {
  std::string codec;
  std::size_t bytes = 0;
  std::size_t count = 0;
  Outcome outcome;
  Times terse;
  Times mpi;
  double waited_alone_us = 0;
  double inside_alone_us = 0;
  double waited_us = 0;
  double inside_us = 0;
  std::size_t iterations = 0;
  std::size_t batch = 1;
  std::size_t mpi_batch = 1;
  bool same_bits = true;

  std::optional<double> hidden_wire() const {
    if (waited_alone_us < kLeastWait * terse.pure_us) return std::nullopt;
    return std::max(0.0, 100 * (1 - waited_us / waited_alone_us));
  }
};

/// What a call spent inside start, test and wait.
struct Spent {
  Microseconds inside{0};
  Microseconds waited{0};  ///< of that: with nothing else to do
};

/// A compressed call under way.
class TerseCall {
 public:
  TerseCall(Communicator& communicator, const terse::Tensor& tensor, Op op, const CallOptions& options)
      : communicator_(communicator), tensor_(tensor), op_(op), options_(options) {}

  void start() { request_ = communicator_.iallreduce(tensor_, op_, options_); }
  void test() { request_.test(); }
  void wait() { outcome_ = request_.wait(); }
  const Outcome& outcome() const noexcept { return outcome_; }

  /// From start to end with `meanwhile` in between, which gets a function to test with; counted.
  Spent run_counted(const std::function<void(const std::function<void()>&)>& meanwhile) {
    Spent spent;
    const auto inside = [&](auto&& work) {
      const auto begin = Clock::now();
      work();
      spent.inside += Clock::now() - begin;
    };
    inside([&] { start(); });
    meanwhile([&] { inside([&] { test(); }); });
    inside([&] {
      while (!request_.test()) {
        const auto begin = Clock::now();
        std::this_thread::sleep_for(kNap);
        spent.waited += Clock::now() - begin;
      }
      wait();
    });
    return spent;
  }

 private:
  Communicator& communicator_;
  terse::Tensor tensor_;
  Op op_;
  const CallOptions& options_;
  Request request_;
  Outcome outcome_;
};

/// A plain call under way.
class PlainCall {
 public:
  PlainCall(const Baseline& baseline, std::size_t count, MPI_Comm comm)
      : baseline_(baseline), count_(count), comm_(comm) {}

  void start() { baseline_.begin(count_, comm_, requests_); }
  void test() {
    int done = 0;
    MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
  }
  void wait() { MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE); }

 private:
  const Baseline& baseline_;
  std::size_t count_;
  MPI_Comm comm_;
  std::vector<MPI_Request> requests_;
};

/// The median over the samples of what a call spent, on average over the ranks. Collective.
double median_spent(const Session& session, const std::vector<Spent>& calls, const Samples& samples,
                    Microseconds Spent::*what) {
  const std::size_t used = samples.us.size() * samples.batch;  // those before were for the batch's length
  std::vector<double> sums(samples.us.size());
  for (std::size_t i = 0; i < used; ++i) {
    sums[i / samples.batch] += (calls[calls.size() - used + i].*what).count();
  }
  MPI_Allreduce(MPI_IN_PLACE, sums.data(), static_cast<int>(sums.size()), MPI_DOUBLE, MPI_SUM, session.comm);
  return median(sums) / static_cast<double>(samples.batch) / session.size;
}

class OverlapSuite {
 public:
  // MPI_Iallreduce does not go by the algorithms of --baseline
  OverlapSuite(const Session& session, Arguments arguments)
      : session_(session),
        arguments_(std::move(arguments)),
        bench_(session, "overlap", arguments_, parse_baseline("default")),
        table_(columns()) {}

  int run() {
    const CallMemory memory = allocate_call_memory(session_, arguments_.common);
    Communicator communicator(session_.comm, arguments_.communicator_options());
    progress_name_ = get_option(communicator.options(), "progress");
    const Computation computation(session_, arguments_.compute, arguments_.slices);
    bench_.print_title(", compute " + arguments_.compute_text + ", " + std::to_string(arguments_.slices) +
                       " slices");
    if (session_.is_root()) table_.print_heading();
    CallBench::Report report;
    std::vector<Outcome::Reason> reasons;
    for (const NamedCodec& codec : arguments_.common.codecs) {
      for (const std::size_t bytes : arguments_.common.sizes) {
        const Row row = measure(communicator, computation, memory, codec, bytes);
        if (session_.is_root()) print(row);
        report.rows.push_back(to_json(row));
        reasons.push_back(row.outcome.reason);
        if (!row.same_bits)
          report.difference = "an iallreduce ended with bits that are not the same everywhere";
      }
    }
    communicator.free();
    report.notes = bench_.notes(reasons);
    return bench_.finish(report);
  }

 private:
  std::vector<Column> columns() const {
    return {bench_.codec_column(), {"bytes", 7},    {"pure", 8},     {"compute", 8},
            {"total", 8},          {"overlap", 7},  {"hidden wire"}, {"MPI pure", 8},
            {"MPI total", 8},      {"MPI overlap"}, {"bits", 6},     {"exact", 6}};
  }

  Row measure(Communicator& communicator, const Computation& computation, const CallMemory& memory,
              const NamedCodec& named, std::size_t bytes) {
    const std::string label = CallBench::label(named.spec, bytes);
    bench_.progress().show(label + "comparing with the blocking call");
    Row row;
    row.codec = named.spec;
    row.bytes = bytes;
    row.count = bytes / size_of(arguments_.common.dtype);
    const ConstView in = memory.in.view().slice(0, row.count);
    const View out = memory.out.view().slice(0, row.count);
    const View blocking_out = memory.other_out.view().slice(0, row.count);

    Feedback feedback(arguments_.residual);
    Feedback blocking_feedback(arguments_.residual);
    const CallOptions options = arguments_.options_for(named, &feedback);
    const CallOptions blocking = arguments_.options_for(named, &blocking_feedback);
    TerseCall call(communicator, {in, out}, arguments_.op, options);
    PlainCall plain(memory.baseline, row.count, session_.comm);
    const auto pure = [](auto& one) {
      return [&one] {
        one.start();
        one.wait();
      };
    };
    row.same_bits = same_bits(session_,
                              {[&] {
                                 pure(call)();
                                 return call.outcome();
                               },
                               out},
                              {[&] {
                                 return communicator.allreduce({in, blocking_out}, arguments_.op, blocking);
                               },
                               blocking_out});

    SamplingPlan few = arguments_.sampling.trial();
    few.most = kSamplesOfLength;
    const auto lengths = sample_in_turn(session_, few, {pure(call), pure(plain)},
                                        bench_.show_samples(label + "how long to compute, "));
    const double length_us = median(lengths[0].us);
    const double mpi_length_us = median(lengths[1].us);

    const auto overlapped = [&](auto& one, double us) {
      return [&one, &computation, us] {
        one.start();
        computation.run(us, [&] { one.test(); });
        one.wait();
      };
    };
    const auto alone = [&](double us) { return [&computation, us] { computation.run(us, [] {}); }; };
    std::vector<Spent> spent;
    std::vector<Spent> spent_alone;
    const auto counted = [&] {
      spent.push_back(call.run_counted([&](const auto& test) { computation.run(length_us, test); }));
    };
    const auto counted_alone = [&] { spent_alone.push_back(call.run_counted([](const auto&) {})); };
    const auto samples =
        sample_in_turn(session_, arguments_.sampling,
                       {pure(call), alone(length_us), overlapped(call, length_us), counted_alone, counted,
                        pure(plain), alone(mpi_length_us), overlapped(plain, mpi_length_us)},
                       bench_.show_samples(label));
    bench_.progress().clear();
    const auto times = [&](std::size_t at) {
      return Times{median(samples[at].us), median(samples[at + 1].us), median(samples[at + 2].us)};
    };
    row.terse = times(0);
    row.mpi = times(5);
    row.waited_alone_us = median_spent(session_, spent_alone, samples[3], &Spent::waited);
    row.inside_alone_us = median_spent(session_, spent_alone, samples[3], &Spent::inside);
    row.waited_us = median_spent(session_, spent, samples[4], &Spent::waited);
    row.inside_us = median_spent(session_, spent, samples[4], &Spent::inside);
    row.iterations = samples[2].us.size();
    row.batch = samples[2].batch;
    row.mpi_batch = samples[7].batch;
    row.outcome = call.outcome();
    return row;
  }

  void print(const Row& row) const {
    const auto percent = [](double value) { return format("%.1f %%", value); };
    const auto hidden = row.hidden_wire();
    table_.print_row({row.codec, format_bytes(static_cast<double>(row.bytes)), format_time(row.terse.pure_us),
                      format_time(row.terse.compute_us), format_time(row.terse.total_us),
                      percent(row.terse.overlap()), hidden ? percent(*hidden) : "-",
                      format_time(row.mpi.pure_us), format_time(row.mpi.total_us), percent(row.mpi.overlap()),
                      bits_cell(row.same_bits), reason_cell(row.outcome.reason)});
  }

  Json to_json(const Row& row) const {
    const auto hidden = row.hidden_wire();
    Json json = bench_.row(row.codec, row.outcome, row.count, row.bytes);
    json.update(Json{{"compute", arguments_.compute_text},
                     {"slices", arguments_.slices},
                     {"progress", progress_name_},
                     {"iterations", row.iterations},
                     {"calls_per_sample", row.batch},
                     {"mpi_calls_per_sample", row.mpi_batch},
                     {"pure_us", row.terse.pure_us},
                     {"compute_us", row.terse.compute_us},
                     {"total_us", row.terse.total_us},
                     {"overlap", row.terse.overlap()},
                     {"waited_alone_us", row.waited_alone_us},
                     {"inside_alone_us", row.inside_alone_us},
                     {"waited_us", row.waited_us},
                     {"inside_us", row.inside_us},
                     {"hidden_wire", hidden ? Json(*hidden) : Json()},
                     {"mpi_pure_us", row.mpi.pure_us},
                     {"mpi_compute_us", row.mpi.compute_us},
                     {"mpi_total_us", row.mpi.total_us},
                     {"mpi_overlap", row.mpi.overlap()},
                     {"same_bits", row.same_bits}});
    return json;
  }

  Session session_;
  Arguments arguments_;
  CallBench bench_;
  Table table_;
  std::string progress_name_;
};

int run(const Session& session, const po::variables_map& values) {
  Arguments arguments = agreed(session, [&] { return parse(values); });
  require_writable(session, "--json", arguments.common.json);
  return OverlapSuite(session, std::move(arguments)).run();
}

}  // namespace

const Suite kOverlapSuite = {
    .name = "overlap",
    .summary = "a nonblocking allreduce behind computation, beside MPI_Iallreduce: how much of it is hidden",
    .usage = "mpirun -np P terse-bench overlap --codec SPEC... --bytes SIZE [options]",
    .notes = kNotes,
    .ranks = Suite::Ranks::any,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

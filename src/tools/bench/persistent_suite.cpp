// SPDX-License-Identifier: Apache-2.0
//
// persistent: a Plan's start and wait beside the blocking call with the same codec and MPI's calls.
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "call_bench.hpp"
#include "statistics.hpp"
#include "suite.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kNotes =
    R"(A row begins with calls of both kinds whose results are compared. Then all calls are timed in turn,
as in terse-bench allreduce; a time is that of the slowest rank.

  plan          start and wait of a Plan
  blocking      a blocking call with the same codec
  gain          blocking over plan
  MPI           MPI_Allreduce, by the algorithm that --baseline names
  MPI plan      start and wait of MPI's own persistent allreduce, where this MPI has one: MPI-4's
                MPI_Allreduce_init or Open MPI's MPIX_Allreduce_init
  speedup       MPI over plan
  bits          whether all ranks end with the same bits, plan and blocking call alike
  exact         why the library called plain MPI instead: small, slower, or asked for
)";

struct Arguments : CallArguments {
  BaselineChoice baseline;
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_call_options(options);
  add_baseline_option(options);
  add_library_options(options);
  return options;
}

Arguments parse(const po::variables_map& values) {
  if (values.count("no-feedback") != 0) {
    throw tools::UsageError(
        "--no-feedback: a plan always keeps residuals where a codec leaves something out");
  }
  return {call_arguments(values), baseline_argument(values)};
}

/// MPI's own plan.
class PlainPlan {
 public:
  PlainPlan(const Baseline& baseline, std::size_t count, MPI_Comm comm) {
    if (!persistent_call().empty()) baseline.init(count, comm, requests_);
  }
  ~PlainPlan() {
    for (MPI_Request& request : requests_) MPI_Request_free(&request);
  }
  PlainPlan(const PlainPlan&) = delete;
  PlainPlan& operator=(const PlainPlan&) = delete;

  bool exists() const noexcept { return !requests_.empty(); }
  void run() {
    const auto count = static_cast<int>(requests_.size());
    MPI_Startall(count, requests_.data());
    MPI_Waitall(count, requests_.data(), MPI_STATUSES_IGNORE);
  }

 private:
  std::vector<MPI_Request> requests_;
};

/// What one row found.
struct Row {
  std::string codec;
  std::size_t bytes = 0;
  std::size_t count = 0;
  Outcome outcome;
  Samples plan;
  Samples blocking;
  Samples plain;
  std::optional<Samples> plain_plan;
  ChosenBaseline baseline;
  bool same_bits = true;

  double plan_us() const { return median(plan.us); }
  double blocking_us() const { return median(blocking.us); }
  double mpi_us() const { return median(plain.us); }
};

class PersistentSuite {
 public:
  PersistentSuite(const Session& session, Arguments arguments)
      : session_(session),
        arguments_(std::move(arguments)),
        bench_(session, "persistent", arguments_, arguments_.baseline),
        table_(columns()) {}

  int run() {
    const CallMemory memory = allocate_call_memory(session_, arguments_.common);
    Communicator communicator(session_.comm, arguments_.communicator_options());
    bench_.print_title();
    if (session_.is_root()) table_.print_heading();
    CallBench::Report report;
    std::vector<Outcome::Reason> reasons;
    for (const NamedCodec& codec : arguments_.common.codecs) {
      for (const std::size_t bytes : arguments_.common.sizes) {
        const Row row = measure(communicator, memory, codec, bytes);
        if (session_.is_root()) print(row);
        report.rows.push_back(to_json(row));
        reasons.push_back(row.outcome.reason);
        if (!row.same_bits) report.difference = "a plan ended with bits that are not the same everywhere";
      }
    }
    communicator.free();
    report.notes = bench_.notes(reasons);
    return bench_.finish(report);
  }

 private:
  std::vector<Column> columns() const {
    std::vector<Column> columns = {bench_.codec_column(), {"bytes", 7}, {"plan", 8},
                                   {"blocking", 8},       {"gain", 5},  {"MPI", 8}};
    if (bench_.has_choice()) columns.push_back(bench_.baseline_column());
    columns.insert(columns.end(), {{"MPI plan", 8}, {"speedup", 7}, {"bits", 6}, {"exact", 6}});
    return columns;
  }

  Row measure(Communicator& communicator, const CallMemory& memory, const NamedCodec& named,
              std::size_t bytes) {
    const std::string label = CallBench::label(named.spec, bytes);
    bench_.progress().show(label + "comparing plan and blocking call");
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
    Plan plan = communicator.allreduce_init({in, out}, arguments_.op, options);
    const auto by_plan = [&] {
      plan.start();
      row.outcome = plan.wait();
    };
    const auto by_call = [&] { return communicator.allreduce({in, blocking_out}, arguments_.op, blocking); };
    row.same_bits = same_bits(session_,
                              {[&] {
                                 by_plan();
                                 return row.outcome;
                               },
                               out},
                              {by_call, blocking_out});

    const auto plain = [&](MPI_Comm comm) { memory.baseline.run(row.count, comm); };
    row.baseline = bench_.choose(by_plan, plain, label);
    PlainPlan plain_plan(memory.baseline, row.count, session_.comm);
    std::vector<std::function<void()>> calls = {by_plan, by_call, [&] { plain(row.baseline.comm); }};
    if (plain_plan.exists()) calls.emplace_back([&] { plain_plan.run(); });
    auto samples = sample_in_turn(session_, arguments_.sampling, calls, bench_.show_samples(label));
    bench_.progress().clear();
    row.plan = std::move(samples[0]);
    row.blocking = std::move(samples[1]);
    row.plain = std::move(samples[2]);
    if (plain_plan.exists()) row.plain_plan = std::move(samples[3]);
    return row;
  }

  void print(const Row& row) const {
    std::vector<std::string> cells = {row.codec,
                                      format_bytes(static_cast<double>(row.bytes)),
                                      format_time(row.plan_us()),
                                      format_time(row.blocking_us()),
                                      format("%.2fx", row.blocking_us() / row.plan_us()),
                                      format_time(row.mpi_us())};
    if (bench_.has_choice()) cells.push_back(row.baseline.name);
    cells.insert(cells.end(), {row.plain_plan ? format_time(median(row.plain_plan->us)) : "-",
                               format("%.2fx", row.mpi_us() / row.plan_us()), bits_cell(row.same_bits),
                               reason_cell(row.outcome.reason)});
    table_.print_row(cells);
  }

  Json to_json(const Row& row) const {
    const bool has = row.plain_plan.has_value();
    Json json = bench_.row(row.codec, row.outcome, row.count, row.bytes);
    json.update(Json{{"iterations", row.plan.us.size()},
                     {"calls_per_sample", row.plan.batch},
                     {"plan_us", row.plan_us()},
                     {"plan_min_us", smallest(row.plan.us)},
                     {"plan_p95_us", quantile(row.plan.us, 0.95)},
                     {"blocking_us", row.blocking_us()},
                     {"mpi_us", row.mpi_us()},
                     {"baseline", row.baseline.name},
                     {"baseline_candidates", candidates_to_json(row.baseline, row.mpi_us())},
                     {"mpi_plan", has ? Json(persistent_call()) : Json()},
                     {"mpi_plan_us", has ? Json(median(row.plain_plan->us)) : Json()},
                     {"gain", row.blocking_us() / row.plan_us()},
                     {"speedup", row.mpi_us() / row.plan_us()},
                     {"same_bits", row.same_bits}});
    return json;
  }

  Session session_;
  Arguments arguments_;
  CallBench bench_;
  Table table_;
};

int run(const Session& session, const po::variables_map& values) {
  Arguments arguments = agreed(session, [&] { return parse(values); });
  require_writable(session, "--json", arguments.common.json);
  return PersistentSuite(session, std::move(arguments)).run();
}

}  // namespace

const Suite kPersistentSuite = {
    .name = "persistent",
    .summary = "a plan that is started again and again, beside the blocking call and MPI's calls",
    .usage = "mpirun -np P terse-bench persistent --codec SPEC... --bytes SIZE [options]",
    .notes = kNotes,
    .ranks = Suite::Ranks::any,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

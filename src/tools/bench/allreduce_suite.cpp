// SPDX-License-Identifier: Apache-2.0
//
// allreduce: a compressed allreduce beside MPI_Allreduce on the same tensor, in turn.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "accuracy.hpp"
#include "arguments.hpp"
#include "baseline.hpp"
#include "environment.hpp"
#include "interfaces.hpp"
#include "plain_algorithms.hpp"
#include "plot.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "statistics.hpp"
#include "suite.hpp"
#include "tensors.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kNotes =
    R"(A row is a codec and a size. It begins with 20 calls (--mean-calls) from zero residuals that are
compared with exact sums; then the compressed call and plain MPI_Allreduce are timed in turn. A
sample is a batch of calls back to back after a barrier, long enough for the clock (5 ms; on
several hosts 50 ms and 4 calls, since links may let short bursts pass unshaped); its time is that
of the slowest rank, divided by the calls. Without --iterations or --seconds a row has 9 to 51
samples of each call in about 5 seconds. Where 9 take longer, up to 90: then batches become
shorter and after that samples fewer, but not fewer than 3. So 64M over 4 hosts and 1 Gbit/s takes
under two minutes. The input is normal, standard deviation 0.01, half of its variance common to
all ranks.

Plain MPI goes by its default decision, or by what --baseline names: best is the fastest of the
default and Open MPI's recursive_doubling (3), ring (4) and segmented_ring (5, segments of 1 MiB).
Of several, 3 to 9 samples of each, in turn with the compressed call, choose one for each row
beforehand, in a minute or little more. Further algorithms: basic_linear (1), nonoverlapping
(2), rabenseifner (6).

  median, p95   time of a compressed call
  MPI           median time of MPI_Allreduce with MPI_SUM, for averages too
  MPI by        the algorithm that was the fastest of several
  wire/rank     bytes that a call sends, of the rank that sends most; for an exact row, where MPI
                does not tell, the least that any algorithm sends
  on wire       on several hosts: bytes that a host sends in a call, of the host that sends most, by
                its network interfaces' counters: all that its ranks send to others, with headers,
                and other programs' bytes too, but none of RDMA's
  ratio         bytes that the best plain algorithm sends, 2 (P - 1) / P of the tensor, over wire/rank
  error         relative L2 error of one call
  20 calls      relative L2 error of the mean of 20 calls (--mean-calls) on the same input
  bits          whether all ranks end with the same bits
  exact         why the library called plain MPI instead: small, slower, or asked for
)";

constexpr std::size_t kFewestCounted = 4;  // calls, so that barriers are little of their bytes on the wire

struct Arguments {
  CommonArguments common;
  AllreduceOptions options;  ///< for every row; op is set
  bool feedback = true;
  ResidualType residual = ResidualType::full;
  std::size_t mean_calls = 0;
  BaselineChoice baseline;
  SamplingPlan sampling;
  std::string plot;
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_common_options(options);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("op", text("OP")->default_value("average"), "sum or average");
  add("no-feedback", "without error feedback: what a codec leaves out is lost");
  add_residual_option(options);
  add("mean-calls", text("N")->default_value("20"),
      "calls on one input whose mean is compared with exact sums");
  add("baseline", text("ALG")->default_value("default"),
      "what plain MPI goes by: default, best, or Open MPI's algorithm; of a list ALG,ALG the fastest");
  add("iterations", text("N"), "samples of each call");
  add("seconds", text("S"), "time for the samples of a row");
  add("plot", text("FILE"), "draw times over sizes into a .png or .svg file (gnuplot)");
  add_library_options(options);
  return options;
}

Arguments parse(const po::variables_map& values) {
  Arguments arguments;
  arguments.common = common_arguments(values);
  arguments.options = library_arguments(values);
  const AllreduceOptions environment = options_from_environment();
  arguments.options.op = parse_op(values["op"].as<std::string>());
  if (arguments.options.algorithm.empty()) arguments.options.algorithm = environment.algorithm;
  if (arguments.options.algorithm.empty()) arguments.options.algorithm = library_default("algorithm");
  arguments.feedback = values.count("no-feedback") == 0;
  arguments.mean_calls = parse_count("--mean-calls", values["mean-calls"].as<std::string>(), 1);
  arguments.residual = residual_argument(values, arguments.common.dtype);
  arguments.baseline = parse_baseline(values["baseline"].as<std::string>());
  if (values.count("iterations") != 0 && values.count("seconds") != 0) {
    throw tools::UsageError("--iterations and --seconds both say how long to measure: give one");
  }
  if (values.count("iterations") != 0) {
    arguments.sampling.iterations = parse_count("--iterations", values["iterations"].as<std::string>(), 1);
  }
  if (values.count("seconds") != 0) {
    arguments.sampling.seconds = parse_seconds("--seconds", values["seconds"].as<std::string>());
  }
  arguments.plot = value_or(values, "plot", "");
  return arguments;
}

/// The memory of all rows, as long as the longest needs it.
struct Memory {
  Tensor in;
  Tensor out;
  Tensor sums;
  Baseline baseline;
};

Memory allocate(int rank, const CommonArguments& arguments) {
  const std::size_t count = arguments.sizes.back() / size_of(arguments.dtype);
  Tensor in(count, arguments.dtype);
  Tensor out(count, arguments.dtype);
  fill_gradient(in.view(), rank);
  Baseline baseline(in.view(), out.view());
  return {std::move(in), std::move(out), Tensor(count, DType::f64), std::move(baseline)};
}

/// A plain algorithm that might have been the baseline.
struct Candidate {
  std::string name;
  double median_us = 0;
};

/// What one row found.
struct Row {
  std::string codec;
  std::string algorithm;
  std::size_t bytes = 0;
  std::size_t count = 0;
  std::optional<ResidualType> residual;  ///< nothing: without feedback
  Outcome outcome;
  Accuracy accuracy;
  Samples measured;
  Samples plain;
  std::string baseline;                   ///< the algorithm of `plain`
  std::vector<Candidate> candidates;      ///< what it was chosen from
  double wire_bytes = 0;                  ///< of the rank that sends most
  std::optional<double> interface_bytes;  ///< of the host that sends most

  double median_us() const { return median(measured.us); }
  double mpi_median_us() const { return median(plain.us); }
  double speedup() const { return mpi_median_us() / median_us(); }
  double ratio(int ranks) const {  ///< 0 where there is nothing to send
    if (wire_bytes == 0) return 0;
    return 2.0 * (ranks - 1) / ranks * static_cast<double>(bytes) / wire_bytes;
  }
};

class AllreduceSuite {
 public:
  AllreduceSuite(const Session& session, Arguments arguments)
      : session_(session),
        arguments_(std::move(arguments)),
        layout_(ranks_per_host(session)),
        plain_(session, arguments_.baseline),
        table_(columns()),
        progress_(session.is_root() ? Progress::Use::on_terminal : Progress::Use::off) {
    arguments_.sampling.shaped = layout_.size() > 1;
  }

  int run() {
    const Memory memory = agreed(session_, [&] { return allocate(session_.rank, arguments_.common); });
    Communicator communicator(session_.comm);
    if (session_.is_root()) print_title();
    for (const NamedCodec& codec : arguments_.common.codecs) {
      for (const std::size_t bytes : arguments_.common.sizes) {
        rows_.push_back(measure(communicator, memory, codec, bytes));
        if (session_.is_root()) print(rows_.back());
      }
    }
    communicator.free();
    int status = session_.is_root() ? report() : 0;
    MPI_Bcast(&status, 1, MPI_INT, 0, session_.comm);
    return status;
  }

 private:
  std::vector<Column> columns() const {
    std::size_t longest = 0;
    for (const NamedCodec& codec : arguments_.common.codecs) longest = std::max(longest, codec.spec.size());
    using Align = Column::Align;
    std::vector<Column> columns = {
        {"codec", longest, Align::left}, {"bytes", 7}, {"median", 8}, {"p95", 8}, {"MPI", 8}};
    if (has_choice()) {
      std::size_t longest_name = 0;
      for (const auto& entry : plain_.entries()) {
        longest_name = std::max(longest_name, entry.algorithm.name.size());
      }
      columns.push_back({"MPI by", longest_name, Align::left});
    }
    columns.insert(columns.end(), {{"speedup", 7}, {"wire/rank", 8}});
    if (has_links()) columns.push_back({"on wire", 8});
    columns.insert(columns.end(), {{"ratio", 5},
                                   {"error", 6},
                                   {std::to_string(arguments_.mean_calls) + " calls", 6},
                                   {"bits", 4},
                                   {"exact", 6}});
    return columns;
  }

  /// Whether the baseline is the fastest of several algorithms.
  bool has_choice() const { return plain_.entries().size() > 1; }
  /// Whether there is something between the ranks that has counters.
  bool has_links() const { return layout_.size() > 1; }

  /// "f32, average, algorithm auto, 4 ranks on 2 hosts"
  std::string describe() const {
    const auto counted = [](std::size_t count, const std::string& noun) {
      return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
    };
    return std::string(name(arguments_.common.dtype)) + ", " + std::string(name(*arguments_.options.op)) +
           ", algorithm " + arguments_.options.algorithm + describe_feedback() + ", " +
           counted(static_cast<std::size_t>(session_.size), "rank") + " on " +
           counted(layout_.size(), "host") + describe_choice();
  }

  std::string describe_feedback() const {
    if (!arguments_.feedback) return ", no feedback";
    return arguments_.residual == ResidualType::full ? "" : ", residuals in bf16";
  }

  /// ", baseline best", ", baseline ring (4)"; nothing for the default.
  std::string describe_choice() const {
    std::string names = arguments_.baseline.text;
    if (!arguments_.baseline.is_best) {
      names = tools::list_names(plain_.entries(), [](const auto& entry) { return entry.algorithm.name; });
    }
    return names == "default" ? "" : ", baseline " + names;
  }

  void print_title() const {
    std::cout << "terse-bench allreduce: " << describe() << std::endl;
    table_.print_heading();
  }

  Row measure(Communicator& communicator, const Memory& memory, const NamedCodec& named, std::size_t bytes) {
    const std::string label = named.spec + ", " + format_bytes(static_cast<double>(bytes)) + ": ";
    progress_.show(label + "comparing with exact sums");
    Row row;
    row.codec = named.spec;
    row.bytes = bytes;
    row.count = bytes / size_of(arguments_.common.dtype);
    const ConstView in = memory.in.view().slice(0, row.count);
    const View out = memory.out.view().slice(0, row.count);

    Feedback feedback(arguments_.residual);
    AllreduceOptions options = arguments_.options;
    options.codec = named.codec;
    if (arguments_.feedback && named.takes_feedback()) {
      options.feedback = &feedback;
      row.residual = arguments_.residual;
    }
    const auto allreduce = [&] { row.outcome = communicator.allreduce(in, out, options); };

    row.accuracy = measure_accuracy(session_, in, out, *options.op, arguments_.mean_calls,
                                    memory.sums.view().as<double>(), [&] {
                                      allreduce();
                                      return row.outcome.result != Outcome::Result::exact;
                                    });
    time(row, memory.baseline, allreduce, label);
    if (has_links()) {
      progress_.show(label + "counting bytes");
      const std::size_t calls = std::max(kFewestCounted, row.measured.batch);
      row.interface_bytes = interface_bytes_per_call(session_, calls, allreduce);
    }
    progress_.clear();
    row.wire_bytes = max_over_ranks(session_, static_cast<double>(row.outcome.bytes_sent));
    row.algorithm = row.outcome.algorithm;
    return row;
  }

  /// Chooses the row's baseline and times it and the compressed call.
  void time(Row& row, const Baseline& baseline, const std::function<void()>& allreduce,
            const std::string& label) {
    const auto& entries = plain_.entries();
    const auto call_of = [&](const PlainCommunicators::Entry& entry) {
      return std::function<void()>([&, comm = entry.comm] { baseline.run(row.count, comm); });
    };
    const auto progress = [&](const std::string& what) {
      return [this, what](std::size_t done, std::size_t of) {
        progress_.show(what + "sample " + std::to_string(done + 1) + " of " + std::to_string(of));
      };
    };
    const auto* fastest = &entries.front();
    if (has_choice()) {
      std::vector<std::function<void()>> calls{allreduce};
      for (const auto& entry : entries) calls.push_back(call_of(entry));
      const auto trial = sample_in_turn(session_, arguments_.sampling.trial(), calls,
                                        progress(label + "choosing the baseline, "));
      for (std::size_t i = 0; i < entries.size(); ++i) {
        row.candidates.push_back({entries[i].algorithm.name, median(trial[i + 1].us)});
      }
      const auto least =
          std::min_element(row.candidates.begin(), row.candidates.end(),
                           [](const Candidate& a, const Candidate& b) { return a.median_us < b.median_us; });
      fastest = &entries[static_cast<std::size_t>(least - row.candidates.begin())];
    }
    auto samples =
        sample_in_turn(session_, arguments_.sampling, {allreduce, call_of(*fastest)}, progress(label));
    row.measured = std::move(samples[0]);
    row.plain = std::move(samples[1]);
    row.baseline = fastest->algorithm.name;
    if (row.candidates.empty()) row.candidates.push_back({row.baseline, row.mpi_median_us()});
  }

  void print(const Row& row) const {
    const double ratio = row.ratio(session_.size);
    std::vector<std::string> cells = {
        row.codec, format_bytes(static_cast<double>(row.bytes)), format_time(row.median_us()),
        format_time(quantile(row.measured.us, 0.95)), format_time(row.mpi_median_us())};
    if (has_choice()) cells.push_back(row.baseline);
    cells.insert(cells.end(), {format("%.2fx", row.speedup()), format_bytes(row.wire_bytes)});
    if (has_links())
      cells.push_back(row.interface_bytes ? format_bytes(std::round(*row.interface_bytes)) : "-");
    cells.insert(cells.end(),
                 {ratio == 0 ? "-" : format("%.2f", ratio), format_error(row.accuracy.rel_error),
                  format_error(row.accuracy.mean_error), row.accuracy.same_bits ? "same" : "DIFFER",
                  row.outcome.reason == Outcome::Reason::none ? "" : std::string(name(row.outcome.reason))});
    table_.print_row(cells);
  }

  Json to_json(const Row& row) const {
    const double ratio = row.ratio(session_.size);
    Json candidates = Json::array();
    for (const Candidate& candidate : row.candidates) {
      candidates.push_back({{"name", candidate.name}, {"median_us", candidate.median_us}});
    }
    return {
        {"suite", "allreduce"},
        {"codec", row.codec},
        {"algorithm", row.algorithm},
        {"dtype", name(arguments_.common.dtype)},
        {"residual", row.residual ? Json(name(*row.residual)) : Json()},
        {"count", row.count},
        {"bytes", row.bytes},
        {"ranks", session_.size},
        {"hosts", layout_.size()},
        {"reason", name(row.outcome.reason)},
        {"iterations", row.measured.us.size()},
        {"calls_per_sample", row.measured.batch},
        {"mpi_calls_per_sample", row.plain.batch},
        {"min_us", smallest(row.measured.us)},
        {"median_us", row.median_us()},
        {"p95_us", quantile(row.measured.us, 0.95)},
        {"mpi_median_us", row.mpi_median_us()},
        {"baseline", row.baseline},
        {"baseline_candidates", candidates},
        {"speedup", row.speedup()},
        {"wire_bytes_per_rank", static_cast<std::size_t>(row.wire_bytes)},
        {"interface_bytes_per_call", row.interface_bytes ? Json(std::llround(*row.interface_bytes)) : Json()},
        {"ratio", ratio == 0 ? Json() : Json(ratio)},
        {"rel_error", row.accuracy.rel_error},
        {"mean_error", row.accuracy.mean_error},
        {"mean_calls", arguments_.mean_calls},
        {"same_bits", row.accuracy.same_bits}};
  }

  /// What the table's reader must know besides.
  std::vector<std::string> notes() const {
    std::vector<std::string> notes;
    if (size_of(arguments_.common.dtype) < 4) {
      notes.push_back("MPI is " + describe_baseline(arguments_.common.dtype) + ".");
    }
    if (!plain_.shortfall().empty()) notes.push_back(plain_.shortfall());
    for (const NamedCodec& named : arguments_.common.codecs) {
      if (arguments_.feedback && !named.takes_feedback() && !named.codec->traits().lossless) {
        notes.push_back(named.spec +
                        " ran without feedback, which is not sound with it (it is not contractive).");
      }
    }
    if (session_.size == 1) notes.emplace_back("One rank has nothing to send.");
    for (const Row& row : rows_) {
      if (row.outcome.reason == Outcome::Reason::slower) {
        notes.emplace_back(
            "slower: a trial said that compression takes longer than plain MPI, which took it.");
        break;
      }
    }
    for (const Row& row : rows_) {
      if (row.outcome.reason == Outcome::Reason::small) {
        notes.emplace_back("small: the tensor is below min_bytes, so that plain MPI took it.");
        break;
      }
    }
    if (!is_optimized()) notes.emplace_back("terse-bench was built without optimisation.");
    return notes;
  }

  Json environment() const {
    Json result = describe_environment(session_, layout_);
    result["baseline"] = describe_baseline(arguments_.common.dtype);
    result["op"] = name(*arguments_.options.op);
    result["feedback"] = arguments_.feedback;
    Json specs = Json::object();
    for (const NamedCodec& named : arguments_.common.codecs) specs[named.spec] = named.codec->spec();
    result["codecs"] = specs;
    result["notes"] = notes();
    return result;
  }

  std::vector<Curve> curves() const {
    std::vector<Curve> curves;
    for (const NamedCodec& named : arguments_.common.codecs) {
      Curve curve{.label = named.spec};
      for (const Row& row : rows_) {
        if (row.codec != named.spec) continue;
        curve.points.push_back({static_cast<double>(row.bytes), row.median_us()});
      }
      curves.push_back(std::move(curve));
    }
    Curve plain{.label = describe_baseline(arguments_.common.dtype) + describe_choice(),
                .role = Curve::Role::baseline};
    for (const std::size_t bytes : arguments_.common.sizes) {
      std::vector<double> beside_each_codec;
      for (const Row& row : rows_) {
        if (row.bytes == bytes) beside_each_codec.push_back(row.mpi_median_us());
      }
      plain.points.push_back({static_cast<double>(bytes), median(beside_each_codec)});
    }
    curves.push_back(std::move(plain));
    return curves;
  }

  /// Notes and files, by rank 0. Returns the exit code.
  int report() const {
    for (const std::string& note : notes()) print_wrapped("", note);
    int status = 0;
    const auto try_to = [&](const auto& write) {
      try {
        write();
      } catch (const std::exception& error) {
        std::cerr << "terse-bench: " << error.what() << std::endl;
        status = 1;
      }
    };
    if (!arguments_.common.json.empty()) {
      Json rows = Json::array();
      for (const Row& row : rows_) rows.push_back(to_json(row));
      try_to([&] { write_json(arguments_.common.json, environment(), rows); });
    }
    if (!arguments_.plot.empty()) {
      const std::string title = "allreduce: " + describe();
      try_to([&] { write_plot(arguments_.plot, title, curves()); });
    }
    if (!std::all_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.accuracy.same_bits; })) {
      std::cerr << "terse-bench: the ranks ended with different bits, which no allreduce of Terse may do"
                << std::endl;
      status = 1;
    }
    return status;
  }

  Session session_;
  Arguments arguments_;
  std::vector<int> layout_;
  PlainCommunicators plain_;
  Table table_;
  Progress progress_;
  std::vector<Row> rows_;
};

int run(const Session& session, const po::variables_map& values) {
  Arguments arguments = agreed(session, [&] { return parse(values); });
  require_writable(session, "--json", arguments.common.json);
  require_plottable(session, arguments.plot);
  return AllreduceSuite(session, std::move(arguments)).run();
}

}  // namespace

const Suite kAllreduceSuite = {
    .name = "allreduce",
    .summary = "a compressed allreduce beside MPI_Allreduce on the same tensor: times, wire bytes, errors",
    .usage = "mpirun -np P terse-bench allreduce --codec SPEC... --bytes SIZE [options]",
    .notes = kNotes,
    .ranks = Suite::Ranks::any,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

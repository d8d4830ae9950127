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
#include "baseline.hpp"
#include "call_bench.hpp"
#include "device_baseline.hpp"
#include "device_memory.hpp"
#include "interfaces.hpp"
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
under two minutes. The input is normal (--distribution), standard deviation 0.01, half of its
variance common to all ranks.

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

With --device cuda the tensors are in device memory, a device for each rank of a host in turn. A
call has ended when its result is there. Errors are those of results that were copied to the host.

  MPI           the plain call as programs make it: a copy of the tensor to pinned memory of the
                host, MPI_Allreduce there, in place, and a copy back; speedup is over this
  MPI direct    MPI_Allreduce of the pointers to device memory, where MPI says that it takes them, or
                --cuda-aware on says so
  staged        the compressed call with cuda_aware off, where its median is with cuda_aware on
)";

constexpr std::size_t kFewestCounted = 4;  // calls, so that barriers are little of their bytes on the wire

struct Arguments : CallArguments {
  std::size_t mean_calls = 0;
  Distribution distribution = Distribution::normal;
  BaselineChoice baseline;
  std::string plot;
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_call_options(options);
  options.add_options()("mean-calls", po::value<std::string>()->value_name("N")->default_value("20"),
                        "calls on one input whose mean is compared with exact sums");
  options.add_options()("distribution", po::value<std::string>()->value_name("D")->default_value("normal"),
                        "of the input: normal, or student_t, whose tails are heavy (3 degrees of freedom)");
  add_baseline_option(options);
  options.add_options()("plot", po::value<std::string>()->value_name("FILE"),
                        "draw times over sizes into a .png or .svg file (gnuplot)");
  add_library_options(options);
  return options;
}

const char* name_of(Distribution distribution) {
  return distribution == Distribution::normal ? "normal" : "student_t";
}

Distribution parse_distribution(const std::string& text) {
  for (const Distribution distribution : {Distribution::normal, Distribution::student_t}) {
    if (text == name_of(distribution)) return distribution;
  }
  throw tools::UsageError("--distribution: '" + text + "' is neither normal nor student_t");
}

Arguments parse(const po::variables_map& values) {
  return {call_arguments(values), parse_count("--mean-calls", values["mean-calls"].as<std::string>(), 1),
          parse_distribution(values["distribution"].as<std::string>()), baseline_argument(values),
          value_or(values, "plot", "")};
}

/// A tensor and its results in device memory, and the plain calls there.
struct OnDevice {
  OnDevice(ConstView host_in, DType dtype)
      : in(host_in.count, dtype), out(host_in.count, dtype), baseline(host_in) {
    copy(in.view(), host_in);
  }
  DeviceTensor in;
  DeviceTensor out;
  DeviceBaseline baseline;
};

/// The memory of all rows, as long as the longest needs it. Results of calls on a device are brought to the
/// host to be looked at.
struct Tensors {
  Tensor in;
  Tensor out;
  Tensor sums;
  Baseline baseline;
  std::optional<OnDevice> on_device;
};

Tensors allocate(const Session& session, const Arguments& arguments) {
  const DType dtype = arguments.common.dtype;
  const std::size_t count = arguments.common.sizes.back() / size_of(dtype);
  Tensor in(count, dtype);
  Tensor out(count, dtype);
  fill_gradient(in.view(), session.rank, arguments.distribution);
  std::optional<OnDevice> on_device;
  if (session.on_device()) on_device.emplace(in.view(), dtype);
  Baseline baseline(in.view(), out.view());
  return {std::move(in), std::move(out), Tensor(count, DType::f64), std::move(baseline),
          std::move(on_device)};
}

/// Whether the library gives MPI pointers to device memory, as it decides it.
bool is_cuda_aware(const CommunicatorOptions& options) {
  const CommunicatorOptions environment = options_from_environment();
  const std::optional<Check> check = options.policy.check ? options.policy.check : environment.policy.check;
  if (check == Check::payload) return false;
  const CudaAware aware = options.cuda_aware.value_or(environment.cuda_aware.value_or(CudaAware::automatic));
  return aware == CudaAware::on || (aware == CudaAware::automatic && mpi_takes_device_memory());
}

/// What one row found.
struct Row {
  std::string codec;
  std::size_t bytes = 0;
  std::size_t count = 0;
  Outcome outcome;
  Accuracy accuracy;
  Samples measured;
  Samples plain;
  Samples direct;                         ///< of plain MPI with pointers to device memory
  Samples staged;                         ///< of the compressed call with cuda_aware=off
  ChosenBaseline baseline;                ///< of `plain`
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
        bench_(session, "allreduce", arguments_, arguments_.baseline),
        cuda_aware_(session.on_device() && is_cuda_aware(arguments_.options)),
        table_(columns()) {}

  int run() {
    const Tensors memory = agreed(session_, [&] { return allocate(session_, arguments_); });
    Communicator communicator(session_.comm, arguments_.communicator_options());
    if (cuda_aware_) {
      CommunicatorOptions options = arguments_.communicator_options();
      options.cuda_aware = CudaAware::off;
      staging_.emplace(session_.comm, options);
    }
    std::string more = session_.on_device() ? std::string(", cuda_aware ") + on_or_off() : "";
    if (arguments_.distribution != Distribution::normal) {
      more.append(", inputs ").append(name_of(arguments_.distribution));
    }
    bench_.print_title(more);
    if (session_.is_root()) table_.print_heading();
    for (const NamedCodec& codec : arguments_.common.codecs) {
      for (const std::size_t bytes : arguments_.common.sizes) {
        rows_.push_back(measure(communicator, memory, codec, bytes));
        if (session_.is_root()) print(rows_.back());
      }
    }
    communicator.free();
    return bench_.finish(report());
  }

 private:
  std::vector<Column> columns() const {
    std::vector<Column> columns = {
        bench_.codec_column(), {"bytes", 7}, {"median", 8}, {"p95", 8}, {"MPI", 8}};
    if (bench_.has_choice()) columns.push_back(bench_.baseline_column());
    if (cuda_aware_) columns.insert(columns.end(), {{"MPI direct", 8}, {"staged", 8}});
    columns.insert(columns.end(), {{"speedup", 7}, {"wire/rank", 8}});
    if (has_links()) columns.push_back({"on wire", 8});
    columns.insert(columns.end(), {{"ratio", 5},
                                   {"error", 6},
                                   {std::to_string(arguments_.mean_calls) + " calls", 6},
                                   {"bits", 4},
                                   {"exact", 6}});
    return columns;
  }

  /// Whether there is something between the ranks that has counters.
  bool has_links() const { return bench_.hosts() > 1; }

  const char* on_or_off() const { return cuda_aware_ ? "on" : "off"; }

  Row measure(Communicator& communicator, const Tensors& memory, const NamedCodec& named, std::size_t bytes) {
    const std::string label = CallBench::label(named.spec, bytes);
    bench_.progress().show(label + "comparing with exact sums");
    Row row;
    row.codec = named.spec;
    row.bytes = bytes;
    row.count = bytes / size_of(arguments_.common.dtype);
    const ConstView host_in = memory.in.view().slice(0, row.count);
    const View host_out = memory.out.view().slice(0, row.count);
    const auto& device = memory.on_device;
    const ConstView in = device ? ConstView(device->in.view().slice(0, row.count)) : host_in;
    const View out = device ? device->out.view().slice(0, row.count) : host_out;

    Feedback feedback(arguments_.residual);
    const CallOptions options = arguments_.options_for(named, &feedback);
    const auto allreduce = [&] { row.outcome = communicator.allreduce({in, out}, arguments_.op, options); };

    row.accuracy = measure_accuracy(session_, host_in, host_out, arguments_.op, arguments_.mean_calls,
                                    memory.sums.view().as<double>(), [&] {
                                      allreduce();
                                      if (device) copy(host_out, out);
                                      return row.outcome.result != Outcome::Result::exact;
                                    });
    const auto plain = [&](MPI_Comm comm) {
      if (device) {
        device->baseline.run_staged(row.count, comm);
      } else {
        memory.baseline.run(row.count, comm);
      }
    };
    row.baseline = bench_.choose(allreduce, plain, label);
    std::vector<std::function<void()>> in_turn{allreduce, [&] { plain(row.baseline.comm); }};
    if (cuda_aware_) {
      in_turn.emplace_back([&] { device->baseline.run_direct(row.count, row.baseline.comm); });
      in_turn.emplace_back([&] { staging_->allreduce({in, out}, arguments_.op, options); });
    }
    auto samples = sample_in_turn(session_, arguments_.sampling, in_turn, bench_.show_samples(label));
    row.measured = std::move(samples[0]);
    row.plain = std::move(samples[1]);
    if (cuda_aware_) {
      row.direct = std::move(samples[2]);
      row.staged = std::move(samples[3]);
    }
    if (has_links()) {
      bench_.progress().show(label + "counting bytes");
      const std::size_t calls = std::max(kFewestCounted, row.measured.batch);
      row.interface_bytes = interface_bytes_per_call(session_, calls, allreduce);
    }
    bench_.progress().clear();
    row.wire_bytes = max_over_ranks(session_, static_cast<double>(row.outcome.bytes_sent));
    return row;
  }

  void print(const Row& row) const {
    const double ratio = row.ratio(session_.size);
    std::vector<std::string> cells = {
        row.codec, format_bytes(static_cast<double>(row.bytes)), format_time(row.median_us()),
        format_time(quantile(row.measured.us, 0.95)), format_time(row.mpi_median_us())};
    if (bench_.has_choice()) cells.push_back(row.baseline.name);
    if (cuda_aware_) {
      for (const Samples* samples : {&row.direct, &row.staged})
        cells.push_back(format_time(median(samples->us)));
    }
    cells.insert(cells.end(), {format("%.2fx", row.speedup()), format_bytes(row.wire_bytes)});
    if (has_links())
      cells.push_back(row.interface_bytes ? format_bytes(std::round(*row.interface_bytes)) : "-");
    cells.insert(cells.end(), {ratio == 0 ? "-" : format("%.2f", ratio), format_error(row.accuracy.rel_error),
                               format_error(row.accuracy.mean_error), bits_cell(row.accuracy.same_bits),
                               reason_cell(row.outcome.reason)});
    table_.print_row(cells);
  }

  Json to_json(const Row& row) const {
    const double ratio = row.ratio(session_.size);
    Json json = bench_.row(row.codec, row.outcome, row.count, row.bytes);
    json.update(Json{
        {"iterations", row.measured.us.size()},
        {"calls_per_sample", row.measured.batch},
        {"mpi_calls_per_sample", row.plain.batch},
        {"min_us", smallest(row.measured.us)},
        {"median_us", row.median_us()},
        {"p95_us", quantile(row.measured.us, 0.95)},
        {"mpi_median_us", row.mpi_median_us()},
        {"cuda_aware", session_.on_device() ? Json(on_or_off()) : Json()},
        {"cuda_aware_mpi_median_us", cuda_aware_ ? Json(median(row.direct.us)) : Json()},
        {"cuda_aware_off_median_us", cuda_aware_ ? Json(median(row.staged.us)) : Json()},
        {"baseline", row.baseline.name},
        {"baseline_candidates", candidates_to_json(row.baseline, row.mpi_median_us())},
        {"speedup", row.speedup()},
        {"wire_bytes_per_rank", static_cast<std::size_t>(row.wire_bytes)},
        {"interface_bytes_per_call", row.interface_bytes ? Json(std::llround(*row.interface_bytes)) : Json()},
        {"ratio", ratio == 0 ? Json() : Json(ratio)},
        {"rel_error", row.accuracy.rel_error},
        {"mean_error", row.accuracy.mean_error},
        {"mean_calls", arguments_.mean_calls},
        {"distribution", name_of(arguments_.distribution)},
        {"same_bits", row.accuracy.same_bits}});
    return json;
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
    Curve plain{.label = bench_.describe_plain() + bench_.describe_choice(), .role = Curve::Role::baseline};
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

  CallBench::Report report() const {
    CallBench::Report report;
    std::vector<Outcome::Reason> reasons;
    for (const Row& row : rows_) {
      report.rows.push_back(to_json(row));
      reasons.push_back(row.outcome.reason);
      if (!row.accuracy.same_bits) {
        report.difference = "the ranks ended with different bits, which no allreduce of Terse may do";
      }
    }
    report.notes = bench_.notes(reasons);
    if (!arguments_.plot.empty()) {
      report.also = [&] { write_plot(arguments_.plot, "allreduce: " + bench_.describe(), curves()); };
    }
    return report;
  }

  Session session_;
  Arguments arguments_;
  CallBench bench_;
  bool cuda_aware_;
  std::optional<Communicator> staging_;  // where MPI takes device memory: one that does not give it any
  Table table_;
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
    .tensors = Suite::Tensors::anywhere,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

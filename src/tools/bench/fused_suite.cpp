// SPDX-License-Identifier: Apache-2.0
//
// fused: a list of tensors as one message, beside a call for each of them and plain MPI.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "baseline.hpp"
#include "call_bench.hpp"
#include "statistics.hpp"
#include "suite.hpp"
#include "tensors.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kNotes =
    R"(The tensors lie one behind another. Their sizes are spread over --sizes evenly in their logarithm,
drawn at random from --seed, the same on all ranks; with --bytes all have one size. A row begins
with calls of both kinds, each tensor with residuals of its own in each, whose results are
compared. Then all ways are timed in turn, as in terse-bench allreduce; a time is that of the
slowest rank for the whole list.

  fused         one call for all tensors
  separate      a call for each with the same codec; --algorithm two_phase --min-bytes 0 compresses
                small ones, too
  gain          separate over fused
  MPI flat      one MPI_Allreduce of all tensors, by the algorithm that --baseline names
  MPI each      an MPI_Allreduce for each tensor, by the same
  speedup       MPI flat over fused
  wire/rank     bytes that the fused call sends, of the rank that sends most
  bits          whether all ranks end with the same bits, and with the same bits for a tensor in
                both ways where both compress it
  exact         why the library called plain MPI for the fused call: small, slower, or asked for
)";

constexpr SizeHelp kSizeHelp = {.bytes = "bytes of every tensor: 64K",
                                .sizes = "the least and the most that a tensor has: 4K:1M"};

struct Arguments : CallArguments {
  BaselineChoice baseline;
  std::size_t tensors = 0;
  std::size_t least = 0;  ///< bytes of a tensor
  std::size_t most = 0;
  std::size_t seed = 0;
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_call_options(options, kSizeHelp);
  add_baseline_option(options);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("tensors", text("N")->default_value("200"), "how many tensors there are");
  add("seed", text("N")->default_value("1"), "which sizes they have of all that --sizes allows");
  add_library_options(options);
  return options;
}

Arguments parse(const po::variables_map& values) {
  Arguments arguments{call_arguments(values, Sizes::own), baseline_argument(values)};
  arguments.tensors = parse_count("--tensors", values["tensors"].as<std::string>(), 1);
  arguments.seed = parse_count("--seed", values["seed"].as<std::string>(), 0);
  if (const std::string bytes = value_or(values, "bytes", ""); !bytes.empty()) {
    arguments.least = arguments.most = parse_bytes("--bytes", bytes);
  } else if (const std::string range = value_or(values, "sizes", ""); !range.empty()) {
    const auto colon = range.find(':');
    arguments.least = parse_bytes("--sizes", std::string_view(range).substr(0, colon));
    arguments.most = colon == std::string::npos
                         ? arguments.least
                         : parse_bytes("--sizes", std::string_view(range).substr(colon + 1));
  } else {
    throw tools::UsageError("the tensors' sizes are missing: give --sizes, such as 4K:1M, or --bytes");
  }
  if (arguments.least > arguments.most) {
    throw tools::UsageError("--sizes: '" + values["sizes"].as<std::string>() +
                            "' is an empty range: the smaller size comes first");
  }
  if (arguments.least < size_of(arguments.common.dtype)) {
    throw tools::UsageError("--sizes: a tensor of " + std::to_string(arguments.least) + " bytes has no " +
                            std::string(name(arguments.common.dtype)) + " element");
  }
  return arguments;
}

/// Where a tensor lies among all, in elements.
using Slice = Baseline::Slice;

/// Collective: rank 0's are those of all, since powers need not have the same bits on all machines.
std::vector<Slice> draw(const Session& session, const Arguments& arguments) {
  const double least = std::log(static_cast<double>(arguments.least));
  const double most = std::log(static_cast<double>(arguments.most));
  std::vector<std::uint64_t> counts(arguments.tensors);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double bytes = std::exp(least + (most - least) * uniform(arguments.seed, i));
    counts[i] = std::clamp(static_cast<std::size_t>(std::llround(bytes)), arguments.least, arguments.most) /
                size_of(arguments.common.dtype);
  }
  MPI_Bcast(counts.data(), static_cast<int>(counts.size()), MPI_UINT64_T, 0, session.comm);
  std::vector<Slice> slices;
  std::size_t begin = 0;
  for (const std::uint64_t count : counts) {
    slices.push_back({begin, count});
    begin += count;
  }
  return slices;
}

/// What one row found.
struct Row {
  std::string codec;
  Outcome fused;
  std::size_t compressed = 0;  ///< tensors that separate calls compressed
  double fused_us = 0;
  double separate_us = 0;
  double flat_us = 0;
  double each_us = 0;
  std::size_t iterations = 0;
  std::size_t batch = 1;
  double wire_bytes = 0;           ///< of the rank that sends most
  double separate_wire_bytes = 0;  ///< the same of the separate calls
  ChosenBaseline baseline;
  bool same_bits = true;
};

class FusedSuite {
 public:
  FusedSuite(const Session& session, Arguments arguments)
      : session_(session),
        arguments_(std::move(arguments)),
        bench_(session, "fused", arguments_, arguments_.baseline),
        slices_(draw(session, arguments_)),
        table_(columns()) {
    count_ = slices_.back().begin + slices_.back().count;
    arguments_.common.sizes = {count_ * size_of(arguments_.common.dtype)};
  }

  int run() {
    const CallMemory memory = allocate_call_memory(session_, arguments_.common);
    Communicator communicator(session_.comm, arguments_.communicator_options());
    bench_.print_title(", " + counted(slices_.size(), "tensor") + ", " +
                       format_bytes(static_cast<double>(bytes())));
    if (session_.is_root()) table_.print_heading();
    CallBench::Report report;
    std::vector<Outcome::Reason> reasons;
    for (const NamedCodec& codec : arguments_.common.codecs) {
      const Row row = measure(communicator, memory, codec);
      if (session_.is_root()) print(row);
      report.rows.push_back(to_json(row));
      reasons.push_back(row.fused.reason);
      if (!row.same_bits) {
        report.difference = "a fused call ended with other bits than a call for each tensor, or other ranks";
      }
    }
    communicator.free();
    report.notes = bench_.notes(reasons);
    return bench_.finish(report);
  }

 private:
  std::size_t bytes() const { return arguments_.common.sizes.back(); }

  std::vector<Column> columns() const {
    std::vector<Column> columns = {
        bench_.codec_column(), {"fused", 8}, {"separate", 8}, {"gain", 6}, {"MPI flat", 8}};
    if (bench_.has_choice()) columns.push_back(bench_.baseline_column());
    columns.insert(columns.end(),
                   {{"MPI each", 8}, {"speedup", 7}, {"wire/rank", 8}, {"bits", 6}, {"exact", 6}});
    return columns;
  }

  Row measure(Communicator& communicator, const CallMemory& memory, const NamedCodec& named) {
    const std::string label = CallBench::label(named.spec, bytes());
    bench_.progress().show(label + "comparing fused and separate calls");
    Row row;
    row.codec = named.spec;
    const ConstView in = memory.in.view();
    const View out = memory.out.view();
    const View separate_out = memory.other_out.view();

    std::vector<Feedback> residuals;
    std::vector<Feedback> separate_residuals;
    for (std::size_t i = 0; i < slices_.size(); ++i) {
      residuals.emplace_back(arguments_.residual);
      separate_residuals.emplace_back(arguments_.residual);
    }
    std::vector<CallOptions> separate;  // of each tensor
    std::vector<terse::Tensor> tensors;
    for (std::size_t i = 0; i < slices_.size(); ++i) {
      const auto [begin, count] = slices_[i];
      separate.push_back(arguments_.options_for(named, &separate_residuals[i]));
      tensors.emplace_back(in.slice(begin, count), out.slice(begin, count),
                           separate.back().feedback == nullptr ? nullptr : &residuals[i]);
    }
    const CallOptions options = arguments_.options_for(named, nullptr);
    std::vector<Outcome> outcomes(slices_.size());
    const auto fused = [&] { row.fused = communicator.allreduce(tensors, arguments_.op, options); };
    const auto one_by_one = [&] {
      for (std::size_t i = 0; i < slices_.size(); ++i) {
        const auto [begin, count] = slices_[i];
        outcomes[i] = communicator.allreduce({in.slice(begin, count), separate_out.slice(begin, count)},
                                             arguments_.op, separate[i]);
      }
    };
    row.same_bits = compare(fused, one_by_one, row.fused, outcomes, out, separate_out);

    const auto flat = [&](MPI_Comm comm) { memory.baseline.run(count_, comm); };
    row.baseline = bench_.choose(fused, flat, label);
    const auto each = [&] {
      for (const Slice& slice : slices_) memory.baseline.run(slice, row.baseline.comm);
    };
    const auto samples = sample_in_turn(session_, arguments_.sampling,
                                        {fused, one_by_one, [&] { flat(row.baseline.comm); }, each},
                                        bench_.show_samples(label));
    bench_.progress().clear();
    row.fused_us = median(samples[0].us);
    row.separate_us = median(samples[1].us);
    row.flat_us = median(samples[2].us);
    row.each_us = median(samples[3].us);
    row.iterations = samples[0].us.size();
    row.batch = samples[0].batch;
    row.wire_bytes = max_over_ranks(session_, static_cast<double>(row.fused.bytes_sent));
    double sent = 0;
    for (const Outcome& outcome : outcomes) {
      sent += static_cast<double>(outcome.bytes_sent);
      if (outcome.result == Outcome::Result::compressed) ++row.compressed;
    }
    row.separate_wire_bytes = max_over_ranks(session_, sent);
    return row;
  }

  /// Whether both ways lead to the same bits, tensor by tensor, as often as it takes for residuals to matter.
  bool compare(const std::function<void()>& fused, const std::function<void()>& one_by_one,
               const Outcome& fused_outcome, const std::vector<Outcome>& outcomes, ConstView out,
               ConstView separate_out) const {
    constexpr int kCalls = 3;
    bool same = true;
    for (int call = 0; call < kCalls; ++call) {
      fused();
      one_by_one();
      for (std::size_t i = 0; i < slices_.size(); ++i) {
        const auto compressed = Outcome::Result::compressed;
        if (fused_outcome.result != compressed || outcomes[i].result != compressed) continue;
        const auto [begin, count] = slices_[i];
        same = hash_of(out.slice(begin, count)) == hash_of(separate_out.slice(begin, count)) && same;
      }
      same = same_on_all_ranks(session_, hash_of(out)) && same;
      same = same_on_all_ranks(session_, hash_of(separate_out)) && same;
    }
    return max_over_ranks(session_, same ? 0 : 1) == 0;
  }

  void print(const Row& row) const {
    std::vector<std::string> cells = {row.codec, format_time(row.fused_us), format_time(row.separate_us),
                                      format("%.2fx", row.separate_us / row.fused_us),
                                      format_time(row.flat_us)};
    if (bench_.has_choice()) cells.push_back(row.baseline.name);
    cells.insert(cells.end(),
                 {format_time(row.each_us), format("%.2fx", row.flat_us / row.fused_us),
                  format_bytes(row.wire_bytes), bits_cell(row.same_bits), reason_cell(row.fused.reason)});
    table_.print_row(cells);
  }

  Json to_json(const Row& row) const {
    Json json = bench_.row(row.codec, row.fused, count_, bytes());
    json.update(Json{{"tensors", slices_.size()},
                     {"least_bytes", arguments_.least},
                     {"most_bytes", arguments_.most},
                     {"seed", arguments_.seed},
                     {"iterations", row.iterations},
                     {"calls_per_sample", row.batch},
                     {"fused_us", row.fused_us},
                     {"separate_us", row.separate_us},
                     {"separate_compressed", row.compressed},
                     {"mpi_flat_us", row.flat_us},
                     {"mpi_each_us", row.each_us},
                     {"baseline", row.baseline.name},
                     {"baseline_candidates", candidates_to_json(row.baseline, row.flat_us)},
                     {"gain", row.separate_us / row.fused_us},
                     {"speedup", row.flat_us / row.fused_us},
                     {"speedup_over_each", row.each_us / row.fused_us},
                     {"wire_bytes_per_rank", static_cast<std::size_t>(row.wire_bytes)},
                     {"separate_wire_bytes_per_rank", static_cast<std::size_t>(row.separate_wire_bytes)},
                     {"same_bits", row.same_bits}});
    return json;
  }

  Session session_;
  Arguments arguments_;
  CallBench bench_;
  std::vector<Slice> slices_;
  std::size_t count_ = 0;
  Table table_;
};

int run(const Session& session, const po::variables_map& values) {
  Arguments arguments = agreed(session, [&] { return parse(values); });
  require_writable(session, "--json", arguments.common.json);
  return FusedSuite(session, std::move(arguments)).run();
}

}  // namespace

const Suite kFusedSuite = {
    .name = "fused",
    .summary = "a list of tensors as one message, beside a call for each of them and MPI_Allreduce of all",
    .usage = "mpirun -np P terse-bench fused --codec SPEC... --sizes LEAST:MOST [--tensors N] [options]",
    .notes = kNotes,
    .ranks = Suite::Ranks::any,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#include "call_arguments.hpp"

#include <string>

#include "../command_line.hpp"

namespace terse::bench {

namespace po = boost::program_options;

CallOptions CallArguments::options_for(const NamedCodec& named, Feedback* residuals) const {
  CallOptions result{.policy = options.policy};
  result.policy.codec = named.codec;
  if (feedback && named.takes_feedback()) result.feedback = residuals;
  return result;
}

CommunicatorOptions CallArguments::communicator_options() const {
  return {.threads = options.threads, .progress = options.progress, .cuda_aware = options.cuda_aware};
}

void add_call_options(po::options_description& options, const SizeHelp& help) {
  add_common_options(options, help);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("op", text("OP")->default_value("average"), "sum or average");
  add("no-feedback", "without error feedback: what a codec leaves out is lost");
  add_residual_option(options);
  add("iterations", text("N"), "samples of each call");
  add("seconds", text("S"), "time for the samples of a row");
}

CallArguments call_arguments(const po::variables_map& values, Sizes sizes) {
  CallArguments arguments;
  arguments.common = common_arguments(values, sizes);
  arguments.options = library_arguments(values);
  arguments.op = parse_op(values["op"].as<std::string>());
  std::string& algorithm = arguments.options.policy.algorithm;
  if (algorithm.empty()) algorithm = options_from_environment().policy.algorithm;
  if (algorithm.empty()) algorithm = library_default("algorithm");
  arguments.feedback = values.count("no-feedback") == 0;
  arguments.residual = residual_argument(values, arguments.common.dtype);
  if (values.count("iterations") != 0 && values.count("seconds") != 0) {
    throw tools::UsageError("--iterations and --seconds both say how long to measure: give one");
  }
  if (values.count("iterations") != 0) {
    arguments.sampling.iterations = parse_count("--iterations", values["iterations"].as<std::string>(), 1);
  }
  if (values.count("seconds") != 0) {
    arguments.sampling.seconds = parse_seconds("--seconds", values["seconds"].as<std::string>());
  }
  return arguments;
}

void add_baseline_option(po::options_description& options) {
  options.add_options()(
      "baseline", po::value<std::string>()->value_name("ALG")->default_value("default"),
      "what plain MPI goes by: default, best, or Open MPI's algorithm; of a list ALG,ALG the fastest");
}

BaselineChoice baseline_argument(const po::variables_map& values) {
  return parse_baseline(values["baseline"].as<std::string>());
}

}  // namespace terse::bench

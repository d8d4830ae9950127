// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/program_options.hpp>
#include <terse/communicator.hpp>

#include "arguments.hpp"
#include "plain_algorithms.hpp"
#include "sampling.hpp"

namespace terse::bench {

/// What is said to a suite that measures calls of a Communicator.
struct CallArguments {
  CommonArguments common;
  /// For every row; the algorithm is set. The policy is the calls', the rest the Communicator's.
  CommunicatorOptions options;
  Op op = Op::average;
  bool feedback = true;
  ResidualType residual = ResidualType::full;  ///< that of all Feedbacks
  SamplingPlan sampling;

  CallOptions options_for(const NamedCodec& named, Feedback* feedback) const;
  /// Those that calls do not have.
  CommunicatorOptions communicator_options() const;
};

/// Declares the common options and --op, --no-feedback, --residual, --iterations, --seconds.
void add_call_options(boost::program_options::options_description& options, const SizeHelp& help = {});
/// Errors: as common_arguments.
CallArguments call_arguments(const boost::program_options::variables_map& values, Sizes sizes = Sizes::list);

/// Declares --baseline, for suites where plain MPI may go by one of several algorithms.
void add_baseline_option(boost::program_options::options_description& options);
/// Errors: tools::UsageError.
BaselineChoice baseline_argument(const boost::program_options::variables_map& values);

}  // namespace terse::bench

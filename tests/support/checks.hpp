// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "support/rig.hpp"

namespace terse::test {

// What every call must fulfil, as gtest expectations. The caller adds a SCOPED_TRACE.

/// The sum (or average) as a loop over ranks gives it, in the accumulator's type, rounded once: [element].
std::vector<double> ieee_reduction(const Setting& setting, const Rig::Matrix& inputs);

/// All ranks hold the same bits, and nobody threw.
void expect_same_bits(const Rig::Result& result);

/// out + s_new = mean_i(x_i + e_i,old - e_i,new) + s_old, element by element, within rounding. `skip` ranges
/// are left out.
void expect_nothing_lost(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                         const Rig::Matrix& workers_before, const Rig::Matrix& servers_before,
                         const std::vector<Range>& skip = {});

/// Result and residuals are those of the serial model (onebit), which starts from the rig's residuals before
/// the call.
void expect_as_model(const Rig& rig, SerialModel model, const Rig::Matrix& inputs, const Rig::Result& result,
                     const std::vector<Range>& skip = {});

/// Result and residuals of `gather` are those that the reference of the codec gives: exactly where that is
/// exact, else within its slack.
void expect_as_gather(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                      const Rig::Matrix& workers_before, const std::vector<Range>& skip = {});
/// The same of the algorithm summed, for codecs of integers: exact.
void expect_as_summed(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                      const Rig::Matrix& workers_before, const std::vector<Range>& skip = {});

/// Bytes sent are those of the schedule, of the transport, and of the formula in closed form.
void expect_wire_bytes(const Rig& rig, const Rig::Result& result);

/// What is to be known before a call to judge it afterwards.
struct Before {
  explicit Before(const Rig& rig) : workers(rig.workers()), servers(rig.servers()), model(model_of(rig)) {}
  Rig::Matrix workers;
  Rig::Matrix servers;
  SerialModel model;
};

/// All of the above, as far as it applies to the setting's codec and algorithm.
void expect_call(const Rig& rig, const Before& before, const Rig::Matrix& inputs, const Rig::Result& result);

/// A value that is not finite, or too large.
struct Spot {
  int rank;
  std::size_t element;
  double value;
};
/// The same of a call whose inputs hold `spots`: the pieces that they lie in come out as a plain sum in rank
/// order gives them, the rest is compressed as ever, and residuals keep what they owe.
void expect_flagged_call(const Rig& rig, const Before& before, const Rig::Matrix& inputs,
                         const Rig::Result& result, const std::vector<Spot>& spots);

/// Makes a call and expects all that expect_call does.
Rig::Result check_call(Rig& rig, const Rig::Matrix& inputs, const ThreadOptions& options = {});
/// Makes one whose inputs hold `spots`, and expects all that expect_flagged_call does.
void check_flagged_call(Rig& rig, Rig::Matrix inputs, const std::vector<Spot>& spots, std::uint64_t seed);
/// A clean call, two with values that are not finite on the first and the last rank, and a clean one. Of more
/// than 301 elements.
void check_calls_around_flagged(Rig& rig, std::uint64_t seed);

}  // namespace terse::test

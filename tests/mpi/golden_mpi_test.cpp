// SPDX-License-Identifier: Apache-2.0
//
// The golden vectors through the public interface: files of as many ranks as there are here, and of fewer on
// sub-communicators.
#include <gtest/gtest.h>
#include <mpi.h>

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

void expect_golden(const std::vector<double>& got, const std::vector<double>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(near_golden(got[i], want[i])) << what << " " << i << ": " << got[i] << " for " << want[i];
  }
}

template <class T>
void run(Communicator& comm, const Golden& g, bool in_place) {
  Feedback feedback;
  const auto me = static_cast<std::size_t>(comm.rank());
  auto options = compressing(g.codec(), &feedback);
  // the codec says which; min_bytes = 0: it compresses where there is anything to send
  if (in_place && g.ranks > 1) options.policy.algorithm = "auto";
  for (const auto& step : g.steps) {
    std::vector<T> in(step.inputs[me].begin(), step.inputs[me].end());
    std::vector<T> out(g.count);
    const auto outcome = in_place
                             ? comm.allreduce(view(in), Op::average, options)
                             : comm.allreduce({view(std::as_const(in)), view(out)}, Op::average, options);
    EXPECT_EQ(outcome.result, Outcome::Result::compressed);
    EXPECT_EQ(outcome.reason, Outcome::Reason::none);
    EXPECT_EQ(outcome.algorithm, g.algorithm());
    const auto& got = in_place ? in : out;
    expect_golden({got.begin(), got.end()}, step.average, "average");
    for (std::size_t i = 0; i < g.count; ++i) ASSERT_EQ(got[i] < 0, step.average[i] < 0) << "sign " << i;
    expect_golden(doubles_of(feedback.worker()), step.worker_residuals[me], "worker residual");
    expect_golden(doubles_of(feedback.server()), step.server_residuals[me], "server residual");
    EXPECT_EQ(feedback.server_begin(), g.chunks[me].first);
  }
  EXPECT_EQ(feedback.calls(), 3u);
}

TEST(GoldenMpi, VectorsAreMet) {
  int met = 0;
  auto files = load_golden("l1-block");
  for (Golden& g : load_golden("rms-padded")) files.push_back(std::move(g));
  for (const Golden& g : files) {
    if (g.ranks > world_size()) continue;
    SCOPED_TRACE(g.name);
    ++met;
    // the last ranks, in reverse order, so that ranks here are not ranks of the world
    const bool inside = world_rank() >= world_size() - g.ranks;
    const SubComm part(inside ? 0 : MPI_UNDEFINED, g.ranks == world_size() ? world_rank() : -world_rank());
    if (!inside) continue;
    Communicator comm(part.get());
    ASSERT_EQ(comm.size(), g.ranks);
    for (const bool in_place : {false, true}) {
      run<float>(comm, g, in_place);
      if (!g.padded()) run<double>(comm, g, in_place);
    }
  }
  EXPECT_GT(met, 0);
}

}  // namespace
}  // namespace terse::test

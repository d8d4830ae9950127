// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Plans, and trials of `auto`, between calls that are under way; plans whose Communicator was freed.
#include <gtest/gtest.h>
#include <mpi.h>

#include <optional>
#include <string>
#include <vector>

#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

/// Rank 0 ends the earlier call at once, so the others make progress with it in whatever they do next.
void between(Progress progress, const CallOptions& second) {
  Communicator world(MPI_COMM_WORLD, {.progress = progress});
  const bool first = world_rank() == 0;
  std::vector<float> early(100'000, 1.0f);
  std::vector<float> late(100'000, 2.0f);
  Request request = world.iallreduce(view(early), Op::sum, compressing("onebit"));
  if (first) request.wait();
  std::optional<Plan> plan;
  if (second.policy.algorithm == "auto") {
    world.iallreduce(view(late), Op::sum, second).wait();
  } else {
    plan.emplace(world.allreduce_init(view(late), Op::sum, second));
    plan->start();
    plan->wait();
  }
  if (!first) request.wait();
  const auto size = static_cast<float>(world_size());
  EXPECT_EQ(early, std::vector<float>(100'000, size));
  EXPECT_EQ(late, std::vector<float>(100'000, 2 * size));
}

TEST(PlanOrder, APlanIsMadeWhileACallIsUnderWay) {
  between(Progress::calls, compressing("onebit"));
  between(Progress::thread, compressing("onebit"));
}

TEST(PlanOrder, ATrialIsMadeWhileACallIsUnderWay) {
  between(Progress::calls, {.policy = {.codec = "onebit", .algorithm = "auto"}});
  between(Progress::thread, {.policy = {.codec = "onebit", .algorithm = "auto"}});
}

TEST(PlanOrder, AFreedCommunicatorIsNotStartedOn) {
  for (const char* codec : {"onebit", "identity"}) {
    std::optional<Communicator> world(MPI_COMM_WORLD);
    std::vector<float> data(1000, 1.0f);
    Plan plan = world->allreduce_init(view(data), Op::sum, {.policy = {.codec = codec, .min_bytes = 0}});
    plan.start();
    world->free();
    plan.wait();  // what was under way has its end
    EXPECT_EQ(data, std::vector<float>(1000, static_cast<float>(world_size())));
    EXPECT_TRUE(is_error(error_of([&] { plan.start(); }), "invalid_state", {"freed"}));
    EXPECT_TRUE(plan.test());
    EXPECT_NO_THROW(plan.feedback().save());
  }
}

}  // namespace
}  // namespace terse::test

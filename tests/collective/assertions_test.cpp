// SPDX-License-Identifier: Apache-2.0
//
// What the parts of the engine assert of each other: each kind, broken on purpose.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "collective/phases.hpp"
#include "collective/runner.hpp"
#include "support/tensor.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

Operand message(std::uint32_t slot, std::uint8_t channel = 0) {
  return {.space = Space::message, .channel = channel, .slot = slot, .elements = {0, 4}};
}
constexpr Operand kInput{.space = Space::input, .elements = {0, 4}};

/// A schedule of one step over one slot.
void make(const Step& step) {
  Schedule schedule;
  schedule.add_group(Group::of_all(1, 0));
  schedule.add_phase({0, 4});
  schedule.add_slot(64);
  schedule.add(step, {});
  schedule.seal();
}

TEST(SchedulesDeathTest, RefuseStepsThatMakeNoSense) {
  make({.verb = Verb::encode, .in = kInput, .out = message(0)});
  EXPECT_DEATH(make({.verb = Verb::encode, .in = kInput, .out = message(1)}),
               "slots that its schedule does not have");
  EXPECT_DEATH(make({.verb = Verb::encode, .in = kInput, .out = message(0, 2)}), "not one of the call's");
  EXPECT_DEATH(make({.verb = Verb::encode, .codec = 2, .in = kInput, .out = message(0)}),
               "codec that no binding has");
  EXPECT_DEATH(make({.verb = Verb::encode, .phase = 1, .in = kInput, .out = message(0)}),
               "phase that its schedule");
  EXPECT_DEATH(make({.verb = Verb::send, .in = message(0)}), "no peer or no message");
  EXPECT_DEATH(make({.verb = Verb::sum, .group = 1, .in = message(0), .out = kInput}), "of a group");
  EXPECT_DEATH(
      make({.verb = Verb::encode, .in = {.space = Space::input, .elements = {0, 3}}, .out = message(0)}),
      "another number of elements");
  Schedule schedule;
  EXPECT_DEATH(schedule.add({}, {{0}}), "does not stand before it");
  EXPECT_DEATH(for (int i = 0; i < 3; ++i) schedule.add_phase({}), "more phases");
  EXPECT_DEATH(Group::of_all(2, 2), "not a member");
}

TEST(PhasesDeathTest, RefuseSlotsThatNoSegmentHas) {
  const auto codec = make_codec("identity");
  const Problem problem{.count = 4, .codec = codec.get()};
  PhaseBuilder builder(problem);
  EXPECT_DEATH(builder.add(0, {}, {}), "not under way");
  builder.begin_segment();
  EXPECT_DEATH(builder.add(PhaseBuilder::kWindow, {}, {}), "not under way");
  for (std::size_t k = 1; k < PhaseBuilder::kWindow; ++k) builder.begin_segment();
  builder.begin_segment();
  EXPECT_DEATH(builder.add_slots(1, 8), "more slots");
}

/// Runs a schedule of one encoding with a binding that does not fit it.
void encode(const std::vector<Residual>& residuals, const Range& in, std::size_t slot_bytes) {
  run_ranks(1, [&](ThreadTransport& t) {
    const auto codec = make_codec("onebit:block=8");
    const std::vector<Range> layout{{0, 4}};
    const Tensor tensor(4, DType::f32);
    BoundTensor bound{.in = tensor.view(), .out = {}};
    for (std::size_t phase = 0; phase < residuals.size(); ++phase) bound.residuals[phase] = residuals[phase];
    auto schedule = std::make_shared<Schedule>();
    schedule->add_group(Group::of_all(1, 0));
    schedule->add_phase({0, 4});
    schedule->add_slot(slot_bytes);
    schedule->add({.verb = Verb::encode, .in = {.space = Space::input, .elements = in}, .out = message(0)},
                  {});
    schedule->seal();
    Buffer memory;
    Runner runner(t, memory, nullptr);
    runner.begin(schedule,
                 {.layout = layout,
                  .tensors = {&bound, 1},
                  .codecs = {codec.get()},
                  .dtype = DType::f32,
                  .checksum = true},
                 t.take_tags(2));
    runner.open_gate();
    while (!runner.done()) runner.advance(Runner::Collectives::enter);
  });
}

TEST(RunnersDeathTest, RefuseBindingsThatDoNotFit) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Tensor residual(8, DType::f32);
  encode({{residual.view().slice(0, 4), 0}}, {0, 4}, 64);
  EXPECT_DEATH(encode({{residual.view().slice(0, 3), 0}}, {0, 4}, 64), "a residual has other elements");
  EXPECT_DEATH(encode({{}, {residual.view().slice(0, 4), 0}}, {0, 4}, 64), "residuals of a phase");
  EXPECT_DEATH(encode({}, {2, 4}, 64), "elements that its tensor does not have");
  EXPECT_DEATH(encode({}, {0, 4}, 24), "larger than its slot");
}

}  // namespace
}  // namespace terse::test

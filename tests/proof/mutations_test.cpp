// SPDX-License-Identifier: Apache-2.0
//
// The proof of the checker: sound schedules, each broken in one way, which it must find and name.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "proof/checker.hpp"
#include "proof/jobs.hpp"

namespace terse::test::proof {
namespace {

// Seven segments on three ranks, of which the last has one piece: slots are used again.
Job two_phase() {
  return job_of({.ranks = 3, .tensors = {19 * 64 - 5}, .segment_bytes = 3 * 64 * sizeof(float)});
}
Job gather() {
  return job_of(
      {.algorithm = "gather", .ranks = 3, .tensors = {6 * 64 + 1}, .segment_bytes = 64 * sizeof(float)});
}
Job summed() {
  return job_of({.algorithm = "summed",
                 .codec = "sum8:block=64",
                 .ranks = 3,
                 .tensors = {6 * 64 + 1},
                 .op = Op::sum,
                 .segment_bytes = 64 * sizeof(float)});
}
Job deepspeed() {
  return job_of({.algorithm = "deepspeed", .codec = "onebit:deepspeed", .ranks = 3, .tensors = {1000}});
}
Job exact() { return job_of({.algorithm = "exact", .ranks = 3, .tensors = {1000}, .feedback = false}); }

RankView& rank(Job& job, std::size_t r) { return job.views[r]; }

// The n-th step of a rank's that is called so, from 0 on.
std::uint32_t find(const RankView& view, const std::string& name, std::size_t n = 0) {
  for (std::uint32_t i = 0; i < view.steps.size(); ++i) {
    if (view.steps[i].name == name && n-- == 0) return i;
  }
  ADD_FAILURE() << "there is no such " << name;
  return 0;
}

// Sends (or receives) of one peer and tag, in their order.
std::vector<std::uint32_t> transfers(const RankView& view, Kind kind, int peer, std::uint8_t tag) {
  std::vector<std::uint32_t> all;
  for (std::uint32_t i = 0; i < view.steps.size(); ++i) {
    const Step& step = view.steps[i];
    if (step.kind == kind && step.peer == peer && step.tag == tag) all.push_back(i);
  }
  return all;
}

Access& access(RankView& view, std::uint32_t step, Space space, Use use) {
  for (std::uint32_t a = 0; a < view.steps[step].accesses; ++a) {
    Access& one = view.accesses[view.steps[step].first_access + a];
    if (one.space == space && one.use == use) return one;
  }
  ADD_FAILURE() << "there is no such access";
  return view.accesses[0];
}

void drop_edge(RankView& view, std::uint32_t before, std::uint32_t after) {
  Step& step = view.steps[after];
  auto* first = view.before.data() + step.first_before;
  auto* found = std::find(first, first + step.befores, before);
  ASSERT_NE(found, first + step.befores) << "there is no such edge";
  std::swap(*found, first[--step.befores]);
}

// Those of a step are moved to the end, where there is room.
void add_edge(RankView& view, std::uint32_t before, std::uint32_t after) {
  Step& step = view.steps[after];
  const std::vector<std::uint32_t> old(view.before.begin() + step.first_before,
                                       view.before.begin() + step.first_before + step.befores);
  step.first_before = static_cast<std::uint32_t>(view.before.size());
  view.before.insert(view.before.end(), old.begin(), old.end());
  view.before.push_back(before);
  ++step.befores;
}

void add_access(RankView& view, std::uint32_t i, const Access& access) {
  Step& step = view.steps[i];
  const std::vector<Access> old(view.accesses.begin() + step.first_access,
                                view.accesses.begin() + step.first_access + step.accesses);
  step.first_access = static_cast<std::uint32_t>(view.accesses.size());
  view.accesses.insert(view.accesses.end(), old.begin(), old.end());
  view.accesses.push_back(access);
  ++step.accesses;
}

// The step does nothing any more.
void silence(RankView& view, std::uint32_t i) {
  Step& step = view.steps[i];
  for (Step& other : view.steps) {
    if (other.started_after == i) other.started_after = step.started_after;
  }
  step.kind = Kind::join;
  step.accesses = 0;
  step.owner = -1;
  step.started_after = kNone;
}

void expect_sound(const Job& job) {
  for (const std::string& sentence : violations_of(job)) ADD_FAILURE() << sentence;
}

// A sentence names the call, where it is broken, and how.
void expect_found(const Job& job, const std::string& where, const std::string& what) {
  const auto found = violations_of(job);
  std::string all;
  for (const std::string& sentence : found) {
    const auto has = [&](const std::string& text) { return sentence.find(text) != std::string::npos; };
    if (has("P = 3") && has(where) && has(what)) return;
    all += "\n  " + sentence;
  }
  ADD_FAILURE() << "no sentence has '" << where << "' and '" << what << "' among" << all;
}

TEST(Mutations, NoneIsFoundWithoutOne) {
  for (const Job& job : {two_phase(), gather(), summed(), deepspeed(), exact()}) {
    expect_sound(job);
  }
}

TEST(Mutations, ADroppedEdgeFromWriteToRead) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const std::uint32_t send = find(view, "send");
  drop_edge(view, view.before_of(view.steps[send])[0], send);
  expect_found(job, "rank 1, step " + std::to_string(send) + " (send to rank 2, tag 0)", "it reads slot");
}

TEST(Mutations, ADroppedEdgeFromReadToWrite) {
  Job job = two_phase();
  RankView& view = rank(job, 0);
  const std::uint32_t join = find(view, "join");
  const std::uint32_t decode = find(view, "decode");
  drop_edge(view, decode, join);
  expect_found(job, "rank 0", "it writes slot");
  // a send has read its slot once it is over, not once it has started
  job = gather();
  const std::uint32_t send = find(rank(job, 0), "send");
  drop_edge(rank(job, 0), send, find(rank(job, 0), "join"));
  expect_found(job, "rank 0", "which step " + std::to_string(send) + " (send");
}

TEST(Mutations, EveryEdgeOfASumIsNeeded) {
  const Job sound = gather();
  const std::uint32_t sum = find(sound.views[2], "sum");
  for (std::uint32_t e = 0; e < sound.views[2].steps[sum].befores; ++e) {
    Job job = sound;
    drop_edge(rank(job, 2), sound.views[2].before_of(sound.views[2].steps[sum])[e], sum);
    expect_found(job, "rank 2, step " + std::to_string(sum) + " (sum of elements [0, 64))", "it reads slot");
  }
}

// No edge is there for nothing but those that keep segments in order, or whose end another one includes.
TEST(Mutations, EdgesThatNothingElseImpliesAreNeeded) {
  const Job sound = two_phase();
  std::size_t found = 0;
  std::size_t edges = 0;
  for (std::uint32_t i = 0; i < sound.views[0].steps.size(); ++i) {
    for (const std::uint32_t before : sound.views[0].before_of(sound.views[0].steps[i])) {
      Job job = sound;
      drop_edge(rank(job, 0), before, i);
      ++edges;
      found += violations_of(job).empty() ? 0 : 1;
    }
  }
  EXPECT_GT(found, edges * 3 / 4) << "of " << edges;
}

TEST(Mutations, TagsOfTwoReceivesChanged) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const std::uint32_t a = transfers(view, Kind::receive, 0, 0)[0];
  const std::uint32_t b = transfers(view, Kind::receive, 0, 1)[0];
  std::swap(view.steps[a].tag, view.steps[b].tag);
  std::swap(view.steps[transfers(view, Kind::receive, 0, 0)[1]].started_after,
            view.steps[transfers(view, Kind::receive, 0, 1)[1]].started_after);
  expect_found(job, "rank 1", "is due");
}

TEST(Mutations, ATagThatTheCallHasNot) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const std::uint32_t send = find(view, "send");
  view.steps[send].tag = 2;
  expect_found(job, "rank 1, step " + std::to_string(send), "the call has no such tag");
}

TEST(Mutations, AWrongPeer) {
  Job job = two_phase();
  RankView& view = rank(job, 0);
  const std::uint32_t send = find(view, "send");
  ASSERT_EQ(view.steps[send].peer, 1);
  view.steps[send].peer = 2;
  expect_found(job, "rank 0 sends", "messages to rank 1 with tag 0, which receives");
  view.steps[send].peer = 0;
  expect_found(job, "rank 0, step " + std::to_string(send), "there is no such peer");
}

TEST(Mutations, ReceivesOfTwoPeersChanged) {
  Job job = gather();
  RankView& view = rank(job, 0);
  const auto from_1 = transfers(view, Kind::receive, 1, 1);
  const auto from_2 = transfers(view, Kind::receive, 2, 1);
  for (std::size_t n = 0; n < from_1.size(); ++n) {
    std::swap(access(view, from_1[n], Space::message, Use::write).where,
              access(view, from_2[n], Space::message, Use::write).where);
  }
  expect_found(job, "rank 0",
               "by rank 2 for tag 1, where a message of elements [0, 64) by rank 1 for tag 1 is due");
}

TEST(Mutations, AMissingReceive) {
  Job job = two_phase();
  RankView& view = rank(job, 2);
  silence(view, transfers(view, Kind::receive, 0, 1)[0]);
  expect_found(job, "rank 0 sends", "messages to rank 2 with tag 1, which receives");
}

TEST(Mutations, AMissingSend) {
  Job job = gather();
  RankView& view = rank(job, 2);
  silence(view, find(view, "send"));
  expect_found(job, "rank 2 sends 6 messages to rank 0 with tag 1", "which receives 7");
}

TEST(Mutations, TwoSendsInTheOtherOrder) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const auto sends = transfers(view, Kind::send, 0, 0);
  ASSERT_EQ(view.steps[sends[1]].started_after, sends[0]);
  view.steps[sends[0]].started_after = sends[1];
  view.steps[sends[1]].started_after = kNone;
  view.steps[sends[2]].started_after = sends[0];
  expect_found(job, "rank 0", "by rank 1 for tag 0 is due");
}

TEST(Mutations, TwoSendsInNoOrder) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const auto sends = transfers(view, Kind::send, 0, 0);
  view.steps[sends[1]].started_after = kNone;
  expect_found(job, "rank 1, step " + std::to_string(sends[1]), "may start in either order");
  job = gather();
  const auto receives = transfers(rank(job, 1), Kind::receive, 2, 1);
  rank(job, 1).steps[receives[2]].started_after = kNone;
  expect_found(job, "rank 1, step " + std::to_string(receives[2]), "may start in either order");
}

TEST(Mutations, ARangeOffByABlock) {
  Job job = gather();
  RankView& view = rank(job, 1);
  const std::uint32_t sum = find(view, "sum", 2);
  access(view, sum, Space::output, Use::write).where.offset += 64;
  expect_found(job, "rank 1", "it reads the input's element");
  // the last one has no neighbour to meet
  job = two_phase();
  const std::uint32_t encode = find(rank(job, 1), "encode");
  Step& step = rank(job, 1).steps[encode];
  step.elements.count -= 1;
  expect_found(job, "rank 1, step " + std::to_string(encode), "it encodes elements");
}

TEST(Mutations, ARangeBeyondTheTensor) {
  Job job = gather();
  RankView& view = rank(job, 1);
  const std::uint32_t sum = find(view, "sum", 6);
  access(view, sum, Space::output, Use::write).where.count += 64;
  expect_found(job, "rank 1, step " + std::to_string(sum), "there is no the output's element");
}

TEST(Mutations, AnEncodingOfTheNeighbouringBlock) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const std::uint32_t encode = find(view, "encode");
  Step& step = view.steps[encode];
  const Range other = view.steps[find(view, "encode", 3)].elements;
  step.elements = other;
  access(view, encode, Space::input, Use::read).where = other;
  access(view, encode, Space::worker_residual, Use::update).where = other;
  expect_found(job, "rank 1", "the worker residual's element");
}

TEST(Mutations, AnOutputWrittenTwice) {
  Job job = gather();
  RankView& view = rank(job, 2);
  const std::uint32_t last = find(view, "sum", 6);
  add_edge(view, find(view, "sum", 5), last);
  Access& written = access(view, last, Space::output, Use::write);
  written.where = {written.where.offset - 1, written.where.count + 1};
  expect_found(job, "rank 2, step " + std::to_string(last),
               "the output's elements [383, 385) are written here and by");
}

TEST(Mutations, AnOutputNeverWritten) {
  Job job = exact();
  access(rank(job, 2), 0, Space::output, Use::write).where.count -= 1;
  expect_found(job, "rank 2", "the output's element [999, 1000) before anything is written there");
  job = gather();
  silence(rank(job, 2), find(rank(job, 2), "sum", 6));
  expect_found(job, "rank 2", "the output's elements [384, 385) are never written");
}

TEST(Mutations, AnOutputThatIsNotDue) {
  const Case one{
      .algorithm = "gather", .ranks = 3, .tensors = {6 * 64 + 1}, .segment_bytes = 64 * sizeof(float)};
  const auto pieces = pieces_of(job_of(one));
  Job job = resending_job_of(one, {pieces[1], pieces[3]});
  expect_sound(job);
  std::swap(job.due, job.not_due);
  expect_found(job, "rank 0", "[0, 64) are never written");
  expect_found(job, "rank 0", "are written, but [64, 128) are not due");
}

TEST(Mutations, ASlotUsedTooEarly) {
  Job job = gather();
  RankView& view = rank(job, 0);
  // the second segment's encoding goes where the first one's message still lies
  const std::uint32_t first = find(view, "encode");
  const std::uint32_t second = find(view, "encode", 1);
  access(view, second, Space::message, Use::write).where =
      access(view, first, Space::message, Use::write).where;
  expect_found(job, "rank 0, step " + std::to_string(second) + " (encode of elements [64, 128))",
               "it writes slot");
}

TEST(Mutations, ASlotReadBeforeAnythingIsThere) {
  Job job = gather();
  RankView& view = rank(job, 0);
  const std::uint32_t send = find(view, "send");
  access(view, send, Space::message, Use::read).where.offset = view.slots.size() - 1;
  expect_found(job, "rank 0, step " + std::to_string(send), "before anything is written there");
}

TEST(Mutations, ASlotTooSmall) {
  Job job = gather();
  RankView& view = rank(job, 1);
  view.slots[0].count -= 1;
  expect_found(job, "rank 1", "slot 0 has room for");
  job = gather();
  rank(job, 1).slots[1].offset = rank(job, 1).slots[0].offset;
  expect_found(job, "rank 1", "slot 1 lies over the one before it");
}

TEST(Mutations, AMessageInTheWrongSlot) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  const std::uint32_t a = find(view, "decode");
  const std::uint32_t b = find(view, "decode", 1);
  std::swap(access(view, a, Space::message, Use::read).where,
            access(view, b, Space::message, Use::read).where);
  expect_found(job, "rank 1", "it reads slot");
}

TEST(Mutations, ACycleOfSteps) {
  Job job = gather();
  RankView& view = rank(job, 1);
  add_edge(view, find(view, "sum"), find(view, "encode"));
  expect_found(job, "a cycle of waits", "rank 1's step");
}

TEST(Mutations, ACycleAcrossRanks) {
  Job job = gather();
  // each sends only once it has received: all wait
  for (RankView& view : job.views) {
    const std::uint32_t encode = find(view, "encode");
    for (std::uint32_t i = 0; i < encode; ++i) {
      if (view.steps[i].kind == Kind::receive) add_edge(view, i, encode);
    }
  }
  expect_found(job, "a cycle of waits", "receive from rank");
}

TEST(Mutations, SendsThatWaitForTheirReceives) {
  Job job = gather();
  // each receives only once it has sent, which is well where sends are buffered
  for (RankView& view : job.views) {
    const std::uint32_t encode = find(view, "encode");
    std::vector<std::uint32_t> sends;
    for (std::uint32_t i = encode; sends.size() < 2; ++i) {
      if (view.steps[i].kind == Kind::send) sends.push_back(i);
    }
    for (std::uint32_t i = 0; i < encode; ++i) {
      for (const std::uint32_t send : sends) add_edge(view, send, i);
    }
  }
  expect_found(job, "a cycle of waits", "send to rank");
}

TEST(Mutations, AWorkerResidualUpdatedTwice) {
  Job job = two_phase();
  RankView& view = rank(job, 2);
  const std::uint32_t decode = find(view, "decode");
  Access& undo = access(view, decode, Space::worker_residual, Use::undo);
  undo.use = Use::update;
  expect_found(job, "rank 2, step " + std::to_string(decode), "the worker residual's elements");
}

TEST(Mutations, AResidualNotUpdated) {
  Job job = two_phase();
  RankView& view = rank(job, 2);
  Access& update = access(view, find(view, "reduce"), Space::server_residual, Use::update);
  update.where.count = 0;
  expect_found(job, "rank 2", "are never updated");
}

TEST(Mutations, AServerResidualOfAnotherRank) {
  Job job = two_phase();
  RankView& view = rank(job, 2);
  const std::uint32_t reduce = find(view, "reduce");
  access(view, reduce, Space::server_residual, Use::update).where.offset = 0;
  expect_found(job, "rank 2, step " + std::to_string(reduce), "the server residual is for elements");
}

TEST(Mutations, AResidualTouchedAtTheSameTime) {
  Job job = deepspeed();
  RankView& view = rank(job, 1);
  const std::uint32_t extract = find(view, "extract");
  add_access(view, extract,
             {.space = Space::worker_residual, .use = Use::undo, .where = view.steps[extract].elements});
  expect_found(job, "rank 1", "the worker residual's element");
}

TEST(Mutations, StatisticsOfResidualsThatAreUpdatedAlready) {
  Job job = summed();
  RankView& view = rank(job, 0);
  const std::uint32_t measure = find(view, "contribute", 1);
  // the next segment looks at the elements of this one
  access(view, measure, Space::worker_residual, Use::read).where =
      access(view, find(view, "contribute last"), Space::worker_residual, Use::update).where;
  expect_found(job, "rank 0", "the worker residual's element");
}

TEST(Mutations, InputReadAfterItsOutputIsWritten) {
  Job job = gather();
  RankView& view = rank(job, 1);
  const std::uint32_t late = find(view, "sum", 5);
  add_edge(view, find(view, "sum"), late);
  add_access(view, late, {.space = Space::input, .use = Use::read, .where = {0, 1}});
  expect_found(job, "rank 1, step " + std::to_string(late), "may be the same memory");
  // and at the same time
  job = gather();
  const std::uint32_t encode = find(rank(job, 1), "encode", 1);
  add_access(rank(job, 1), encode, {.space = Space::input, .use = Use::read, .where = {0, 1}});
  expect_found(job, "rank 1, step " + std::to_string(find(rank(job, 1), "sum")),
               "it writes the output's element [0, 1) which step " + std::to_string(encode));
}

TEST(Mutations, AnotherOrderOfTheSum) {
  Job job = two_phase();
  RankView& view = rank(job, 0);
  const std::uint32_t reduce = find(view, "reduce");
  // reads the messages one by one, the last rank's first
  Access all = access(view, reduce, Space::message, Use::read);
  Access& result = access(view, reduce, Space::message, Use::write);
  const Access written = result;
  view.accesses[view.steps[reduce].first_access].where = {all.where.offset + 2, 1};
  view.accesses[view.steps[reduce].first_access].author = 2;
  result.use = Use::read;
  result.role = Role::term;
  result.what = What::message;
  result.author = 0;
  result.where = {all.where.offset, 2};
  add_access(view, reduce, written);
  expect_found(job, "rank 0", "in the order 2, 0, 1, where 0, 1, 2 is stated");
}

TEST(Mutations, ARankThatIsLeftOutOfTheSum) {
  Job job = gather();
  RankView& view = rank(job, 1);
  access(view, find(view, "sum"), Space::message, Use::read).where.count = 2;
  expect_found(job, "rank 1", "in the output's elements [0, 64) rank 2's input is missing");
}

TEST(Mutations, ARankThatIsInTheSumTwice) {
  Job job = gather();
  RankView& view = rank(job, 1);
  const std::uint32_t sum = find(view, "sum");
  const Access all = access(view, sum, Space::message, Use::read);
  Access again = all;
  again.where = {all.where.offset + 1, 1};
  again.author = 1;
  Access& result = access(view, sum, Space::output, Use::write);
  const Access written = result;
  result = again;
  add_access(view, sum, written);
  expect_found(job, "rank 1", "in the output's elements [0, 64) rank 1's input is 2 times");
}

TEST(Mutations, ADivisionTooManyOrTooFew) {
  Job job = two_phase();
  RankView& view = rank(job, 1);
  view.steps[find(view, "reduce")].scale = 0;
  expect_found(job, "rank 0", "divided by the number of ranks 0 times, where the average is due");
  job = exact();
  rank(job, 1).steps[1].scale = -2;
  expect_found(job, "rank 1", "2 times, where the average is due");
  job = summed();
  RankView& other = rank(job, 2);
  other.steps[find(other, "conclude")].scale = -1;
  expect_found(job, "rank 2", "1 times, where the sum is due");
}

TEST(Mutations, ReductionsInTheOtherOrder) {
  Job job = summed();
  RankView& view = rank(job, 1);
  const std::uint32_t a = find(view, "all_reduce", 0);
  const std::uint32_t b = find(view, "all_reduce", 1);
  const std::uint32_t c = find(view, "all_reduce", 2);
  ASSERT_EQ(view.steps[c].started_after, b);
  view.steps[b].started_after = kNone;
  view.steps[a].started_after = b;
  view.steps[c].started_after = a;
  expect_found(job, "rank 1", "is of statistics of elements");
  view.steps[a].started_after = kNone;
  expect_found(job, "rank 1", "may start in either order");
}

TEST(Mutations, AReductionThatOneRankDoesNotEnter) {
  Job job = summed();
  RankView& view = rank(job, 1);
  silence(view, find(view, "all_reduce", 13));
  expect_found(job, "rank 1 enters 13 reductions", "rank 0 14");
}

TEST(Mutations, AReductionOfTheWrongKind) {
  Job job = summed();
  RankView& view = rank(job, 1);
  view.steps[find(view, "all_reduce")].maximum = false;
  expect_found(job, "rank 1", "statistics are reduced by their maximum");
}

TEST(Mutations, AReductionThatBlocksARankForWhomOthersWait) {
  Job job = gather();
  // all enter a reduction, rank 0 once it has heard from the others, who need not have sent by then
  for (int r = 0; r < 3; ++r) {
    RankView& view = rank(job, static_cast<std::size_t>(r));
    Step reduction{.kind = Kind::reduction, .name = "all_reduce"};
    reduction.first_access = static_cast<std::uint32_t>(view.accesses.size());
    reduction.accesses = 1;
    const auto i = static_cast<std::uint32_t>(view.steps.size());
    view.accesses.push_back({.space = Space::input, .use = Use::read, .role = Role::term, .where = {0, 1}});
    view.steps.push_back(reduction);
    if (r == 0) add_edge(view, find(view, "sum"), i);
  }
  job.reductions = 1;
  expect_found(job, "a cycle of waits", "reduction 0");
}

TEST(Mutations, ANumberOfMessagesThatIsNotTheFormulas) {
  Job job = gather();
  job.messages[1] += 1;
  expect_found(job, "rank 1", "sends messages: 14, and by the formula 15");
  job = gather();
  job.bytes[2] -= 1;
  expect_found(job, "rank 2", "sends bytes:");
  job = summed();
  job.reductions += 1;
  expect_found(job, "rank 0", "enters reductions: 14, and by the formula 15");
  job = summed();
  job.reduced_bytes += 4;
  expect_found(job, "rank 0", "gives bytes to reductions:");
}

// Rank 0 makes a message in slot 0 and one in slot 1, which it sends; rank 1 answers, into slot 2; then slot
// `again` is written once more. By hand.
Job answered(bool after_the_question, std::size_t again) {
  Job job;
  job.name = "by hand, P = 3";
  job.ranks = 3;
  job.count = 8;
  job.tags = 2;
  job.views.resize(3);
  job.server.resize(3);
  job.messages = {1, 1, 0};
  job.bytes = {0, 0, 0};
  const auto add = [&](std::size_t r, Step step, std::size_t slot, std::vector<std::uint32_t> before) {
    RankView& view = job.views[r];
    step.first_access = static_cast<std::uint32_t>(view.accesses.size());
    step.accesses = 1;
    Access one{.use = step.kind == Kind::send ? Use::read : Use::write, .where = {slot, 1}};
    if (step.kind == Kind::compute) one.role = Role::result;
    view.accesses.push_back(one);
    step.first_before = static_cast<std::uint32_t>(view.before.size());
    step.befores = static_cast<std::uint32_t>(before.size());
    view.before.insert(view.before.end(), before.begin(), before.end());
    view.steps.push_back(step);
  };
  const Step make{.kind = Kind::compute, .name = "make", .makes = What::message};
  for (std::size_t r = 0; r < 2; ++r) job.views[r].slots = {{0, 64}, {64, 64}, {128, 64}};
  add(0, make, 0, {});
  add(0, make, 1, {0});
  add(0, {.kind = Kind::send, .peer = 1, .name = "send"}, 1, {1});
  add(0, {.kind = Kind::receive, .tag = 1, .peer = 1, .name = "receive"}, 2, {});
  add(0, make, again, {3});
  add(1, make, 0, {});
  add(1, {.kind = Kind::receive, .peer = 0, .name = "receive"}, 1, {});
  const std::vector<std::uint32_t> before =
      after_the_question ? std::vector<std::uint32_t>{0, 1} : std::vector<std::uint32_t>{0};
  add(1, {.kind = Kind::send, .tag = 1, .peer = 0, .name = "send"}, 0, before);
  return job;
}

// An order that comes about by way of another rank counts, where it comes about in every run.
TEST(Mutations, AnOrderByWayOfAnotherRank) {
  expect_sound(answered(true, 0));
  expect_found(answered(false, 0), "rank 0, step 4 (make", "it writes slot [0, 1) which step 0");
  // that the message has come does not say that the send is over
  expect_found(answered(true, 1), "rank 0, step 4 (make", "it writes slot [1, 2) which step 2 (send");
}

}  // namespace
}  // namespace terse::test::proof

// SPDX-License-Identifier: Apache-2.0
//
// What schedules are predicted to send, against what calls send and what docs/algorithms.md says; and how
// long they are predicted to take, against closed forms.
#include "collective/predict.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/exact.hpp"
#include "support/formulas.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

/// As the call's runners have it: with a trailer's room in each slot.
Problem problem_of(const Rig& rig) {
  Problem problem = rig.problem(0);
  problem.trailer_bytes = 8;
  return problem;
}

std::size_t agreement_rounds(int ranks) { return agreement_bytes(ranks) / 24; }

/// One call, whose messages are counted: what was sent is what was predicted, or where sizes vary, no more.
void check_counts(const Setting& setting) {
  SCOPED_TRACE(text_of(setting));
  Rig rig(setting);
  Rig::Matrix inputs;
  for (int r = 0; r < setting.ranks; ++r) {
    inputs.push_back(normal_values(setting.count, setting.dtype, 1, r));
  }
  Rig::Result result = rig.empty_result();
  std::vector<std::size_t> messages(static_cast<std::size_t>(setting.ranks));
  run_ranks(setting.ranks, [&](ThreadTransport& transport) {
    rig.call_on(transport, inputs, result);
    messages[static_cast<std::size_t>(transport.rank())] = transport.messages_sent();
  });
  ASSERT_FALSE(result.failed()) << result.errors[0];
  const Prediction predicted =
      predict(rig.algorithm(), problem_of(rig), {.within_node = {.each = 1000, .byte = 1}},
              {.ranks_per_node = setting.ranks, .checksum = setting.checksum});
  ASSERT_EQ(predicted.ranks.size(), result.calls.size());
  std::size_t sent = 0;
  std::size_t received = 0;
  const std::size_t agreements = setting.checksum ? 2 : 1;
  for (std::size_t r = 0; r < result.calls.size(); ++r) {
    const RankPrediction& rank = predicted.ranks[r];
    ASSERT_EQ(rank.messages + agreements * agreement_rounds(setting.ranks), messages[r]) << "rank " << r;
    const std::size_t bytes = rank.bytes_sent + agreements * agreement_bytes(setting.ranks);
    if (rig.codec()->traits().fixed_size) {
      ASSERT_EQ(bytes, result.calls[r].bytes_sent) << "rank " << r;
    } else {
      ASSERT_GE(bytes, result.calls[r].bytes_sent) << "rank " << r;
    }
    sent += rank.bytes_sent;
    received += rank.bytes_received;
  }
  if (rig.algorithm().codecs != Algorithm::For::summable) {
    ASSERT_EQ(sent, received);
  }
}

TEST(Predict, CountsWhatCallsSend) {
  std::size_t checked = 0;
  std::size_t turn = 0;
  for (const CodecEntry& row : codecs()) {
    for (const std::string& spec : row.examples) {
      for (const Algorithm& algorithm : algorithm_table()) {
        for (const int ranks : {2, 5}) {
          for (const std::size_t count : {0u, 65u, 5003u}) {
            ++turn;
            if (kSanitized && (turn + turn / 6) % 3 != 0) continue;
            Setting setting{.ranks = ranks,
                            .count = count,
                            .dtype = turn % 4 == 0 ? DType::f64 : DType::f32,
                            .op = turn % 2 == 0 ? Op::sum : Op::average,
                            .codec = spec,
                            .algorithm = std::string(algorithm.name),
                            .feedback = false,
                            .segment_bytes = turn % 3 == 0 ? std::size_t{1} << 20 : 1000 * (turn % 3),
                            .checksum = turn % 5 == 0};
            if (!refusal(setting).empty()) setting.dtype = DType::f32;
            if (!refusal(setting).empty()) continue;
            check_counts(setting);
            if (HasFatalFailure()) return;
            ++checked;
          }
        }
      }
    }
  }
  EXPECT_GT(checked, kSanitized ? 100u : 300u);
}

/// A list: pieces hold what lies there of whichever tensor.
TEST(Predict, CountsWhatListsSend) {
  const std::vector<std::size_t> counts = {700, 1, 0, 3000};
  for (const char* algorithm : {"two_phase", "gather"}) {
    const auto codec = make_codec(algorithm[0] == 't' ? "quant:bits=4,block=64" : "natural:block=128");
    const int ranks = 3;
    std::vector<std::size_t> sent(static_cast<std::size_t>(ranks));
    run_ranks(ranks, [&](ThreadTransport& transport) {
      std::vector<std::vector<float>> data;
      std::vector<CallTensor> list;
      for (const std::size_t n : counts) data.emplace_back(n, 1.0f);
      for (std::vector<float>& one : data) list.push_back({view(one), view(one)});
      Call call;
      call.codec = codec;
      call.algorithm = &find_algorithm(algorithm);
      call.tensors = list;
      call.segment_bytes = 2000;
      Engine engine(transport);
      sent[static_cast<std::size_t>(transport.rank())] = engine.run(call).bytes_sent;
    });
    std::vector<Range> layout;
    for (const std::size_t n : counts) append(layout, n, codec->traits().block);
    const Prediction predicted = predict(find_algorithm(algorithm),
                                         {.ranks = ranks,
                                          .count = layout.back().end(),
                                          .tensors = layout,
                                          .codec = codec.get(),
                                          .segment_bytes = 2000,
                                          .trailer_bytes = 8},
                                         {});
    for (std::size_t r = 0; r < sent.size(); ++r) {
      EXPECT_EQ(predicted.ranks[r].bytes_sent + agreement_bytes(ranks), sent[r])
          << algorithm << ", rank " << r;
    }
  }
}

const char* codec_for(const Algorithm& algorithm) {
  switch (algorithm.codecs) {
    case Algorithm::For::parts:
      return "onebit:deepspeed";
    case Algorithm::For::summable:
      return "sum4";
    case Algorithm::For::all:
      return "natural:block=128";
    case Algorithm::For::pieces:
      break;
  }
  return "onebit:block=64";
}

/// docs/algorithms.md: what a rank sends, encodes and decodes.
TEST(Predict, CountsAsDocumented) {
  for (const Algorithm& algorithm : algorithm_table()) {
    const auto codec = make_codec(codec_for(algorithm));
    for (const int ranks : {1, 2, 3, 4, 7}) {
      for (const std::size_t count : {0u, 1u, 63u, 64u * 7, 4096u * 84, 100003u}) {
        for (const std::size_t segment_bytes :
             {std::size_t{1} << 12, std::size_t{1} << 16, std::size_t{1} << 30}) {
          const auto parties = static_cast<std::size_t>(ranks);
          const Problem problem{.ranks = ranks,
                                .count = padded_count(algorithm, count, ranks),
                                .codec = codec.get(),
                                .segment_bytes = segment_bytes};
          const Prediction predicted = predict(algorithm, problem, {});
          const Formula formula = formula_of(algorithm, problem);
          std::size_t reduced = 0;  // as a runner counts, which leaves the sum of a tensor to MPI
          if (algorithm.compresses) {
            for (const std::size_t bytes : formula.reduced_bytes)
              reduced += 2 * (parties - 1) * bytes / parties;
          }
          for (std::size_t r = 0; r < parties; ++r) {
            SCOPED_TRACE(std::string(algorithm.name) + ", rank " + std::to_string(r) + " of " +
                         std::to_string(ranks) + ", " + std::to_string(count) + " elements, segments of " +
                         std::to_string(segment_bytes));
            const RankPrediction& rank = predicted.ranks[r];
            ASSERT_EQ(rank.messages, formula.messages[r]);
            ASSERT_EQ(rank.reductions, formula.reduced_bytes.size());
            ASSERT_EQ(rank.bytes_sent, formula.bytes[r] + reduced);
            const std::size_t all = 4 * problem.count;
            const std::size_t own = formula.chunks.empty() ? 0 : 4 * formula.chunks[r].count;
            if (!algorithm.compresses) continue;
            ASSERT_EQ(rank.bytes_encoded, all + own);
            ASSERT_EQ(rank.bytes_decoded, algorithm.name == "gather" ? parties * all : all + parties * own);
          }
        }
      }
    }
  }
}

/// A tensor of one segment, whose pieces are `piece` elements on each rank.
Problem one_segment(const Codec& codec, int ranks, std::size_t piece) {
  return {.ranks = ranks,
          .count = piece * static_cast<std::size_t>(ranks),
          .codec = &codec,
          .segment_bytes = std::size_t{1} << 30};
}

/// Slow links and quick cores: a rank is never late with what it sends next.
const Rates kSlowWire{.measure = {.each = 3, .byte = 0.011},
                      .encode = {.each = 100, .byte = 0.02},
                      .add = {.each = 200, .byte = 0.03},
                      .decode = {.each = 50, .byte = 0.01},
                      .copy = {.each = 5, .byte = 0.001},
                      .within_node = {.each = 5000, .byte = 7},
                      .between_nodes = {.each = 20000, .byte = 17},
                      .reduced_byte = 0.1};

double of(const Rates::Cost& rate, double bytes) { return rate.each + bytes * rate.byte; }

TEST(Predict, TimeOfOneSegmentIsThatOfItsSteps) {
  const std::size_t piece = 4096;
  const double bytes = 4.0 * piece;
  const Rates& rate = kSlowWire;
  const auto onebit = make_codec("onebit:block=64");
  for (const int ranks : {1, 2, 3, 4, 7, 16}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const double others = ranks - 1;
    const auto wire = [&](const Codec& codec, std::size_t count) {
      return ranks == 1
                 ? 0.0
                 : rate.between_nodes.each + others * rate.between_nodes.byte *
                                                 static_cast<double>(codec.max_bytes(count, DType::f32));
    };
    // encode a piece; all messages, one after the other; reduce; the same again; decode the last that came
    EXPECT_NEAR(predict(find_algorithm("two_phase"), one_segment(*onebit, ranks, piece), rate).ns,
                of(rate.encode, bytes) + wire(*onebit, piece) + of(rate.add, ranks * bytes) +
                    of(rate.encode, bytes) + wire(*onebit, piece) + of(rate.decode, bytes),
                1e-3);
    EXPECT_NEAR(
        predict(find_algorithm("gather"), one_segment(*onebit, ranks, piece), rate).ns,
        of(rate.encode, ranks * bytes) + wire(*onebit, ranks * piece) + of(rate.add, ranks * ranks * bytes),
        1e-3);
    const auto deepspeed = make_codec("onebit:deepspeed");
    const double part = static_cast<double>(deepspeed->max_bytes(piece, DType::f32));
    EXPECT_NEAR(predict(find_algorithm("deepspeed"), one_segment(*deepspeed, ranks, piece), rate).ns,
                of(rate.encode, ranks * bytes) + of(rate.copy, part) + wire(*deepspeed, piece) +
                    of(rate.add, ranks * bytes) + of(rate.encode, bytes) + wire(*deepspeed, piece) +
                    of(rate.decode, bytes),
                1e-3);
  }
}

double reduction_ns(const Rates& rate, int ranks, double bytes) {
  const Rates::Cost& link = rate.between_nodes;
  const double rounds = std::ceil(std::log2(ranks));
  const double doubling = rounds * (link.each + bytes * (link.byte + rate.reduced_byte));
  const double ring = 2 * (ranks - 1) * (link.each + bytes / ranks * link.byte) +
                      (ranks - 1) * bytes / ranks * rate.reduced_byte;
  return std::min(doubling, ring);
}

TEST(Predict, TimeOfReductionsIsAFormula) {
  const Rates& rate = kSlowWire;
  for (const bool blocks : {false, true}) {
    for (const int ranks : {1, 2, 4, 6}) {
      for (const std::size_t count : {std::size_t{16}, std::size_t{1} << 20}) {
        const auto codec = make_codec("sum4");
        Problem problem{
            .ranks = ranks, .count = count, .codec = codec.get(), .segment_bytes = std::size_t{1} << 30};
        const double bytes = 4.0 * static_cast<double>(count);
        EXPECT_NEAR(predict(find_algorithm("exact"), problem, rate, {.blocks = blocks}).ns,
                    reduction_ns(rate, ranks, bytes), 1e-3);
        problem.op = Op::average;
        EXPECT_NEAR(predict(find_algorithm("exact"), problem, rate, {.blocks = blocks}).ns,
                    reduction_ns(rate, ranks, bytes) + of(rate.copy, bytes), 1e-3);
        const std::size_t blocks_of_codec = (count + codec->traits().block - 1) / codec->traits().block;
        const double shared = 4.0 * static_cast<double>(1 + blocks_of_codec);
        const double addends = std::ceil(static_cast<double>(count) / 64) * 32;
        EXPECT_NEAR(predict(find_algorithm("summed"), problem, rate, {.blocks = blocks}).ns,
                    of(rate.measure, bytes) + reduction_ns(rate, ranks, shared) + of(rate.encode, bytes) +
                        reduction_ns(rate, ranks, addends) + of(rate.decode, bytes),
                    1e-3);
      }
    }
  }
}

/// Many segments: what is busiest is busy all the time, but for the first and the last of them.
TEST(Predict, TimeOfManySegmentsIsThatOfTheBottleneck) {
  const auto codec = make_codec("onebit:block=64");
  const int ranks = 4;
  const std::size_t piece = 1024;
  const std::size_t segments = 100;
  const Problem problem{.ranks = ranks,
                        .count = segments * piece * ranks,
                        .codec = codec.get(),
                        .segment_bytes = 4 * piece * ranks};
  const Algorithm& algorithm = find_algorithm("two_phase");
  const double bytes = 4.0 * piece;
  const double message = static_cast<double>(codec->max_bytes(piece, DType::f32));
  const auto compute = [&](const Rates& r) {
    return ranks * of(r.encode, bytes) + of(r.add, ranks * bytes) + of(r.encode, bytes) +
           ranks * of(r.decode, bytes);
  };
  const auto wire = [&](const Rates& r) { return 2 * (ranks - 1) * message * r.between_nodes.byte; };

  const double by_wire = predict(algorithm, problem, kSlowWire).ns;
  EXPECT_GE(by_wire, segments * wire(kSlowWire));
  EXPECT_LE(by_wire, segments * wire(kSlowWire) + 4 * (compute(kSlowWire) + wire(kSlowWire) + 2 * 20000));

  Rates quick_wire = kSlowWire;
  quick_wire.between_nodes = {.each = 100, .byte = 0.001};
  const double by_cores = predict(algorithm, problem, quick_wire).ns;
  EXPECT_GE(by_cores, segments * compute(quick_wire));
  EXPECT_LE(by_cores,
            segments * compute(quick_wire) + 4 * (compute(quick_wire) + wire(quick_wire) + 2 * 100));

  const double by_two = predict(algorithm, problem, quick_wire, {.threads = 2}).ns;
  EXPECT_GE(by_two, by_cores / 2);
  EXPECT_LE(by_two, by_cores * 0.55);
}

/// Links of one node are others than those between nodes, and each rank has both.
TEST(Predict, NodesHaveLinksOfTheirOwn) {
  const auto codec = make_codec("onebit:block=64");
  const Problem problem = one_segment(*codec, 4, 4096);
  const Algorithm& gather = find_algorithm("gather");
  const auto time = [&](int per_node) {
    return predict(gather, problem, kSlowWire, {.ranks_per_node = per_node}).ns;
  };
  const double message = static_cast<double>(codec->max_bytes(problem.count, DType::f32));
  const double around = of(kSlowWire.encode, 4.0 * 4 * 4096) + of(kSlowWire.add, 4.0 * 4 * 4 * 4096);
  EXPECT_NEAR(time(1), around + 20000 + 3 * message * 17, 1e-3);
  EXPECT_NEAR(time(2), around + 20000 + 3 * message * 17, 1e-3)
      << "of the two messages from the other node, rank 3 gets both when rank 2 has got one of each sender";
  EXPECT_NEAR(time(4), around + 5000 + 3 * message * 7, 1e-3);
}

/// A rank takes the lowest step that is ready, which is not always the best: where segments overlap, a slower
/// step may lead to another order that happens to be a little better. Where there is one segment, no such
/// thing.
TEST(Predict, NothingIsQuickerWhereSomethingIsSlower) {
  const std::vector<double Rates::Cost::*> parts = {&Rates::Cost::each, &Rates::Cost::byte};
  const std::vector<Rates::Cost Rates::*> costs = {&Rates::measure,      &Rates::encode, &Rates::add,
                                                   &Rates::decode,       &Rates::copy,   &Rates::within_node,
                                                   &Rates::between_nodes};
  for (const Algorithm& algorithm : algorithm_table()) {
    const auto codec = make_codec(codec_for(algorithm));
    for (const int ranks : {2, 4, 5}) {
      for (const bool segments : {false, true}) {
        const Problem problem{.ranks = ranks,
                              .count = padded_count(algorithm, 200000, ranks),
                              .codec = codec.get(),
                              .segment_bytes = std::size_t{1} << (segments ? 16 : 30)};
        const double luck = segments ? 0.97 : 1 - 1e-12;
        for (const double share : {0.01, 1.0, 100.0}) {  // of the wire
          Rates rates = kSlowWire;
          for (auto link : {&Rates::within_node, &Rates::between_nodes}) {
            (rates.*link).each *= share;
            (rates.*link).byte *= share;
          }
          const auto time = [&](const Rates& slower) {
            return predict(algorithm, problem, slower, {.ranks_per_node = 2}).ns;
          };
          const auto expect_slower = [&](double& rate, const std::string& what) {
            const double is = rate;
            double before = time(rates);
            for (const double factor : {1.5, 4.0, 20.0}) {
              rate = factor * is;
              const double now = time(rates);
              EXPECT_GE(now, luck * before) << algorithm.name << " on " << ranks << " ranks, wire times "
                                            << share << ", " << what << " times " << factor;
              before = now;
            }
            rate = is;
          };
          for (std::size_t c = 0; c < costs.size(); ++c) {
            for (std::size_t p = 0; p < parts.size(); ++p) {
              expect_slower((rates.*costs[c]).*parts[p],
                            "cost " + std::to_string(c) + (p == 0 ? ", each" : ", a byte"));
            }
          }
          expect_slower(rates.reduced_byte, "reductions");
        }
      }
    }
  }
}

TEST(Predict, SchedulesThatDoNotMatchAreRefused) {
  const auto codec = make_codec("onebit:block=64");
  Problem problem = one_segment(*codec, 2, 128);
  std::vector<Schedule> schedules;
  schedules.push_back(build_two_phase(problem));
  problem.rank = 1;
  schedules.push_back(build_gather(problem));
  try {
    predict(schedules, problem, kSlowWire);
    FAIL() << "two_phase and gather are in step";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("wait for each other: rank 0"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
//
// Phases by themselves, and put together in other ways than the algorithms of the table do: they need not
// know what comes before and after them.
#include "collective/phases.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "collective/runner.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

using Matrix = std::vector<std::vector<double>>;  // [rank][element]

std::size_t index_of(int rank) { return static_cast<std::size_t>(rank); }

/// What all ranks have in common.
struct World {
  int ranks = 2;
  std::vector<std::size_t> counts;  ///< of the tensors
  DType dtype = DType::f32;
  Op op = Op::average;
  std::string codec = "identity";
  std::size_t segment_bytes = 1000;

  std::vector<Range> layout() const {
    std::vector<Range> tensors;
    for (const std::size_t count : counts) append(tensors, count, make_codec(codec)->traits().block);
    return tensors;
  }
  std::size_t count() const { return layout().back().end(); }
};
std::string text_of(const World& w) {
  std::string text = w.codec + " on " + std::to_string(w.ranks) + " ranks, " + std::string(name(w.dtype)) +
                     ", " + std::string(name(w.op)) + ", segments of " + std::to_string(w.segment_bytes) +
                     ", counts";
  for (const std::size_t count : w.counts) text += " " + std::to_string(count);
  return text;
}

/// What of each tensor lies in a range of all, moved to where that range begins.
std::vector<Range> part_of(const std::vector<Range>& layout, const Range& range) {
  std::vector<Range> parts;
  for (const Range& tensor : layout) {
    const std::size_t begin = std::clamp(tensor.offset, range.offset, range.end());
    const std::size_t end = std::clamp(tensor.end(), begin, range.end());
    parts.push_back({begin - range.offset, end - begin});
  }
  return parts;
}

/// One rank's memory: tensors that hold the elements of a part of all.
struct Part {
  Part(std::vector<Range> ranges, DType dtype) : layout(std::move(ranges)) {
    for (const Range& range : layout) {
      tensors.emplace_back(range.count, dtype);
      for (std::size_t i = 0; i < range.count; ++i) tensors.back().set(i, -77);  // what is not written shows
    }
  }
  void fill(const std::vector<double>& all, std::size_t begin) {
    for (std::size_t t = 0; t < layout.size(); ++t) {
      for (std::size_t i = 0; i < layout[t].count; ++i) tensors[t].set(i, all[begin + layout[t].offset + i]);
    }
  }
  std::vector<Range> layout;
  std::vector<Tensor> tensors;
};

struct Outcome {
  std::vector<Piece> flagged;
  std::optional<Error> failure;
  std::size_t bytes_sent = 0;
};

/// One rank's side: its residuals stay from run to run.
class Party {
 public:
  Party(const World& world, Transport& transport)
      : world_(world), transport_(transport), codec_(make_codec(world.codec)), layout_(world.layout()) {}

  Problem problem() const {
    return {.rank = transport_.rank(),
            .ranks = world_.ranks,
            .count = world_.count(),
            .tensors = layout_.size() > 1 ? std::span<const Range>(layout_) : std::span<const Range>(),
            .dtype = world_.dtype,
            .op = world_.op,
            .codec = codec_.get(),
            .feedback = true,
            .segment_bytes = world_.segment_bytes,
            .trailer_bytes = kTrailerBytes};
  }

  Outcome run(Schedule made, const Part& in, Part& out, const Codec* other = nullptr) {
    auto schedule = std::make_shared<const Schedule>(std::move(made));
    std::vector<BoundTensor> bound(layout_.size());
    residuals_.resize(kMostPhases * layout_.size());
    for (std::size_t t = 0; t < layout_.size(); ++t) {
      bound[t] = {.in = std::as_const(in.tensors[t]).view(), .out = out.tensors[t].view()};
      for (std::size_t phase = 0; phase < schedule->residuals().size() && !codec_->traits().lossless;
           ++phase) {
        const Range kept = part_of({layout_[t]}, schedule->residuals()[phase])[0];
        Tensor& residual = residuals_[phase * layout_.size() + t];
        if (residual.count() != kept.count) residual = Tensor(kept.count, accumulator_of(world_.dtype));
        const std::size_t begin = std::max(schedule->residuals()[phase].offset, layout_[t].offset);
        bound[t].residuals[phase] = {residual.view(), begin - layout_[t].offset};
      }
    }
    Buffer memory;
    Runner runner(transport_, memory, nullptr);
    runner.begin(schedule,
                 {.layout = layout_,
                  .in_layout = in.layout,
                  .out_layout = out.layout,
                  .tensors = bound,
                  .codecs = {codec_.get(), other},
                  .dtype = world_.dtype,
                  .call = call_++},
                 transport_.take_tags(Schedule::kChannels));
    runner.open_gate();
    while (!runner.done()) {
      if (!runner.advance(Runner::Collectives::enter)) transport_.progress(Transport::Wait::yes);
    }
    for (const Tensor& tensor : out.tensors)
      EXPECT_TRUE(tensor.guards_intact()) << "written beside the output";
    return {runner.flagged(), runner.failure(), runner.bytes_sent()};
  }

  const Tensor& residual(std::size_t phase, std::size_t tensor) const {
    return residuals_[phase * layout_.size() + tensor];
  }
  const std::vector<Range>& layout() const { return layout_; }

 private:
  World world_;
  Transport& transport_;
  std::shared_ptr<const Codec> codec_;
  std::vector<Range> layout_;
  std::vector<Tensor> residuals_;
  std::uint64_t call_ = 0;
};

Matrix inputs_of(const World& world, std::uint64_t seed, bool exact) {
  Matrix inputs;
  for (int r = 0; r < world.ranks; ++r) {
    inputs.push_back(exact ? exact_values(world.count(), world.dtype, seed, r)
                           : normal_values(world.count(), world.dtype, seed, r));
  }
  return inputs;
}

double exact_sum(const World& world, const Matrix& inputs, std::size_t i) {
  double sum = 0;
  for (const auto& of_rank : inputs) sum += of_rank[i];
  return round_to(world.op == Op::average ? sum / world.ranks : sum, world.dtype);
}

std::vector<World> worlds(const std::string& codec) {
  std::vector<World> all;
  std::uint64_t turn = 0;
  for (const int ranks : {1, 2, 3, 4, 5, 7, 8}) {
    for (const std::vector<std::size_t>& counts :
         std::vector<std::vector<std::size_t>>{{0}, {1}, {63}, {1009}, {64, 1, 300}, {0, 777, 0, 9}}) {
      const DType dtype = kAllDTypes[turn % 4];
      // some lists for each number of ranks, and the other way round
      if (kSanitized && (turn + turn / 6) % 3 != 0) {
        ++turn;
        continue;
      }
      all.push_back({.ranks = ranks,
                     .counts = counts,
                     .dtype = make_codec(codec)->supports(dtype) ? dtype : DType::f32,
                     .op = turn % 2 == 0 ? Op::average : Op::sum,
                     .codec = codec,
                     .segment_bytes = turn % 3 == 0 ? 1 : 1000 * (turn % 3)});
      ++turn;
    }
  }
  return all;
}

const Algorithm& direct(Collective collective) { return find_algorithm("direct", collective); }

TEST(ReduceScatter, SumsOwnChunk) {
  for (const World& world : worlds("identity")) {
    SCOPED_TRACE(text_of(world));
    const Matrix inputs = inputs_of(world, 7, true);
    run_ranks(world.ranks, [&](ThreadTransport& t) {
      Party party(world, t);
      const Algorithm& algorithm = direct(Collective::reduce_scatter);
      const Range chunk = algorithm.chunks(party.problem())[index_of(t.rank())];
      Part in(party.layout(), world.dtype);
      in.fill(inputs[index_of(t.rank())], 0);
      Part out(part_of(party.layout(), chunk), world.dtype);
      const Outcome outcome = party.run(algorithm.build(party.problem()), in, out);
      ASSERT_FALSE(outcome.failure);
      ASSERT_TRUE(outcome.flagged.empty());
      EXPECT_EQ(outcome.bytes_sent, t.bytes_sent());
      for (std::size_t k = 0; k < out.layout.size(); ++k) {
        for (std::size_t i = 0; i < out.layout[k].count; ++i) {
          ASSERT_EQ(out.tensors[k][i], exact_sum(world, inputs, chunk.offset + out.layout[k].offset + i))
              << k << " " << i;
        }
      }
    });
  }
}

TEST(AllGather, GivesEveryRankAllChunks) {
  for (const World& world : worlds("identity")) {
    SCOPED_TRACE(text_of(world));
    const std::vector<double> values = inputs_of(world, 8, true)[0];
    run_ranks(world.ranks, [&](ThreadTransport& t) {
      Party party(world, t);
      const Algorithm& algorithm = direct(Collective::all_gather);
      const Range chunk = algorithm.chunks(party.problem())[index_of(t.rank())];
      Part in(part_of(party.layout(), chunk), world.dtype);
      in.fill(values, chunk.offset);
      Part out(party.layout(), world.dtype);
      const Outcome outcome = party.run(algorithm.build(party.problem()), in, out);
      ASSERT_FALSE(outcome.failure);
      EXPECT_EQ(outcome.bytes_sent, t.bytes_sent());
      for (std::size_t k = 0; k < out.layout.size(); ++k) {
        for (std::size_t i = 0; i < out.layout[k].count; ++i) {
          ASSERT_EQ(out.tensors[k][i], values[out.layout[k].offset + i]) << k << " " << i;
        }
      }
    });
  }
}

/// What error feedback promises, of each half: what goes out and what is kept add up to what came in.
TEST(ReduceScatter, LosesNothingWithFeedback) {
  for (const std::string codec : {"onebit:block=8", "quant:block=64", "cast:bf16"}) {
    for (World world : worlds(codec)) {
      if (world.dtype == DType::f16 || world.dtype == DType::bf16) world.dtype = DType::f32;
      SCOPED_TRACE(text_of(world));
      std::vector<Matrix> kept(2, Matrix(index_of(world.ranks), std::vector<double>(world.count())));
      std::vector<double> sums(world.count());
      const Matrix inputs = inputs_of(world, 9, false);
      run_ranks(world.ranks, [&](ThreadTransport& t) {
        Party party(world, t);
        const Algorithm& algorithm = direct(Collective::reduce_scatter);
        const Range chunk = algorithm.chunks(party.problem())[index_of(t.rank())];
        Part in(party.layout(), world.dtype);
        in.fill(inputs[index_of(t.rank())], 0);
        Part out(part_of(party.layout(), chunk), world.dtype);
        for (int again = 0; again < 2; ++again) {  // the second starts from the residuals of the first
          for (std::size_t k = 0; k < in.layout.size(); ++k) {
            for (std::size_t i = 0; i < in.layout[k].count && again == 1; ++i) {
              kept[0][index_of(t.rank())][in.layout[k].offset + i] = party.residual(0, k)[i];
            }
          }
          ASSERT_FALSE(party.run(algorithm.build(party.problem()), in, out).failure);
        }
        for (std::size_t k = 0; k < in.layout.size(); ++k) {
          for (std::size_t i = 0; i < in.layout[k].count; ++i) {
            kept[1][index_of(t.rank())][in.layout[k].offset + i] = party.residual(0, k)[i];
          }
          for (std::size_t i = 0; i < out.layout[k].count; ++i) {
            sums[chunk.offset + out.layout[k].offset + i] = out.tensors[k][i];
          }
        }
      });
      const double divisor = world.op == Op::average ? world.ranks : 1;
      for (const Range& tensor : world.layout()) {
        for (std::size_t i = tensor.offset; i < tensor.end(); ++i) {
          double due = 0;
          double magnitude = 0;
          for (std::size_t r = 0; r < inputs.size(); ++r) {
            due += inputs[r][i] + kept[0][r][i] - kept[1][r][i];
            magnitude += std::abs(inputs[r][i]) + std::abs(kept[0][r][i]) + std::abs(kept[1][r][i]);
          }
          ASSERT_NEAR(sums[i], due / divisor, 8 * unit_roundoff(world.dtype) * magnitude) << i;
        }
      }
    }
  }
}

TEST(AllGather, LosesNothingWithFeedback) {
  for (const std::string codec : {"onebit:block=8", "quant:block=64", "cast:bf16"}) {
    for (World world : worlds(codec)) {
      if (world.dtype == DType::f16 || world.dtype == DType::bf16) world.dtype = DType::f32;
      SCOPED_TRACE(text_of(world));
      const std::vector<double> values = inputs_of(world, 10, false)[0];
      std::vector<std::vector<Tensor>> outputs(index_of(world.ranks));
      run_ranks(world.ranks, [&](ThreadTransport& t) {
        Party party(world, t);
        const Algorithm& algorithm = direct(Collective::all_gather);
        const Range chunk = algorithm.chunks(party.problem())[index_of(t.rank())];
        Part in(part_of(party.layout(), chunk), world.dtype);
        in.fill(values, chunk.offset);
        Part out(party.layout(), world.dtype);
        std::vector<double> before(chunk.count);
        for (int again = 0; again < 2; ++again) {
          for (std::size_t k = 0; k < in.layout.size() && again == 1; ++k) {
            for (std::size_t i = 0; i < in.layout[k].count; ++i)
              before[in.layout[k].offset + i] = party.residual(0, k)[i];
          }
          ASSERT_FALSE(party.run(algorithm.build(party.problem()), in, out).failure);
        }
        for (std::size_t k = 0; k < in.layout.size(); ++k) {
          for (std::size_t i = 0; i < in.layout[k].count; ++i) {
            const std::size_t at = in.layout[k].offset + i;
            const std::size_t in_tensor = chunk.offset + at - party.layout()[k].offset;
            const double x = values[chunk.offset + at];
            ASSERT_NEAR(out.tensors[k][in_tensor], x + before[at] - party.residual(0, k)[i],
                        8 * unit_roundoff(world.dtype) * (std::abs(x) + std::abs(before[at]) + 1))
                << k << " " << i;
          }
        }
        outputs[index_of(t.rank())] = out.tensors;
      });
      for (const auto& of_rank : outputs) {
        for (std::size_t k = 0; k < of_rank.size(); ++k) {
          ASSERT_TRUE(of_rank[k].same_bits(outputs[0][k])) << "ranks end with different bits";
        }
      }
    }
  }
}

/// A value that is not finite: who writes the piece that it lies in knows, and nothing of that piece is
/// written.
TEST(Halves, FlagPiecesThatAreNotFinite) {
  for (const int ranks : {1, 2, 3, 5, 8}) {
    const World world{.ranks = ranks, .counts = {300, 500}, .codec = "onebit:block=8", .segment_bytes = 400};
    for (const Collective collective : {Collective::reduce_scatter, Collective::all_gather}) {
      const bool scatters = collective == Collective::reduce_scatter;
      SCOPED_TRACE(std::string(scatters ? "reduce_scatter, " : "all_gather, ") + text_of(world));
      constexpr std::size_t kSpot = 333;
      std::vector<double> values = inputs_of(world, 11, false)[0];
      values[kSpot] = std::numeric_limits<double>::quiet_NaN();
      run_ranks(ranks, [&](ThreadTransport& t) {
        Party party(world, t);
        const Algorithm& algorithm = direct(collective);
        const auto chunks = algorithm.chunks(party.problem());
        const Range chunk = chunks[index_of(t.rank())];
        Part in(scatters ? party.layout() : part_of(party.layout(), chunk), world.dtype);
        in.fill(values, scatters ? 0 : chunk.offset);
        Part out(scatters ? part_of(party.layout(), chunk) : party.layout(), world.dtype);
        const Outcome outcome = party.run(algorithm.build(party.problem()), in, out);
        ASSERT_FALSE(outcome.failure);
        const bool concerned = !scatters || (chunk.offset <= kSpot && kSpot < chunk.end());
        ASSERT_EQ(outcome.flagged.size(), concerned ? 1u : 0u);
        if (!concerned) return;
        const Range piece = outcome.flagged[0].range;
        ASSERT_TRUE(piece.offset <= kSpot && kSpot < piece.end());
        for (std::size_t k = 0; k < out.layout.size(); ++k) {
          for (std::size_t i = 0; i < out.layout[k].count; ++i) {
            const std::size_t at = (scatters ? chunk.offset : 0) + out.layout[k].offset + i;
            ASSERT_EQ(out.tensors[k][i] == -77, piece.offset <= at && at < piece.end()) << at;
          }
        }
      });
    }
  }
}

Range share_of(const Range& range, std::size_t block, int parts, int part) {
  Range share = deal_chunks(range.count, block, parts)[index_of(part)];
  share.offset += range.offset;
  return share;
}

/// Sums that are written down between the two halves give the bits and residuals of two_phase, which encodes
/// them where they are made.
TEST(Phases, TwoPhaseIsItsHalves) {
  for (const std::string codec : {"onebit:block=8", "quant:block=64", "cast:bf16", "identity"}) {
    for (World world : worlds(codec)) {
      world.dtype = DType::f32;  // sums are rounded once where they are written down
      world.op = Op::average;
      SCOPED_TRACE(text_of(world));
      const Matrix inputs = inputs_of(world, 12, false);
      run_ranks(world.ranks, [&](ThreadTransport& t) {
        Party fused(world, t);
        Party halves(world, t);
        Part in(fused.layout(), world.dtype);
        in.fill(inputs[index_of(t.rank())], 0);
        Part expected(fused.layout(), world.dtype);
        Part out(fused.layout(), world.dtype);
        const Problem problem = fused.problem();
        const auto chunks = two_phase_chunks(problem);
        for (int call = 0; call < 3; ++call) {
          ASSERT_FALSE(fused.run(build_two_phase(problem), in, expected).failure);
          PhaseBuilder builder(problem);
          const auto all = builder.add_group(Group::of_all(world.ranks, t.rank()));
          const Phase first{.group = all, .number = builder.add_phase({0, problem.count})};
          const Phase second{.group = all,
                             .number = builder.add_phase(chunks[index_of(t.rank())]),
                             .channel = 1,
                             .stage = 2};
          for (const auto& segment : cut_segments(chunks, piece_elements(problem))) {
            std::vector<Range> shares(index_of(world.ranks));
            for (const Piece& piece : segment) shares[index_of(piece.owner)] = piece.range;
            const Range& own = shares[index_of(t.rank())];
            builder.begin_segment();
            const Elements sums{.space = Space::scratch,
                                .begin = own.offset,
                                .slot = builder.add_slots(1, own.count * size_of(world.dtype))};
            const ReduceScatter scattered =
                add_reduce_scatter(builder, first, shares, world.ranks, {.space = Space::input}, sums);
            add_all_gather(builder, second, shares, scattered.sums, 1, {.space = Space::output});
          }
          ASSERT_FALSE(halves.run(std::move(builder).finish(), in, out).failure);
          for (std::size_t k = 0; k < out.tensors.size(); ++k) {
            ASSERT_TRUE(out.tensors[k].same_bits(expected.tensors[k])) << "call " << call << ", tensor " << k;
            for (std::size_t phase = 0; phase < kMostPhases && codec != "identity"; ++phase) {
              ASSERT_TRUE(halves.residual(phase, k).same_bits(fused.residual(phase, k))) << phase;
            }
          }
        }
      });
    }
  }
}

/// Exact inside a node, compressed between the nodes' equals: other groups and codecs, and no other verbs.
TEST(Phases, MakeAHierarchy) {
  for (const int local : {1, 2, 3}) {
    for (const int nodes : {1, 2, 3}) {
      for (const std::vector<std::size_t>& counts :
           std::vector<std::vector<std::size_t>>{{5}, {1009}, {64, 300}}) {
        for (const bool overflows : {false, true}) {
          const World world{
              .ranks = local * nodes, .counts = counts, .codec = overflows ? "onebit:block=8" : "cast:bf16"};
          SCOPED_TRACE(std::to_string(nodes) + " nodes of " + std::to_string(local) + ", " + text_of(world));
          Matrix inputs = inputs_of(world, 13, true);
          if (overflows) inputs[index_of(world.ranks - 1)][2] = std::numeric_limits<double>::infinity();
          const auto identity = make_codec("identity");
          std::vector<std::vector<Tensor>> outputs(index_of(world.ranks));
          run_ranks(world.ranks, [&](ThreadTransport& t) {
            Party party(world, t);
            Part in(party.layout(), world.dtype);
            in.fill(inputs[index_of(t.rank())], 0);
            Part out(party.layout(), world.dtype);
            const Problem problem = party.problem();
            const int node = t.rank() / local;
            const int me = t.rank() % local;
            std::vector<int> inside;
            std::vector<int> between;
            for (int l = 0; l < local; ++l) inside.push_back(node * local + l);
            for (int n = 0; n < nodes; ++n) between.push_back(n * local + me);
            const std::size_t block = problem.codec->traits().block;
            const Range mine = share_of({0, problem.count}, block, local, me);

            PhaseBuilder builder(problem, 7);
            const auto exact = builder.add_codec(*identity);
            const auto inner = builder.add_group({inside, me});
            const auto outer = builder.add_group({between, node});
            const auto of_slice = builder.add_phase(mine);
            const auto of_chunk = builder.add_phase(share_of(mine, block, nodes, node));
            const Phase down{.group = inner, .number = kNoResidual, .codec = exact};
            const Phase across{.group = outer, .number = of_slice, .stage = 2};
            const Phase back{.group = outer, .number = of_chunk, .channel = 1, .stage = 3};
            const Phase up{.group = inner, .number = kNoResidual, .channel = 1, .codec = exact, .stage = 5};
            std::vector<Range> slices;
            std::vector<Range> chunks;
            for (int l = 0; l < local; ++l) slices.push_back(share_of({0, problem.count}, block, local, l));
            for (int n = 0; n < nodes; ++n) chunks.push_back(share_of(mine, block, nodes, n));

            builder.begin_segment();
            const Elements sums{.space = Space::scratch,
                                .begin = mine.offset,
                                .slot = builder.add_slots(1, mine.count * size_of(world.dtype))};
            const Elements results{.space = Space::scratch,
                                   .begin = mine.offset,
                                   .slot = builder.add_slots(1, mine.count * size_of(world.dtype))};
            const ReduceScatter scattered =
                add_reduce_scatter(builder, down, slices, 1, {.space = Space::input}, sums);
            const Exchange exchange = add_exchange(builder, across, chunks, scattered.sums);
            const auto& chunk = chunks[index_of(node)];
            const Elements decoded = add_all_gather(
                builder, back, chunks,
                [&](std::uint32_t slot) {
                  return add_reduction(builder, back, exchange.received, chunk, world.ranks, 1, slot);
                },
                1, results, exchange.encoded);
            add_all_gather(builder, up, slices, decoded, 1, {.space = Space::output});
            const Outcome outcome = party.run(std::move(builder).finish(), in, out, identity.get());
            ASSERT_FALSE(outcome.failure);
            ASSERT_EQ(outcome.flagged.empty(), !overflows);
            outputs[index_of(t.rank())] = out.tensors;
          });
          for (std::size_t r = 0; r < outputs.size(); ++r) {
            for (std::size_t k = 0; k < outputs[r].size(); ++k) {
              ASSERT_TRUE(outputs[r][k].same_bits(outputs[0][k])) << "rank " << r << ", tensor " << k;
              for (std::size_t i = 0; i < outputs[r][k].count() && !overflows; ++i) {
                const double sum = exact_sum(world, inputs, world.layout()[k].offset + i);
                ASSERT_NEAR(outputs[r][k][i], sum, 0x1p-6 * (1 + std::abs(sum))) << r << " " << k << " " << i;
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#include "support/checks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "codec/rounds.hpp"
#include "support/codec_reference.hpp"

namespace terse::test {
namespace {

bool within(const std::vector<Range>& ranges, std::size_t i) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [i](const Range& r) { return i >= r.offset && i < r.end(); });
}

template <class A>
std::vector<double> reduce_as(const Setting& s, const Rig::Matrix& inputs) {
  std::vector<double> result(s.count);
  for (std::size_t i = 0; i < s.count; ++i) {
    auto sum = static_cast<A>(inputs[0][i]);
    for (std::size_t r = 1; r < inputs.size(); ++r) sum += static_cast<A>(inputs[r][i]);
    if (s.op == Op::average) sum /= static_cast<A>(s.ranks);
    result[i] = round_to(sum, s.dtype);
  }
  return result;
}

/// Where all is one piece, it is flagged by any of them.
std::vector<Range> flagged_pieces(const Rig& rig, const std::vector<Spot>& spots) {
  std::vector<Range> flagged;
  for (const Range& piece : rig.pieces()) {
    const bool hit = std::any_of(spots.begin(), spots.end(), [&](const Spot& s) {
      return rig.codec()->traits().whole_tensor || (s.element >= piece.offset && s.element < piece.end());
    });
    if (hit) flagged.push_back(piece);
  }
  return flagged;
}

bool sums_codes(const Rig& rig) {
  return rig.sums_addends() && rounds_of(*rig.codec())->rounds_in_order().back().addend == Addend::int8;
}
bool sums_floats(const Rig& rig) { return rig.sums_addends() && !sums_codes(rig); }

std::size_t scale_of(const Setting& s) { return size_of(accumulator_of(s.dtype)); }

/// The two phases for a codec that rounds every element on its own.
void expect_as_rounding(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                        const Rig::Matrix& workers_before, const Rig::Matrix& servers_before) {
  const Setting& s = rig.setting();
  const DType accumulator = accumulator_of(s.dtype);
  const double unit = *rig.codec()->traits().error_bound;
  std::vector<double> u(s.count);
  const Rig::Matrix workers = rig.workers();
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    const auto v = s.feedback ? add_in(accumulator, inputs[r], workers_before[r]) : inputs[r];
    const auto q = expected_decode(*rig.codec(), v, s.dtype, {.call = s.call}).values;
    for (std::size_t i = 0; i < s.count; ++i) {
      u[i] += q[i] / s.ranks;
      if (!s.feedback) continue;
      ASSERT_EQ(workers[r][i], round_to(round_to(v[i] - q[i], accumulator), residual_of(s.dtype, s.residual)))
          << "worker residual " << i;
    }
  }
  const auto chunks = rig.chunks();
  for (std::size_t r = 0; r < chunks.size() && s.feedback; ++r) {
    for (std::size_t k = 0; k < chunks[r].count; ++k) u[chunks[r].offset + k] += servers_before[r][k];
  }
  const double factor = s.op == Op::sum ? s.ranks : 1;
  // half the last place of what is not normal
  const std::string& spec = rig.codec()->spec();
  const double small = spec == "cast:f8e4m3" ? 0x1p-10 : spec == "cast:f8e5m2" ? 0x1p-17 : 1e-6;
  for (std::size_t i = 0; i < s.count; ++i) {
    ASSERT_NEAR(result.out[0][i], factor * u[i], 1.01 * factor * (unit * std::abs(u[i]) + small))
        << "element " << i;
  }
}

/// The two phases without feedback for a codec whose reference says how far each element may be off.
void expect_within_slack(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result) {
  const Setting& s = rig.setting();
  ASSERT_FALSE(s.feedback);
  std::vector<double> mean(s.count);
  std::vector<double> slack(s.count);
  for (const auto& row : inputs) {
    const Expected one = expected_decode(*rig.codec(), row, s.dtype);
    for (std::size_t i = 0; i < s.count; ++i) {
      mean[i] += one.values[i] / s.ranks;
      slack[i] += one.slack[i] / s.ranks;
    }
  }
  // what is encoded again may be a little larger than the mean
  std::vector<double> larger = mean;
  for (std::size_t i = 0; i < s.count; ++i) larger[i] = std::abs(mean[i]) + slack[i];
  const Expected again = expected_decode(*rig.codec(), larger, s.dtype);
  const double factor = s.op == Op::sum ? s.ranks : 1;
  for (std::size_t i = 0; i < s.count; ++i) {
    const double rounding = 8 * unit_roundoff(s.dtype) * (larger[i] + again.slack[i]);
    ASSERT_NEAR(result.out[0][i], factor * mean[i], factor * (slack[i] + again.slack[i] + rounding))
        << "element " << i;
  }
}

/// The two phases for a codec whose reference is exact, in the accumulator's type: everything is exact then.
void expect_as_reference(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                         const Rig::Matrix& workers_before, const Rig::Matrix& servers_before) {
  const Setting& s = rig.setting();
  const DType accumulator = accumulator_of(s.dtype);
  const DType kept = residual_of(s.dtype, s.residual);
  const Rig::Matrix workers = rig.workers();
  const Rig::Matrix servers = rig.servers();
  std::vector<double> sum(s.count);
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    const auto v = s.feedback ? add_in(accumulator, inputs[r], workers_before[r]) : inputs[r];
    const Expected q = expected_decode(*rig.codec(), v, s.dtype, {.call = s.call});
    sum = add_in(accumulator, sum, q.values);
    for (std::size_t i = 0; i < s.count && s.feedback; ++i) {
      ASSERT_EQ(q.slack[i], 0.0) << "the reference is not exact";
      ASSERT_EQ(workers[r][i], round_to(round_to(v[i] - q.values[i], accumulator), kept)) << "worker " << i;
    }
  }
  for (double& u : sum) u = round_to(u / s.ranks, accumulator);
  const auto chunks = rig.chunks();
  const double factor = s.op == Op::sum ? s.ranks : 1;
  for (std::size_t r = 0; r < chunks.size(); ++r) {
    std::vector<double> u(sum.begin() + static_cast<std::ptrdiff_t>(chunks[r].offset),
                          sum.begin() + static_cast<std::ptrdiff_t>(chunks[r].end()));
    if (s.feedback) u = add_in(accumulator, u, servers_before[r]);
    const auto q =
        expected_decode(*rig.codec(), u, s.dtype, {.call = s.call, .position = chunks[r].offset}).values;
    for (std::size_t k = 0; k < u.size(); ++k) {
      const double held = round_to(round_to(q[k] * factor, accumulator), s.dtype);
      ASSERT_EQ(result.out[0][chunks[r].offset + k], held) << "element " << chunks[r].offset + k;
      if (!s.feedback) continue;
      const double left = round_to(u[k] - round_to(held / factor, accumulator), accumulator);
      ASSERT_EQ(servers[r][k], round_to(left, kept)) << "rank " << r << " server " << k;
    }
  }
}

}  // namespace

std::vector<double> ieee_reduction(const Setting& setting, const Rig::Matrix& inputs) {
  return setting.dtype == DType::f64 ? reduce_as<double>(setting, inputs) : reduce_as<float>(setting, inputs);
}

void expect_same_bits(const Rig::Result& result) {
  for (std::size_t r = 0; r < result.out.size(); ++r) {
    ASSERT_EQ(result.errors[r], "") << "rank " << r;
    ASSERT_TRUE(result.out[r].same_bits(result.out[0])) << "rank " << r << " differs from rank 0";
    ASSERT_EQ(result.calls[r].exact_count, result.calls[0].exact_count);
    ASSERT_EQ(result.calls[r].bytes_sent, result.wire[r]) << "rank " << r;
  }
}

void expect_nothing_lost(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                         const Rig::Matrix& workers_before, const Rig::Matrix& servers_before,
                         const std::vector<Range>& skip) {
  const Setting& s = rig.setting();
  const Rig::Matrix workers = rig.workers();
  const Rig::Matrix servers = rig.servers();
  auto chunks = rig.chunks();
  if (!rig.owns()) chunks = {{0, s.count}};
  for (std::size_t owner = 0; owner < chunks.size(); ++owner) {
    for (std::size_t k = 0; k < chunks[owner].count; ++k) {
      const std::size_t i = chunks[owner].offset + k;
      if (i >= s.count) break;  // padding, whose result nobody sees
      if (within(skip, i)) continue;
      const double server = rig.owns() ? servers[owner][k] : 0;
      double right = rig.owns() ? servers_before[owner][k] : 0;
      double size = std::abs(right);
      double kept = std::abs(server);
      for (std::size_t r = 0; r < inputs.size(); ++r) {
        right += (inputs[r][i] + workers_before[r][i] - workers[r][i]) / s.ranks;
        size += (std::abs(inputs[r][i]) + std::abs(workers_before[r][i]) + std::abs(workers[r][i])) / s.ranks;
        kept += std::abs(workers[r][i]) / s.ranks;
      }
      const double out = result.out[0][i] / (s.op == Op::sum ? s.ranks : 1);
      const double left = out + server;
      size += std::abs(out) + std::abs(server);
      // sums that nobody keeps a residual for are rounded to the tensor's type, f16's to its subnormal ones
      const double least = s.dtype == DType::f16 ? 0x1p-25 : 0;
      const double lost = rig.owns() ? 0 : 1.01 * unit_roundoff(s.dtype) * std::abs(out) + least;
      const double slack =
          (4 + s.ranks) * unit_roundoff(accumulator_of(s.dtype)) * size + residual_roundoff(s) * kept + lost;
      ASSERT_LE(std::abs(left - right), slack) << "element " << i << ": " << left << " and " << right;
    }
  }
}

void expect_as_model(const Rig& rig, SerialModel model, const Rig::Matrix& inputs, const Rig::Result& result,
                     const std::vector<Range>& skip) {
  const Setting& s = rig.setting();
  const std::size_t padded = rig.problem(0).count;
  const CodecTraits& traits = rig.codec()->traits();
  const std::size_t block = traits.whole_tensor ? padded + 1 : traits.block;
  // what went into each block, largest of all ranks: the measure of rounding errors
  std::vector<double> size(padded / block + 1, 0.0);
  const auto chunks = rig.chunks();
  const auto note = [&](std::size_t i, double v) {
    size[i / block] = std::max(size[i / block], std::abs(v));
  };
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    for (std::size_t i = 0; i < padded; ++i) {
      if (within(skip, i)) continue;
      if (i < s.count) note(i, inputs[r][i]);
      note(i, model.worker()[r][i]);
    }
    for (std::size_t k = 0; k < chunks[r].count; ++k) note(chunks[r].offset + k, model.server()[r][k]);
  }
  Rig::Matrix clean = inputs;
  for (auto& row : clean) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (within(skip, i)) row[i] = 0;
    }
  }
  model.step(clean);

  ASSERT_EQ(model.chunks().size(), chunks.size());
  for (std::size_t r = 0; r < chunks.size(); ++r) {
    ASSERT_EQ(model.chunks()[r].begin, chunks[r].offset);
    ASSERT_EQ(model.chunks()[r].end, chunks[r].end());
  }
  const double tolerance = tolerance_of(s.dtype);
  const double kept = residual_roundoff(s);
  const double factor = s.op == Op::sum ? s.ranks : 1;
  for (std::size_t i = 0; i < s.count; ++i) {
    if (within(skip, i)) continue;
    const double want = model.result()[i];
    ASSERT_NEAR(result.out[0][i], want, 3 * tolerance * factor * size[i / block]) << "element " << i;
    ASSERT_TRUE(want == 0 || std::signbit(result.out[0][i]) == std::signbit(want)) << "sign of element " << i;
  }
  if (!s.feedback) return;
  const Rig::Matrix workers = rig.workers();
  const Rig::Matrix servers = rig.servers();
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    ASSERT_EQ(workers[r].size(), padded);
    ASSERT_EQ(servers[r].size(), chunks[r].count);
    for (std::size_t i = 0; i < padded; ++i) {
      if (within(skip, i)) continue;
      ASSERT_NEAR(workers[r][i], model.worker()[r][i],
                  tolerance * size[i / block] + kept * std::abs(model.worker()[r][i]))
          << "rank " << r << " worker " << i;
    }
    for (std::size_t k = 0; k < chunks[r].count; ++k) {
      const std::size_t i = chunks[r].offset + k;
      if (within(skip, i)) continue;
      ASSERT_NEAR(servers[r][k], model.server()[r][k],
                  3 * tolerance * size[i / block] + kept * std::abs(model.server()[r][k]))
          << "rank " << r << " server " << i;
    }
  }
}

void expect_as_gather(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                      const Rig::Matrix& workers_before, const std::vector<Range>& skip) {
  const Setting& s = rig.setting();
  const DType accumulator = accumulator_of(s.dtype);
  const DType kept = residual_of(s.dtype, s.residual);
  const Rig::Matrix workers = rig.workers();
  std::vector<double> sum(s.count);
  std::vector<double> slack(s.count);
  std::vector<double> size(s.count);
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    auto v = s.feedback ? add_in(accumulator, inputs[r], workers_before[r]) : inputs[r];
    for (std::size_t i = 0; i < s.count; ++i) v[i] = within(skip, i) ? 0 : v[i];
    const DType sent = sums_floats(rig) ? accumulator : s.dtype;
    const Expected q = expected_decode(*rig.codec(), v, sent, {.call = s.call});
    for (std::size_t i = 0; i < s.count; ++i) {
      if (within(skip, i)) continue;
      sum[i] = round_to(sum[i] + q.values[i], accumulator);
      slack[i] += q.slack[i];
      size[i] += std::abs(q.values[i]);
      if (!s.feedback) continue;
      const double e = round_to(round_to(v[i] - q.values[i], accumulator), kept);
      if (q.slack[i] == 0) {
        ASSERT_EQ(workers[r][i], e) << "rank " << r << " worker " << i;
      } else {
        const double rounding = unit_roundoff(accumulator) * (std::abs(v[i]) + std::abs(q.values[i]));
        ASSERT_NEAR(workers[r][i], e,
                    q.slack[i] + 2 * rounding + 2 * unit_roundoff(kept) * (std::abs(e) + q.slack[i]))
            << "rank " << r << " worker " << i;
      }
    }
  }
  const double parties = s.op == Op::average ? s.ranks : 1;
  for (std::size_t i = 0; i < s.count; ++i) {
    if (within(skip, i)) continue;
    const double want = round_to(round_to(sum[i] / parties, accumulator), s.dtype);
    if (slack[i] == 0 && !sums_floats(rig)) {  // what MPI adds, it adds in any order
      ASSERT_EQ(result.out[0][i], want) << "element " << i;
    } else {
      const double rounding = (s.ranks + 1) * unit_roundoff(accumulator) * size[i] / parties +
                              2.1 * unit_roundoff(s.dtype) * (std::abs(want) + slack[i] / parties);
      ASSERT_NEAR(result.out[0][i], want, slack[i] / parties + rounding) << "element " << i;
    }
  }
}

void expect_as_summed(const Rig& rig, const Rig::Matrix& inputs, const Rig::Result& result,
                      const Rig::Matrix& workers_before, const std::vector<Range>& skip) {
  const Setting& s = rig.setting();
  const DType accumulator = accumulator_of(s.dtype);
  const DType kept = residual_of(s.dtype, s.residual);
  const std::size_t block = rig.codec()->traits().block;
  const Rig::Matrix workers = rig.workers();
  Rig::Matrix values;
  std::vector<double> largest((s.count + block - 1) / block);
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    values.push_back(s.feedback ? add_in(accumulator, inputs[r], workers_before[r]) : inputs[r]);
    for (std::size_t i = 0; i < s.count; ++i) {
      if (within(skip, i)) values[r][i] = 0;
      largest[i / block] = std::max(largest[i / block], std::abs(values[r][i]));
    }
  }
  std::vector<double> sums(s.count);
  std::vector<double> steps;
  for (std::size_t r = 0; r < inputs.size(); ++r) {
    const auto codes = expected_codes(*rig.codec(), values[r], s.dtype, s.ranks, largest, steps);
    for (std::size_t i = 0; i < s.count; ++i) {
      sums[i] += codes[i];
      if (!s.feedback || within(skip, i)) continue;
      const double held = round_to(codes[i] * steps[i / block], accumulator);
      ASSERT_EQ(workers[r][i], round_to(round_to(values[r][i] - held, accumulator), kept))
          << "rank " << r << " worker " << i;
    }
  }
  const double factor = round_to(s.op == Op::average ? 1.0 / s.ranks : 1.0, accumulator);
  for (std::size_t i = 0; i < s.count; ++i) {
    if (within(skip, i)) continue;
    const double one = round_to(steps[i / block] * factor, accumulator);
    ASSERT_EQ(result.out[0][i], round_to(round_to(sums[i] * one, accumulator), s.dtype)) << "element " << i;
  }
}

void expect_wire_bytes(const Rig& rig, const Rig::Result& result) {
  const Setting& s = rig.setting();
  if (!rig.algorithm().compresses || !rig.codec()->traits().fixed_size) return;
  const auto chunks = rig.chunks();
  const auto pieces = rig.pieces();
  // hadamard's payload is that of the codec behind it
  const std::string& whole_spec = rig.codec()->spec();
  const std::shared_ptr<const Codec> codec = rig.codec()->name() == "hadamard"
                                                 ? make_codec(whole_spec.substr(whole_spec.find('+') + 1))
                                                 : rig.codec();
  const CodecTraits& traits = codec->traits();
  const std::size_t trailer = s.checksum ? 8 : 0;
  // of a reduction, the least
  const auto reduced = [&](std::size_t bytes) {
    const auto ranks = static_cast<std::size_t>(s.ranks);
    return 2 * (ranks - 1) * bytes / ranks;
  };
  const auto message = [&](std::size_t count) {
    std::optional<std::size_t> payload;
    if (codec->name() == "identity") payload = count * size_of(s.dtype);
    if (codec->name() == "onebit") {
      const std::size_t scales = traits.whole_tensor ? 1 : (count + traits.block - 1) / traits.block;
      payload = scales * size_of(s.dtype) + (count + 7) / 8;
    }
    const std::string& spec = codec->spec();
    if (codec->name() == "cast") payload = count * (spec.starts_with("cast:f8") ? 1 : 2);
    const std::size_t groups = (count + 63) / 64;  // blocks are whole groups
    const std::size_t blocks = (count + traits.block - 1) / traits.block;
    const std::size_t scale = scale_of(s);
    if (codec->name() == "quant") {
      const auto bits = static_cast<std::size_t>(spec[std::string("quant:bits=").size()] - '0');
      const std::size_t zero = spec.find("range=minmax") != std::string::npos ? 1 : 0;
      payload = blocks * (scale + zero) + groups * 8 * bits;
    }
    if (codec->name() == "sum8") payload = blocks * scale + groups * 64;
    if (codec->name() == "sum4") payload = blocks * scale + groups * 32;
    if (codec->name() == "ternary") payload = blocks * scale + groups * 13;
    if (codec->name() == "natural") payload = blocks * 2 + groups * 64;
    if (codec->name() == "zfp") {
      const double rate = std::stod(codec->spec().substr(std::string("zfp:rate=").size()));
      const auto block_bits = static_cast<std::size_t>(4 * rate);
      payload = ((count + 3) / 4 * block_bits + 7) / 8;
    }
    if (codec->name() == "topk") {
      std::size_t bytes = 0;
      for (std::size_t at = 0; at < count; at += traits.block) {
        const std::size_t m = std::min(traits.block, count - at);
        const std::size_t k = topk_kept(codec->spec(), m);
        std::size_t bits = 0;
        while ((m - 1) >> bits != 0) ++bits;
        bytes += (k * bits + 7) / 8 + k * size_of(s.dtype);
      }
      payload = bytes;
    }
    if (codec->name() == "randomk") {
      std::size_t bytes = count == 0 ? 0 : 16;
      for (std::size_t at = 0; at < count; at += traits.block) {
        bytes += topk_kept(spec, std::min(traits.block, count - at)) * size_of(s.dtype);
      }
      payload = bytes;
    }
    if (!payload) {
      throw std::logic_error("tests/support/checks.cpp: how many bytes has a payload of codec " +
                             std::string(codec->name()) + "? Write it in expect_wire_bytes");
    }
    return 16 + *payload + trailer;
  };
  for (int rank = 0; rank < s.ranks; ++rank) {
    const std::size_t agreements = agreement_bytes(s.ranks) * (s.checksum ? 2 : 1);
    std::size_t formula = agreements;
    for (const Range& piece : pieces) {
      const Range own = chunks[static_cast<std::size_t>(rank)];
      if (rig.sums_addends()) {
        const bool floats = sums_floats(rig);  // and where they are
        const std::size_t blocks = (piece.count + traits.block - 1) / traits.block;
        const std::size_t numbers = floats ? 0 : scale_of(s) * blocks;
        const std::size_t payload = message(piece.count) - 16 - trailer;
        const std::size_t addends =
            floats ? (payload - 16) / size_of(s.dtype) * scale_of(s) : payload - numbers;
        formula += reduced(numbers + scale_of(s)) + reduced(addends);
        continue;
      }
      const bool mine = !rig.owns() || (piece.offset >= own.offset && piece.offset < own.end());
      formula += message(piece.count) * static_cast<std::size_t>(mine ? s.ranks - 1 : 1);
    }
    // sends of the schedule, each with the bytes of the encoding that fills its slot
    const Schedule schedule = rig.algorithm().build(rig.problem(rank));
    std::map<std::uint32_t, std::size_t> slot;
    std::size_t counted = agreements;
    for (const Step& step : schedule.steps()) {
      if (step.verb == Verb::encode || step.verb == Verb::extract || step.verb == Verb::reduce) {
        slot[step.out.slot] = rig.codec()->max_bytes(step.out.elements.count, s.dtype) + trailer;
      }
      if (step.verb == Verb::contribute) {
        const std::size_t flag = step.round == 0 ? scale_of(s) : 0;
        counted += reduced(
            flag + rounds_of(*rig.codec())->round_bytes(step.round, step.out.elements.count, s.dtype, 0));
      }
      if (step.verb == Verb::send) counted += slot.at(step.in.slot);
    }
    const auto r = static_cast<std::size_t>(rank);
    ASSERT_EQ(result.wire[r], formula) << "rank " << rank << ": formula";
    ASSERT_EQ(result.wire[r], counted) << "rank " << rank << ": schedule";
    ASSERT_EQ(result.wire[r], result.calls[r].bytes_sent) << "rank " << rank << ": what the call says";
  }
}

void expect_call(const Rig& rig, const Before& before, const Rig::Matrix& inputs, const Rig::Result& result) {
  const Setting& s = rig.setting();
  const bool lossy = rig.algorithm().compresses && !rig.codec()->traits().lossless;
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  ASSERT_NO_FATAL_FAILURE(expect_wire_bytes(rig, result));
  ASSERT_EQ(result.calls[0].exact_count, 0u);
  if (lossy && s.feedback) {
    ASSERT_NO_FATAL_FAILURE(expect_nothing_lost(rig, inputs, result, before.workers, before.servers));
  }
  if (lossy && sums_codes(rig)) {
    ASSERT_NO_FATAL_FAILURE(expect_as_summed(rig, inputs, result, before.workers));
  } else if (lossy && !rig.owns()) {
    ASSERT_NO_FATAL_FAILURE(expect_as_gather(rig, inputs, result, before.workers));
  } else if (lossy && first_name(*rig.codec()) == "onebit") {
    ASSERT_NO_FATAL_FAILURE(expect_as_model(rig, before.model, inputs, result));
  } else if (lossy && first_name(*rig.codec()) == "cast") {
    ASSERT_NO_FATAL_FAILURE(expect_as_rounding(rig, inputs, result, before.workers, before.servers));
  } else if (lossy && first_name(*rig.codec()) == "zfp") {
    ASSERT_NO_FATAL_FAILURE(expect_within_slack(rig, inputs, result));
  } else if (lossy && (rig.codec()->name() == "topk" || rig.codec()->name() == "randomk")) {
    ASSERT_NO_FATAL_FAILURE(expect_as_reference(rig, inputs, result, before.workers, before.servers));
  } else if (!lossy) {
    const auto want = ieee_reduction(s, inputs);
    for (std::size_t i = 0; i < s.count; ++i) ASSERT_EQ(result.out[0][i], want[i]) << "element " << i;
  }
}

void expect_flagged_call(const Rig& rig, const Before& before, const Rig::Matrix& inputs,
                         const Rig::Result& result, const std::vector<Spot>& spots) {
  const Setting& s = rig.setting();
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  const auto flagged = flagged_pieces(rig, spots);
  std::size_t exact = 0;
  const auto want = ieee_reduction(s, inputs);
  for (const Range& piece : flagged) {
    for (std::size_t i = piece.offset; i < std::min(piece.end(), s.count); ++i) {
      ++exact;
      if (std::isnan(want[i])) {
        ASSERT_TRUE(std::isnan(result.out[0][i])) << "element " << i << ": " << result.out[0][i];
      } else {
        ASSERT_EQ(result.out[0][i], want[i]) << "element " << i;
      }
    }
  }
  ASSERT_EQ(result.calls[0].exact_count, exact);
  if (sums_codes(rig)) {
    ASSERT_NO_FATAL_FAILURE(expect_as_summed(rig, inputs, result, before.workers, flagged));
  } else if (!rig.owns()) {
    ASSERT_NO_FATAL_FAILURE(expect_as_gather(rig, inputs, result, before.workers, flagged));
  } else if (first_name(*rig.codec()) == "onebit") {
    ASSERT_NO_FATAL_FAILURE(expect_as_model(rig, before.model, inputs, result, flagged));
  }
  if (!s.feedback) return;
  Rig::Matrix clean = inputs;
  for (auto& row : clean) {
    for (double& x : row) x = std::isfinite(x) ? x : 0;
  }
  ASSERT_NO_FATAL_FAILURE(expect_nothing_lost(rig, clean, result, before.workers, before.servers, flagged));
  // residuals of flagged pieces: as before, to the rounding of values of the size that went through them
  const auto workers = rig.workers();
  const auto servers = rig.servers();
  const auto chunks = rig.chunks();
  const double slack = 64 * unit_roundoff(accumulator_of(s.dtype)) + 8 * residual_roundoff(s);
  for (const Range& piece : flagged) {
    for (std::size_t i = piece.offset; i < piece.end(); ++i) {
      for (std::size_t r = 0; r < workers.size(); ++r) {
        ASSERT_NEAR(workers[r][i], before.workers[r][i], slack) << "rank " << r << " worker " << i;
        if (i < chunks[r].offset || i >= chunks[r].end()) continue;
        const std::size_t k = i - chunks[r].offset;
        ASSERT_NEAR(servers[r][k], before.servers[r][k], slack) << "rank " << r << " server " << i;
      }
    }
  }
}

Rig::Result check_call(Rig& rig, const Rig::Matrix& inputs, const ThreadOptions& options) {
  const Before before(rig);
  Rig::Result result = rig.call(inputs, options);
  expect_call(rig, before, inputs, result);
  return result;
}

void check_flagged_call(Rig& rig, Rig::Matrix inputs, const std::vector<Spot>& spots, std::uint64_t seed) {
  for (const Spot& spot : spots) inputs[static_cast<std::size_t>(spot.rank)][spot.element] = spot.value;
  const Before before(rig);
  expect_flagged_call(rig, before, inputs, rig.call(inputs, {.seed = seed}), spots);
}

void check_calls_around_flagged(Rig& rig, std::uint64_t seed) {
  const double infinity = std::numeric_limits<double>::infinity();
  const int last = rig.setting().ranks - 1;
  const std::size_t end = rig.setting().count - 1;
  ASSERT_NO_FATAL_FAILURE(check_call(rig, normal_inputs(rig, seed)));
  ASSERT_NO_FATAL_FAILURE(check_flagged_call(rig, normal_inputs(rig, seed + 1),
                                             {{0, 3, std::nan("")}, {last, end, -infinity}}, seed + 1));
  ASSERT_NO_FATAL_FAILURE(check_flagged_call(rig, normal_inputs(rig, seed + 2),
                                             {{last, 300, infinity}, {0, 301, -infinity}}, seed + 2));
  check_call(rig, normal_inputs(rig, seed + 3));
}

}  // namespace terse::test

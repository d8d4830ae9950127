// SPDX-License-Identifier: Apache-2.0
//
// Feedback::load of any bytes, as one rank's save and as those of several: an Error that leaves what was
// held, or a Feedback that saves to the same bytes, those of an earlier format in today's.
//
// Input: saves (1), what to do (1), bytes of each save but the last (2 each), bytes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <terse/feedback.hpp>

#include "codec/feedback_state.hpp"
#include "core/bytes.hpp"
#include "core/hash.hpp"
#include "fuzz/fuzz.hpp"
#include "support/tensor.hpp"

namespace terse::fuzz {
namespace {

enum : std::uint8_t { kSum = 1 };  // the checksum is put right, so that the rest is in reach

Bytes with_checksum(Bytes save) {
  if (save.size() < 8) return save;
  store(save.data() + save.size() - 8, hash(std::span(save).first(save.size() - 8)));
  return save;
}

FeedbackShape shape(std::uint32_t rank, std::uint32_t ranks) {
  const std::uint32_t begin = 10 * rank / ranks;
  return {.count = 10,
          .dtype = DType::f16,
          .codec = "cast:f16",
          .algorithm = "two_phase",
          .rank = rank,
          .ranks = ranks,
          .residuals = {{{0, 10}, {begin, 10 * (rank + 1) / ranks - begin}}}};
}

// Where the version stands, and the type of residuals, which format 1 has not.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kTypeAt = kVersionAt + 4 + 8 + 1;

// Of what is long enough to be a save.
std::uint32_t format_of(const Bytes& save) { return load<std::uint32_t>(save.data() + kVersionAt); }

// In front of the checksum: the codec's state, which formats 1 and 2 do not have, and which takes so many
// bytes in format 3. Later, the tensor's rows and their number come first.
constexpr std::size_t kStateBytesOfFormat3 = 16;
constexpr std::size_t kSumBytes = sizeof(std::uint64_t);

Bytes::iterator checksum_of(Bytes& save) { return save.end() - kSumBytes; }

// Of what save_of makes.
Bytes in_format_3(Bytes save) {
  Feedback feedback;
  feedback.load(save);
  const std::size_t held = state_of(feedback).codec_state.size();
  store(save.data() + kVersionAt, std::uint32_t{3});
  const auto behind = checksum_of(save) - static_cast<std::ptrdiff_t>(held);
  const auto left = save.erase(behind - 2 * sizeof(std::uint64_t), behind);
  save.insert(left + static_cast<std::ptrdiff_t>(held), kStateBytesOfFormat3 - held, std::byte{0});
  return with_checksum(std::move(save));
}

Bytes in_format_1(Bytes save) {
  save = in_format_3(std::move(save));
  store(save.data() + kVersionAt, std::uint32_t{1});
  save.erase(checksum_of(save) - kStateBytesOfFormat3, checksum_of(save));
  save.erase(save.begin() + kTypeAt);
  return with_checksum(std::move(save));
}

// Of any save that loads.
Bytes in_format_4(Bytes save) {
  if (save.empty()) return save;
  const std::uint32_t format = format_of(save);
  store(save.data() + kVersionAt, std::uint32_t{4});
  if (format == 1) save.insert(save.begin() + kTypeAt, std::byte{0});
  std::size_t held = format == 3 ? kStateBytesOfFormat3 : 0;
  if (held != 0 && std::all_of(checksum_of(save) - kStateBytesOfFormat3, checksum_of(save),
                               [](std::byte b) { return b == std::byte{0}; })) {
    save.erase(checksum_of(save) - kStateBytesOfFormat3, checksum_of(save));
    held = 0;
  }
  if (format < 4) {
    Bytes numbers(2 * sizeof(std::uint64_t));  // no rows
    store(numbers.data() + sizeof(std::uint64_t), std::uint64_t{held});
    save.insert(checksum_of(save) - static_cast<std::ptrdiff_t>(held), numbers.begin(), numbers.end());
  }
  return with_checksum(std::move(save));
}

// Residuals that differ from rank to rank and from element to element.
void fill(View residuals, std::uint32_t from) {
  test::Tensor values(residuals.count, residuals.dtype);
  for (std::size_t i = 0; i < values.count(); ++i)
    values.set(i, 0.0625 * static_cast<double>(from + i) - 0.5);
  std::ranges::copy(values.bytes(), static_cast<std::byte*>(residuals.data));
}

Bytes save_of(std::uint32_t rank, std::uint32_t ranks, bool declined,
              ResidualType type = ResidualType::full) {
  Feedback feedback(type);
  FeedbackState& state = state_of(feedback);
  if (declined) {
    state.shape = shape(rank, ranks);
    state.shape.residuals = {};
    state.declined = true;
  } else {
    const FeedbackShape wanted = shape(rank, ranks);
    state.bind(view_of(wanted), {.bytes = rank % 2 == 0 ? 0 : kStateBytesOfFormat3});
    std::fill(state.codec_state.begin(), state.codec_state.end(), static_cast<std::byte>(rank));
    state.calls = 3;
    fill(state.view(kWorkerPhase), rank);
    fill(state.view(kServerPhase), rank + 8);
  }
  return feedback.save();
}

// owed = sum of the server residuals + (sum of the worker residuals) / ranks, to rounding; where a sum is
// near the largest number or not a number there is nothing to compare.
void require_sum(const std::vector<Bytes>& saves, ConstView owed) {
  std::vector<double> workers(owed.count);
  std::vector<double> servers(owed.count);
  std::vector<double> magnitudes(owed.count);
  for (const Bytes& save : saves) {
    Feedback one;
    one.load(save);
    const std::vector<double> worker = test::doubles_of(one.worker());
    const std::vector<double> server = test::doubles_of(one.server());
    for (std::size_t i = 0; i < worker.size(); ++i) {
      workers[i] += worker[i];
      magnitudes[i] += std::abs(worker[i]);
    }
    for (std::size_t k = 0; k < server.size(); ++k) {
      servers[one.server_begin() + k] += server[k];
      magnitudes[one.server_begin() + k] += std::abs(server[k]);
    }
  }
  const bool wide = owed.dtype == DType::f64;
  const double largest = wide ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  const double least =
      wide ? std::numeric_limits<double>::denorm_min() : std::numeric_limits<float>::denorm_min();
  const auto ranks = static_cast<double>(saves.size());
  const std::vector<double> found = test::doubles_of(owed);
  for (std::size_t i = 0; i < owed.count; ++i) {
    if (!(magnitudes[i] < largest / 2)) continue;
    const double slack = 2 * (ranks + 2) * test::unit_roundoff(owed.dtype) * magnitudes[i] + least;
    require(std::abs(found[i] - (servers[i] + workers[i] / ranks)) <= slack, "nothing that is owed is lost");
  }
}

}  // namespace

void fuzz_feedback(std::span<const std::byte> bytes) {
  Input input(bytes);
  const std::size_t saves = input.number<std::uint8_t>() % 8;
  const auto what = input.number<std::uint8_t>();
  std::vector<std::size_t> sizes;
  for (std::size_t k = 1; k < saves; ++k) sizes.push_back(input.number<std::uint16_t>());
  std::vector<Bytes> all;
  for (const std::size_t size : sizes) all.push_back(input.bytes(size));
  if (saves > 0) all.push_back(input.rest());
  if (what & kSum) {
    for (Bytes& save : all) save = with_checksum(std::move(save));
  }

  const Bytes held = save_of(1, 2, false);
  for (const Bytes& save : all) {
    Feedback feedback;
    feedback.load(held);
    const std::string outcome = outcome_of([&] { feedback.load(save); });
    require(outcome.empty() || is(outcome, ErrorCode::corrupt_data) || is(outcome, ErrorCode::unsupported),
            outcome);
    require(feedback.save() == in_format_4(outcome.empty() ? save : held),
            "what loads saves to the same bytes");
    const FeedbackState& state = state_of(feedback);
    if (outcome.empty() && state.bound && state.shape.algorithm != "deepspeed") {
      require(feedback.worker().count == state.shape.count,
              "a tensor that is not padded has a residual an element");
    }
  }
  Feedback feedback;
  feedback.load(held);
  const std::string outcome = outcome_of([&] { feedback.load(all); });
  require(outcome.empty() || is(outcome, ErrorCode::corrupt_data) || is(outcome, ErrorCode::unsupported) ||
              is(outcome, ErrorCode::invalid_argument),
          outcome);
  if (!outcome.empty()) {
    require(feedback.save() == held, "what does not load changes nothing");
    return;
  }
  // what is owed is what the ranks owed together, and another number of ranks can take all of it up
  FeedbackState& state = state_of(feedback);
  if (state.owed.empty()) return;
  const ConstView owed{state.owed.data(), state.shape.count, accumulator_of(state.shape.dtype)};
  require(state.owed.size() == owed.count * size_of(owed.dtype),
          "as much is owed as the tensor has elements");
  require_sum(all, owed);
  std::vector<double> expected = test::doubles_of(owed);
  if (state.residual_type == ResidualType::bf16) {
    for (double& value : expected) value = test::round_to(value, DType::bf16);
  }
  FeedbackShape wanted = state.shape;
  wanted.rank = 0;
  wanted.ranks = 1;
  wanted.residuals[kServerPhase] = {0, wanted.count};
  state.bind(view_of(wanted));
  const std::vector<double> taken = test::doubles_of(feedback.server());
  require(
      std::ranges::equal(taken, expected, [](double a, double b) { return a == b || (a != a && b != b); }),
      "one rank takes up all that is owed");
}

std::vector<Bytes> feedback_seeds() {
  std::vector<Bytes> seeds;
  for (const std::uint8_t what : {std::uint8_t{0}, std::uint8_t{kSum}}) {
    for (const bool declined : {false, true}) {
      for (std::uint8_t ranks = 1; ranks <= 3; ++ranks) {
        const auto add = [&](const auto& make) {
          Writer seed;
          seed.number(ranks).number(what);
          std::vector<Bytes> saves;
          for (std::uint32_t r = 0; r < ranks; ++r) saves.push_back(make(r));
          for (std::size_t r = 0; r + 1 < saves.size(); ++r)
            seed.number(static_cast<std::uint16_t>(saves[r].size()));
          for (const Bytes& save : saves) seed.add(save);
          seeds.push_back(seed.done());
        };
        add([&](std::uint32_t r) { return save_of(r, ranks, declined); });
        add([&](std::uint32_t r) { return save_of(r, ranks, declined, ResidualType::bf16); });
        add([&](std::uint32_t r) { return in_format_1(save_of(r, ranks, declined)); });
        add([&](std::uint32_t r) { return in_format_3(save_of(r, ranks, declined)); });
      }
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

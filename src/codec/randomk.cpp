// SPDX-License-Identifier: Apache-2.0
//
// randomk: some elements at random, the same ones on all ranks; all others are zero.
//
// Of each block of `block` elements (the last may be short), of m elements, k = ceil(ratio m) are kept: one
// of each of the strata [floor(j m / k), floor((j + 1) m / k)). Of a stratum of n elements it is number
// floor(w n / 2^32), where w is word j mod 4 of Philox4x32-10 of the counter (position, call), each of 64
// bits with the low half first, under the key (seed, floor(j / 4)); position is that of the block's first
// element in its tensor.
//
// Payload:
//   values    of the kept elements, in order, in the tensor's type
//   call      8 bytes
//   position  8 bytes, of the message's first element
//
// Random sparsification (Wangni et al., NeurIPS 2018), not scaled: as it is, with what was left out fed back,
// it converges as plain SGD does (Stich et al., Sparsified SGD with Memory, NeurIPS 2018). An element is kept
// with a probability p of about `ratio`, and the square of the error is 1 - p of the value's in the mean.
//
// No word depends on the rank: so kept values of all ranks add up one by one, and of the sums nothing is left
// out when they are encoded again. Addends are the kept values in the tensor's accumulator, in order.
#include "codec/randomk.hpp"

#include <algorithm>
#include <climits>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codec/block_codec.hpp"
#include "codec/philox.hpp"
#include "codec/rounds.hpp"
#include "codec/sparse.hpp"
#include "codec/spec.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kMaxBlock = 65536;  // w n / 2^32 is even to n / 2^32
constexpr std::size_t kKeyBytes = 2 * sizeof(std::uint64_t);

// Calls visit(i) with each element that is kept of the m of a block, in order; its first is at `key`.
template <class Visit>
void for_each_kept(std::size_t m, std::size_t k, std::uint32_t seed, const RandomKey& key, Visit&& visit) {
  const PhiloxWords counter = {
      static_cast<std::uint32_t>(key.position), static_cast<std::uint32_t>(key.position >> 32),
      static_cast<std::uint32_t>(key.call), static_cast<std::uint32_t>(key.call >> 32)};
  std::size_t first = 0;
  for (std::size_t j = 0; j < k;) {
    const PhiloxWords words = philox(counter, seed, static_cast<std::uint32_t>(j / 4));
    for (const std::size_t end = std::min(k, j + 4); j < end; ++j) {
      const std::size_t next = (j + 1) * m / k;
      visit(first + static_cast<std::size_t>((std::uint64_t{words[j % 4]} * (next - first)) >> 32));
      first = next;
    }
  }
}

// What those who decode will hold of a value that is sent, over `factor`.
template <class T>
class Reception {
 public:
  using A = AccumulatorOf<T>;

  Reception(bool as_it_is, double factor, double limit)
      : as_it_is_(as_it_is), factor_(static_cast<A>(factor)), divisor_(factor), limit_(limit) {}
  A operator()(T sent) const {
    return as_it_is_ ? widened(sent) : divisor_(widened(rounded<T>(widened(sent) * factor_)));
  }
  // Whether a value of that magnitude, in bits, and all smaller ones can be sent.
  bool takes(std::int64_t magnitude) const {
    const A largest = std::bit_cast<A>(static_cast<typename MagnitudeOf<A>::Type>(magnitude));
    const A received = (*this)(rounded<T>(largest));
    return is_finite(received) && static_cast<double>(received) <= limit_;
  }

 private:
  bool as_it_is_;
  A factor_;
  Divisor<A> divisor_;
  double limit_;
};

class Randomk final : public Sparse, private CodecInternals, private RoundsCodec {
 public:
  Randomk(const CodecArguments& arguments, double ratio, std::size_t block, std::uint32_t seed)
      : Sparse("randomk", canonical_spec(randomk_entry(), arguments), traits_of(block), nullptr),
        ratio_(ratio),
        block_(block),
        kept_(kept_of(block, ratio)),
        seed_(seed) {}

 private:
  static CodecTraits traits_of(std::size_t block) {
    CodecTraits traits = Sparse::traits_of(nullptr);
    traits.summable = true;
    traits.block = block;
    return traits;
  }

  const CodecInternals* do_internals() const noexcept override { return this; }
  const RoundsCodec* rounds() const noexcept override { return this; }

  // --- rounds: whether all can be sent, then what is kept

  std::span<const Round> rounds_in_order() const noexcept override {
    static constexpr std::array<Round, 2> kRounds = {
        {{Round::Kind::max, Addend::accumulator}, {Round::Kind::sum, Addend::accumulator}}};
    return kRounds;
  }
  std::size_t most_ranks() const noexcept override { return INT_MAX; }
  std::size_t round_bytes(std::size_t round, std::size_t count, DType as, std::size_t) const override {
    return round == 0 ? 0 : kept_among(count) * size_of(accumulator_of(as));
  }

  bool contribute(std::size_t round, ConstView values, View residual, const RoundContext& context,
                  const RoundResults&, std::span<std::byte> out) const noexcept override {
    const auto typed = [&]<class A>(A) {
      const Reception<A> reception(true, 1.0, context.encode.limit);
      if (round == 0) return are_sendable<A>(values, residual, reception);
      encode_kept<A>(values, residual, reception, context.encode.random, out.data());
      return true;
    };
    return accumulator_of(context.as) == DType::f64 ? typed(double{}) : typed(float{});
  }

  void conclude(const RoundContext& context, const RoundResults& results, View out,
                double factor) const noexcept override {
    with_element_type(out.dtype, [&]<class T>(T) {
      decode_typed<AccumulatorOf<T>, T>(results[1].data(), context.encode.random, out, Into::overwrite,
                                        factor);
    });
  }

  // --- messages by themselves

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    return count == 0 ? 0 : kept_among(count) * size_of(as) + kKeyBytes;
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override {
    const std::size_t done = with_element_type(as, [&]<class T>(T) {
      const Reception<T> reception(values.dtype == as && factor == 1.0, factor, context.limit);
      return encode_kept<T>(values, residual, reception, context.random, payload.data());
    });
    std::byte* behind = payload.data() + kept_among(done) * size_of(as);
    std::memcpy(behind, &context.random.call, sizeof context.random.call);
    std::memcpy(behind + sizeof context.random.call, &context.random.position,
                sizeof context.random.position);
    if (done == values.count) return do_max_bytes(done, as);
    if (residual.data != nullptr && done != 0) {  // what is there so far is a payload too
      undo_run(payload.first(do_max_bytes(done, as)), as, values.slice(0, done), residual.slice(0, done),
               factor);
    }
    return std::nullopt;
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    if (payload.size() != do_max_bytes(out.count, as)) corrupt();
    const std::byte* behind = payload.data() + kept_among(out.count) * size_of(as);
    RandomKey key;
    std::memcpy(&key.call, behind, sizeof key.call);
    std::memcpy(&key.position, behind + sizeof key.call, sizeof key.position);
    if (!decode_kept(payload.data(), as, key, out, into, factor)) corrupt();
  }

  template <class A>
  static bool are_sendable(const ConstView& values, const View& residual, const Reception<A>& reception) {
    auto& stretch = kept_by_thread<Stretch<A>>([] {});
    for (std::size_t at = 0; at < values.count; at += kStretch) {
      const std::size_t n = std::min(kStretch, values.count - at);
      const std::int64_t largest =
          largest_of<A>(values.slice(at, n), part_of(residual, at, n), stretch.view(n), stretch.found.data());
      if (!reception.takes(largest)) return false;
    }
    return true;
  }

  // Elements that are encoded at a time, whole blocks.
  std::size_t run() const noexcept { return block_ >= kStretch ? block_ : kStretch / block_ * block_; }

  // v = value + residual; the largest magnitude's bits.
  template <class A>
  static std::int64_t largest_of(ConstView values, View residual, View v, std::uint32_t* found) {
    return topk_collect(values, residual, v, std::numeric_limits<typename MagnitudeOf<A>::Type>::max(), found)
        .largest;
  }

  // Writes what is kept of value + residual, and leaves the rest in the residual. Returns the elements of the
  // runs before one with a value that cannot be sent, or all; the residual is as it was from there on.
  template <class T>
  std::size_t encode_kept(ConstView values, View residual, const Reception<T>& reception,
                          const RandomKey& key, std::byte* out) const {
    using A = AccumulatorOf<T>;
    auto& memory = kept_by_thread<Scratch>([] {});
    auto& found = kept_by_thread<std::vector<std::uint32_t>>([] {});
    if (found.size() < run()) found.resize(run());
    for (std::size_t at = 0; at < values.count; at += run()) {
      const std::size_t n = std::min(run(), values.count - at);
      const View sums = memory.view(n, sizeof(A) == sizeof(double) ? DType::f64 : DType::f32);
      const std::int64_t largest =
          largest_of<A>(values.slice(at, n), part_of(residual, at, n), sums, found.data());
      if (!reception.takes(largest)) return at;
      for (std::size_t begin = 0; begin < n; begin += block_) {
        auto* v = static_cast<A*>(sums.data) + begin;
        const std::size_t m = std::min(block_, n - begin);
        for_each_kept(m, kept_in(m), seed_, key.at(at + begin), [&](std::size_t i) {
          const T sent = rounded<T>(v[i]);
          std::memcpy(out, &sent, sizeof sent);
          out += sizeof sent;
          v[i] -= reception(sent);
        });
      }
      if (residual.data != nullptr) keep(sums, residual.slice(at, n));
    }
    return values.count;
  }

  // Says whether all of them are finite.
  bool decode_kept(const std::byte* in, DType as, const RandomKey& key, View out, Into into,
                   double factor) const {
    return with_element_type(as, [&]<class T>(T) {
      if (out.dtype == as) return decode_typed<T, T>(in, key, out, into, factor);
      return decode_typed<T, AccumulatorOf<T>>(in, key, out, into, factor);
    });
  }

  template <class T, class To>
  bool decode_typed(const std::byte* in, const RandomKey& key, View out, Into into, double factor) const {
    const auto by = static_cast<AccumulatorOf<T>>(factor);
    bool finite = true;
    for (std::size_t at = 0; at < out.count; at += block_) {
      auto* to = static_cast<To*>(out.data) + at;
      const std::size_t m = std::min(block_, out.count - at);
      if (into != Into::add) std::memset(static_cast<void*>(to), 0, m * sizeof(To));
      for_each_kept(m, kept_in(m), seed_, key.at(at), [&](std::size_t i) {
        T sent;
        std::memcpy(&sent, in, sizeof sent);
        in += sizeof sent;
        const auto value = widened(sent);
        finite = finite && is_finite(value);
        to[i] = rounded<To>(into == Into::add ? widened(to[i]) + value * by : value * by);
      });
    }
    return finite;
  }

  std::size_t kept_among(std::size_t count) const {
    return count / block_ * kept_ + kept_of(count % block_, ratio_);
  }
  std::size_t kept_in(std::size_t m) const { return m == block_ ? kept_ : kept_of(m, ratio_); }

  double ratio_;
  std::size_t block_;
  std::size_t kept_;  // of a whole block
  std::uint32_t seed_;
};

}  // namespace

CodecEntry randomk_entry() {
  return {.name = "randomk",
          .summary = "elements at random, the same ones on all ranks, the others zero; for use with feedback",
          .options = {{"ratio", "0.01", "how many of the elements are kept, above 0 and up to 1: rounded up"},
                      {"block", "1024", "elements of which so many are kept, from 2 to 65536"},
                      {"seed", "0", "of the random numbers"}},
          .examples = {"randomk:ratio=0.1,block=64", "randomk:ratio=0.4,block=24,seed=7"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const CodecEntry entry = randomk_entry();
            const double ratio = number_argument(entry, arguments, "ratio", 0, 1);
            arguments["ratio"] = number_text(ratio);
            const std::size_t block = count_argument(entry, arguments, "block", 2, kMaxBlock);
            arguments["block"] = std::to_string(block);
            const std::uint32_t seed = seed_argument(entry, arguments);
            return std::make_shared<Randomk>(arguments, ratio, block, seed);
          }};
}

}  // namespace terse::inline v0_1

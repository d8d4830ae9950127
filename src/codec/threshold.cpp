// SPDX-License-Identifier: Apache-2.0
//
// threshold: the elements whose magnitude is at least a threshold; all others are zero.
//
// The threshold is found in a sample of the tensor of n elements: the ceil(ratio s)-th largest magnitude of
// s. The sample is all of them where n < 32768; else 512 runs of 64 elements, run r from element r floor(n /
// 512) on. So about k = ceil(ratio n) elements are kept: the more, the more equal ones there are. Where they
// were more than 2 k, as many as that are kept, the largest, and of equal ones the first.
//
// With feedback it is used again in the calls that follow, in `reuse` calls in all, as Ok-Topk does (Li and
// Hoefler, PPoPP 2022); for fewer where it keeps 2 k elements or more. Where it would keep less than k / 2,
// it is found anew at once.
//
// Payload: how many are kept, 7 bits a byte from the lowest on, bit 7 set in all but the last; then their
// indices and values as topk writes those of a whole tensor.
//
// A sampled threshold in place of a selection is what Aji and Heafield (EMNLP 2017) do. The largest element
// is always kept, since it is not below any of a sample, nor below others that are kept: with feedback it is
// a contraction, as topk is.
#include "codec/threshold.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "codec/sparse.hpp"
#include "codec/spec.hpp"
#include "core/assert.hpp"
#include "core/bytes.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

class Threshold final : public Sparse {
 public:
  Threshold(std::string spec, double ratio, std::uint64_t reuse, const std::shared_ptr<const Codec>& inner)
      : Sparse("threshold", std::move(spec), traits_of(inner.get()), inner), ratio_(ratio), reuse_(reuse) {}

 private:
  static CodecTraits traits_of(const Codec* inner) {
    CodecTraits traits = Sparse::traits_of(inner);
    traits.whole_tensor = true;
    traits.fixed_size = false;
    return traits;
  }

  // Its state: the threshold, and in how many calls it was used. Nothing yet: zeros.
  struct Found {
    double value = 0;
    std::uint64_t uses = 0;
  };
  std::size_t do_state_bytes(std::size_t, DType, std::size_t) const override { return sizeof(Found); }
  static Found found_before(std::span<const std::byte> state) {
    TERSE_ASSERT(state.empty() || state.size() == sizeof(Found), "a state is not of this codec",
                 state.size());
    return state.empty() ? Found{} : load<Found>(state.data());
  }

  std::size_t most_of(std::size_t count) const { return std::min(count, 2 * kept_of(count, ratio_)); }

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    if (count == 0) return 0;
    const std::size_t most = most_of(count);
    return number_bytes(most) + most_index_bytes(count, most) + value_bytes(most, as);
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override {
    return accumulator_of(as) == DType::f64 ? encode<double>(values, residual, as, factor, context, payload)
                                            : encode<float>(values, residual, as, factor, context, payload);
  }

  template <class A>
  std::optional<std::size_t> encode(ConstView values, View residual, DType as, double factor,
                                    const EncodeContext& context, std::span<std::byte> payload) const {
    Workspace<A>& own = workspace<A>();
    Found found = found_before(context.state);
    const bool reuses = found.value > 0 && found.uses < reuse_;
    if (!reuses) found = {sample<A>(values, residual), 0};
    const bool early = at_once(residual, as);
    std::size_t seen = select<A>(values, residual, found, own.selection, early);
    if (reuses && seen == values.count && own.selection.indices().size() < (kept_of(seen, ratio_) + 1) / 2) {
      // what the first look has left in the residual is what there is to look at
      const ConstView v = early ? ConstView(residual) : values;
      const View e = early ? View{} : residual;
      found = {sample<A>(v, e), 0};
      seen = select<A>(v, e, found, own.selection, false);
    }
    ++found.uses;
    if (own.selection.indices().size() == most_of(values.count)) found = {};
    if (!context.state.empty()) store(context.state.data(), found);
    return encode_selected<A>(values, residual, as, factor, context, payload, seen, own,
                              [&](const Indices& indices, std::byte* out) {
                                std::byte* behind = write_number(indices.size(), out);
                                if (indices.empty()) return static_cast<std::size_t>(behind - out);
                                return static_cast<std::size_t>(behind - out) +
                                       write_indices(indices, values.count, behind);
                              });
  }

  template <class A>
  double sample(ConstView values, View residual) const {
    const std::int64_t bits = sampled_magnitude<A>(
        values, residual, [&](std::size_t sample) { return kept_of(sample, ratio_) - 1; });
    return static_cast<double>(std::bit_cast<A>(static_cast<typename MagnitudeOf<A>::Type>(bits)));
  }

  // Selects what is at least the threshold found, but no zeros. Returns how many elements were looked at
  // before one that is not finite.
  template <class A>
  std::size_t select(ConstView values, View residual, const Found& found, Selection<A>& selection,
                     bool leave) const {
    const std::int64_t bound = magnitude_bits(static_cast<A>(found.value));
    selection.begin(most_of(values.count), std::max<std::int64_t>(bound, 1));
    const std::size_t seen = look_at(values, residual, selection, leave);
    selection.end();
    return seen;
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    auto& indices = kept_by_thread<Indices>([] {});
    std::size_t kept = 0;
    const std::size_t number = read_number(payload, kept);
    if (number == 0 || kept > most_of(out.count)) corrupt();
    payload = payload.subspan(number);
    indices.resize(kept);
    const std::size_t read = kept == 0 ? 0 : read_indices(payload, out.count, indices);
    if ((read == 0 && kept != 0) || payload.size() - read != value_bytes(kept, as)) corrupt();
    decode_unit(payload.subspan(read), as, out, into, factor, indices);
  }

  double ratio_;
  std::uint64_t reuse_;
};

std::shared_ptr<const Codec> make_threshold(const CodecArguments& arguments,
                                            const std::shared_ptr<const Codec>& inner) {
  constexpr std::size_t kMostReuse = 1000000;
  const double ratio = number_argument(threshold_entry(), arguments, "ratio", 0, 1);
  const std::size_t reuse = count_argument(threshold_entry(), arguments, "reuse", 1, kMostReuse);
  std::string spec = "threshold:ratio=" + ratio_text(ratio) + ",reuse=" + std::to_string(reuse) +
                     inner_text("threshold", inner.get());
  return std::make_shared<Threshold>(std::move(spec), ratio, reuse, inner);
}

}  // namespace

CodecEntry threshold_entry() {
  return {.name = "threshold",
          .summary =
              "the elements above a threshold that a sample gives, the others zero; + a codec for "
              "their values; for use with feedback",
          .options = {{"ratio", "0.01", "how many of the sampled elements are kept, above 0 and up to 1"},
                      {"reuse", "32", "calls with one Feedback in which a threshold is used, 1 to 1000000"}},
          .examples = {"threshold:ratio=0.02,reuse=1", "threshold:ratio=0.1,reuse=1+onebit:block=64"},
          .make = [](const CodecArguments& arguments) { return make_threshold(arguments, nullptr); },
          .compose = make_threshold};
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// threshold: the elements whose magnitude is at least a threshold; all others are zero.
//
// The threshold is found in each call, in a sample of the tensor of n elements: the ceil(ratio s)-th largest
// magnitude of s. The sample is all of them where n < 32768; else 512 runs of 64 elements, run r from element
// r floor(n / 512) on. So about ratio n elements are kept: the more, the more equal ones there are. Where
// they were more than twice ceil(ratio n), as many as that are kept, the largest, and of equal ones the
// first.
//
// Payload: how many are kept, 7 bits a byte from the lowest on, bit 7 set in all but the last; then their
// indices and values as topk writes those of a whole tensor.
//
// A sampled threshold in place of a selection is what Aji and Heafield (EMNLP 2017) do. The largest element
// is always kept, since it is not below any of a sample: with feedback it is a contraction, as topk is.
#include "codec/threshold.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "codec/sparse.hpp"
#include "codec/spec.hpp"

namespace terse::inline v0_1 {
namespace {

class Threshold final : public Sparse {
 public:
  Threshold(std::string spec, double ratio, const std::shared_ptr<const Codec>& inner)
      : Sparse("threshold", std::move(spec), traits_of(inner.get()), inner), ratio_(ratio) {}

 private:
  static CodecTraits traits_of(const Codec* inner) {
    CodecTraits traits = Sparse::traits_of(inner);
    traits.whole = true;
    traits.fixed_size = false;
    return traits;
  }

  std::size_t most_of(std::size_t count) const { return std::min(count, 2 * kept_of(count, ratio_)); }

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    if (count == 0) return 0;
    const std::size_t most = most_of(count);
    return number_bytes(most) + most_index_bytes(count, most) + value_bytes(most, as);
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const Occasion& occasion,
                                       std::span<std::byte> payload) const override {
    return do_encode_feedback(values, {}, as, 1.0, occasion, payload);
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const Occasion& occasion,
                                                std::span<std::byte> payload) const override {
    return accumulator_of(as) == DType::f64 ? encode<double>(values, residual, as, factor, occasion, payload)
                                            : encode<float>(values, residual, as, factor, occasion, payload);
  }

  template <class A>
  std::optional<std::size_t> encode(ConstView values, View residual, DType as, double factor,
                                    const Occasion& occasion, std::span<std::byte> payload) const {
    Desk<A>& own = desk<A>();
    const std::int64_t bound = sampled_magnitude<A>(
        values, residual, [&](std::size_t sample) { return kept_of(sample, ratio_) - 1; });
    own.selection.begin(most_of(values.count), std::max<std::int64_t>(bound, 1));  // no zeros
    const std::size_t seen = look_at(values, residual, own.selection, at_once(residual, as));
    own.selection.end();
    return encode_selected<A>(values, residual, as, factor, occasion, payload, seen, own,
                              [&](const Indices& indices, std::byte* out) {
                                std::byte* behind = write_number(indices.size(), out);
                                if (indices.empty()) return static_cast<std::size_t>(behind - out);
                                return static_cast<std::size_t>(behind - out) +
                                       write_indices(indices, values.count, behind);
                              });
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    thread_local Indices indices;
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
};

std::shared_ptr<const Codec> make_threshold(const CodecArguments& arguments,
                                            const std::shared_ptr<const Codec>& inner) {
  const double ratio = number_argument(threshold_entry(), arguments, "ratio", 0, 1);
  std::string spec = "threshold:ratio=" + ratio_text(ratio) + inner_text("threshold", inner.get());
  return std::make_shared<Threshold>(std::move(spec), ratio, inner);
}

}  // namespace

CodecEntry threshold_entry() {
  return {.name = "threshold",
          .summary =
              "the elements above a threshold that a sample gives, the others zero; + a codec for "
              "their values; for use with feedback",
          .options = {{"ratio", "0.01", "how many of the sampled elements are kept, above 0 and up to 1"}},
          .examples = {"threshold:ratio=0.02", "threshold:ratio=0.1+onebit:block=64"},
          .make = [](const CodecArguments& arguments) { return make_threshold(arguments, nullptr); },
          .compose = make_threshold};
}

}  // namespace terse::inline v0_1

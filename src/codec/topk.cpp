// SPDX-License-Identifier: Apache-2.0
//
// topk: the elements of largest magnitude; all others are zero. Of equal magnitudes, the first ones are kept.
//
// Of a whole tensor, or with `block` of each block of it (the last may be short), of m elements,
// k = ceil(ratio m) are kept: both ends know how many.
//
// Payload of a whole tensor:
//   form     1 byte: 0, or 1
//   indices  form 0: a bit an element, element 8j + i in bit i of byte j; padding bits zero
//            form 1: for each kept element how many lie between it and the one before (or the tensor's
//                    start), 7 bits a byte from the lowest on, bit 7 set in all but a number's last byte
//   values   of the kept elements, in order: in the tensor's type, or as the inner codec encodes them
// The encoder takes the shorter form, 1 where they are equal.
//
// Payload of each block of m elements:
//   indices  of the kept elements within the block, in order, in as few bits each as m - 1 has, from the
//            lowest bit of the first byte on; padding bits zero
//   values   as above
//
// Sparse gradients (Aji and Heafield, EMNLP 2017); with what was left out fed back it is a contraction and
// converges as plain SGD does (Stich et al., Sparsified SGD with Memory, NeurIPS 2018).
//
// Selection is exact whatever the values are: candidates are those above a bound, and the bound only rises,
// to the k-th largest of those seen. It begins with an estimate; where that was too high, all is gone through
// again.
#include "codec/topk.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "codec/sparse.hpp"
#include "codec/spec.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kMaxBlock = std::size_t{1} << 24;

unsigned index_bits(std::size_t m) { return static_cast<unsigned>(std::bit_width(m - 1)); }
std::size_t packed_bytes(std::size_t m, std::size_t k) { return (k * index_bits(m) + 7) / 8; }

// Returns whether an encoder may have written them, in read_packed.
void write_packed(const Indices& indices, std::size_t m, std::byte* out) {
  const unsigned bits = index_bits(m);
  std::uint64_t pending = 0;
  unsigned held = 0;
  for (const std::size_t i : indices) {
    pending |= static_cast<std::uint64_t>(i) << held;
    for (held += bits; held >= 8; held -= 8, pending >>= 8) *out++ = static_cast<std::byte>(pending);
  }
  if (held != 0) *out = static_cast<std::byte>(pending);
}

bool read_packed(const std::byte* in, std::size_t m, Indices& indices) {
  const unsigned bits = index_bits(m);
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  std::uint64_t pending = 0;
  unsigned held = 0;
  std::size_t next = 0;
  for (std::size_t& index : indices) {
    for (; held < bits; held += 8) pending |= std::to_integer<std::uint64_t>(*in++) << held;
    index = pending & mask;
    pending >>= bits;
    held -= bits;
    if (index < next || index >= m) return false;
    next = index + 1;
  }
  return pending == 0;
}

// A magnitude which somewhat more than `k` of all values should have. 0 where they are too few for a sample.
template <class A>
std::int64_t estimate_bound(ConstView values, View residual, std::size_t k) {
  if (values.count < 4 * kSample) return 0;
  return sampled_magnitude<A>(values, residual, [&](std::size_t sample) {
    const double expected =
        static_cast<double>(sample) * static_cast<double>(k) / static_cast<double>(values.count);
    return static_cast<std::size_t>(expected + 4 * std::sqrt(expected) + 4);
  });
}

class Topk final : public Sparse {
 public:
  Topk(std::string spec, double ratio, std::size_t block, const std::shared_ptr<const Codec>& inner)
      : Sparse("topk", std::move(spec), traits_of(block, inner.get()), inner), ratio_(ratio), block_(block) {}

 private:
  static CodecTraits traits_of(std::size_t block, const Codec* inner) {
    CodecTraits traits = Sparse::traits_of(inner);
    traits.whole_tensor = block == 0;
    traits.fixed_size = block != 0;
    traits.block = block == 0 ? 1 : block;
    return traits;
  }

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    if (count == 0) return 0;
    if (block_ == 0) {
      const std::size_t k = kept_of(count, ratio_);
      return most_index_bytes(count, k) + value_bytes(k, as);
    }
    const std::size_t rest = count % block_;
    return count / block_ * block_bytes(block_, as) + (rest == 0 ? 0 : block_bytes(rest, as));
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override {
    return accumulator_of(as) == DType::f64 ? encode<double>(values, residual, as, factor, context, payload)
                                            : encode<float>(values, residual, as, factor, context, payload);
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    auto& indices = kept_by_thread<Indices>([] {});
    const std::size_t unit = block_ == 0 ? out.count : block_;
    for (std::size_t at = 0; at < out.count; at += unit) {
      const std::size_t m = std::min(unit, out.count - at);
      indices.resize(kept_of(m, ratio_));
      const auto values = take_indices(payload, m, indices, as);
      decode_unit(values, as, out.slice(at, m), into, factor, indices);
    }
    if (!payload.empty()) corrupt();
  }

  std::size_t do_run() const noexcept override {
    return block_ == 0 ? std::numeric_limits<std::size_t>::max() : block_;
  }

  std::size_t block_bytes(std::size_t m, DType as) const {
    const std::size_t k = kept_of(m, ratio_);
    return packed_bytes(m, k) + value_bytes(k, as);
  }

  template <class A>
  std::optional<std::size_t> encode(ConstView values, View residual, DType as, double factor,
                                    const EncodeContext& context, std::span<std::byte> payload) const {
    if (block_ == 0) {
      std::int64_t bound = estimate_bound<A>(values, residual, kept_of(values.count, ratio_));
      return encode_unit<A>(values, residual, as, factor, context, payload, bound, workspace<A>());
    }
    Workspace<A>& own = workspace<A>();
    std::size_t written = 0;
    std::int64_t bound = 0;  // what the block before suggests
    for (std::size_t at = 0; at < values.count; at += block_) {
      const std::size_t m = std::min(block_, values.count - at);
      const auto bytes = encode_unit<A>(values.slice(at, m), part_of(residual, at, m), as, factor,
                                        context.at(at), payload.subspan(written), bound, own);
      if (!bytes) {
        if (residual.data != nullptr && at != 0) {
          undo_run(payload.first(written), as, values.slice(0, at), residual.slice(0, at), factor);
        }
        return std::nullopt;
      }
      written += *bytes;
    }
    return written;
  }

  // `bound` is an estimate, and then one for a unit like this one.
  template <class A>
  std::optional<std::size_t> encode_unit(ConstView values, View residual, DType as, double factor,
                                         const EncodeContext& context, std::span<std::byte> payload,
                                         std::int64_t& bound, Workspace<A>& workspace) const {
    Selection<A>& selection = workspace.selection;
    const std::size_t m = values.count;
    const std::size_t k = kept_of(m, ratio_);
    const bool early = at_once(residual, as);
    selection.begin(k, bound);
    const std::size_t seen = look_at(values, residual, selection, early);
    const std::size_t candidates = selection.indices().size();
    const bool enough = selection.end();
    if (seen == m && !enough) {
      // in the first-level cache, a second estimate costs less than to go without
      for (const std::int64_t lower : {block_ == 0 ? 0 : lowered<A>(bound), std::int64_t{0}}) {
        selection.begin(k, lower);
        look_at(early ? ConstView(residual) : values, early ? View{} : residual, selection, false);
        if (selection.end()) break;
      }
    }
    const auto bytes = encode_selected<A>(values, residual, as, factor, context, payload, seen, workspace,
                                          [&](const Indices& indices, std::byte* out) {
                                            if (block_ == 0) return write_indices(indices, m, out);
                                            write_packed(indices, m, out);
                                            return packed_bytes(m, k);
                                          });
    if (!bytes) return std::nullopt;
    if (block_ != 0) bound = enough ? next_bound(selection, bound, candidates) : next_bound(selection, 0, 0);
    return bytes;
  }

  template <class A>
  static std::int64_t lowered(std::int64_t bound) {
    const A magnitude = std::bit_cast<A>(static_cast<typename MagnitudeOf<A>::Type>(bound));
    return magnitude_bits(magnitude * static_cast<A>(0.75));
  }

  // A bound for a block like the one before: somewhat below the least that was kept there, so that there are
  // more candidates than needed, but not many more. They may crowd there, since what is not kept comes again.
  template <class A>
  static std::int64_t next_bound(const Selection<A>& selection, std::int64_t bound, std::size_t candidates) {
    const std::size_t k = selection.indices().size();
    A least = std::numeric_limits<A>::max();
    for (std::size_t i = 0; i < k; ++i) least = std::min(least, magnitude_of(selection.data()[i]));
    const A last = std::bit_cast<A>(static_cast<typename MagnitudeOf<A>::Type>(bound));
    A next = last;
    if (bound == 0) {
      next = least * static_cast<A>(0.875);
    } else if (candidates > 2 * k + 16) {
      next = last + (least - last) / 2;
    } else if (candidates < k + k / 4 + 4) {
      next = last * static_cast<A>(0.9375);
    }
    return magnitude_bits(std::min(next, least));
  }

  // Takes a unit's indices off the payload and returns its values, which it takes off too.
  std::span<const std::byte> take_indices(std::span<const std::byte>& payload, std::size_t m,
                                          Indices& indices, DType as) const {
    const std::size_t packed = packed_bytes(m, indices.size());
    std::size_t read = 0;
    if (block_ == 0) {
      read = read_indices(payload, m, indices);
      if (read == 0) corrupt();
    } else {
      if (payload.size() < packed || !read_packed(payload.data(), m, indices)) corrupt();
      read = packed;
    }
    payload = payload.subspan(read);
    const std::size_t bytes = value_bytes(indices.size(), as);
    if (payload.size() < bytes) corrupt();
    const auto values = payload.first(bytes);
    payload = payload.subspan(bytes);
    return values;
  }

  double ratio_;
  std::size_t block_;  // 0: the whole tensor is one
};

constexpr const char* kWholeTensor = "all";

std::shared_ptr<const Codec> make_topk(const CodecArguments& arguments,
                                       const std::shared_ptr<const Codec>& inner) {
  const CodecEntry entry = topk_entry();
  const double ratio = number_argument(entry, arguments, "ratio", 0, 1);
  const bool whole = arguments.find("block")->second == kWholeTensor;
  const std::size_t block = whole ? 0 : count_argument(entry, arguments, "block", 2, kMaxBlock);
  std::string spec = "topk:ratio=" + ratio_text(ratio);
  if (!whole) spec += ",block=" + std::to_string(block);
  spec += inner_text("topk", inner.get());
  return std::make_shared<Topk>(std::move(spec), ratio, block, inner);
}

}  // namespace

CodecEntry topk_entry() {
  return {.name = "topk",
          .summary =
              "the elements of largest magnitude, the others zero; + a codec for their values; for use "
              "with feedback",
          .options = {{"ratio", "0.01", "how many of the elements are kept, above 0 and up to 1: rounded up"},
                      {"block", kWholeTensor,
                       "elements of which so many are kept, or all: those of the whole tensor, which goes by "
                       "the algorithm gather alone"}},
          .examples = {"topk:ratio=0.01", "topk:ratio=0.05,block=256", "topk:ratio=0.1,block=24",
                       "topk:ratio=0.2+onebit:block=64"},
          .make = [](const CodecArguments& arguments) { return make_topk(arguments, nullptr); },
          .compose = make_topk};
}

}  // namespace terse::inline v0_1

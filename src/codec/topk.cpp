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
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "codec/arithmetic.hpp"
#include "codec/elements.hpp"
#include "codec/inner.hpp"
#include "codec/spec.hpp"
#include "codec/topk_kernels.hpp"
#include "core/bytes.hpp"
#include "core/scratch.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kMaxBlock = std::size_t{1} << 24;
constexpr std::size_t kChunk = 2048;  // elements looked at in one go: they stay in the first-level cache
constexpr std::byte kBitmap{0};
constexpr std::byte kDistances{1};

// --- how many, and in how many bytes ---

std::size_t kept_of(std::size_t m, double ratio) {
  if (m == 0) return 0;
  // a product a rounding error above a whole number is that number
  const double wanted = std::ceil(static_cast<double>(m) * ratio * (1 - 0x1p-40));
  return std::clamp(static_cast<std::size_t>(wanted), std::size_t{1}, m);
}

std::size_t bitmap_bytes(std::size_t m) { return (m + 7) / 8; }

constexpr std::size_t distance_bytes(std::size_t distance) {
  return (static_cast<std::size_t>(std::bit_width(distance | 1)) + 6) / 7;
}

// The most that k distances of m elements may take. Each further byte costs more than the one before, so
// cheap ones come first.
std::size_t most_distance_bytes(std::size_t m, std::size_t k) {
  std::size_t bytes = k;
  std::size_t left = m - k;
  std::size_t reached = k;  // distances that have as many bytes as that
  for (unsigned shift = 7; shift < 63 && reached != 0; shift += 7) {
    const std::size_t cost = (std::size_t{1} << shift) - (shift == 7 ? 0 : std::size_t{1} << (shift - 7));
    reached = std::min(reached, left / cost);
    bytes += reached;
    left -= reached * cost;
  }
  return bytes;
}

unsigned index_bits(std::size_t m) { return static_cast<unsigned>(std::bit_width(m - 1)); }
std::size_t packed_bytes(std::size_t m, std::size_t k) { return (k * index_bits(m) + 7) / 8; }

// --- indices to bytes and back; a reader says whether an encoder may have written them ---

using Indices = std::vector<std::size_t>;

void write_bitmap(const Indices& indices, std::size_t m, std::byte* out) {
  std::fill_n(out, bitmap_bytes(m), std::byte{0});
  for (const std::size_t i : indices) out[i / 8] |= std::byte{1} << (i % 8);
}

bool read_bitmap(const std::byte* in, std::size_t m, Indices& indices) {
  std::size_t found = 0;
  const std::size_t bytes = bitmap_bytes(m);
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, in + at, std::min(bytes - at, sizeof bits));
    if (indices.size() - found < static_cast<std::size_t>(std::popcount(bits))) return false;
    for (; bits != 0; bits &= bits - 1) {
      indices[found++] = 8 * at + static_cast<std::size_t>(std::countr_zero(bits));
    }
  }
  return found == indices.size() && indices.back() < m;
}

std::size_t bytes_of_distances(const Indices& indices) {
  std::size_t bytes = 0;
  std::size_t next = 0;
  for (const std::size_t i : indices) {
    bytes += distance_bytes(i - next);
    next = i + 1;
  }
  return bytes;
}

void write_distances(const Indices& indices, std::byte* out) {
  std::size_t next = 0;
  for (const std::size_t i : indices) {
    std::size_t distance = i - next;
    for (; distance >= 0x80; distance >>= 7) *out++ = static_cast<std::byte>(distance | 0x80);
    *out++ = static_cast<std::byte>(distance);
    next = i + 1;
  }
}

// Returns the bytes read, 0 where they are none that an encoder wrote.
std::size_t read_distances(std::span<const std::byte> in, std::size_t m, Indices& indices) {
  std::size_t at = 0;
  std::size_t next = 0;
  for (std::size_t& index : indices) {
    std::size_t distance = 0;
    for (unsigned shift = 0;; shift += 7) {
      if (at == in.size() || shift >= 63) return 0;
      const auto byte = std::to_integer<std::size_t>(in[at++]);
      distance |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte == 0 && shift != 0) return 0;
        break;
      }
    }
    if (next >= m || distance >= m - next) return 0;
    index = next + distance;
    next = index + 1;
  }
  return at;
}

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

// --- which elements ---

template <class A>
std::int64_t magnitude_bits(A v) {
  return std::bit_cast<typename MagnitudeOf<A>::Type>(magnitude_of(v));
}

// The k largest of the values that it is shown, in their order; memory that a thread keeps.
template <class A>
class Selection {
 public:
  using Magnitude = typename MagnitudeOf<A>::Type;

  void begin(std::size_t k, std::int64_t bound) {
    k_ = k;
    bound_ = bound;
    indices_.clear();
    values_.clear();
    const std::size_t room = limit() + kChunk;
    indices_.reserve(room);
    values_.reserve(room);
    magnitudes_.reserve(room);
  }
  // What is smaller is not among them.
  std::int64_t bound() const { return bound_; }
  void add(const std::uint32_t* found, std::size_t n, const A* v, std::size_t offset) {
    for (std::size_t i = 0; i < n; ++i) {
      indices_.push_back(offset + found[i]);
      values_.push_back(v[found[i]]);
    }
    if (indices_.size() > limit()) keep();
  }
  // Whether there were as many; then they are all that is left.
  bool end() {
    if (indices_.size() < k_) return false;
    if (indices_.size() > k_) keep();
    return true;
  }
  const Indices& indices() const { return indices_; }
  View values() { return {values_.data(), values_.size(), accumulator()}; }
  const A* data() const { return values_.data(); }

 private:
  static constexpr DType accumulator() { return sizeof(A) == sizeof(double) ? DType::f64 : DType::f32; }
  std::size_t limit() const { return k_ + std::max(k_, 2 * kChunk); }

  void keep() {
    magnitudes_.clear();
    for (const A v : values_) magnitudes_.push_back(static_cast<Magnitude>(magnitude_bits(v)));
    const auto kth = magnitudes_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(magnitudes_.begin(), kth, magnitudes_.end(), std::greater<>());
    const Magnitude least = *kth;
    auto equal = k_ - static_cast<std::size_t>(
                          std::count_if(magnitudes_.begin(), kth, [&](Magnitude m) { return m > least; }));
    std::size_t kept = 0;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const auto magnitude = magnitude_bits(values_[i]);
      if (magnitude < least || (magnitude == least && equal == 0)) continue;
      if (magnitude == least) --equal;
      indices_[kept] = indices_[i];
      values_[kept++] = values_[i];
    }
    indices_.resize(kept);
    values_.resize(kept);
    bound_ =
        std::max<std::int64_t>(bound_, std::int64_t{least} + 1);  // an equal one that comes later is none
  }

  std::size_t k_ = 0;
  std::int64_t bound_ = 0;
  Indices indices_;
  std::vector<A> values_;
  std::vector<Magnitude> magnitudes_;
};

// Values that are looked at a chunk at a time: value + residual.
template <class A>
struct Chunk {
  std::array<A, kChunk> v;
  std::array<std::uint32_t, kChunk> found;

  View view(std::size_t n) { return {v.data(), n, sizeof(A) == sizeof(double) ? DType::f64 : DType::f32}; }
};

View part_of(View residual, std::size_t at, std::size_t n) {
  return residual.data == nullptr ? View{} : residual.slice(at, n);
}

// A magnitude which somewhat more than `k` of all values should have, from a sample: runs of neighbours,
// evenly spaced. 0 where they are too few for that.
template <class A>
std::int64_t estimate_bound(ConstView values, View residual, std::size_t k) {
  constexpr std::size_t kRun = 64;
  constexpr std::size_t kRuns = 512;
  constexpr std::size_t kSample = kRun * kRuns;
  if (values.count < 4 * kSample) return 0;
  thread_local std::vector<typename MagnitudeOf<A>::Type> magnitudes;
  magnitudes.resize(kSample);
  Chunk<A> chunk;
  const std::size_t stride = values.count / kRuns;
  for (std::size_t r = 0; r < kRuns; ++r) {
    topk_collect(values.slice(r * stride, kRun), part_of(residual, r * stride, kRun), chunk.view(kRun),
                 std::numeric_limits<std::int32_t>::max(), chunk.found.data());
    for (std::size_t i = 0; i < kRun; ++i) {
      magnitudes[r * kRun + i] = static_cast<typename MagnitudeOf<A>::Type>(magnitude_bits(chunk.v[i]));
    }
  }
  const double expected =
      static_cast<double>(kSample) * static_cast<double>(k) / static_cast<double>(values.count);
  const double rank = expected + 4 * std::sqrt(expected) + 4;
  if (rank >= static_cast<double>(kSample)) return 0;
  const auto nth = magnitudes.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(magnitudes.begin(), nth, magnitudes.end(), std::greater<>());
  return *nth;
}

// What the codec does with its values, whatever their type: the inner codec, or nothing.
class Topk final : public Codec {
 public:
  Topk(std::string spec, double ratio, std::size_t block, std::shared_ptr<const Codec> inner)
      : Codec("topk", std::move(spec), traits_of(block, inner.get())),
        ratio_(ratio),
        block_(block),
        inner_(std::move(inner)) {}

 private:
  static CodecTraits traits_of(std::size_t block, const Codec* inner) {
    CodecTraits traits;
    traits.contractive = inner == nullptr || inner->traits().contractive;
    traits.sparse = true;
    traits.whole = block == 0;
    traits.fixed_size = block != 0;
    traits.block = block == 0 ? 1 : block;
    return traits;
  }

  bool do_supports(DType dtype) const noexcept override {
    return inner_ == nullptr || inner_->supports(dtype);
  }

  std::size_t do_max_bytes(std::size_t count, DType as) const override {
    if (count == 0) return 0;
    if (block_ == 0) {
      const std::size_t k = kept_of(count, ratio_);
      return 1 + std::min(bitmap_bytes(count), most_distance_bytes(count, k)) + value_bytes(k, as);
    }
    const std::size_t rest = count % block_;
    return count / block_ * block_bytes(block_, as) + (rest == 0 ? 0 : block_bytes(rest, as));
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

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    thread_local Indices indices;
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

  [[noreturn]] void corrupt() const {
    throw Error(ErrorCode::corrupt_data,
                "corrupt message for codec " + spec() + ": its payload is not topk's");
  }

  std::size_t value_bytes(std::size_t k, DType as) const {
    return inner_ == nullptr ? k * size_of(as) : Inner{*inner_}.max_bytes(k, as);
  }
  std::size_t block_bytes(std::size_t m, DType as) const {
    const std::size_t k = kept_of(m, ratio_);
    return packed_bytes(m, k) + value_bytes(k, as);
  }

  template <class A>
  std::optional<std::size_t> encode(ConstView values, View residual, DType as, double factor,
                                    const Occasion& occasion, std::span<std::byte> payload) const {
    thread_local Selection<A> selection;
    thread_local Scratch received;
    Desk<A> desk{selection, received};
    if (block_ == 0) {
      const std::size_t k = kept_of(values.count, ratio_);
      std::int64_t bound = estimate_bound<A>(values, residual, k);
      return encode_unit<A>(values, residual, as, factor, occasion, payload, bound, desk);
    }
    std::size_t written = 0;
    std::int64_t bound = 0;  // what the block before suggests
    for (std::size_t at = 0; at < values.count; at += block_) {
      const std::size_t m = std::min(block_, values.count - at);
      const auto bytes = encode_unit<A>(values.slice(at, m), part_of(residual, at, m), as, factor,
                                        occasion.at(at), payload.subspan(written), bound, desk);
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

  // What a thread works with.
  template <class A>
  struct Desk {
    Selection<A>& selection;
    Scratch& received;
  };

  // `bound` is an estimate, and then one for a unit like this one.
  template <class A>
  std::optional<std::size_t> encode_unit(ConstView values, View residual, DType as, double factor,
                                         const Occasion& occasion, std::span<std::byte> payload,
                                         std::int64_t& bound, Desk<A>& desk) const {
    Selection<A>& selection = desk.selection;
    const std::size_t m = values.count;
    const std::size_t k = kept_of(m, ratio_);
    // A residual that holds value + residual exactly is made at once; one that does not, at the end.
    const bool at_once = residual.data != nullptr && residual.dtype == accumulator_of(as);
    selection.begin(k, bound);
    std::size_t seen = look_at(values, residual, selection, at_once);
    if (seen == m && !selection.end()) {
      selection.begin(k, 0);
      if (at_once) {
        look_at(residual, {}, selection, false);
      } else {
        look_at(values, residual, selection, false);
      }
      selection.end();
    }
    std::size_t bytes = 0;
    const View received = desk.received.view(k, accumulator_of(as));
    if (seen == m) {
      bytes = block_ == 0 ? write_indices(selection.indices(), m, payload.data()) : packed_bytes(m, k);
      if (block_ != 0) write_packed(selection.indices(), m, payload.data());
      const auto value_bytes = encode_values(selection.values(), as, occasion, payload.subspan(bytes),
                                             values.dtype, factor, received);
      if (value_bytes) {
        bytes += *value_bytes;
      } else {
        bytes = 0;
      }
    }
    if (bytes == 0) {
      if (at_once) take_back<A>(values.slice(0, seen), residual.slice(0, seen));
      return std::nullopt;
    }
    if (residual.data != nullptr) {
      if (!at_once) keep_sums<A>(values, residual);
      const auto* q = static_cast<const A*>(received.data);
      const auto leave = [&]<class E>(E* e) {
        for (std::size_t i = 0; i < k; ++i) e[selection.indices()[i]] = kept<E>(selection.data()[i] - q[i]);
      };
      if constexpr (std::is_same_v<A, float>) {
        if (!at_once) {
          leave(static_cast<bfloat16*>(residual.data));
        } else {
          leave(static_cast<A*>(residual.data));
        }
      } else {
        leave(static_cast<A*>(residual.data));
      }
    }
    // a little below the least that was kept
    A least = std::numeric_limits<A>::max();
    for (std::size_t i = 0; i < k; ++i) least = std::min(least, magnitude_of(selection.data()[i]));
    bound = magnitude_bits(least * static_cast<A>(0.875));
    return bytes;
  }

  // Shows the selection value + residual, and leaves them in the residual where asked to. Returns how many
  // elements were looked at before one that is not finite.
  template <class A>
  static std::size_t look_at(ConstView values, View residual, Selection<A>& selection, bool leave) {
    Chunk<A> chunk;
    for (std::size_t at = 0; at < values.count; at += kChunk) {
      const std::size_t n = std::min(kChunk, values.count - at);
      const View v = chunk.view(n);
      const TopkFound found = topk_collect(values.slice(at, n), part_of(residual, at, n), v,
                                           selection.bound(), chunk.found.data());
      if (found.largest >= MagnitudeOf<A>::kInfinite) return at;
      selection.add(chunk.found.data(), found.count, chunk.v.data(), at);
      if (leave) keep(v, residual.slice(at, n));
    }
    return values.count;
  }

  // residual = value + residual, as it is kept.
  template <class A>
  static void keep_sums(ConstView values, View residual) {
    Chunk<A> chunk;
    for (std::size_t at = 0; at < values.count; at += kChunk) {
      const std::size_t n = std::min(kChunk, values.count - at);
      const View v = chunk.view(n);
      convert(values.slice(at, n), v, Into::overwrite, 1.0);
      add(v, residual.slice(at, n), v);
      keep(v, residual.slice(at, n));
    }
  }

  // residual = residual - value.
  template <class A>
  static void take_back(ConstView values, View residual) {
    Chunk<A> chunk;
    for (std::size_t at = 0; at < values.count; at += kChunk) {
      const std::size_t n = std::min(kChunk, values.count - at);
      const View x = chunk.view(n);
      convert(values.slice(at, n), x, Into::overwrite, 1.0);
      subtract(residual.slice(at, n), x, residual.slice(at, n));
    }
  }

  static std::size_t write_indices(const Indices& indices, std::size_t m, std::byte* out) {
    const std::size_t distances = bytes_of_distances(indices);
    if (distances <= bitmap_bytes(m)) {
      out[0] = kDistances;
      write_distances(indices, out + 1);
      return 1 + distances;
    }
    out[0] = kBitmap;
    write_bitmap(indices, m, out + 1);
    return 1 + bitmap_bytes(m);
  }

  // Encodes the kept values, and says what those who decode will hold of them, over `factor`.
  std::optional<std::size_t> encode_values(View kept, DType as, const Occasion& occasion,
                                           std::span<std::byte> out, DType values, double factor,
                                           View received) const {
    std::size_t bytes = kept.count * size_of(as);
    if (inner_ == nullptr) {
      const View sent{out.data(), kept.count, as};
      if (!round_to(kept, sent)) return std::nullopt;
      convert(sent, received, Into::overwrite, factor);
    } else {
      const auto encoded = Inner{*inner_}.encode(kept, as, occasion, out);
      if (!encoded) return std::nullopt;
      bytes = *encoded;
      Inner{*inner_}.decode(out.first(bytes), as, received, Into::overwrite, factor);
    }
    const bool as_it_is = values == as && factor == 1.0;  // goes into a sum, which is kept in its type
    if (!as_it_is) {
      thread_local Scratch memory;
      const View rounded = memory.view(kept.count, as);
      if (!round_to(received, rounded)) return std::nullopt;
      convert(rounded, received, Into::overwrite, 1.0);
      divide(received, factor);
    }
    return bytes;
  }

  // Takes a unit's indices off the payload and returns its values, which it takes off too.
  std::span<const std::byte> take_indices(std::span<const std::byte>& payload, std::size_t m,
                                          Indices& indices, DType as) const {
    const auto take = [&](std::size_t bytes) {
      if (payload.size() < bytes) corrupt();
      const auto front = payload.first(bytes);
      payload = payload.subspan(bytes);
      return front;
    };
    if (block_ != 0) {
      if (!read_packed(take(packed_bytes(m, indices.size())).data(), m, indices)) corrupt();
    } else {
      const std::byte form = take(1)[0];
      if (form == kBitmap) {
        if (!read_bitmap(take(bitmap_bytes(m)).data(), m, indices)) corrupt();
      } else {
        const std::size_t read = form == kDistances ? read_distances(payload, m, indices) : 0;
        if (read == 0) corrupt();
        take(read);
      }
    }
    return take(value_bytes(indices.size(), as));
  }

  void decode_unit(std::span<const std::byte> payload, DType as, View out, Into into, double factor,
                   const Indices& indices) const {
    thread_local Scratch memory;
    const View values = memory.view(indices.size(), accumulator_of(as));
    if (inner_ == nullptr) {
      convert({payload.data(), indices.size(), as}, values, Into::overwrite, 1.0);
    } else {
      Inner{*inner_}.decode(payload, as, values, Into::overwrite, 1.0);
    }
    switch (out.dtype) {
      case DType::f32:
        return scatter<float>(values, out, into, factor, indices);
      case DType::f64:
        return scatter<double>(values, out, into, factor, indices);
      case DType::f16:
        return scatter<float16>(values, out, into, factor, indices);
      case DType::bf16:
        return scatter<bfloat16>(values, out, into, factor, indices);
    }
  }

  template <class T>
  void scatter(View values, View out, Into into, double factor, const Indices& indices) const {
    using A = AccumulatorOf<T>;
    const auto* v = static_cast<const A*>(values.data);
    auto* to = static_cast<T*>(out.data);
    const auto by = static_cast<A>(factor);
    bool finite = true;
    for (std::size_t i = 0; i < indices.size(); ++i) finite = finite && is_finite(v[i]);
    if (!finite) corrupt();
    if (into == Into::add) {
      for (std::size_t i = 0; i < indices.size(); ++i) {
        T& element = to[indices[i]];
        element = rounded<T>(widened(element) + v[i] * by);
      }
      return;
    }
    std::memset(out.data, 0, out.bytes());
    for (std::size_t i = 0; i < indices.size(); ++i) to[indices[i]] = rounded<T>(v[i] * by);
  }

  double ratio_;
  std::size_t block_;  // 0: the whole tensor is one
  std::shared_ptr<const Codec> inner_;
};

constexpr const char* kWholeTensor = "all";

std::shared_ptr<const Codec> make_topk(const CodecArguments& arguments, std::shared_ptr<const Codec> inner) {
  const CodecEntry entry = topk_entry();
  const double ratio = number_argument(entry, arguments, "ratio", 0, 1);
  const bool whole = arguments.find("block")->second == kWholeTensor;
  const std::size_t block = whole ? 0 : count_argument(entry, arguments, "block", 2, kMaxBlock);
  std::array<char, 32> text{};
  std::string spec = "topk:ratio=";
  spec.append(text.data(), std::to_chars(text.data(), text.data() + text.size(), ratio).ptr);
  if (!whole) spec += ",block=" + std::to_string(block);
  if (inner != nullptr) {
    const CodecTraits& traits = inner->traits();
    const char* why = traits.sparse        ? "it is sparse itself"
                      : traits.whole       ? "it encodes a tensor only as a whole"
                      : !traits.fixed_size ? "its messages vary in size"
                                           : nullptr;
    if (why != nullptr) {
      throw Error(ErrorCode::invalid_argument, "codec topk: " + inner->spec() +
                                                   " cannot encode the values that are kept, since " + why +
                                                   ": use one such as cast, onebit, or none");
    }
    spec += "+" + inner->spec();
  }
  return std::make_shared<Topk>(std::move(spec), ratio, block, std::move(inner));
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

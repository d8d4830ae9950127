// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <terse/codec.hpp>
#include <type_traits>
#include <utility>
#include <vector>

#include "codec/arithmetic.hpp"
#include "codec/elements.hpp"
#include "codec/topk_kernels.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

// What codecs that keep some elements of many have in common.

namespace terse::inline v0_1 {

/// ceil(ratio m), one at least where there are any.
std::size_t kept_of(std::size_t m, double ratio);

/// Positions of the kept elements, in order.
using Indices = std::vector<std::size_t>;

/// Kept elements of m, as sparse codecs write their indices: one byte, the form, and
///   form 0: a bit an element, element 8j + i in bit i of byte j; padding bits zero
///   form 1: for each kept element how many lie between it and the one before (or the tensor's start), 7 bits
///           a byte from the lowest on, bit 7 set in all but a number's last byte
/// in the shorter form, 1 where they are equal.
std::size_t most_index_bytes(std::size_t m, std::size_t k);
std::size_t write_indices(const Indices& indices, std::size_t m, std::byte* out);
/// Reads as many as `indices` has and returns the bytes they take, 0 where no encoder wrote them.
std::size_t read_indices(std::span<const std::byte> in, std::size_t m, Indices& indices);
/// A number as form 1 writes distances, and back: returns the bytes read, 0 where it is none.
std::size_t number_bytes(std::size_t number);
std::byte* write_number(std::size_t number, std::byte* out);
std::size_t read_number(std::span<const std::byte> in, std::size_t& number);

inline constexpr std::size_t kStretch =
    2048;  ///< elements looked at in one go: they stay in the first-level cache

template <class A>
std::int64_t magnitude_bits(A v) {
  return std::bit_cast<typename MagnitudeOf<A>::Type>(magnitude_of(v));
}

/// The k largest of the values that it is shown, in their order; memory that a thread keeps.
template <class A>
class Selection {
 public:
  using Magnitude = typename MagnitudeOf<A>::Type;

  void begin(std::size_t k, std::int64_t bound) {
    k_ = k;
    bound_ = bound;
    indices_.clear();
    values_.clear();
    const std::size_t room = limit() + kStretch;
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
  std::size_t limit() const { return k_ + std::max(k_, 2 * kStretch); }

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

// Values that are looked at a stretch at a time: value + residual. Kept by the thread, whose stack may be
// small.
template <class A>
struct Stretch {
  std::array<A, kStretch> v;
  std::array<std::uint32_t, kStretch> found;

  View view(std::size_t n) { return {v.data(), n, sizeof(A) == sizeof(double) ? DType::f64 : DType::f32}; }
};

inline View part_of(View residual, std::size_t at, std::size_t n) {
  return residual.data == nullptr ? View{} : residual.slice(at, n);
}

// The magnitude at a rank, from the largest on, of a sample of value + residual: runs of neighbours, evenly
// spaced, or all where they are few. rank_in(size of the sample) says at which; 0 where that is beyond it.
inline constexpr std::size_t kSampleRun = 64;
inline constexpr std::size_t kSampleRuns = 512;
inline constexpr std::size_t kSample = kSampleRun * kSampleRuns;
template <class A, class Rank>
std::int64_t sampled_magnitude(ConstView values, View residual, Rank&& rank_in) {
  using Magnitude = typename MagnitudeOf<A>::Type;
  auto& magnitudes = kept_by_thread<std::vector<Magnitude>>([] {});
  magnitudes.clear();
  magnitudes.reserve(kSample);
  const std::size_t stride = values.count < kSample ? kSampleRun : values.count / kSampleRuns;
  auto& stretch = kept_by_thread<Stretch<A>>([] {});
  for (std::size_t at = 0; at < values.count && magnitudes.size() < kSample; at += stride) {
    const std::size_t n = std::min(kSampleRun, values.count - at);
    topk_collect(values.slice(at, n), part_of(residual, at, n), stretch.view(n),
                 std::numeric_limits<std::int32_t>::max(), stretch.found.data());
    for (std::size_t i = 0; i < n; ++i)
      magnitudes.push_back(static_cast<Magnitude>(magnitude_bits(stretch.v[i])));
  }
  const std::size_t rank = rank_in(magnitudes.size());
  if (rank >= magnitudes.size()) return 0;
  const auto nth = magnitudes.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(magnitudes.begin(), nth, magnitudes.end(), std::greater<>());
  return *nth;
}

/// A codec that keeps some elements; all others are zero. Their values are in the tensor's type, or as an
/// inner codec encodes them.
class Sparse : public Codec {
 protected:
  /// Errors: invalid_argument where the inner codec, if there is one, cannot be that.
  Sparse(std::string name, std::string spec, CodecTraits traits, std::shared_ptr<const Codec> inner)
      : Codec(std::move(name), std::move(spec), traits), inner_(std::move(inner)) {}
  static CodecTraits traits_of(const Codec* inner);

  [[noreturn]] void corrupt() const;
  std::size_t value_bytes(std::size_t k, DType as) const;

  /// What a thread works with.
  template <class A>
  struct Workspace {
    Selection<A> selection;
    Scratch received;
  };
  template <class A>
  static Workspace<A>& workspace() {
    return kept_by_thread<Workspace<A>>([] {});
  }
  /// A residual that holds value + residual exactly is made at once; one that does not, at the end.
  static bool at_once(const View& residual, DType as) {
    return residual.data != nullptr && residual.dtype == accumulator_of(as);
  }

  /// Shows the selection value + residual, and leaves them in the residual where asked to. Returns how many
  /// elements were looked at before one that is not finite.
  template <class A>
  static std::size_t look_at(ConstView values, View residual, Selection<A>& selection, bool leave) {
    auto& stretch = kept_by_thread<Stretch<A>>([] {});
    for (std::size_t at = 0; at < values.count; at += kStretch) {
      const std::size_t n = std::min(kStretch, values.count - at);
      const View v = stretch.view(n);
      const TopkFound found = topk_collect(values.slice(at, n), part_of(residual, at, n), v,
                                           selection.bound(), stretch.found.data());
      if (found.largest >= MagnitudeOf<A>::kInfinite) return at;
      selection.add(stretch.found.data(), found.count, stretch.v.data(), at);
      if (leave) keep(v, residual.slice(at, n));
    }
    return values.count;
  }

  // residual = value + residual, as it is kept.
  template <class A>
  static void keep_sums(ConstView values, View residual) {
    auto& stretch = kept_by_thread<Stretch<A>>([] {});
    for (std::size_t at = 0; at < values.count; at += kStretch) {
      const std::size_t n = std::min(kStretch, values.count - at);
      const View v = stretch.view(n);
      convert(values.slice(at, n), v, Into::overwrite, 1.0);
      add(v, residual.slice(at, n), v);
      keep(v, residual.slice(at, n));
    }
  }

  // residual = residual - value.
  template <class A>
  static void take_back(ConstView values, View residual) {
    auto& stretch = kept_by_thread<Stretch<A>>([] {});
    for (std::size_t at = 0; at < values.count; at += kStretch) {
      const std::size_t n = std::min(kStretch, values.count - at);
      const View x = stretch.view(n);
      convert(values.slice(at, n), x, Into::overwrite, 1.0);
      subtract(residual.slice(at, n), x, residual.slice(at, n));
    }
  }

  /// Encodes what is selected of `values`, of which `seen` were looked at, and leaves the rest in the
  /// residual; nothing, and the residual as it was, where a value cannot be sent. write(indices, out) writes
  /// what comes before the values and returns its bytes.
  template <class A, class Write>
  std::optional<std::size_t> encode_selected(ConstView values, View residual, DType as, double factor,
                                             const EncodeContext& context, std::span<std::byte> payload,
                                             std::size_t seen, Workspace<A>& workspace, Write&& write) const {
    const bool early = at_once(residual, as);
    const Indices& indices = workspace.selection.indices();
    const View received = workspace.received.view(indices.size(), accumulator_of(as));
    std::optional<std::size_t> bytes;
    std::size_t written = 0;
    if (seen == values.count) {
      written = write(indices, payload.data());
      bytes = encode_values(workspace.selection.values(), as, context, payload.subspan(written), values.dtype,
                            factor, received);
    }
    if (!bytes) {
      if (early) take_back<A>(values.slice(0, seen), residual.slice(0, seen));
      return std::nullopt;
    }
    if (residual.data != nullptr) {
      if (!early) keep_sums<A>(values, residual);
      const A* v = workspace.selection.data();
      const auto* q = static_cast<const A*>(received.data);
      const auto leave = [&]<class E>(E* e) {
        for (std::size_t i = 0; i < indices.size(); ++i) e[indices[i]] = kept<E>(v[i] - q[i]);
      };
      if constexpr (std::is_same_v<A, float>) {
        if (!early) {
          leave(static_cast<bfloat16*>(residual.data));
          return written + *bytes;
        }
      }
      leave(static_cast<A*>(residual.data));
    }
    return written + *bytes;
  }

  /// Decodes the values of kept elements into their places; the payload has value_bytes of them.
  void decode_unit(std::span<const std::byte> payload, DType as, View out, Into into, double factor,
                   const Indices& indices) const;

 private:
  bool do_supports(DType dtype) const noexcept override;
  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext& context,
                                       std::span<std::byte> payload) const override {
    return do_encode_feedback(values, {}, as, 1.0, context, payload);
  }
  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override = 0;
  std::optional<std::size_t> encode_values(View kept, DType as, const EncodeContext& context,
                                           std::span<std::byte> out, DType values, double factor,
                                           View received) const;
  template <class T>
  void scatter(View values, View out, Into into, double factor, const Indices& indices) const;

  std::shared_ptr<const Codec> inner_;
};

/// "RATIO" as a spec has it, in one way; and what comes behind the options, "+INNER", or nothing. Errors:
/// invalid_argument where the codec called `name` cannot have that inner one.
std::string ratio_text(double ratio);
std::string inner_text(const std::string& name, const Codec* inner);

}  // namespace terse::inline v0_1

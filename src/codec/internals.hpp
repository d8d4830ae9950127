// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

class DeviceCodec;
class RoundsCodec;

/// What a codec of the library's own offers beside what every codec does: overrides of what it has.
class CodecInternals {
 public:
  /// What does the same on a device; null: nothing, or this build has no CUDA.
  virtual const DeviceCodec* device() const noexcept { return nullptr; }
  /// How tensors are reduced by plain reductions of what it encodes; null unless traits().summable.
  virtual const RoundsCodec* rounds() const noexcept { return nullptr; }
  /// Writes the part of a payload that stands for the `n` elements from `first` on, as a payload of its own,
  /// and returns its bytes; `out` has room for do_max_bytes(n, as). Only asked where traits().splittable.
  virtual std::size_t split(std::span<const std::byte> payload, DType as, std::size_t first, std::size_t n,
                            std::span<std::byte> out) const;

 protected:
  CodecInternals() = default;
  ~CodecInternals() = default;
  CodecInternals(const CodecInternals&) = default;
  CodecInternals& operator=(const CodecInternals&) = default;
};

/// The library's way into a codec: its payloads without headers, and what it has of CodecInternals.
class CodecAccess {
 public:
  explicit CodecAccess(const Codec& codec) noexcept : codec_(codec) {}

  /// Null: it has none.
  const CodecInternals* internals() const noexcept { return codec_.do_internals(); }

  std::size_t max_payload(std::size_t count, DType as) const {
    return count == 0 ? 0 : codec_.do_max_bytes(count, as);
  }
  /// One element at least.
  std::optional<std::size_t> encode(ConstView values, DType as, const EncodeContext& context,
                                    std::span<std::byte> payload) const {
    return codec_.do_encode(values, as, context, payload);
  }
  std::optional<std::size_t> encode_feedback(ConstView values, View residual, DType as, double factor,
                                             const EncodeContext& context,
                                             std::span<std::byte> payload) const {
    return codec_.do_encode_feedback(values, residual, as, factor, context, payload);
  }
  void decode(std::span<const std::byte> payload, DType as, View out, Into into, double factor) const {
    codec_.do_decode(payload, as, out, into, factor);
  }
  void undo(std::span<const std::byte> payload, DType as, ConstView values, View residual,
            double factor) const {
    codec_.undo_run(payload, as, values, residual, factor);
  }
  std::size_t run() const noexcept { return codec_.do_run(); }
  /// How many of `count` elements are best worked on at a time.
  std::size_t run_elements(std::size_t count) const noexcept { return codec_.run_elements(count); }

  /// Writes the part of a message of `count` elements of type `dtype` that stands for the `n` elements from
  /// `first` on (a multiple of traits().block) as a message of its own, and returns its bytes. For codecs
  /// with traits().splittable, which cannot encode a part by itself. Flagged messages have flagged parts.
  ///
  /// Errors: corrupt_data as in Codec::decode, invalid_argument where out is smaller than max_bytes(n, dtype)
  /// or there is no such part, unsupported for other codecs.
  std::size_t split(std::span<const std::byte> message, std::size_t count, DType dtype, std::size_t first,
                    std::size_t n, std::span<std::byte> out) const;

 private:
  const Codec& codec_;
};

/// What it has of these; null: nothing.
inline const DeviceCodec* device_codec_of(const Codec& codec) noexcept {
  const CodecInternals* own = CodecAccess(codec).internals();
  return own == nullptr ? nullptr : own->device();
}
inline const RoundsCodec* rounds_of(const Codec& codec) noexcept {
  const CodecInternals* own = CodecAccess(codec).internals();
  return own == nullptr ? nullptr : own->rounds();
}
/// Whether its messages are taken apart: what a codec from outside says of itself does not count.
inline bool is_splittable(const Codec& codec) noexcept {
  const CodecTraits& traits = codec.traits();
  return traits.whole_tensor && traits.splittable && CodecAccess(codec).internals() != nullptr;
}

}  // namespace terse::inline v0_1

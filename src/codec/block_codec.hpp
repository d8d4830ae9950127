// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

/// Elements that kernels of block codecs work on at a time: they are given whole groups, with zeros behind
/// the tensor's end.
inline constexpr std::size_t kBlockGroup = 64;
constexpr std::size_t groups_of(std::size_t count) { return (count + kBlockGroup - 1) / kBlockGroup; }

/// Base of codecs of any dtype whose payload is that of each block (traits().block elements, whole groups,
/// the tensor's last as many as there are) one behind the other. Its own part is a block in the accumulator's
/// type, which is in the first-level cache; the rest is done here.
class BlockCodec : public Codec {
 protected:
  using Codec::Codec;

 private:
  /// Payload bytes of a block of n elements, n > 0.
  virtual std::size_t block_bytes(std::size_t n, DType as) const = 0;
  /// Encodes a run of blocks of value + residual (which may be null), both in the accumulator's type, whole
  /// blocks or the last ones, with zeros behind the n-th up to a whole group. The residual takes what the
  /// messages leave out. Returns the elements of the blocks before one with a value that cannot be
  /// represented, or values.count, which is whole groups; the residual is as it was from there on.
  virtual std::size_t encode_blocks(ConstView values, std::size_t n, void* residual, DType as,
                                    const RandomKey& key, std::byte* out) const = 0;
  /// Decodes such a run into (or adds it to) `out`, of the accumulator's type and whole groups. It is not
  /// told n: a payload holds whole groups, and what depends on n is in what was encoded. False where an
  /// encoder never writes that.
  virtual bool decode_blocks(const std::byte* in, DType as, View out, Into into, double factor) const = 0;

  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override;
  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext& context,
                                       std::span<std::byte> payload) const override;
  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override;
  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override;
  std::size_t do_run() const noexcept override { return traits().block; }
};

/// An option `block`: a multiple of kBlockGroup from that to 65536, in one way to write it.
std::size_t block_argument(const CodecEntry& entry, CodecArguments& arguments);
/// An option `seed`: 32 bits, in one way to write it.
std::uint32_t seed_argument(const CodecEntry& entry, CodecArguments& arguments);

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "codec/block_codec.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "codec/elements.hpp"
#include "codec/spec.hpp"
#include "core/assert.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kMostBlock = 65536;

// Elements that are worked on at a time: whole blocks, which leave room in a first-level cache.
constexpr std::size_t run_of(std::size_t block) {
  constexpr std::size_t kTarget = 2048;
  return block >= kTarget ? block : kTarget / block * block;
}

void fill_with_zeros(const View& view, std::size_t from) {
  const View rest = view.slice(from, view.count - from);
  if (!rest.empty()) std::memset(rest.data, 0, rest.bytes());
}

}  // namespace

std::size_t BlockCodec::do_max_bytes(std::size_t count, DType dtype) const {
  const std::size_t block = traits().block;
  const std::size_t rest = count % block;
  const std::size_t whole = count / block;
  return (whole == 0 ? 0 : whole * block_bytes(block, dtype)) + (rest == 0 ? 0 : block_bytes(rest, dtype));
}

std::optional<std::size_t> BlockCodec::do_encode(ConstView values, DType as, const EncodeContext& context,
                                                 std::span<std::byte> payload) const {
  return BlockCodec::do_encode_feedback(values, {}, as, 1.0, context, payload);
}

std::optional<std::size_t> BlockCodec::do_encode_feedback(ConstView values, View residual, DType as,
                                                          double factor, const EncodeContext& context,
                                                          std::span<std::byte> payload) const {
  auto& values_memory = kept_by_thread<Scratch>([] {});
  auto& residual_memory = kept_by_thread<Scratch>([] {});
  const DType accumulator = accumulator_of(as);
  const bool feedback = residual.data != nullptr;
  const std::size_t bytes = do_max_bytes(values.count, as);
  TERSE_ASSERT(payload.size() >= bytes, "there is no room for the blocks of a tensor", payload.size(), bytes,
               values.count);
  TERSE_ASSERT(!feedback || residual.count == values.count, "a residual has other elements than its values",
               residual.count, values.count);
  // what receivers hold is not what is decoded, but rounded, or beyond the range
  if (factor != 1.0 || (feedback && values.dtype != as)) {
    return encode_runs(values, residual, as, factor, context, payload);
  }
  const std::size_t run = run_of(traits().block);
  std::byte* out = payload.data();
  for (std::size_t begin = 0; begin < values.count; begin += run) {
    const std::size_t n = std::min(run, values.count - begin);
    const std::size_t padded = groups_of(n) * kBlockGroup;
    const View e = feedback ? residual.slice(begin, n) : View{};
    const auto in_groups = [&](const ConstView& view, Scratch& memory) {
      const View copy = memory.view(padded, accumulator);
      convert(view, copy.slice(0, n), Into::overwrite, 1.0);
      fill_with_zeros(copy, n);
      return copy;
    };
    ConstView x = values.slice(begin, n);
    if (x.dtype != accumulator || n != padded) x = in_groups(x, values_memory);
    const bool copies = feedback && (e.dtype != accumulator || n != padded);
    const View left = copies ? in_groups(e, residual_memory) : e;
    const std::size_t done = encode_blocks(x, n, left.data, as, context.random.at(begin), out);
    TERSE_ASSERT(done <= padded, "a kernel encodes more elements than it was given", done, padded);
    if (done != padded) {
      const std::size_t changed = begin + (feedback && !copies ? done : 0);
      if (feedback) {
        undo_run(payload.first(do_max_bytes(changed, as)), as, values.slice(0, changed),
                 residual.slice(0, changed), factor);
      }
      return std::nullopt;
    }
    if (copies) keep(left.slice(0, n), e);
    out += do_max_bytes(n, as);
  }
  const auto written = static_cast<std::size_t>(out - payload.data());
  TERSE_ASSERT(written == bytes, "blocks take other room than the tensor that they make up", written, bytes,
               values.count);
  return written;
}

void BlockCodec::do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                           double factor) const {
  auto& memory = kept_by_thread<Scratch>([] {});
  const auto corrupt = [&] {
    throw Error(ErrorCode::corrupt_data,
                "corrupt message for codec " + spec() + ": its payload is not one of it");
  };
  if (payload.size() != do_max_bytes(out.count, as)) corrupt();
  const DType accumulator = accumulator_of(as);
  const std::size_t run = run_of(traits().block);
  const std::byte* in = payload.data();
  for (std::size_t begin = 0; begin < out.count; begin += run) {
    const std::size_t n = std::min(run, out.count - begin);
    const std::size_t padded = groups_of(n) * kBlockGroup;
    const View to = out.slice(begin, n);
    if (to.dtype == accumulator && n == padded) {
      if (!decode_blocks(in, as, to, into == Into::add ? into : Into::overwrite, factor)) corrupt();
    } else {
      const View v = memory.view(padded, accumulator);
      if (!decode_blocks(in, as, v, Into::overwrite, factor)) corrupt();
      convert(v.slice(0, n), to, into, 1.0);
    }
    in += do_max_bytes(n, as);
  }
}

std::size_t block_argument(const CodecEntry& entry, CodecArguments& arguments) {
  const std::size_t block = count_argument(entry, arguments, "block", kBlockGroup, kMostBlock);
  if (block % kBlockGroup != 0) {
    throw Error(ErrorCode::invalid_argument, "codec " + entry.name + ": block=" + std::to_string(block) +
                                                 " is not a multiple of " + std::to_string(kBlockGroup));
  }
  arguments["block"] = std::to_string(block);
  return block;
}

std::uint32_t seed_argument(const CodecEntry& entry, CodecArguments& arguments) {
  const std::size_t seed =
      count_argument(entry, arguments, "seed", 0, std::numeric_limits<std::uint32_t>::max());
  arguments["seed"] = std::to_string(seed);
  return static_cast<std::uint32_t>(seed);
}

}  // namespace terse::inline v0_1

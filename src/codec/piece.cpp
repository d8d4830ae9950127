// SPDX-License-Identifier: Apache-2.0
#include "codec/piece.hpp"

#include <algorithm>
#include <optional>

#include "codec/elements.hpp"
#include "core/bytes.hpp"
#include "core/scratch.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kLengthBytes = sizeof(std::uint64_t);

[[noreturn]] void corrupt(const Codec& codec) {
  throw Error(ErrorCode::corrupt_data,
              "corrupt message for codec " + codec.spec() + ": its payload is cut short or too long");
}

}  // namespace

std::size_t PieceCoder::max_bytes(std::span<const std::size_t> counts) const {
  std::size_t bytes = kHeaderBytes;
  for (const std::size_t n : counts) {
    if (n != 0) bytes += codec_.do_max_bytes(n, as_);
  }
  return bytes + (codec_.traits().fixed_size || counts.size() < 2 ? 0 : counts.size() * kLengthBytes);
}

std::size_t PieceCoder::encode(std::span<const Fragment> fragments, std::size_t count,
                               std::span<std::byte> out) const {
  const bool lengths = !codec_.traits().fixed_size && fragments.size() > 1;
  const auto payload = out.subspan(kHeaderBytes);
  std::size_t written = 0;
  for (std::size_t f = 0; f < fragments.size(); ++f) {
    const Fragment& fragment = fragments[f];
    if (lengths) written += kLengthBytes;
    const auto rest = payload.subspan(written);
    const bool feedback = fragment.residual.data != nullptr && !codec_.traits().lossless;
    std::optional<std::size_t> bytes = 0;
    if (fragment.values.count != 0) {
      bytes = feedback ? codec_.do_encode_feedback(fragment.values, fragment.residual, as_, 1.0, rest)
                       : codec_.do_encode(fragment.values, as_, rest);
    }
    if (!bytes) {
      write_header(codec_, count, as_, kNonFinite, out);
      if (f != 0)
        undo({.dtype = as_, .payload = payload.first(written)}, fragments.first(f), fragments.size());
      return kHeaderBytes;
    }
    if (lengths) store(payload.data() + written - kLengthBytes, static_cast<std::uint64_t>(*bytes));
    written += *bytes;
  }
  write_header(codec_, count, as_, 0, out);
  return kHeaderBytes + written;
}

// The payload of the next fragment.
std::span<const std::byte> PieceCoder::take(std::span<const std::byte>& payload, std::size_t count,
                                            bool several) const {
  std::size_t bytes = payload.size();
  if (codec_.traits().fixed_size) {
    bytes = count == 0 ? 0 : codec_.do_max_bytes(count, as_);
  } else if (several) {
    if (payload.size() < kLengthBytes) corrupt(codec_);
    bytes = load<std::uint64_t>(payload.data());
    payload = payload.subspan(kLengthBytes);
  }
  if (bytes > payload.size()) corrupt(codec_);
  const auto taken = payload.first(bytes);
  payload = payload.subspan(bytes);
  return taken;
}

void PieceCoder::decode(const Contents& message, std::span<const View> to, Into into, double factor) const {
  auto payload = message.payload;
  for (const View& out : to) {
    const auto own = take(payload, out.count, to.size() > 1);
    if (out.count != 0) codec_.do_decode(own, as_, out, into, factor);
  }
  if (!payload.empty()) corrupt(codec_);
}

void PieceCoder::undo(const Contents& message, std::span<const Fragment> fragments, std::size_t all) const {
  if (message.flags != 0 || codec_.traits().lossless) return;
  auto payload = message.payload;
  for (const Fragment& fragment : fragments) {
    const auto own = take(payload, fragment.values.count, std::max(all, fragments.size()) > 1);
    if (fragment.residual.data == nullptr || fragment.values.count == 0) continue;
    codec_.undo_run(own, as_, fragment.values, fragment.residual, 1.0);
  }
}

std::size_t PieceCoder::reduce(std::span<const Contents> messages, std::span<const std::size_t> counts,
                               std::span<const View> residuals, double divisor, double factor,
                               std::size_t count, std::span<std::byte> out, std::size_t& reading) const {
  thread_local std::vector<std::span<const std::byte>> rests;
  thread_local std::vector<std::span<const std::byte>> own;
  thread_local Scratch memory;
  const DType accumulator = accumulator_of(as_);
  const bool fixed = codec_.traits().fixed_size;
  const bool several = counts.size() > 1;
  const auto payload = out.subspan(kHeaderBytes);
  // the sum of a run, of which `at` elements of the fragment and their bytes lie before it
  const auto sum_of = [&](std::size_t fragment_count, std::size_t at, std::size_t n) {
    const View sum = memory.view(n, accumulator);
    for (std::size_t r = 0; r < messages.size(); ++r) {
      reading = r;
      auto part = own[r];
      if (n != fragment_count) {
        const std::size_t begin = at == 0 ? 0 : codec_.do_max_bytes(at, as_);
        part = part.subspan(begin, codec_.do_max_bytes(n, as_));
      }
      codec_.do_decode(part, as_, sum, r == 0 ? Into::overwrite : Into::add, 1.0);
    }
    reading = messages.size();
    if (divisor != 1.0) divide(sum, divisor);
    return sum;
  };
  // takes back what the runs before `end` of a fragment did to its residual
  const auto undo_runs = [&](const View& residual, std::size_t end, std::span<const std::byte> encoded) {
    const std::size_t run = codec_.run_elements(residual.count);
    for (std::size_t at = 0; at < end; at += run) {
      const std::size_t n = std::min(run, end - at);
      const View sum = sum_of(residual.count, at, n);
      const std::size_t bytes = fixed ? codec_.do_max_bytes(n, as_) : encoded.size();
      codec_.undo_run(encoded.first(bytes), as_, sum, residual.slice(at, n), factor);
      encoded = encoded.subspan(bytes);
    }
  };
  const auto open_fragment = [&](std::size_t n) {
    for (reading = 0; reading < messages.size(); ++reading) own[reading] = take(rests[reading], n, several);
  };
  const auto rewind = [&] {
    for (std::size_t r = 0; r < messages.size(); ++r) rests[r] = messages[r].payload;
  };

  rests.resize(messages.size());
  own.resize(messages.size());
  rewind();
  std::size_t written = 0;
  for (std::size_t f = 0; f < counts.size(); ++f) {
    open_fragment(counts[f]);
    if (!fixed && several) written += kLengthBytes;
    const std::size_t fragment_begin = written;
    const View residual = residuals.empty() || codec_.traits().lossless ? View{} : residuals[f];
    const bool feedback = residual.data != nullptr;
    const std::size_t run = counts[f] == 0 ? 1 : codec_.run_elements(counts[f]);
    for (std::size_t at = 0; at < counts[f]; at += run) {
      const std::size_t n = std::min(run, counts[f] - at);
      const View sum = sum_of(counts[f], at, n);
      const auto rest = payload.subspan(written);
      const View e = feedback ? residual.slice(at, n) : View{};
      const auto bytes = feedback || factor != 1.0 ? codec_.do_encode_feedback(sum, e, as_, factor, rest)
                                                   : codec_.do_encode(sum, as_, rest);
      if (!bytes) {
        write_header(codec_, count, as_, kNonFinite, out);
        if (feedback) undo_runs(residual, at, payload.subspan(fragment_begin, written - fragment_begin));
        if (f != 0 && !residuals.empty() && !codec_.traits().lossless) {
          rewind();
          std::span<const std::byte> encoded = payload.first(fragment_begin);
          for (std::size_t g = 0; g < f; ++g) {
            open_fragment(counts[g]);
            const auto before = take(encoded, counts[g], several);
            if (residuals[g].data != nullptr) undo_runs(residuals[g], counts[g], before);
          }
        }
        return kHeaderBytes;
      }
      written += *bytes;
    }
    if (!fixed && several) {
      store(payload.data() + fragment_begin - kLengthBytes,
            static_cast<std::uint64_t>(written - fragment_begin));
    }
  }
  for (reading = 0; reading < messages.size(); ++reading) {
    if (!rests[reading].empty()) corrupt(codec_);
  }
  write_header(codec_, count, as_, 0, out);
  return kHeaderBytes + written;
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "codec/piece.hpp"

#include <algorithm>
#include <string>

#include "codec/elements.hpp"
#include "core/assert.hpp"
#include "core/bytes.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kLengthBytes = sizeof(std::uint64_t);

[[noreturn]] void corrupt(const Codec& codec) {
  throw Error(ErrorCode::corrupt_data,
              "corrupt message for codec " + codec.spec() + ": its payload is cut short or too long");
}

// A codec of the program's may write more than it has announced: what follows in memory is not its own then,
// and the message has no room for its trailer.
void require_as_announced(const Codec& codec, std::size_t written, std::size_t most) {
  if (written <= most) return;
  throw Error(ErrorCode::invalid_state,
              "codec " + codec.spec() + " says that it wrote " + std::to_string(written) +
                  " bytes where its do_max_bytes allows " + std::to_string(most) + ": make the two agree");
}

// What Codec::encode refuses where a caller gave it, once fragments are the library's own.
void require_sound(std::span<const Fragment> fragments, DType as) {
  for (const Fragment& fragment : fragments) {
    const ConstView& values = fragment.values;
    const View& residual = fragment.residual;
    TERSE_ASSERT(values.dtype == as || values.dtype == accumulator_of(as),
                 "a fragment has another type than its message", values.dtype, as);
    if (residual.data == nullptr) continue;
    TERSE_ASSERT(residual.count == values.count, "a residual has other elements than its fragment",
                 residual.count, values.count);
    TERSE_ASSERT(residual.dtype == residual_of(as, ResidualType::full) ||
                     residual.dtype == residual_of(as, ResidualType::bf16),
                 "a residual has a type that its message does not allow", residual.dtype, as);
  }
}

}  // namespace

std::size_t PieceCoder::max_bytes(std::span<const std::size_t> counts) const {
  std::size_t bytes = kHeaderBytes;
  for (const std::size_t n : counts) {
    bytes += access_.max_payload(n, as_);
  }
  return bytes + (codec_.traits().fixed_size || counts.size() < 2 ? 0 : counts.size() * kLengthBytes);
}

std::size_t PieceCoder::encode(std::span<const Fragment> fragments, std::size_t count,
                               std::span<std::byte> out) const {
  require_sound(fragments, as_);
  TERSE_ASSERT(out.size() >= kHeaderBytes, "there is no room for a header", out.size());
  const bool lengths = !codec_.traits().fixed_size && fragments.size() > 1;
  const auto payload = out.subspan(kHeaderBytes);
  std::size_t written = 0;
  for (std::size_t f = 0; f < fragments.size(); ++f) {
    const Fragment& fragment = fragments[f];
    if (lengths) written += kLengthBytes;
    const std::size_t most = access_.max_payload(fragment.values.count, as_);
    TERSE_ASSERT(written <= payload.size() && payload.size() - written >= most,
                 "there is no room for a fragment", f, most, written, payload.size());
    const auto rest = payload.subspan(written);
    const bool feedback = fragment.residual.data != nullptr && !codec_.traits().lossless;
    EncodeContext context = context_;
    context.random = context_.random.at(fragment.position);
    context.state = fragment.state;
    context.rows = fragment.rows;
    const auto bytes =
        feedback ? access_.encode_feedback(fragment.values, fragment.residual, as_, 1.0, context, rest)
                 : access_.encode(fragment.values, as_, context, rest);
    if (!bytes) {
      write_header(codec_, count, as_, kNonFinite, out);
      if (f != 0)
        undo({.dtype = as_, .payload = payload.first(written)}, fragments.first(f), fragments.size());
      return kHeaderBytes;
    }
    require_as_announced(codec_, *bytes, most);
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
    bytes = access_.max_payload(count, as_);
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
  TERSE_ASSERT(message.flags == 0, "a message without values is decoded", message.flags);
  auto payload = message.payload;
  for (const View& out : to) {
    const auto own = take(payload, out.count, to.size() > 1);
    access_.decode(own, as_, out, into, factor);
  }
  if (!payload.empty()) corrupt(codec_);
}

void PieceCoder::undo(const Contents& message, std::span<const Fragment> fragments, std::size_t all) const {
  if (message.flags != 0 || codec_.traits().lossless) return;
  auto payload = message.payload;
  for (const Fragment& fragment : fragments) {
    const auto own = take(payload, fragment.values.count, std::max(all, fragments.size()) > 1);
    if (fragment.residual.data != nullptr) {
      access_.undo(own, as_, fragment.values, fragment.residual, 1.0);
    }
  }
}

namespace {

std::size_t count_of(const Fragment& fragment) { return fragment.values.count; }
std::size_t count_of(const View& view) { return view.count; }

}  // namespace

// The sums of all fragments, a run at a time: visit(fragment, first element, sum) until that says no. A sum
// is made where place(fragment, first element, elements) says.
template <class Elements, class Place, class Visit>
void PieceCoder::for_each_sum(std::span<const Contents> messages, std::span<const Elements> fragments,
                              double divisor, std::size_t& reading, Place&& place, Visit&& visit) const {
  using Payloads = std::vector<std::span<const std::byte>>;
  Payloads& rests = kept_by_thread<Payloads>([] {});  // by message: the fragments to come
  Payloads& own = kept_by_thread<Payloads>([] {});    // by message: this fragment, from its next run on
  rests.clear();
  TERSE_ASSERT(!messages.empty(), "a sum is made of no messages");
  for (const Contents& message : messages) {
    TERSE_ASSERT(message.flags == 0, "a message without values is added", message.flags);
    rests.push_back(message.payload);
  }
  own.resize(messages.size());
  for (std::size_t f = 0; f < fragments.size(); ++f) {
    const std::size_t elements = count_of(fragments[f]);
    for (reading = 0; reading < messages.size(); ++reading) {
      own[reading] = take(rests[reading], elements, fragments.size() > 1);
    }
    const std::size_t run = access_.run_elements(elements);
    for (std::size_t at = 0; at < elements; at += run) {
      const View sum = place(f, at, std::min(run, elements - at));
      for (reading = 0; reading < messages.size(); ++reading) {
        const auto part = sum.count == elements ? own[reading] : take(own[reading], sum.count, false);
        access_.decode(part, as_, sum, reading == 0 ? Into::overwrite : Into::add, 1.0);
      }
      if (divisor != 1.0) divide(sum, divisor);
      if (!visit(f, at, sum)) return;
    }
  }
  for (reading = 0; reading < messages.size(); ++reading) {
    if (!rests[reading].empty()) corrupt(codec_);
  }
}

void PieceCoder::sum(std::span<const Contents> messages, std::span<const View> to, double divisor,
                     std::size_t& reading) const {
  auto& memory = kept_by_thread<Scratch>([] {});
  const DType accumulator = accumulator_of(as_);
  for_each_sum(
      messages, to, divisor, reading,
      [&](std::size_t f, std::size_t at, std::size_t n) {
        return accumulator == as_ ? to[f].slice(at, n) : memory.view(n, accumulator);
      },
      [&](std::size_t f, std::size_t at, const View& sum) {
        if (accumulator != as_) convert(sum, to[f].slice(at, sum.count), Into::overwrite, 1.0);
        return true;
      });
}

std::size_t PieceCoder::reduce(std::span<const Contents> messages, std::span<const Fragment> sums,
                               double divisor, double factor, std::size_t count, std::span<std::byte> out,
                               std::size_t& reading) const {
  require_sound(sums, as_);
  TERSE_ASSERT(out.size() >= kHeaderBytes, "there is no room for a header", out.size());
  auto& memory = kept_by_thread<Scratch>([] {});
  const bool lengths = !codec_.traits().fixed_size && sums.size() > 1;
  const auto payload = out.subspan(kHeaderBytes);
  const auto place = [&](std::size_t, std::size_t, std::size_t n) {
    return memory.view(n, accumulator_of(as_));
  };
  const auto residual_of = [&](std::size_t f, std::size_t at, std::size_t n) {
    const View& residual = sums[f].residual;
    const bool has = !codec_.traits().lossless && residual.data != nullptr;
    return has ? residual.slice(at, n) : View{};
  };

  std::size_t written = 0;
  std::size_t runs = 0;
  bool finite = true;
  for_each_sum(messages, sums, divisor, reading, place, [&](std::size_t f, std::size_t at, const View& sum) {
    const View e = residual_of(f, at, sum.count);
    const std::size_t begin = written + (lengths ? kLengthBytes : 0);
    const auto rest = payload.subspan(begin);
    const EncodeContext context = context_.at(sums[f].position + at);
    const std::size_t most = access_.max_payload(sum.count, as_);
    if (rest.size() < most) {
      throw Error(
          ErrorCode::invalid_state,
          "codec " + codec_.spec() +
              ": the payloads of its runs may be longer than that of all their elements: make do_run and "
              "do_max_bytes agree");
    }
    const auto bytes = e.data != nullptr || factor != 1.0
                           ? access_.encode_feedback(sum, e, as_, factor, context, rest)
                           : access_.encode(sum, as_, context, rest);
    finite = bytes.has_value();
    if (!finite) return false;
    require_as_announced(codec_, *bytes, most);
    if (lengths) store(payload.data() + written, static_cast<std::uint64_t>(*bytes));
    written = begin + *bytes;
    ++runs;
    return true;
  });
  if (finite) {
    write_header(codec_, count, as_, 0, out);
    return kHeaderBytes + written;
  }
  // what was encoded is taken back, run by run
  std::span<const std::byte> encoded = payload.first(written);
  for_each_sum(messages, sums, divisor, reading, place, [&](std::size_t f, std::size_t at, const View& sum) {
    if (runs-- == 0) return false;
    const auto run = take(encoded, sum.count, sums.size() > 1);
    const View e = residual_of(f, at, sum.count);
    if (e.data != nullptr) access_.undo(run, as_, sum, e, factor);
    return true;
  });
  write_header(codec_, count, as_, kNonFinite, out);
  return kHeaderBytes;
}

}  // namespace terse::inline v0_1

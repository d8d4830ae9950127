// SPDX-License-Identifier: Apache-2.0
//
// lossless: the elements as they are, in fewer bytes where zstd finds that they have less to say.
//
// Payload, for each unit of 131,072 elements (the last may be short):
//   form    1 byte: 0 plain, 1 planes
// and then, if plain, the elements; if planes, for each byte of an element, the lowest first:
//   bytes   4 bytes: how many follow
//   plane   this byte of all elements of the unit: as many bytes as there are elements, or fewer: a frame of
//           zstd that they come out of
// The elements are of the tensor's type. Values that are not finite are sent like any other.
//
// X+lossless: the payload of X in the same form, as elements of one byte, of two if X is cast. Where X's
// payloads vary in size, the number of its bytes comes first, in 8 bytes.
//
// Bytes of equal significance side by side are the shuffle filter of HDF5 and Blosc; frames: RFC 8878. Each
// plane is a frame, since what one says about its bytes is of no use for the next; a unit's are as long as
// the longest block of zstd. Decoding allocates nothing that a message asks for: a frame is decoded at once,
// into memory of the size that is due.
#include "codec/lossless.hpp"

#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <string>

#include "codec/elements.hpp"
#include "codec/internals.hpp"
#include "codec/shuffle.hpp"
#include "codec/spec.hpp"
#include "core/bytes.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kUnit = 131072;  // elements
constexpr std::size_t kRun = 4096;     // elements that are put together at a time: they fit a cache
constexpr std::byte kPlain{0};
constexpr std::byte kPlanes{1};
constexpr std::size_t kLengthBytes = sizeof(std::uint32_t);
constexpr std::size_t kMaxLevel = 19;  // beyond, zstd takes more memory than it is worth

std::size_t units_of(std::size_t count) { return (count + kUnit - 1) / kUnit; }
std::size_t packed_bound(std::size_t count, std::size_t width) { return count * width + units_of(count); }

std::span<std::byte> room_of(Scratch& scratch, std::size_t bytes) {
  const View words = scratch.view((bytes + sizeof(double) - 1) / sizeof(double), DType::f64);
  return {static_cast<std::byte*>(words.data), bytes};
}

// One of zstd's contexts, which a thread uses again and again.
template <auto Create, auto Free>
struct Context {
  Context() : handle(Create()) {
    if (handle == nullptr) throw std::bad_alloc();
  }
  ~Context() { Free(handle); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  decltype(Create()) handle;
};
using Compressor = Context<ZSTD_createCCtx, ZSTD_freeCCtx>;
using Decompressor = Context<ZSTD_createDCtx, ZSTD_freeDCtx>;

// The frame's bytes; 0 where `to` does not hold it.
std::size_t compress(std::span<const std::byte> plane, std::span<std::byte> to, int level) {
  const std::size_t bytes = ZSTD_compressCCtx(kept_by_thread<Compressor>([] {}).handle, to.data(), to.size(),
                                              plane.data(), plane.size(), level);
  if (ZSTD_isError(bytes) == 0) return bytes;
  const ZSTD_ErrorCode why = ZSTD_getErrorCode(bytes);
  if (why == ZSTD_error_dstSize_tooSmall) return 0;
  if (why == ZSTD_error_memory_allocation) throw std::bad_alloc();
  throw Error(ErrorCode::invalid_state, std::string("zstd does not compress: ") + ZSTD_getErrorName(bytes));
}

// Whether it is one frame, of what this codec writes, that gives the bytes that are due.
bool decompress(std::span<const std::byte> frame, std::span<std::byte> plane) {
  constexpr std::uint32_t kMagic = ZSTD_MAGICNUMBER;  // formats before 1.0 have others
  if (frame.size() < sizeof kMagic || load<std::uint32_t>(frame.data()) != kMagic) return false;
  return ZSTD_getFrameContentSize(frame.data(), frame.size()) == plane.size() &&
         ZSTD_findFrameCompressedSize(frame.data(), frame.size()) == frame.size() &&
         ZSTD_decompressDCtx(kept_by_thread<Decompressor>([] {}).handle, plane.data(), plane.size(),
                             frame.data(), frame.size()) == plane.size();
}

// Form and contents of a unit; `out` has room for its elements and one byte more. Returns the bytes written.
std::size_t pack_unit(const std::byte* elements, std::size_t count, std::size_t width, int level,
                      std::byte* out) {
  auto& memory = kept_by_thread<Scratch>([] {});
  const std::size_t plain = 1 + count * width;
  const std::span<std::byte> planes = room_of(memory, count * width);
  shuffle(elements, count, width, planes.data());
  std::size_t written = 1;
  for (std::size_t k = 0; k < width; ++k) {
    const auto plane = planes.subspan(k * count, count);
    if (plain - written <= kLengthBytes) break;
    const std::size_t left = plain - written - kLengthBytes;
    // less than a sixty-fourth is not worth the time that decoding takes
    std::byte* to = out + written + kLengthBytes;
    std::size_t bytes = compress(plane, {to, std::min(left, count - count / 64 - 1)}, level);
    if (bytes == 0) {
      if (left < count) break;
      std::copy_n(plane.data(), count, to);
      bytes = count;
    }
    store(out + written, static_cast<std::uint32_t>(bytes));
    written += kLengthBytes + bytes;
    if (k + 1 == width && written < plain) {
      out[0] = kPlanes;
      return written;
    }
  }
  out[0] = kPlain;
  std::copy_n(elements, count * width, out + 1);
  return plain;
}

// Calls visit(elements, first, how many) for the elements of a unit, a run at a time, and takes it off the
// payload's front; says whether it was a unit.
template <class Visit>
bool unpack_unit(std::span<const std::byte>& payload, std::size_t count, std::size_t width, Visit&& visit) {
  auto& memory = kept_by_thread<Scratch>([] {});
  if (payload.empty()) return false;
  const std::byte form = payload.front();
  payload = payload.subspan(1);
  if (form == kPlain) {
    if (payload.size() < count * width) return false;
    visit(payload.data(), std::size_t{0}, count);
    payload = payload.subspan(count * width);
    return true;
  }
  if (form != kPlanes) return false;
  const std::span<std::byte> decompressed = room_of(memory, count * width);
  std::array<const std::byte*, kMostPlanes> planes{};
  for (std::size_t k = 0; k < width; ++k) {
    if (payload.size() < kLengthBytes) return false;
    const std::size_t bytes = load<std::uint32_t>(payload.data());
    payload = payload.subspan(kLengthBytes);
    if (bytes > payload.size() || bytes > count) return false;
    planes[k] = payload.data();
    if (bytes < count) {
      const auto plane = decompressed.subspan(k * count, count);
      if (!decompress(payload.first(bytes), plane)) return false;
      planes[k] = plane.data();
    }
    payload = payload.subspan(bytes);
  }
  auto& elements = kept_by_thread<std::array<std::byte, kRun * kMostPlanes>>([] {});
  for (std::size_t at = 0; at < count; at += kRun) {
    const std::size_t n = std::min(kRun, count - at);
    unshuffle(planes, n, width, elements.data());
    visit(elements.data(), at, n);
    for (std::size_t k = 0; k < width; ++k) planes[k] += n;
  }
  return true;
}

// All units, as unpack_unit. Says whether the payload is theirs, and no more.
template <class Visit>
bool unpack(std::span<const std::byte> payload, std::size_t count, std::size_t width, Visit&& visit) {
  for (std::size_t begin = 0; begin < count; begin += kUnit) {
    const auto each = [&](const std::byte* elements, std::size_t at, std::size_t n) {
      visit(elements, begin + at, n);
    };
    if (!unpack_unit(payload, std::min(kUnit, count - begin), width, each)) return false;
  }
  return payload.empty();
}

[[noreturn]] void corrupt(const Codec& codec) {
  throw Error(ErrorCode::corrupt_data,
              "corrupt message for codec " + codec.spec() + ": its payload is not one that lossless writes");
}

class Lossless final : public Codec {
 public:
  Lossless(const CodecArguments& arguments, int level)
      : Codec("lossless", canonical_spec(lossless_entry(), arguments), traits_of()), level_(level) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.lossless = true;
    traits.fixed_size = false;
    traits.unbiased = true;
    traits.contractive = true;
    traits.error_bound = 0.0;
    return traits;
  }

  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override {
    return packed_bound(count, size_of(dtype));
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    auto& memory = kept_by_thread<Scratch>([] {});
    std::size_t written = 0;
    for (std::size_t begin = 0; begin < values.count; begin += kUnit) {
      ConstView unit = values.slice(begin, std::min(kUnit, values.count - begin));
      if (unit.dtype != as) {  // sums
        const View rounded = memory.view(unit.count, as);
        convert(unit, rounded, Into::overwrite, 1.0);
        unit = rounded;
      }
      written += pack_unit(static_cast<const std::byte*>(unit.data), unit.count, size_of(as), level_,
                           payload.data() + written);
    }
    return written;
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    const bool whole = unpack(payload, out.count, size_of(as),
                              [&](const std::byte* elements, std::size_t at, std::size_t n) {
                                convert({elements, n, as}, out.slice(at, n), into, factor);
                              });
    if (!whole) corrupt(*this);
  }

  int level_;
};

// Another codec whose payloads are compressed.
class Packed final : public Codec {
 public:
  Packed(const CodecArguments& arguments, int level, std::shared_ptr<const Codec> other)
      : Codec("lossless", other->spec() + "+" + canonical_spec(lossless_entry(), arguments),
              traits_of(*other)),
        other_(std::move(other)),
        width_(other_->name() == "cast" ? 2 : 1),
        level_(level) {}

 private:
  static CodecTraits traits_of(const Codec& other) {
    CodecTraits traits = other.traits();
    traits.fixed_size = false;
    traits.summable = false;
    traits.splittable = false;
    return traits;
  }

  CodecAccess inner() const noexcept { return CodecAccess(*other_); }
  bool has_length() const noexcept { return !other_->traits().fixed_size; }

  bool do_supports(DType dtype) const noexcept override { return other_->supports(dtype); }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override {
    const std::size_t bytes = inner().max_payload(count, dtype);
    return (has_length() ? sizeof(std::uint64_t) : 0) + packed_bound(bytes / width_, width_);
  }

  std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext& context,
                                       std::span<std::byte> payload) const override {
    return pack(values.count, as, payload,
                [&](std::span<std::byte> room) { return inner().encode(values, as, context, room); });
  }

  std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                const EncodeContext& context,
                                                std::span<std::byte> payload) const override {
    return pack(values.count, as, payload, [&](std::span<std::byte> room) {
      return inner().encode_feedback(values, residual, as, factor, context, room);
    });
  }

  void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                 double factor) const override {
    auto& memory = kept_by_thread<Scratch>([] {});
    std::size_t bytes = inner().max_payload(out.count, as);
    if (has_length()) {
      if (payload.size() < sizeof(std::uint64_t)) corrupt(*this);
      const auto length = load<std::uint64_t>(payload.data());
      if (length > bytes || length % width_ != 0) corrupt(*this);
      bytes = length;
      payload = payload.subspan(sizeof length);
    }
    const std::span<std::byte> room = room_of(memory, bytes);
    const bool whole = unpack(payload, bytes / width_, width_,
                              [&](const std::byte* elements, std::size_t at, std::size_t n) {
                                std::copy_n(elements, n * width_, room.data() + at * width_);
                              });
    if (!whole) corrupt(*this);
    inner().decode(room, as, out, into, factor);
  }

  template <class Encode>
  std::optional<std::size_t> pack(std::size_t count, DType as, std::span<std::byte> payload,
                                  Encode&& encode) const {
    auto& memory = kept_by_thread<Scratch>([] {});
    const std::span<std::byte> room = room_of(memory, inner().max_payload(count, as));
    const std::optional<std::size_t> bytes = encode(room);
    if (!bytes) return std::nullopt;
    std::size_t written = 0;
    if (has_length()) {
      store(payload.data(), static_cast<std::uint64_t>(*bytes));
      written = sizeof(std::uint64_t);
    }
    for (std::size_t begin = 0; begin < *bytes; begin += kUnit * width_) {
      const std::size_t n = std::min(kUnit, (*bytes - begin) / width_);
      written += pack_unit(room.data() + begin, n, width_, level_, payload.data() + written);
    }
    return written;
  }

  std::shared_ptr<const Codec> other_;
  std::size_t width_;
  int level_;
};

int level_of(CodecArguments& arguments) {
  const std::size_t level = count_argument(lossless_entry(), arguments, "level", 1, kMaxLevel);
  arguments["level"] = std::to_string(level);  // one way to write it
  return static_cast<int>(level);
}

std::shared_ptr<const Codec> compose(CodecArguments arguments, std::shared_ptr<const Codec> other) {
  const int level = level_of(arguments);
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::invalid_argument,
                "codec lossless does not go behind " + other->spec() + ": " + why);
  };
  if (other->name() == "identity") refuse("by itself, it is that: write lossless");
  if (other->name() == "lossless") refuse("what is compressed is not smaller the second time");
  if (other->traits().whole_tensor) refuse("its messages are taken apart, which compressed ones cannot be");
  return std::make_shared<Packed>(arguments, level, std::move(other));
}

}  // namespace

CodecEntry lossless_entry() {
  return {.name = "lossless",
          .summary =
              "every bit, in fewer bytes where zstd finds that it can; behind another codec and a +, "
              "for that one's messages",
          .options = {{"level", "1", "of zstd, 1 to 19: from fast to small"}},
          .examples = {"lossless", "lossless:level=3", "onebit:block=64+lossless", "cast:bf16+lossless"},
          .make = [](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const int level = level_of(arguments);
            return std::make_shared<Lossless>(arguments, level);
          },
          .compose = compose,
          .follows = true};
}

}  // namespace terse::inline v0_1

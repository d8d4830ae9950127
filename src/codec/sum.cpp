// SPDX-License-Identifier: Apache-2.0
//
// sum8, sum4: codes of 8 or 4 bits that add up without being decoded, on scales that all ranks share.
//
// The largest magnitude of each block of `block` elements, over all ranks, stands for the code `most`; a
// value for the nearest code. Of P ranks whose codes are to be added, most is 127 / P or 7 / P, rounded down,
// so that a sum stays within 8 or 4 bits: up to 127 ranks, or 7.
//
// Addends are bytes in two's complement, of each block its codes, of whole groups of 64. sum8: byte k of a
// group is code k. sum4: byte k of 32 is code k + 16 * code 32 + k, and so is a sum of such bytes, from which
// the lower sum, its last four bits, is taken off for the upper one. Sums of bytes stay within -119 to 119
// there, and within -127 to 127 of sum8: beyond that MPI libraries differ (Open MPI 4.1 saturates).
//
// Payload of a message by itself, for each block: the largest magnitude, of the tensor's accumulator; then
// its addends, with P = 1.
//
// Integers that a reduction adds, on a scale found by a reduction before it: IntSGD (Mishchenko et al., ICLR
// 2022), SwitchML (Sapio et al., NSDI 2021). There a rank's rounding is random; here it is to nearest, and
// what it leaves out, at most half a step, is fed back.
#include "codec/sum.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "codec/arithmetic.hpp"
#include "codec/elements.hpp"
#include "codec/rounds.hpp"
#include "codec/spec.hpp"
#include "codec/sum_kernels.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kStretch = 2048;  // elements worked on at a time, within a block

int most_of(unsigned bits, int parties) { return ((1 << (bits - 1)) - 1) / parties; }

// Where a step would be no normal number, so small are the values, it is 0 and all stand for 0.
template <class A>
SumGrid grid_of(A largest, unsigned bits, int parties) {
  constexpr A kLeast = sizeof(A) == 8 ? static_cast<A>(0x1p-1022) : static_cast<A>(0x1p-126f);
  SumGrid grid{.bits = bits, .most = most_of(bits, parties)};
  const A step = largest / static_cast<A>(grid.most);
  if (step >= kLeast) {
    grid.step = static_cast<double>(step);
    grid.inverse = static_cast<double>(1 / step);
  }
  return grid;
}

SumGrid grid_of(double largest, unsigned bits, int parties, DType accumulator) {
  return accumulator == DType::f64 ? grid_of<double>(largest, bits, parties)
                                   : grid_of<float>(static_cast<float>(largest), bits, parties);
}

// Whether a block's values, and what their codes stand for, are within the tensor's range.
bool is_in_range(double largest, DType as) {
  constexpr double kRoundings = 1 + 0x1p-20;
  const double most = largest * kRoundings;
  return accumulator_of(as) == DType::f64
             ? is_finite(most)
             : std::abs(most) <= 0x1.fffffep127 && is_finite(rounded_scale(static_cast<float>(most), as));
}

double load_number(const void* from, DType accumulator) {
  double wide = 0;
  float narrow = 0;
  if (accumulator == DType::f64) {
    std::memcpy(&wide, from, sizeof wide);
    return wide;
  }
  std::memcpy(&narrow, from, sizeof narrow);
  return static_cast<double>(narrow);
}

void store_number(double number, DType accumulator, void* to) {
  const auto narrow = static_cast<float>(number);
  accumulator == DType::f64 ? std::memcpy(to, &number, sizeof number)
                            : std::memcpy(to, &narrow, sizeof narrow);
}

class Sum final : public BlockCodec, private CodecInternals, private RoundsCodec {
 public:
  Sum(const CodecEntry& entry, const CodecArguments& arguments, std::size_t block, unsigned bits)
      : BlockCodec(entry.name, canonical_spec(entry, arguments), traits_of(block, bits)), bits_(bits) {}

 private:
  static CodecTraits traits_of(std::size_t block, unsigned bits) {
    constexpr double kSlack = 1 + 1e-4;  // for roundings
    CodecTraits traits;
    traits.block = block;
    traits.summable = true;
    traits.contractive = true;
    traits.block_error_bound = kSlack * 0.5 / most_of(bits, 1);
    return traits;
  }

  const CodecInternals* do_internals() const noexcept override { return this; }
  const RoundsCodec* rounds() const noexcept override { return this; }

  // --- messages by themselves

  std::size_t block_bytes(std::size_t n, DType as) const override {
    return size_of(accumulator_of(as)) + sum_code_bytes(n, bits_);
  }

  std::size_t encode_blocks(ConstView values, std::size_t, void* residual, DType as, const RandomKey&,
                            std::byte* out) const override {
    const std::size_t size = size_of(values.dtype);
    for (std::size_t begin = 0; begin < values.count; begin += traits().block) {
      const ConstView block = values.slice(begin, std::min(traits().block, values.count - begin));
      void* e = residual == nullptr ? nullptr : static_cast<std::byte*>(residual) + begin * size;
      const double largest = sum_largest(block, e);
      if (!is_in_range(largest, as)) return begin;
      store_number(largest, values.dtype, out);
      sum_encode(block, e, grid_of(largest, bits_, 1, values.dtype), out + size);
      out += block_bytes(block.count, as);
    }
    return values.count;
  }

  bool decode_blocks(const std::byte* in, DType as, View out, Into into, double factor) const override {
    for (std::size_t begin = 0; begin < out.count; begin += traits().block) {
      const View block = out.slice(begin, std::min(traits().block, out.count - begin));
      const double largest = load_number(in, out.dtype);
      if (!(largest >= 0) || std::signbit(largest) || !is_in_range(largest, as)) return false;
      const SumGrid grid = grid_of(largest, bits_, 1, out.dtype);
      if (sum_decode(in + size_of(out.dtype), grid, block, into, factor) > grid.most) return false;
      in += block_bytes(block.count, as);
    }
    return true;
  }

  // --- rounds: the largest magnitudes of blocks, then codes

  enum RoundNumber : std::size_t { kLargest, kCodes };

  std::span<const Round> rounds_in_order() const noexcept override {
    static constexpr std::array<Round, 2> kRounds = {
        {{Round::Kind::max, Addend::accumulator}, {Round::Kind::sum, Addend::int8}}};
    return kRounds;
  }
  std::size_t most_ranks() const noexcept override { return static_cast<std::size_t>(most_of(bits_, 1)); }
  std::size_t round_bytes(std::size_t round, std::size_t count, DType as, std::size_t) const override {
    const std::size_t whole = count / traits().block;
    const std::size_t rest = count % traits().block;
    if (round == kLargest) return (whole + (rest == 0 ? 0 : 1)) * size_of(accumulator_of(as));
    return whole * sum_code_bytes(traits().block, bits_) + sum_code_bytes(rest, bits_);
  }

  // Calls visit(first element, elements, block's number), a stretch at a time.
  template <class Visit>
  void for_each_stretch(std::size_t count, Visit&& visit) const {
    for (std::size_t block = 0, begin = 0; begin < count; ++block) {
      const std::size_t end = std::min(count, begin + traits().block);
      for (; begin < end; begin += std::min(kStretch, end - begin)) {
        visit(begin, std::min(kStretch, end - begin), block);
      }
    }
  }

  // A stretch of values and residual in the accumulator's type and whole groups: where they are, or copies in
  // memory of this thread's, until the next stretch.
  class Stretch {
   public:
    Stretch(ConstView x, const View& e, DType accumulator) : x_(x), e_(e), original_(e) {
      if (!fits(x, accumulator)) x_ = copy(x, accumulator, kept_by_thread<Scratch>([] {}));
      if (e.data != nullptr && !fits(e, accumulator)) {
        e_ = copy(e, accumulator, kept_by_thread<Scratch>([] {}));
      }
    }
    const ConstView& values() const { return x_; }
    void* residual() const { return e_.data; }
    // After the residual has changed.
    void keep_residual() const {
      if (e_.data != original_.data) keep(e_.slice(0, original_.count), original_);
    }

   private:
    static bool fits(const ConstView& view, DType accumulator) {
      return view.dtype == accumulator && view.count % kBlockGroup == 0;
    }
    static View copy(const ConstView& view, DType accumulator, Scratch& memory) {
      const View all = memory.view(groups_of(view.count) * kBlockGroup, accumulator);
      const View behind = all.slice(view.count, all.count - view.count);
      convert(view, all.slice(0, view.count), Into::overwrite, 1.0);
      if (!behind.empty()) std::memset(behind.data, 0, behind.bytes());
      return all;
    }

    ConstView x_;
    View e_;
    View original_;
  };

  static Stretch stretch_of(const ConstView& values, const View& residual, std::size_t at, std::size_t n,
                            DType accumulator) {
    return {values.slice(at, n), residual.data == nullptr ? View{} : residual.slice(at, n), accumulator};
  }

  bool contribute(std::size_t round, ConstView values, View residual, const RoundContext& context,
                  const RoundResults& earlier, std::span<std::byte> out) const noexcept override {
    if (round == kLargest) return measure(values, residual, context.as, out.data());
    encode_codes(values, residual, context, earlier[kLargest], out.data());
    return true;
  }

  bool measure(ConstView values, View residual, DType as, std::byte* out) const {
    const DType accumulator = accumulator_of(as);
    bool well = true;
    double largest = 0;
    for_each_stretch(values.count, [&](std::size_t at, std::size_t n, std::size_t block) {
      const Stretch stretch = stretch_of(values, residual, at, n, accumulator);
      const double found = sum_largest(stretch.values(), stretch.residual());
      well = well && is_in_range(found, as);
      largest = at % traits().block == 0 ? found : std::max(largest, found);
      store_number(largest, accumulator, out + block * size_of(accumulator));
    });
    return well;
  }

  void encode_codes(ConstView values, View residual, const RoundContext& context,
                    std::span<const std::byte> largest, std::byte* out) const {
    SumGrid grid;
    for_each_stretch(values.count, [&](std::size_t at, std::size_t n, std::size_t block) {
      if (at % traits().block == 0) grid = shared_grid(largest, block, context);
      const Stretch stretch = stretch_of(values, residual, at, n, accumulator_of(context.as));
      sum_encode(stretch.values(), stretch.residual(), grid, out);
      stretch.keep_residual();
      out += sum_code_bytes(n, bits_);
    });
  }

  void conclude(const RoundContext& context, const RoundResults& results, View out,
                double factor) const noexcept override {
    auto& memory = kept_by_thread<Scratch>([] {});
    const DType accumulator = accumulator_of(context.as);
    const std::byte* in = results[kCodes].data();
    SumGrid grid;
    for_each_stretch(out.count, [&](std::size_t at, std::size_t n, std::size_t block) {
      if (at % traits().block == 0) grid = shared_grid(results[kLargest], block, context);
      const View to = out.slice(at, n);
      const bool direct = to.dtype == accumulator && n % kBlockGroup == 0;
      const View all = direct ? to : memory.view(groups_of(n) * kBlockGroup, accumulator);
      sum_decode(in, grid, all, Into::overwrite, factor);
      if (!direct) convert(all.slice(0, n), to, Into::overwrite, 1.0);
      in += sum_code_bytes(n, bits_);
    });
  }

  SumGrid shared_grid(std::span<const std::byte> largest, std::size_t block,
                      const RoundContext& context) const {
    const DType accumulator = accumulator_of(context.as);
    return grid_of(load_number(largest.data() + block * size_of(accumulator), accumulator), bits_,
                   context.ranks, accumulator);
  }

  unsigned bits_;
};

CodecEntry entry_of(unsigned bits) {
  const std::string name = "sum" + std::to_string(bits);
  return {.name = name,
          .summary = std::to_string(bits) + " bits an element, which a plain reduction adds: for up to " +
                     std::to_string(most_of(bits, 1)) + " ranks",
          .options = {{"block", "2048", "elements that share a scale, a multiple of 64 up to 65536"}},
          .examples = {name + ":block=" + (bits == 8 ? "128" : "64")},
          .make = [bits](CodecArguments arguments) -> std::shared_ptr<const Codec> {
            const CodecEntry entry = entry_of(bits);
            const std::size_t block = block_argument(entry, arguments);
            return std::make_shared<Sum>(entry, arguments, block, bits);
          }};
}

}  // namespace

CodecEntry sum8_entry() { return entry_of(8); }
CodecEntry sum4_entry() { return entry_of(4); }

}  // namespace terse::inline v0_1

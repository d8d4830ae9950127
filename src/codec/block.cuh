// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "codec/device_parts.cuh"

// Block codecs on a device: all kernels, of which a codec's .cu instantiates DeviceBlockCodec<Operations>.
//
// A warp has a stretch: up to 64 * kGroups elements of one block. Of each group of 64 elements lane l has
// elements 2l and 2l + 1, which it loads and stores as a pair, beside its neighbours' pairs. A block that is
// no longer than a stretch is read once, kept in registers, and written once; of a longer one, warps find the
// statistics of its runs first, a thread then makes the block's parameters, and warps encode its stretches.
//
// What a codec says about itself is a class template over the accumulator's type, whose functions are those
// of the codec's host kernels (onebit_arithmetic.hpp and quant_arithmetic.hpp have one each):
//
//   Format                      what it is made from: trivially copyable, with `block`, elements, a
//                               multiple of 8
//   Operations(format, as, key)
//                               `as`: the type of the tensor
//   A, Parameters, block(), as()
//                               the accumulator's type, a block's parameters, what it was made with
//   Statistic                   of some of a block's elements, Statistic{} of none; 4 n bytes
//   add(statistic, v)           takes one more element in: a lane's even elements by one, its odd ones by
//                               another
//   merged(a, b)                of both; the even ones of all lanes are merged as a tree, then the odd
//                               ones, then these two
//   kRun                        elements of a block whose statistic is found in this way, a multiple of 2048
//   kGroups                     kLong or kShort: of the longest stretch
//   parameters(runs, r, n)      a block's parameters from the statistics of its r runs, n elements in all
//   head()                      bytes in front of a block's codes
//   store(parameters, out), load(in)
//                               these bytes; what is loaded serves encoding as well as decoding, and load
//                               is not told how many elements the block has: what depends on that is in
//                               what store writes
//   is_valid(parameters)        whether an encoder may have written them; false for whatever parameters()
//                               makes of values that are not finite, which is how these are flagged
//   times(parameters, factor)   the same for values times a factor
//   value(code, parameters)     what a code stands for
//   draw(position)              random bits for the elements at `position` and the next one
//   code(v, parameters, half)   of an element, whose random bits are the low 16 of `half`
//   Codes, codes()              how the codes of a stretch lie in a payload: SignBits, of n elements, or
//                               GroupCodes, of whole groups as a BlockCodec has them, below
//   Receiver, receiver(parameters, reception)
//                               what those who decode will hold, as said at Reception:
//     is_valid()                whether they can hold that block
//     kMayFail                  whether they may fail to hold single elements of it all the same
//     operator()(code)          what they hold over the factor; not finite where they cannot hold it

namespace terse::inline v0_1 {

inline constexpr std::uint32_t kGroup = 2 * kWarp;
// Groups of a stretch. Long: a lane has the bits of one group (SignBits). Short: for blocks of up to 512
// elements, where a lane has so few registers of values that more warps are under way at once, and for codecs
// whose code for a group is so long that 32 of it in a row are not worth their compiling.
inline constexpr std::uint32_t kLong = kWarp;
inline constexpr std::uint32_t kShort = 8;

// Kinds of units.
inline constexpr int kStretches = 0;
inline constexpr int kRuns = 1;
inline constexpr int kBlocks = 2;

/// What receivers do to a decoded value, which residuals are taken from: they multiply it by `factor`, and
/// where it `rounds`, round that to the tensor's type.
struct Reception {
  double factor = 1.0;
  bool rounds = false;
};

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T even, odd;
};

template <class T>
TERSE_DEVICE bool takes_pairs(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % sizeof(Pair<T>) == 0;
}

// What a lane has of a stretch, by group.
template <class A, std::uint32_t kGroups>
struct Lanes {
  A even[kGroups];
  A odd[kGroups];
};

// Calls each(group, index of the lane's first element) for the groups of n elements.
template <std::uint32_t kGroups, class Each>
TERSE_DEVICE void for_groups(std::uint32_t n, std::uint32_t lane, Each&& each) {
  TERSE_UNROLL
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    if (g * kGroup >= n) break;
    each(g, g * kGroup + 2 * lane);
  }
}

// Calls use(group, even, odd) with the elements at p, zeros beyond n.
template <std::uint32_t kGroups, class T, class Use>
TERSE_DEVICE void load_groups(const T* p, std::uint32_t n, std::uint32_t lane, Use&& use) {
  if (takes_pairs(p) && n % kGroup == 0) {
    Pair<T> pairs[kGroups];  // all are asked for before any of them is looked at
    TERSE_UNROLL
    for (std::uint32_t g = 0; g < kGroups; ++g) {
      if (g * kGroup < n) pairs[g] = reinterpret_cast<const Pair<T>*>(p)[g * kWarp + lane];
    }
    for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t) {
      use(g, widened(pairs[g].even), widened(pairs[g].odd));
    });
    return;
  }
  for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t i) {
    const AccumulatorOf<T> even = i < n ? widened(p[i]) : AccumulatorOf<T>{};
    const AccumulatorOf<T> odd = i + 1 < n ? widened(p[i + 1]) : AccumulatorOf<T>{};
    use(g, even, odd);
  });
}

// Writes what make(group) gives, a pair, to the n elements at p.
template <std::uint32_t kGroups, class T, class Make>
TERSE_DEVICE void store_groups(T* p, std::uint32_t n, std::uint32_t lane, Make&& make) {
  if (takes_pairs(p) && n % kGroup == 0) {
    for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t) {
      reinterpret_cast<Pair<T>*>(p)[g * kWarp + lane] = make(g);
    });
    return;
  }
  for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t i) {
    const Pair<T> pair = make(g);
    if (i < n) p[i] = pair.even;
    if (i + 1 < n) p[i + 1] = pair.odd;
  });
}

// --- how codes lie in a payload ---

/// A bit a code, code 8k + j in bit j of byte k; padding bits are zero. Lane g has the bits of group g.
struct SignBits {
  TERSE_HOST_DEVICE std::uint64_t bytes(std::uint64_t n) const { return (n + 7) / 8; }

  class Writer {
   public:
    TERSE_DEVICE Writer(const SignBits&, std::byte* out, std::uint32_t n, std::uint32_t lane)
        : out_(out), n_(n), lane_(lane) {}
    TERSE_DEVICE void put(std::uint32_t g, unsigned even, unsigned odd) {
      const std::uint32_t evens = __ballot_sync(kAllLanes, even != 0);
      const std::uint32_t odds = __ballot_sync(kAllLanes, odd != 0);
      if (lane_ != g) return;
      even_ = evens;
      odd_ = odds;
    }
    TERSE_DEVICE void finish() const {
      if (lane_ * kGroup >= n_) return;
      const std::uint64_t bits = spread(even_) | spread(odd_) << 1;
      const std::uint32_t bytes = bytes_of_group(n_, lane_);
      std::byte* p = out_ + 8 * lane_;
      if (bytes == 8 && reinterpret_cast<std::uintptr_t>(out_) % 4 == 0) {
        auto* words = reinterpret_cast<std::uint32_t*>(p);
        words[0] = static_cast<std::uint32_t>(bits);
        words[1] = static_cast<std::uint32_t>(bits >> 32);
        return;
      }
      for (std::uint32_t i = 0; i < bytes; ++i) p[i] = static_cast<std::byte>(bits >> (8 * i));
    }

   private:
    // Bit i of 32 becomes bit 2i of 64.
    TERSE_DEVICE static std::uint64_t spread(std::uint32_t bits) {
      std::uint64_t x = bits;
      x = (x | x << 16) & 0x0000ffff0000ffffu;
      x = (x | x << 8) & 0x00ff00ff00ff00ffu;
      x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
      x = (x | x << 2) & 0x3333333333333333u;
      return (x | x << 1) & 0x5555555555555555u;
    }
    std::byte* out_;
    std::uint32_t n_, lane_;
    std::uint32_t even_ = 0;
    std::uint32_t odd_ = 0;
  };

  template <std::uint32_t kGroups>
  class Reader {
   public:
    TERSE_DEVICE Reader(const SignBits&, const std::byte* in, std::uint32_t n, std::uint32_t lane)
        : lane_(lane), padded_(n % 8 != 0 && static_cast<unsigned>(in[n / 8]) >> (n % 8) != 0) {
      if (lane * kGroup >= n) return;
      const std::uint32_t bytes = bytes_of_group(n, lane);
      const std::byte* p = in + 8 * lane;
      if (bytes == 8 && reinterpret_cast<std::uintptr_t>(in) % 4 == 0) {
        const auto* words = reinterpret_cast<const std::uint32_t*>(p);
        bits_ = words[0] | static_cast<std::uint64_t>(words[1]) << 32;
        return;
      }
      for (std::uint32_t i = 0; i < bytes; ++i) bits_ |= static_cast<std::uint64_t>(p[i]) << (8 * i);
    }
    // The lane's two codes of group g. For all lanes at once, as is is_valid.
    TERSE_DEVICE Pair<unsigned> get(std::uint32_t g) {
      const auto from = static_cast<int>(g);
      const std::uint32_t low = __shfl_sync(kAllLanes, static_cast<std::uint32_t>(bits_), from);
      const std::uint32_t high = __shfl_sync(kAllLanes, static_cast<std::uint32_t>(bits_ >> 32), from);
      const std::uint32_t both = (lane_ < kWarp / 2 ? low : high) >> (2 * (lane_ % (kWarp / 2)));
      return {both & 1u, both >> 1 & 1u};
    }
    // Once all codes were got.
    TERSE_DEVICE bool is_valid() const { return !padded_; }

   private:
    std::uint32_t lane_;
    bool padded_;
    std::uint64_t bits_ = 0;
  };

 private:
  TERSE_DEVICE static std::uint32_t bytes_of_group(std::uint32_t n, std::uint32_t g) {
    const std::uint32_t left = n - g * kGroup;
    return left >= kGroup ? 8 : (left + 7) / 8;
  }
};

/// Codes of 8, 6, 4 or 2 bits in whole groups, as codes-inl.hpp has them; none is above `top`. A lane writes
/// and reads two bytes at a time, beside its neighbours' two.
struct GroupCodes {
  std::uint32_t bits;
  std::uint32_t top;

  TERSE_HOST_DEVICE std::uint64_t bytes(std::uint64_t n) const {
    return (n + kGroup - 1) / kGroup * (kGroup / 8 * bits);
  }

  // Codes of a pair are in bits 0 and 8 of a word, and up.
  class Writer {
   public:
    TERSE_DEVICE Writer(const GroupCodes& codes, std::byte* out, std::uint32_t, std::uint32_t lane)
        : bits_(codes.bits),
          lane_(lane),
          aligned_(reinterpret_cast<std::uintptr_t>(out) % 2 == 0),
          out_(out + 2 * lane) {}
    TERSE_DEVICE void put(std::uint32_t g, unsigned even, unsigned odd) {
      std::uint32_t own = even | odd << 8;
      std::uint32_t lanes = kWarp;
      if (bits_ == 6) {
        const std::uint32_t last = of_lane(own, 24 + lane_ % 8);
        own |= (last >> (2 * (lane_ / 8)) & 0x0303u) << 6;
        lanes = 24;
      } else if (bits_ == 4) {
        own |= of_lane(own, lane_ + 16) << 4;
        lanes = 16;
      } else if (bits_ == 2) {
        own |= of_lane(own, lane_ + 16) << 4;
        own |= of_lane(own, lane_ + 8) << 2;
        lanes = 8;
      }
      if (lane_ >= lanes) return;
      std::byte* p = out_ + g * (kGroup / 8 * bits_);
      if (aligned_) {
        *reinterpret_cast<std::uint16_t*>(p) = static_cast<std::uint16_t>(own);
      } else {
        p[0] = static_cast<std::byte>(own & 0xffu);
        p[1] = static_cast<std::byte>(own >> 8 & 0xffu);
      }
    }
    TERSE_DEVICE void finish() const {}

   private:
    TERSE_DEVICE static std::uint32_t of_lane(std::uint32_t word, std::uint32_t lane) {
      return __shfl_sync(kAllLanes, word, static_cast<int>(lane % kWarp));
    }
    std::uint32_t bits_, lane_;
    bool aligned_;
    std::byte* out_;
  };

  template <std::uint32_t kGroups>
  class Reader {
   public:
    TERSE_DEVICE Reader(const GroupCodes& codes, const std::byte* in, std::uint32_t n, std::uint32_t lane)
        : top_(codes.top) {
      const std::uint32_t bits = codes.bits;
      const bool split = bits == 6 && lane >= 24;
      const std::uint32_t pairs = bits == 6 ? 24 : 4 * bits;  // that begin in bytes of their own
      const std::uint32_t stride = kGroup / 8 * bits;
      const bool aligned = reinterpret_cast<std::uintptr_t>(in) % 2 == 0;
      shift_ = bits == 6 ? 0 : bits * (lane / pairs);
      mask_ = 0x0101u * ((1u << bits) - 1);
      const std::byte* p = in + 2 * (lane % pairs);
      TERSE_UNROLL
      for (std::uint32_t g = 0; g < kGroups; ++g) {
        if (g * kGroup < n) both_[g] = load(p + g * stride, aligned);
      }
      if (!split) return;
      for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t) {
        both_[g] = (both_[g] >> 6 & 0x0303u) | (load(p + g * stride + 16, aligned) >> 6 & 0x0303u) << 2 |
                   (load(p + g * stride + 32, aligned) >> 6 & 0x0303u) << 4;
      });
    }
    TERSE_DEVICE Pair<unsigned> get(std::uint32_t g) {
      const std::uint32_t both = both_[g] >> shift_ & mask_;
      const Pair<unsigned> pair{both & 0xffu, both >> 8};
      valid_ = valid_ && pair.even <= top_ && pair.odd <= top_;
      return pair;
    }
    TERSE_DEVICE bool is_valid() const { return __all_sync(kAllLanes, valid_) != 0; }

   private:
    TERSE_DEVICE static std::uint32_t load(const std::byte* p, bool aligned) {
      if (aligned) return *reinterpret_cast<const std::uint16_t*>(p);
      return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8;
    }
    std::uint32_t top_, shift_, mask_;
    bool valid_ = true;
    std::uint32_t both_[kGroups];
  };
};

// --- what a warp deals with ---

template <class Operations>
TERSE_HOST_DEVICE std::uint64_t block_bytes(const Operations& operations, std::uint64_t n) {
  return operations.head() + operations.codes().bytes(n);
}

// Where a stretch or a run lies.
struct Place {
  std::uint64_t block;     // in its part
  std::uint32_t in_block;  // its first element
  std::uint64_t at;        // the same in the part
  std::uint32_t n;         // elements
};

// Stretch or run `unit` of a part, whose blocks have `each` elements in one.
TERSE_DEVICE Place place_of(std::uint32_t block, const Part& part, std::uint64_t unit, std::uint32_t each) {
  const std::uint32_t in_one = (block + each - 1) / each;
  Place place{};
  place.block = in_one == 1 ? unit : unit / in_one;
  place.in_block = in_one == 1 ? 0 : static_cast<std::uint32_t>(unit % in_one) * each;
  place.at = place.block * block + place.in_block;
  const std::uint64_t left = part.count - place.at;
  const std::uint32_t most = block - place.in_block < each ? block - place.in_block : each;
  place.n = left < most ? static_cast<std::uint32_t>(left) : most;
  return place;
}

// Without a part there is nothing for a warp to do.
struct Work {
  const Part* part;
  Place place;
  std::uint64_t unit;
  std::uint32_t lane;
};

TERSE_DEVICE Work work_of(const Parts& parts, std::uint32_t block, int kind, std::uint32_t each) {
  Work work{nullptr, {}, thread_number() / kWarp, threadIdx.x % kWarp};
  if (work.unit >= parts.units[kind]) return work;
  const Part& part = parts.find(work.unit, kind);
  work.part = &part;
  work.place = place_of(block, part, work.unit - part.first[kind], each);
  return work;
}

// Where the payload of a place's block begins, and its codes.
template <class Operations, class Byte>
TERSE_DEVICE Byte* head_of(const Operations& operations, const Part& part, const Place& place,
                           Byte* payload) {
  return payload + part.payload + place.block * block_bytes(operations, operations.block());
}
template <class Operations, class Byte>
TERSE_DEVICE Byte* codes_of(const Operations& operations, const Place& place, Byte* head) {
  return head + operations.head() + operations.codes().bytes(place.in_block);
}

// What is encoded: elements in memory.
template <class Operations>
struct BlockValues {
  using A = typename Operations::A;
  DType dtype;

  template <std::uint32_t kGroups>
  TERSE_DEVICE bool load(const Operations&, const Part& part, const Place& place, std::uint32_t lane,
                         Lanes<A, kGroups>& v, DeviceReport*) const {
    with_type_of<A>(dtype, [&](auto type) {
      load_groups<kGroups>(static_cast<const decltype(type)*>(part.in) + place.at, place.n, lane,
                           [&](std::uint32_t g, A even, A odd) {
                             v.even[g] = even;
                             v.odd[g] = odd;
                           });
    });
    return true;
  }
};

// What is encoded: the sum of all ranks' messages, divided.
template <class Operations>
struct BlockMessages : GatheredMessages<typename Operations::A> {
  using A = typename Operations::A;
  using GatheredMessages<A>::GatheredMessages;

  template <std::uint32_t kGroups>
  TERSE_DEVICE bool load(const Operations& operations, const Part& part, const Place& place,
                         std::uint32_t lane, Lanes<A, kGroups>& v, DeviceReport* report) const {
    for (int rank = 0; rank < this->ranks; ++rank) {
      const std::byte* head = head_of(operations, part, place, this->payload_of(rank));
      const auto parameters = operations.load(head);
      typename Operations::Codes::template Reader<kGroups> reader(
          operations.codes(), codes_of(operations, place, head), place.n, lane);
      for_groups<kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t) {
        const Pair<unsigned> codes = reader.get(g);
        const A even = operations.value(codes.even, parameters);
        const A odd = operations.value(codes.odd, parameters);
        v.even[g] = rank == 0 ? even : v.even[g] + even;
        v.odd[g] = rank == 0 ? odd : v.odd[g] + odd;
      });
      if (!operations.is_valid(parameters) || !reader.is_valid()) {
        if (lane == 0 && report != nullptr) tell(report->corrupt, static_cast<std::uint32_t>(rank) + 1);
        return false;
      }
    }
    for_groups<kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t i) {
      v.even[g] = i < place.n ? this->divided(v.even[g]) : A{};
      v.odd[g] = i + 1 < place.n ? this->divided(v.odd[g]) : A{};
    });
    return true;
  }
};

template <class A, std::uint32_t kGroups>
TERSE_DEVICE void add_residual(const Part& part, const Place& place, std::uint32_t lane,
                               Lanes<A, kGroups>& v) {
  if (part.residual == nullptr) return;
  with_residual_type<A>(part, [&](auto type) {
    load_groups<kGroups>(static_cast<const decltype(type)*>(part.residual) + place.at, place.n, lane,
                         [&](std::uint32_t g, A even, A odd) {
                           v.even[g] += even;
                           v.odd[g] += odd;
                         });
  });
}

template <class A, std::uint32_t kGroups>
TERSE_DEVICE void store_residual(const Part& part, const Place& place, std::uint32_t lane,
                                 const Lanes<A, kGroups>& left) {
  if (part.residual == nullptr) return;
  with_residual_type<A>(part, [&](auto type) {
    using E = decltype(type);
    store_groups<kGroups>(static_cast<E*>(part.residual) + place.at, place.n, lane, [&](std::uint32_t g) {
      return Pair<E>{kept<E>(left.even[g]), kept<E>(left.odd[g])};
    });
  });
}

// --- statistics ---

// A value of another lane, whatever it consists of.
template <class S>
TERSE_DEVICE S of_lane_below(const S& own, unsigned delta) {
  static_assert(sizeof(S) % 4 == 0 && std::is_trivially_copyable_v<S>);
  std::uint32_t words[sizeof(S) / 4];
  std::memcpy(words, &own, sizeof own);
  TERSE_UNROLL
  for (std::uint32_t& word : words) word = __shfl_down_sync(kAllLanes, word, delta);
  S other;
  std::memcpy(&other, words, sizeof other);
  return other;
}
template <class S>
TERSE_DEVICE S of_first_lane(const S& own) {
  std::uint32_t words[sizeof(S) / 4];
  std::memcpy(words, &own, sizeof own);
  TERSE_UNROLL
  for (std::uint32_t& word : words) word = __shfl_sync(kAllLanes, word, 0);
  S first;
  std::memcpy(&first, words, sizeof first);
  return first;
}

template <class Operations, std::uint32_t kGroups>
TERSE_DEVICE void add_stretch(const Operations& operations, const Lanes<typename Operations::A, kGroups>& v,
                              std::uint32_t n, std::uint32_t lane, typename Operations::Statistic& even,
                              typename Operations::Statistic& odd) {
  for_groups<kGroups>(n, lane, [&](std::uint32_t g, std::uint32_t) {
    operations.add(even, v.even[g]);
    operations.add(odd, v.odd[g]);
  });
}

// Of all lanes, on all lanes.
template <class Operations, class Statistic = typename Operations::Statistic>
TERSE_DEVICE Statistic merge_lanes(const Operations& operations, Statistic even, Statistic odd) {
  TERSE_UNROLL
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    even = operations.merged(even, of_lane_below(even, half));
    odd = operations.merged(odd, of_lane_below(odd, half));
  }
  return of_first_lane(operations.merged(even, odd));
}

// --- kernels ---

// Writes codes and residuals of a stretch, whose block has these parameters.
template <class Operations, std::uint32_t kGroups>
TERSE_DEVICE void write_codes(const Operations& operations, const Part& part, const Place& place,
                              std::uint32_t lane, Lanes<typename Operations::A, kGroups>& v,
                              const typename Operations::Parameters& parameters,
                              const typename Operations::Receiver& receiver, std::byte* out,
                              DeviceReport* report) {
  typename Operations::Codes::Writer writer(operations.codes(), out, place.n, lane);
  bool held = true;
  for_groups<kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t i) {
    const std::uint32_t drawn = operations.draw(part.position + place.at + i);
    const unsigned even = operations.code(v.even[g], parameters, drawn);
    const unsigned odd = operations.code(v.odd[g], parameters, drawn >> 16);
    writer.put(g, even, odd);
    const auto even_held = receiver(even);
    const auto odd_held = receiver(odd);
    if constexpr (Operations::Receiver::kMayFail) held = held && is_finite(even_held) && is_finite(odd_held);
    v.even[g] -= even_held;
    v.odd[g] -= odd_held;
  });
  writer.finish();
  if constexpr (Operations::Receiver::kMayFail) {
    if (__all_sync(kAllLanes, held) == 0) {
      if (lane == 0) tell(report->non_finite, 1);
      return;
    }
  }
  store_residual(part, place, lane, v);
}

// Blocks that are no longer than a stretch.
template <class Source, class Operations, std::uint32_t kGroups>
__global__ void __launch_bounds__(kThreads)
    encode_blocks(Source source, TERSE_ARGUMENT Parts parts, Operations operations, Reception reception,
                  std::byte* payload, DeviceReport* report) {
  using A = typename Operations::A;
  const Work work = work_of(parts, operations.block(), kStretches, kGroup * Operations::kGroups);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  Lanes<A, kGroups> v;
  if (!source.load(operations, part, place, lane, v, report)) return;
  add_residual(part, place, lane, v);
  typename Operations::Statistic even{};
  typename Operations::Statistic odd{};
  add_stretch(operations, v, place.n, lane, even, odd);
  const auto statistic = merge_lanes(operations, even, odd);
  const auto parameters = operations.parameters(&statistic, 1, place.n);
  std::byte* head = head_of(operations, part, place, payload);
  if (lane == 0) operations.store(parameters, head);
  const auto receiver = operations.receiver(parameters, reception);
  if (!receiver.is_valid()) {
    if (lane == 0) tell(report->non_finite, 1);
    return;
  }
  write_codes(operations, part, place, lane, v, parameters, receiver, codes_of(operations, place, head),
              report);
}

// Longer blocks: the statistics of their runs, then their parameters, then their codes.
template <class Source, class Operations>
__global__ void __launch_bounds__(kThreads)
    find_statistics(Source source, TERSE_ARGUMENT Parts parts, Operations operations,
                    typename Operations::Statistic* statistics, DeviceReport* report) {
  using A = typename Operations::A;
  const Work work = work_of(parts, operations.block(), kRuns, Operations::kRun);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& run = work.place;
  const std::uint32_t lane = work.lane;
  typename Operations::Statistic even{};
  typename Operations::Statistic odd{};
  constexpr std::uint32_t kStretch = kGroup * Operations::kGroups;
  for (std::uint32_t begin = 0; begin < run.n; begin += kStretch) {
    Place place = run;
    place.in_block += begin;
    place.at += begin;
    place.n = run.n - begin < kStretch ? run.n - begin : kStretch;
    Lanes<A, Operations::kGroups> v;
    if (!source.load(operations, part, place, lane, v, report)) break;
    add_residual(part, place, lane, v);
    add_stretch(operations, v, place.n, lane, even, odd);
  }
  const auto statistic = merge_lanes(operations, even, odd);
  if (lane == 0) statistics[work.unit] = statistic;
}

template <class Operations>
__global__ void make_parameters(TERSE_ARGUMENT Parts parts, Operations operations, Reception reception,
                                const typename Operations::Statistic* statistics, std::byte* payload,
                                DeviceReport* report) {
  const std::uint64_t unit = thread_number();
  if (unit >= parts.units[kBlocks]) return;
  const Part& part = parts.find(unit, kBlocks);
  const std::uint32_t block = operations.block();
  constexpr std::uint32_t kRun = Operations::kRun;
  Place place{};
  place.block = unit - part.first[kBlocks];
  const std::uint64_t left = part.count - place.block * block;
  const std::uint64_t n = left < block ? left : block;
  const auto* runs = statistics + part.first[kRuns] + place.block * ((block + kRun - 1) / kRun);
  const auto parameters = operations.parameters(runs, (n + kRun - 1) / kRun, n);
  operations.store(parameters, head_of(operations, part, place, payload));
  if (!operations.receiver(parameters, reception).is_valid()) tell(report->non_finite, 1);
}

template <class Source, class Operations>
__global__ void __launch_bounds__(kThreads)
    encode_stretches(Source source, TERSE_ARGUMENT Parts parts, Operations operations, Reception reception,
                     std::byte* payload, DeviceReport* report) {
  using A = typename Operations::A;
  const Work work = work_of(parts, operations.block(), kStretches, kGroup * Operations::kGroups);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  std::byte* head = head_of(operations, part, place, payload);
  const auto parameters = operations.load(head);
  const auto receiver = operations.receiver(parameters, reception);
  if (!receiver.is_valid()) return;
  Lanes<A, Operations::kGroups> v;
  if (!source.load(operations, part, place, lane, v, nullptr)) return;
  add_residual(part, place, lane, v);
  write_codes(operations, part, place, lane, v, parameters, receiver, codes_of(operations, place, head),
              report);
}

template <class Source, class Operations>
__global__ void __launch_bounds__(kThreads)
    undo_stretches(Source source, TERSE_ARGUMENT Parts parts, Operations operations, Reception reception,
                   const std::byte* payload) {
  using A = typename Operations::A;
  const Work work = work_of(parts, operations.block(), kStretches, kGroup * Operations::kGroups);
  if (work.part == nullptr || work.part->residual == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  const std::byte* head = head_of(operations, part, place, payload);
  const auto receiver = operations.receiver(operations.load(head), reception);
  if (!receiver.is_valid()) return;
  Lanes<A, Operations::kGroups> x;
  if (!source.load(operations, part, place, lane, x, nullptr)) return;
  Lanes<A, Operations::kGroups> sum;
  typename Operations::Codes::template Reader<Operations::kGroups> reader(
      operations.codes(), codes_of(operations, place, head), place.n, lane);
  bool held = true;
  for_groups<Operations::kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t) {
    const Pair<unsigned> codes = reader.get(g);
    sum.even[g] = receiver(codes.even);
    sum.odd[g] = receiver(codes.odd);
    if constexpr (Operations::Receiver::kMayFail)
      held = held && is_finite(sum.even[g]) && is_finite(sum.odd[g]);
  });
  if constexpr (Operations::Receiver::kMayFail) {
    if (__all_sync(kAllLanes, held) == 0) return;  // which encoding left out
  }
  add_residual(part, place, lane, sum);
  for_groups<Operations::kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t) {
    sum.even[g] -= x.even[g];
    sum.odd[g] -= x.odd[g];
  });
  store_residual(part, place, lane, sum);
}

template <class Operations, std::uint32_t kGroups>
__global__ void __launch_bounds__(kThreads)
    decode_stretches(TERSE_ARGUMENT Parts parts, Operations operations, bool adds, double factor,
                     const std::byte* payload, DeviceReport* report) {
  using A = typename Operations::A;
  const Work work = work_of(parts, operations.block(), kStretches, kGroup * Operations::kGroups);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  // all that is read is asked for before any of it is looked at
  Lanes<A, kGroups> v;
  if (adds) {
    with_type_of<A>(operations.as(), [&](auto type) {
      load_groups<kGroups>(static_cast<const decltype(type)*>(part.out) + place.at, place.n, lane,
                           [&](std::uint32_t g, A even, A odd) {
                             v.even[g] = even;
                             v.odd[g] = odd;
                           });
    });
  }
  const std::byte* head = head_of(operations, part, place, payload);
  typename Operations::Codes::template Reader<kGroups> reader(
      operations.codes(), codes_of(operations, place, head), place.n, lane);
  const auto stored = operations.load(head);
  const auto parameters = operations.times(stored, static_cast<A>(factor));
  for_groups<kGroups>(place.n, lane, [&](std::uint32_t g, std::uint32_t) {
    const Pair<unsigned> codes = reader.get(g);
    const A even = operations.value(codes.even, parameters);
    const A odd = operations.value(codes.odd, parameters);
    v.even[g] = adds ? v.even[g] + even : even;
    v.odd[g] = adds ? v.odd[g] + odd : odd;
  });
  if (!operations.is_valid(stored) || !reader.is_valid()) {
    if (lane == 0) tell(report->corrupt, 1);
    return;
  }
  with_type_of<A>(operations.as(), [&](auto type) {
    using T = decltype(type);
    store_groups<kGroups>(static_cast<T*>(part.out) + place.at, place.n, lane, [&](std::uint32_t g) {
      return Pair<T>{rounded<T>(v.even[g]), rounded<T>(v.odd[g])};
    });
  });
}

/// A block codec's twin: which kernels are queued. `Operations` has a name of its own among all codecs and is
/// not in an unnamed namespace: GCC 12 takes two such templates of one name for the same.
template <template <class> class Operations>
class DeviceBlockCodec final : public DeviceCodec {
 public:
  using Format = typename Operations<float>::Format;
  explicit DeviceBlockCodec(const Format& format) : format_(format) {}

  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, const RandomKey& key,
              std::byte* payload, DeviceReport* report) const override {
    if (fragments.empty()) return;
    const DType as = fragments.front().values.dtype;
    with_operations(as, key, [&]<class O>(const O& operations) {
      encode_from(queue, BlockValues<O>{as}, operations, fragments, Reception{}, payload, report);
    });
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    if (!has_residual(fragments)) return;
    const DType as = fragments.front().values.dtype;
    with_operations(as, {}, [&]<class O>(const O& operations) {
      undo_from(queue, BlockValues<O>{as}, operations, fragments, Reception{}, payload);
    });
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport* report) const override {
    if (to.empty()) return;
    with_operations(to.front().dtype, {}, [&]<class O>(const O& operations) {
      const auto kernel = is_short() ? decode_stretches<O, kShort> : decode_stretches<O, O::kGroups>;
      for_each_launch_of(operations, to, part_of_output, [&](const Parts& parts) {
        launch(queue, kernel, kWarp * parts.units[kStretches], parts, operations, into == Into::add, factor,
               payload, report);
      });
    });
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              const RandomKey& key, std::byte* payload, DeviceReport* report) const override {
    if (fragments.empty()) return;
    const DType as = fragments.front().values.dtype;
    with_operations(as, key, [&]<class O>(const O& operations) {
      encode_from(queue, BlockMessages<O>(sum), operations, fragments, reception_of(sum, as), payload,
                  report);
    });
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    if (!has_residual(fragments)) return;
    const DType as = fragments.front().values.dtype;
    with_operations(as, {}, [&]<class O>(const O& operations) {
      undo_from(queue, BlockMessages<O>(sum), operations, fragments, reception_of(sum, as), payload);
    });
  }

 private:
  bool is_short() const { return format_.block <= kShort * kGroup; }

  // Sums are kept in the accumulator's type, and rounded by those who receive them.
  static Reception reception_of(const DeviceSum& sum, DType as) {
    return {sum.factor, sum.factor != 1.0 || as != accumulator_of(as)};
  }

  template <class Use>
  void with_operations(DType as, const RandomKey& key, Use&& use) const {
    if (as == DType::f64) return use(Operations<double>(format_, as, key));
    use(Operations<float>(format_, as, key));
  }

  template <class O, class Fragments, class PartOf, class Visit>
  static void for_each_launch_of(const O& operations, const Fragments& fragments, PartOf&& part_of,
                                 Visit&& visit) {
    const std::uint64_t block = operations.block();
    for_each_launch(
        fragments, part_of,
        [&](std::uint64_t count) {
          const std::uint64_t rest = count % block;
          return count / block * block_bytes(operations, block) +
                 (rest == 0 ? 0 : block_bytes(operations, rest));
        },
        [&](std::uint64_t count) {
          const std::uint64_t whole = count / block;
          const std::uint64_t rest = count % block;
          const auto units = [&](std::uint64_t each) {
            return whole * ((block + each - 1) / each) + (rest + each - 1) / each;
          };
          return std::array<std::uint64_t, 3>{units(kGroup * O::kGroups), units(O::kRun),
                                              whole + (rest != 0)};
        },
        visit);
  }

  template <class Source, class O>
  void encode_from(DeviceQueue& queue, const Source& source, const O& operations,
                   std::span<const Fragment> fragments, const Reception& reception, std::byte* payload,
                   DeviceReport* report) const {
    for_each_launch_of(operations, fragments, part_of_fragment, [&](const Parts& parts) {
      const std::uint64_t warps = kWarp * parts.units[kStretches];
      if (format_.block <= kGroup * O::kGroups) {
        const auto kernel =
            is_short() ? encode_blocks<Source, O, kShort> : encode_blocks<Source, O, O::kGroups>;
        launch(queue, kernel, warps, source, parts, operations, reception, payload, report);
        return;
      }
      using Statistic = typename O::Statistic;
      auto* statistics = reinterpret_cast<Statistic*>(queue.scratch(parts.units[kRuns] * sizeof(Statistic)));
      launch(queue, find_statistics<Source, O>, kWarp * parts.units[kRuns], source, parts, operations,
             statistics, report);
      launch(queue, make_parameters<O>, parts.units[kBlocks], parts, operations, reception, statistics,
             payload, report);
      launch(queue, encode_stretches<Source, O>, warps, source, parts, operations, reception, payload,
             report);
    });
  }

  template <class Source, class O>
  static void undo_from(DeviceQueue& queue, const Source& source, const O& operations,
                        std::span<const Fragment> fragments, const Reception& reception,
                        const std::byte* payload) {
    for_each_launch_of(operations, fragments, part_of_fragment, [&](const Parts& parts) {
      launch(queue, undo_stretches<Source, O>, kWarp * parts.units[kStretches], source, parts, operations,
             reception, payload);
    });
  }

  Format format_;
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// onebit on a device: a warp for each stretch of 2048 elements or less, of which lane l has elements 64g + 2l
// and 64g + 2l + 1 of every group g, and so running sums 2l and 2l + 1 (see arithmetic.hpp). A block that is
// no longer than a stretch is read once, kept in registers, and written once; a longer one is summed by runs
// first. See onebit.cpp for what is written.
#include "codec/device_parts.cuh"

namespace terse::inline v0_1 {
namespace {

constexpr std::uint32_t kGroup = static_cast<std::uint32_t>(kOnebitGroup);
constexpr std::uint32_t kGroups = 32;  // of a stretch: a lane keeps the bits of one
constexpr std::uint32_t kStretch = kGroup * kGroups;
constexpr std::uint32_t kRun = static_cast<std::uint32_t>(kOnebitRun);
static_assert(kGroup == 2 * kWarp && kGroups == kWarp && kRun % kStretch == 0);

// Kinds of units.
constexpr int kStretches = 0;
constexpr int kRuns = 1;
constexpr int kBlocks = 2;

// What all kernels know of the codec.
struct Format {
  std::uint32_t block;
  std::uint32_t scale_bytes;
  DType as;
  OnebitScale scale;

  TERSE_HOST_DEVICE std::uint64_t payload_of(std::uint64_t block_number) const {
    return block_number * (scale_bytes + block / 8);
  }
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
template <class A>
struct Lanes {
  A even[kGroups];
  A odd[kGroups];
};

// Calls each(group, index of the lane's first element) for the groups of n elements.
template <class Each>
TERSE_DEVICE void for_groups(std::uint32_t n, std::uint32_t lane, Each&& each) {
  TERSE_UNROLL
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    if (g * kGroup < n) each(g, g * kGroup + 2 * lane);
  }
}

// Calls use(group, even, odd) with the elements at p, zeros beyond n.
template <class T, class Use>
TERSE_DEVICE void load_groups(const T* p, std::uint32_t n, std::uint32_t lane, Use&& use) {
  if (takes_pairs(p) && n == kStretch) {
    TERSE_UNROLL
    for (std::uint32_t g = 0; g < kGroups; ++g) {
      const Pair<T> pair = reinterpret_cast<const Pair<T>*>(p)[g * kWarp + lane];
      use(g, widened(pair.even), widened(pair.odd));
    }
    return;
  }
  for_groups(n, lane, [&](std::uint32_t g, std::uint32_t i) {
    const AccumulatorOf<T> even = i < n ? widened(p[i]) : AccumulatorOf<T>{};
    const AccumulatorOf<T> odd = i + 1 < n ? widened(p[i + 1]) : AccumulatorOf<T>{};
    use(g, even, odd);
  });
}

// Writes what make(group) gives, a pair, to the n elements at p.
template <class T, class Make>
TERSE_DEVICE void store_groups(T* p, std::uint32_t n, std::uint32_t lane, Make&& make) {
  if (takes_pairs(p) && n == kStretch) {
    TERSE_UNROLL
    for (std::uint32_t g = 0; g < kGroups; ++g) reinterpret_cast<Pair<T>*>(p)[g * kWarp + lane] = make(g);
    return;
  }
  for_groups(n, lane, [&](std::uint32_t g, std::uint32_t i) {
    const Pair<T> pair = make(g);
    if (i < n) p[i] = pair.even;
    if (i + 1 < n) p[i + 1] = pair.odd;
  });
}

// The bits of group `lane` of a stretch of n elements.
TERSE_DEVICE std::uint64_t load_bits(const std::byte* in, std::uint32_t n, std::uint32_t lane) {
  if (lane * kGroup >= n) return 0;
  const std::uint32_t left = n - lane * kGroup;
  const std::uint32_t bytes = left >= kGroup ? 8 : (left + 7) / 8;
  const std::byte* p = in + 8 * lane;
  if (bytes == 8 && reinterpret_cast<std::uintptr_t>(in) % 4 == 0) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(p);
    return words[0] | static_cast<std::uint64_t>(words[1]) << 32;
  }
  std::uint64_t bits = 0;
  for (std::uint32_t i = 0; i < bytes; ++i) bits |= static_cast<std::uint64_t>(p[i]) << (8 * i);
  return bits;
}

TERSE_DEVICE void store_bits(std::byte* out, std::uint32_t n, std::uint32_t lane, std::uint64_t bits) {
  if (lane * kGroup >= n) return;
  const std::uint32_t left = n - lane * kGroup;
  const std::uint32_t bytes = left >= kGroup ? 8 : (left + 7) / 8;
  std::byte* p = out + 8 * lane;
  if (bytes == 8 && reinterpret_cast<std::uintptr_t>(out) % 4 == 0) {
    auto* words = reinterpret_cast<std::uint32_t*>(p);
    words[0] = static_cast<std::uint32_t>(bits);
    words[1] = static_cast<std::uint32_t>(bits >> 32);
    return;
  }
  for (std::uint32_t i = 0; i < bytes; ++i) p[i] = static_cast<std::byte>(bits >> (8 * i));
}

// Bit i of 32 becomes bit 2i of 64.
TERSE_DEVICE std::uint64_t spread(std::uint32_t bits) {
  std::uint64_t x = bits;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
  x = (x | x << 2) & 0x3333333333333333u;
  return (x | x << 1) & 0x5555555555555555u;
}

// The lane's two bits of group g, of which lane g has all. For all lanes at once.
TERSE_DEVICE std::uint32_t lane_bits(std::uint64_t bits, std::uint32_t g, std::uint32_t lane) {
  const std::uint32_t low = __shfl_sync(kAllLanes, static_cast<std::uint32_t>(bits), static_cast<int>(g));
  const std::uint32_t high =
      __shfl_sync(kAllLanes, static_cast<std::uint32_t>(bits >> 32), static_cast<int>(g));
  return (lane < kWarp / 2 ? low : high) >> (2 * (lane % (kWarp / 2))) & 3u;
}

template <class A>
TERSE_DEVICE Pair<A> signed_scales(A scale, std::uint32_t bits) {
  return {(bits & 1u) != 0 ? -scale : scale, (bits & 2u) != 0 ? -scale : scale};
}

// Adds a stretch to the lane's running sums.
template <class A>
TERSE_DEVICE void add_terms(const Lanes<A>& v, std::uint32_t n, OnebitScale scale, A& even, A& odd) {
  TERSE_UNROLL
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    if (g * kGroup >= n) continue;
    even += onebit_term(v.even[g], scale);
    odd += onebit_term(v.odd[g], scale);
  }
}

// All running sums added as a tree, on all lanes.
template <class A>
TERSE_DEVICE A add_tree(A even, A odd) {
  TERSE_UNROLL
  for (unsigned half = kWarp / 2; half > 0; half /= 2) {
    even += __shfl_down_sync(kAllLanes, even, half);
    odd += __shfl_down_sync(kAllLanes, odd, half);
  }
  return __shfl_sync(kAllLanes, even + odd, 0);
}

// Where a stretch lies.
struct Place {
  std::uint64_t block;     // in its part
  std::uint32_t in_block;  // its first element
  std::uint64_t at;        // the same in the part
  std::uint32_t n;         // elements
};

// Stretch or run `unit` of a part, whose blocks have `each` elements in one.
TERSE_DEVICE Place place_of(const Format& format, const Part& part, std::uint64_t unit, std::uint32_t each) {
  const std::uint32_t in_one = (format.block + each - 1) / each;
  Place place{};
  place.block = in_one == 1 ? unit : unit / in_one;
  place.in_block = in_one == 1 ? 0 : static_cast<std::uint32_t>(unit % in_one) * each;
  place.at = place.block * format.block + place.in_block;
  const std::uint64_t left = part.count - place.at;
  const std::uint32_t most = format.block - place.in_block < each ? format.block - place.in_block : each;
  place.n = left < most ? static_cast<std::uint32_t>(left) : most;
  return place;
}

// What a warp deals with: a stretch or a run. Without a part there is nothing for it to do.
struct Work {
  const Part* part;
  Place place;
  std::uint64_t unit;
  std::uint32_t lane;
};

TERSE_DEVICE Work work_of(const Parts& parts, const Format& format, int kind) {
  Work work{nullptr, {}, thread_number() / kWarp, threadIdx.x % kWarp};
  if (work.unit >= parts.units[kind]) return work;
  const Part& part = parts.find(work.unit, kind);
  work.part = &part;
  work.place = place_of(format, part, work.unit - part.first[kind], kind == kRuns ? kRun : kStretch);
  return work;
}

// Whether the bits behind the last element of a block, if that is in this stretch, are zero as they must be.
TERSE_DEVICE bool padding_is_zero(const std::byte* bits, std::uint32_t n) {
  return n % 8 == 0 || static_cast<unsigned>(bits[n / 8]) >> (n % 8) == 0;
}

// Calls use(group, pair) with the values that a stretch's bits stand for, of which the lane has `own`.
template <class A, class Use>
TERSE_DEVICE void load_signs(std::uint64_t own, A scale, const Place& place, std::uint32_t lane, Use&& use) {
  TERSE_UNROLL
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    if (g * kGroup < place.n) use(g, signed_scales(scale, lane_bits(own, g, lane)));
  }
}

// What is encoded: elements in memory.
template <class T>
struct Values {
  using A = AccumulatorOf<T>;
  Values from(std::uint64_t) const { return *this; }
  TERSE_DEVICE bool load(const Format&, const Part& part, const Place& place, std::uint32_t lane, Lanes<A>& v,
                         DeviceReport*) const {
    load_groups(static_cast<const T*>(part.in) + place.at, place.n, lane,
                [&](std::uint32_t g, A even, A odd) {
                  v.even[g] = even;
                  v.odd[g] = odd;
                });
    return true;
  }
};

// What is encoded: the sum of all ranks' messages, divided.
template <class Accumulator>
struct Messages : GatheredMessages<Accumulator> {
  using A = Accumulator;
  using GatheredMessages<A>::GatheredMessages;
  Messages from(std::uint64_t payload) const {
    Messages later = *this;
    later.payloads += payload;
    return later;
  }
  TERSE_DEVICE bool load(const Format& format, const Part& part, const Place& place, std::uint32_t lane,
                         Lanes<A>& v, DeviceReport* report) const {
    for (int rank = 0; rank < this->ranks; ++rank) {
      const std::byte* in = this->payload_of(rank) + part.payload + format.payload_of(place.block);
      const A scale = load_onebit_scale<A>(in, format.as);
      const std::byte* bits = in + format.scale_bytes + place.in_block / 8;
      if (!is_onebit_scale(scale) || !padding_is_zero(bits, place.n)) {
        if (lane == 0 && report != nullptr) tell(report->corrupt, static_cast<std::uint32_t>(rank) + 1);
        return false;
      }
      load_signs(load_bits(bits, place.n, lane), scale, place, lane, [&](std::uint32_t g, const Pair<A>& q) {
        v.even[g] = rank == 0 ? q.even : v.even[g] + q.even;
        v.odd[g] = rank == 0 ? q.odd : v.odd[g] + q.odd;
      });
    }
    for_groups(place.n, lane, [&](std::uint32_t g, std::uint32_t i) {
      v.even[g] = i < place.n ? this->divided(v.even[g]) : A{};
      v.odd[g] = i + 1 < place.n ? this->divided(v.odd[g]) : A{};
    });
    return true;
  }
};

template <class E, class A>
TERSE_DEVICE void add_residual(const Part& part, const Place& place, std::uint32_t lane, Lanes<A>& v) {
  if constexpr (!std::is_same_v<E, NoResidual>) {
    load_groups(static_cast<const E*>(part.residual) + place.at, place.n, lane,
                [&](std::uint32_t g, A even, A odd) {
                  v.even[g] += even;
                  v.odd[g] += odd;
                });
  }
}

// Writes bits and residuals of a stretch, given what receivers will hold of its scale.
template <class E, class A>
TERSE_DEVICE void write_signs(const Part& part, const Place& place, std::uint32_t lane, const Lanes<A>& v,
                              A received, std::byte* bits) {
  std::uint32_t even = 0;
  std::uint32_t odd = 0;
  TERSE_UNROLL
  for (std::uint32_t g = 0; g < kGroups; ++g) {
    if (g * kGroup >= place.n) continue;
    const std::uint32_t evens = __ballot_sync(kAllLanes, onebit_negative(v.even[g]));
    const std::uint32_t odds = __ballot_sync(kAllLanes, onebit_negative(v.odd[g]));
    if (lane == g) {
      even = evens;
      odd = odds;
    }
  }
  store_bits(bits, place.n, lane, spread(even) | spread(odd) << 1);
  if constexpr (!std::is_same_v<E, NoResidual>) {
    store_groups(static_cast<E*>(part.residual) + place.at, place.n, lane, [&](std::uint32_t g) {
      const auto left = [&](A value) {
        return kept<E>(value - (onebit_negative(value) ? -received : received));
      };
      return Pair<E>{left(v.even[g]), left(v.odd[g])};
    });
  }
}

// Blocks that are no longer than a stretch.
template <class Source, class E>
__global__ void __launch_bounds__(kThreads)
    encode_blocks(Source source, TERSE_ARGUMENT Parts parts, Format format, double factor, std::byte* payload,
                  DeviceReport* report) {
  using A = typename Source::A;
  const Work work = work_of(parts, format, kStretches);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  Lanes<A> v;
  if (!source.load(format, part, place, lane, v, report)) return;
  add_residual<E>(part, place, lane, v);
  A even{};
  A odd{};
  add_terms(v, place.n, format.scale, even, odd);
  const A sum = add_tree(even, odd);
  const A scale =
      onebit_rounded_scale(onebit_scale(sum, static_cast<double>(sum), place.n, format.scale), format.as);
  std::byte* out = payload + part.payload + format.payload_of(place.block);
  if (lane == 0) store_onebit_scale(scale, format.as, out);
  const A received = onebit_received_scale(scale, factor, format.as);
  if (!is_finite(received)) {
    if (lane == 0) tell(report->non_finite, 1);
    return;
  }
  write_signs<E>(part, place, lane, v, received, out + format.scale_bytes);
}

// Longer blocks: the sums of their runs, then their scales, then their signs.
template <class Source, class E>
__global__ void __launch_bounds__(kThreads) sum_runs(Source source, TERSE_ARGUMENT Parts parts, Format format,
                                                     typename Source::A* sums, DeviceReport* report) {
  using A = typename Source::A;
  const Work work = work_of(parts, format, kRuns);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& run = work.place;
  const std::uint32_t lane = work.lane;
  A even{};
  A odd{};
  for (std::uint32_t begin = 0; begin < run.n; begin += kStretch) {
    Place place = run;
    place.in_block += begin;
    place.at += begin;
    place.n = run.n - begin < kStretch ? run.n - begin : kStretch;
    Lanes<A> v;
    if (!source.load(format, part, place, lane, v, report)) break;
    add_residual<E>(part, place, lane, v);
    add_terms(v, place.n, format.scale, even, odd);
  }
  const A sum = add_tree(even, odd);
  if (lane == 0) sums[work.unit] = sum;
}

template <class A>
__global__ void make_scales(TERSE_ARGUMENT Parts parts, Format format, double factor, const A* sums,
                            A* received, std::byte* payload, DeviceReport* report) {
  const std::uint64_t unit = thread_number();
  if (unit >= parts.units[kBlocks]) return;
  const Part& part = parts.find(unit, kBlocks);
  const std::uint64_t block = unit - part.first[kBlocks];
  const std::uint64_t left = part.count - block * format.block;
  const std::uint64_t n = left < format.block ? left : format.block;
  const A* run = sums + part.first[kRuns] + block * ((format.block + kRun - 1) / kRun);
  const std::uint64_t runs = (n + kRun - 1) / kRun;
  double total = 0;
  for (std::uint64_t r = 0; r < runs; ++r) total += static_cast<double>(run[r]);
  const A scale = onebit_rounded_scale(onebit_scale(run[runs - 1], total, n, format.scale), format.as);
  store_onebit_scale(scale, format.as, payload + part.payload + format.payload_of(block));
  received[unit] = onebit_received_scale(scale, factor, format.as);
  if (!is_finite(received[unit])) tell(report->non_finite, 1);
}

template <class Source, class E>
__global__ void __launch_bounds__(kThreads)
    sign_stretches(Source source, TERSE_ARGUMENT Parts parts, Format format,
                   const typename Source::A* received, std::byte* payload) {
  using A = typename Source::A;
  const Work work = work_of(parts, format, kStretches);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  const A held = received[part.first[kBlocks] + place.block];
  if (!is_finite(held)) return;
  Lanes<A> v;
  if (!source.load(format, part, place, lane, v, nullptr)) return;
  add_residual<E>(part, place, lane, v);
  write_signs<E>(
      part, place, lane, v, held,
      payload + part.payload + format.payload_of(place.block) + format.scale_bytes + place.in_block / 8);
}

template <class Source, class E>
__global__ void __launch_bounds__(kThreads)
    undo_stretches(Source source, TERSE_ARGUMENT Parts parts, Format format, double factor,
                   const std::byte* payload) {
  using A = typename Source::A;
  const Work work = work_of(parts, format, kStretches);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  const std::byte* in = payload + part.payload + format.payload_of(place.block);
  const A received = onebit_received_scale(load_onebit_scale<A>(in, format.as), factor, format.as);
  if (!is_finite(received)) return;
  Lanes<A> x;
  if (!source.load(format, part, place, lane, x, nullptr)) return;
  Lanes<A> sum;
  load_signs(load_bits(in + format.scale_bytes + place.in_block / 8, place.n, lane), received, place, lane,
             [&](std::uint32_t g, const Pair<A>& q) {
               sum.even[g] = q.even;
               sum.odd[g] = q.odd;
             });
  add_residual<E>(part, place, lane, sum);
  store_groups(static_cast<E*>(part.residual) + place.at, place.n, lane, [&](std::uint32_t g) {
    return Pair<E>{kept<E>(sum.even[g] - x.even[g]), kept<E>(sum.odd[g] - x.odd[g])};
  });
}

template <class T, bool kAdds>
__global__ void __launch_bounds__(kThreads)
    decode_stretches(TERSE_ARGUMENT Parts parts, Format format, double factor, const std::byte* payload,
                     DeviceReport* report) {
  using A = AccumulatorOf<T>;
  const Work work = work_of(parts, format, kStretches);
  if (work.part == nullptr) return;
  const Part& part = *work.part;
  const Place& place = work.place;
  const std::uint32_t lane = work.lane;
  const std::byte* in = payload + part.payload + format.payload_of(place.block);
  const std::byte* bits = in + format.scale_bytes + place.in_block / 8;
  T* out = static_cast<T*>(part.out) + place.at;
  // all that is read is asked for before any of it is looked at
  Lanes<A> v;
  if constexpr (kAdds) {
    load_groups(static_cast<const T*>(out), place.n, lane, [&](std::uint32_t g, A even, A odd) {
      v.even[g] = even;
      v.odd[g] = odd;
    });
  }
  const std::uint64_t own = load_bits(bits, place.n, lane);
  const A stored = load_onebit_scale<A>(in, format.as);
  if (!is_onebit_scale(stored) || !padding_is_zero(bits, place.n)) {
    if (lane == 0) tell(report->corrupt, 1);
    return;
  }
  const A scale = stored * static_cast<A>(factor);
  load_signs(own, scale, place, lane, [&](std::uint32_t g, const Pair<A>& q) {
    if constexpr (kAdds) {
      v.even[g] += q.even;
      v.odd[g] += q.odd;
    } else {
      v.even[g] = q.even;
      v.odd[g] = q.odd;
    }
  });
  store_groups(out, place.n, lane, [&](std::uint32_t g) {
    return Pair<T>{rounded<T>(v.even[g]), rounded<T>(v.odd[g])};
  });
}

class DeviceOnebit final : public DeviceCodec {
 public:
  DeviceOnebit(std::size_t block, OnebitScale scale)
      : block_(static_cast<std::uint32_t>(block)), scale_(scale) {}

  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, std::byte* payload,
              DeviceReport* report) const override {
    if (fragments.empty()) return;
    const DType as = fragments.front().values.dtype;
    with_dtype(as, [&]<class T>(T) { encode_from(queue, Values<T>(), as, fragments, 1.0, payload, report); });
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    if (fragments.empty()) return;
    const DType as = fragments.front().values.dtype;
    with_dtype(as, [&]<class T>(T) { undo_from(queue, Values<T>(), as, fragments, 1.0, payload); });
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport* report) const override {
    if (to.empty()) return;
    const Format format = format_of(to.front().dtype);
    with_dtype(format.as, [&]<class T>(T) {
      const auto kernel = into == Into::add ? decode_stretches<T, true> : decode_stretches<T, false>;
      for_each_launch_of(format, to, part_of_output, [&](const Parts& parts) {
        launch(queue, kernel, kWarp * parts.units[kStretches], parts, format, factor, payload, report);
      });
    });
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              std::byte* payload, DeviceReport* report) const override {
    with_messages(sum, fragments, [&](const auto& messages, DType as) {
      encode_from(queue, messages, as, fragments, sum.factor, payload, report);
    });
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    with_messages(sum, fragments, [&](const auto& messages, DType as) {
      undo_from(queue, messages, as, fragments, sum.factor, payload);
    });
  }

 private:
  Format format_of(DType as) const { return {block_, static_cast<std::uint32_t>(size_of(as)), as, scale_}; }

  template <class Use>
  static void with_messages(const DeviceSum& sum, std::span<const Fragment> fragments, Use&& use) {
    if (fragments.empty()) return;
    const DType as = fragments.front().values.dtype;
    if (as == DType::f64) return use(Messages<double>(sum), as);
    use(Messages<float>(sum), as);
  }

  template <class Fragments, class PartOf, class Visit>
  static void for_each_launch_of(const Format& format, const Fragments& fragments, PartOf&& part_of,
                                 Visit&& visit) {
    for_each_launch(
        fragments, part_of, [&](std::uint64_t count) { return onebit_bytes(count, format.block, format.as); },
        [&](std::uint64_t count) {
          const std::uint64_t whole = count / format.block;
          const std::uint64_t rest = count % format.block;
          const auto units = [&](std::uint64_t each) {
            return whole * ((format.block + each - 1) / each) + (rest + each - 1) / each;
          };
          return std::array<std::uint64_t, 3>{units(kStretch), units(kRun), whole + (rest != 0)};
        },
        visit);
  }

  template <class Source>
  void encode_from(DeviceQueue& queue, const Source& source, DType as, std::span<const Fragment> fragments,
                   double factor, std::byte* payload, DeviceReport* report) const {
    using A = typename Source::A;
    const Format format = format_of(as);
    const auto bytes_of = [&](std::uint64_t count) { return onebit_bytes(count, format.block, as); };
    for_each_residual_type<A>(fragments, bytes_of, [&]<class E>(E, auto alike, std::uint64_t begin) {
      const Source from = source.from(begin);
      std::byte* out = payload + begin;
      for_each_launch_of(format, alike, part_of_fragment, [&](const Parts& parts) {
        if (block_ <= kStretch) {
          launch(queue, encode_blocks<Source, E>, kWarp * parts.units[kStretches], from, parts, format,
                 factor, out, report);
          return;
        }
        auto* sums =
            reinterpret_cast<A*>(queue.scratch((parts.units[kRuns] + parts.units[kBlocks]) * sizeof(A)));
        A* received = sums + parts.units[kRuns];
        launch(queue, sum_runs<Source, E>, kWarp * parts.units[kRuns], from, parts, format, sums, report);
        launch(queue, make_scales<A>, parts.units[kBlocks], parts, format, factor, sums, received, out,
               report);
        launch(queue, sign_stretches<Source, E>, kWarp * parts.units[kStretches], from, parts, format,
               received, out);
      });
    });
  }

  template <class Source>
  void undo_from(DeviceQueue& queue, const Source& source, DType as, std::span<const Fragment> fragments,
                 double factor, const std::byte* payload) const {
    const Format format = format_of(as);
    const auto bytes_of = [&](std::uint64_t count) { return onebit_bytes(count, format.block, as); };
    for_each_residual_type<typename Source::A>(
        fragments, bytes_of, [&]<class E>(E, auto alike, std::uint64_t begin) {
          if constexpr (!std::is_same_v<E, NoResidual>) {
            const Source from = source.from(begin);
            for_each_launch_of(format, alike, part_of_fragment, [&](const Parts& parts) {
              launch(queue, undo_stretches<Source, E>, kWarp * parts.units[kStretches], from, parts, format,
                     factor, payload + begin);
            });
          }
        });
  }

  std::uint32_t block_;
  OnebitScale scale_;
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_onebit(std::size_t block, OnebitScale scale) {
  return std::make_unique<DeviceOnebit>(block, scale);
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <terse/error.hpp>

#include "codec/arithmetic.hpp"
#include "codec/device_codec.hpp"

// What the kernels of all codecs have in common. They are launched by launch() alone, so that they can also
// be compiled for an emulation of CUDA, where there is no <<<>>>.

#ifdef __CUDACC__
#define TERSE_DEVICE __device__ __forceinline__
#define TERSE_UNROLL _Pragma("unroll")
#define TERSE_ARGUMENT const __grid_constant__  // which threads read where it is, and do not copy
#else
#define TERSE_DEVICE inline
#define TERSE_UNROLL
#define TERSE_ARGUMENT const
#endif

namespace terse::inline v0_1 {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kThreads = 128;  // of a block of threads
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// A fragment as kernels see it. Kernels deal with units of some size, numbered through all parts.
struct Part {
  const void* in = nullptr;
  void* out = nullptr;
  void* residual = nullptr;  ///< may be null
  DType residual_type = DType::f32;
  std::uint64_t count = 0;      ///< elements
  std::uint64_t position = 0;   ///< of the first one, as RandomKey has it
  std::uint64_t payload = 0;    ///< where its bytes begin in a payload
  std::uint64_t first[3] = {};  ///< by kind of unit: units of the parts before it
};

/// As many as fit among a kernel's arguments, which are 4 KiB where a device is old.
struct Parts {
  static constexpr std::uint32_t kMost = 40;
  Part part[kMost];
  std::uint32_t size = 0;
  std::uint64_t units[3] = {};  ///< in all

  /// The part that a unit is of.
  TERSE_DEVICE const Part& find(std::uint64_t unit, int kind) const {
    std::uint32_t low = 0;
    for (std::uint32_t high = size; high - low > 1;) {
      const std::uint32_t middle = (low + high) / 2;
      (part[middle].first[kind] <= unit ? low : high) = middle;
    }
    return part[low];
  }
};

/// Calls visit(parts) for as many fragments as go into one launch, with those that have elements. `part_of`
/// makes a Part's pointers and count of a fragment; bytes_of(count) and units_of(count), three numbers, are
/// the codec's.
template <class Fragments, class PartOf, class BytesOf, class UnitsOf, class Visit>
void for_each_launch(const Fragments& fragments, PartOf&& part_of, BytesOf&& bytes_of, UnitsOf&& units_of,
                     Visit&& visit) {
  Parts parts;
  std::uint64_t payload = 0;
  for (const auto& fragment : fragments) {
    Part part = part_of(fragment);
    if (part.count == 0) continue;
    part.payload = payload;
    payload += bytes_of(part.count);
    const std::array<std::uint64_t, 3> units = units_of(part.count);
    for (int kind = 0; kind < 3; ++kind) {
      part.first[kind] = parts.units[kind];
      parts.units[kind] += units[static_cast<std::size_t>(kind)];
    }
    parts.part[parts.size++] = part;
    if (parts.size < Parts::kMost) continue;
    visit(std::as_const(parts));
    parts = Parts();
  }
  if (parts.size != 0) visit(std::as_const(parts));
}

inline Part part_of_fragment(const Fragment& fragment) {
  Part part;
  part.in = fragment.values.data;
  part.residual = fragment.residual.data;
  part.residual_type = fragment.residual.dtype;
  part.count = fragment.values.count;
  part.position = fragment.position;
  return part;
}

inline Part part_of_output(const View& view) {
  Part part;
  part.out = view.data;
  part.count = view.count;
  return part;
}

/// Queues a kernel for `threads` threads, rounded up to blocks of kThreads.
template <class... P>
void launch(DeviceQueue& queue, void (*kernel)(P...), std::uint64_t threads,
            std::type_identity_t<P>... arguments) {
  const std::uint64_t blocks = (threads + kThreads - 1) / kThreads;
  if (blocks == 0) return;
  if (blocks > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorCode::unsupported, "a kernel for " + std::to_string(threads) +
                                            " threads is more than a device takes: lower segment_bytes");
  }
  const OnDevice current(queue.device());
  const auto stream = static_cast<cudaStream_t>(queue.stream());
  void* pointers[] = {&arguments...};
#ifdef __CUDACC__
  const auto* function = reinterpret_cast<const void*>(kernel);
#else
  const auto function = kernel;  // the emulation wants to know its arguments
#endif
  const cudaError_t code =
      cudaLaunchKernel(function, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), pointers, 0, stream);
  if (code != cudaSuccess) {
    cudaGetLastError();  // clears CUDA's last error
    throw Error(ErrorCode::device,
                std::string("a kernel could not be launched: ") + cudaGetErrorString(code));
  }
}

/// Calls use(T{}) with the type of elements of which `dtype` says which they are and A is the accumulator.
/// All threads of a launch go the same way: so a kernel is compiled once for f32, f16 and bf16.
template <class A, class Use>
TERSE_HOST_DEVICE void with_type_of(DType dtype, Use&& use) {
  if constexpr (std::is_same_v<A, double>) {
    use(double{});
  } else if (dtype == DType::f32) {
    use(float{});
  } else if (dtype == DType::f16) {
    use(float16{});
  } else {
    use(bfloat16{});
  }
}

/// The same with the type of a part's residuals, of those that it may have.
template <class A, class Use>
TERSE_HOST_DEVICE void with_residual_type(const Part& part, Use&& use) {
  if constexpr (std::is_same_v<A, float>) {
    if (part.residual_type == DType::bf16) return use(bfloat16{});
  }
  use(A{});
}

inline bool has_residual(std::span<const Fragment> fragments) {
  return std::any_of(fragments.begin(), fragments.end(),
                     [](const Fragment& f) { return f.residual.data != nullptr; });
}

/// A codec's format from the bytes that make_device_twin gives.
template <class Format>
Format format_of(std::span<const std::byte> bytes) {
  if (bytes.size() != sizeof(Format)) {
    throw Error(ErrorCode::unsupported, "the module for CUDA devices is not of this build of Terse");
  }
  Format format;
  std::memcpy(&format, bytes.data(), sizeof format);
  return format;
}

/// The number of this thread in its launch.
TERSE_DEVICE std::uint64_t thread_number() {
  return static_cast<std::uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

/// Says something in a report, once or many times.
TERSE_DEVICE void tell(std::uint32_t& word, std::uint32_t what) {
  *static_cast<volatile std::uint32_t*>(&word) = what;
}

/// The messages of all ranks, from which an owner's sums are made.
template <class A>
struct GatheredMessages {
  explicit GatheredMessages(const DeviceSum& sum)
      : payloads(sum.payloads),
        stride(sum.stride),
        ranks(sum.ranks),
        divides(sum.divisor != 1.0),
        divisor(sum.divisor) {}
  TERSE_DEVICE const std::byte* payload_of(int rank) const {
    return payloads + static_cast<std::size_t>(rank) * stride;
  }
  TERSE_DEVICE A divided(A sum) const { return divides ? divisor(sum) : sum; }

  const std::byte* payloads;
  std::size_t stride;
  int ranks;
  bool divides;
  Divisor<A> divisor;
};

}  // namespace terse::inline v0_1

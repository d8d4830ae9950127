// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CUDA runtime's names, for code that is compiled as ordinary C++ and runs on the CPU. What the functions
// do, and what tests may ask of them, stands in emulated_cuda.hpp.

#include <math.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

/// Tells sources that serve both worlds that there is no `<<<...>>>`: use emulated_cuda::launch().
#define TERSE_EMULATED_CUDA 1
#define CUDART_VERSION 12080

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// All threads of a block run on one host thread, one block at a time.
#define __shared__ static thread_local

// Host side: types and constants.

enum cudaError : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorCudartUnloading = 4,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidPitchValue = 12,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorUnknown = 999,
};
using cudaError_t = cudaError;

struct CUstream_st;
struct CUevent_st;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(0x1))
#define cudaStreamPerThread (reinterpret_cast<cudaStream_t>(0x2))

inline constexpr unsigned cudaStreamDefault = 0;
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0;
inline constexpr unsigned cudaEventBlockingSync = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline constexpr unsigned cudaEventWaitDefault = 0;
inline constexpr unsigned cudaHostAllocDefault = 0;
inline constexpr unsigned cudaHostAllocPortable = 1;
inline constexpr unsigned cudaHostAllocMapped = 2;
inline constexpr unsigned cudaHostAllocWriteCombined = 4;
inline constexpr unsigned cudaMemAttachGlobal = 1;
inline constexpr unsigned cudaMemAttachHost = 2;
inline constexpr int cudaCpuDeviceId = -1;
inline constexpr int cudaInvalidDeviceId = -2;

enum cudaMemcpyKind : int {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

enum cudaMemoryType : int {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3,
};

struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void* devicePointer;
  void* hostPointer;
};

enum cudaDeviceAttr : int {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrUnifiedAddressing = 41,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrManagedMemory = 83,
  cudaDevAttrPageableMemoryAccess = 88,
  cudaDevAttrConcurrentManagedAccess = 89,
};

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  std::size_t sharedMemPerBlock;
  int warpSize;
  int maxThreadsPerBlock;
  int maxThreadsPerMultiProcessor;
  int major;
  int minor;
  int multiProcessorCount;
  int l2CacheSize;
  int unifiedAddressing;
  int managedMemory;
};

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  // Not explicit: CUDA's is not.
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
constexpr uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
constexpr int2 make_int2(int x, int y) { return {x, y}; }
constexpr int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }
constexpr ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

// Host side: functions.

extern "C" {
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);

cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags);
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMallocManaged(void** pointer, std::size_t bytes, unsigned flags = cudaMemAttachGlobal);
cudaError_t cudaHostGetDevicePointer(void** device_pointer, void* host_pointer, unsigned flags);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

/// The driver's function, for those who look it up by name. Attributes 2 (memory type), 8 (is managed) and 9
/// (device ordinal); zeros for what it does not know.
int cuPointerGetAttributes(unsigned count, int* attributes, void** data, unsigned long long pointer);
}

cudaError_t cudaEventCreate(cudaEvent_t* event);
inline cudaError_t cudaEventCreate(cudaEvent_t* event, unsigned flags) {
  return cudaEventCreateWithFlags(event, flags);
}
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaHostAlloc(T** pointer, std::size_t bytes, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(pointer), bytes, flags);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t bytes, unsigned flags = cudaHostAllocDefault) {
  return cudaHostAlloc(reinterpret_cast<void**>(pointer), bytes, flags);
}
template <class T>
cudaError_t cudaMallocManaged(T** pointer, std::size_t bytes, unsigned flags = cudaMemAttachGlobal) {
  return cudaMallocManaged(reinterpret_cast<void**>(pointer), bytes, flags);
}

// Device side. The variables are those of the thread that runs at the moment: all kernels run under one lock.

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

namespace terse::test::emulated_cuda::detail {

enum class Collective {
  kBlockBarrier,
  kWarpBarrier,
  kBallot,
  kAny,
  kAll,
  kShuffle,
  kShuffleXor,
  kShuffleDown,
  kShuffleUp,
  kActiveMask,
};

/// Suspends the calling thread until its partners have come; `argument` is a shuffle's lane, delta or mask.
std::uint64_t collective(Collective kind, unsigned mask, std::uint64_t value = 0, unsigned argument = 0,
                         int width = warpSize);

/// `thread` is called once for each thread of the grid. Sets the last error.
cudaError_t enqueue_kernel(std::function<void()> thread, const void* name, dim3 grid, dim3 block,
                           cudaStream_t stream);

template <class T>
T shuffle(Collective kind, unsigned mask, T value, unsigned argument, int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return std::bit_cast<T>(
      static_cast<Bits>(collective(kind, mask, std::bit_cast<Bits>(value), argument, width)));
}

// A result that passes through here cannot be fused with the next operation.
template <class T>
__forceinline__ T rounded(T value) {
#if defined(__x86_64__)
  __asm__("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(value));
#else
  __asm__("" : "+m"(value));
#endif
  return value;
}

template <class T, class Change>
T change_atomically(T* address, Change change) {
  std::atomic_ref<T> cell(*address);
  T old = cell.load();
  while (!cell.compare_exchange_weak(old, change(old))) {
  }
  return old;
}

}  // namespace terse::test::emulated_cuda::detail

inline void __syncthreads() {
  terse::test::emulated_cuda::detail::collective(
      terse::test::emulated_cuda::detail::Collective::kBlockBarrier, ~0u);
}
inline void __syncwarp(unsigned mask = ~0u) {
  terse::test::emulated_cuda::detail::collective(terse::test::emulated_cuda::detail::Collective::kWarpBarrier,
                                                 mask);
}
inline unsigned __activemask() {
  return static_cast<unsigned>(terse::test::emulated_cuda::detail::collective(
      terse::test::emulated_cuda::detail::Collective::kActiveMask, 0));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(terse::test::emulated_cuda::detail::collective(
      terse::test::emulated_cuda::detail::Collective::kBallot, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(terse::test::emulated_cuda::detail::collective(
      terse::test::emulated_cuda::detail::Collective::kAny, mask, predicate != 0));
}
inline int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(terse::test::emulated_cuda::detail::collective(
      terse::test::emulated_cuda::detail::Collective::kAll, mask, predicate != 0));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize) {
  using namespace terse::test::emulated_cuda::detail;
  return shuffle(Collective::kShuffle, mask, value, static_cast<unsigned>(lane), width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  using namespace terse::test::emulated_cuda::detail;
  return shuffle(Collective::kShuffleXor, mask, value, static_cast<unsigned>(lane_mask), width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  using namespace terse::test::emulated_cuda::detail;
  return shuffle(Collective::kShuffleDown, mask, value, delta, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  using namespace terse::test::emulated_cuda::detail;
  return shuffle(Collective::kShuffleUp, mask, value, delta, width);
}

// Atomic operations are so for the host too: pinned and managed memory is shared with it.
#define TERSE_EMULATED_CUDA_ATOMICS(T)                                                              \
  inline T atomicAdd(T* address, T value) { return std::atomic_ref<T>(*address).fetch_add(value); } \
  inline T atomicOr(T* address, T value) { return std::atomic_ref<T>(*address).fetch_or(value); }   \
  inline T atomicAnd(T* address, T value) { return std::atomic_ref<T>(*address).fetch_and(value); } \
  inline T atomicXor(T* address, T value) { return std::atomic_ref<T>(*address).fetch_xor(value); } \
  inline T atomicExch(T* address, T value) { return std::atomic_ref<T>(*address).exchange(value); } \
  inline T atomicMin(T* address, T value) {                                                         \
    return terse::test::emulated_cuda::detail::change_atomically(                                   \
        address, [value](T old) { return old < value ? old : value; });                             \
  }                                                                                                 \
  inline T atomicMax(T* address, T value) {                                                         \
    return terse::test::emulated_cuda::detail::change_atomically(                                   \
        address, [value](T old) { return old < value ? value : old; });                             \
  }                                                                                                 \
  inline T atomicCAS(T* address, T expected, T value) {                                             \
    std::atomic_ref<T>(*address).compare_exchange_strong(expected, value);                          \
    return expected;                                                                                \
  }
TERSE_EMULATED_CUDA_ATOMICS(int)
TERSE_EMULATED_CUDA_ATOMICS(unsigned)
TERSE_EMULATED_CUDA_ATOMICS(unsigned long long)
#undef TERSE_EMULATED_CUDA_ATOMICS
inline float atomicAdd(float* address, float value) {
  return terse::test::emulated_cuda::detail::change_atomically(address,
                                                               [value](float old) { return old + value; });
}
inline double atomicAdd(double* address, double value) {
  return terse::test::emulated_cuda::detail::change_atomically(address,
                                                               [value](double old) { return old + value; });
}

inline void __threadfence_system() {
#ifndef __SANITIZE_THREAD__  // gcc has no fence under it; the atomics above are sequentially consistent.
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}
inline void __threadfence() { __threadfence_system(); }
inline void __threadfence_block() { __threadfence_system(); }

inline int __popc(unsigned value) { return std::popcount(value); }
inline int __popcll(unsigned long long value) { return std::popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }
inline int __clzll(long long value) { return std::countl_zero(static_cast<unsigned long long>(value)); }
inline unsigned __brev(unsigned value) {
  value = (value >> 16) | (value << 16);
  value = ((value & 0xff00ff00u) >> 8) | ((value & 0x00ff00ffu) << 8);
  value = ((value & 0xf0f0f0f0u) >> 4) | ((value & 0x0f0f0f0fu) << 4);
  value = ((value & 0xccccccccu) >> 2) | ((value & 0x33333333u) << 2);
  return ((value & 0xaaaaaaaau) >> 1) | ((value & 0x55555555u) << 1);
}
template <class T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }

inline float __fadd_rn(float a, float b) { return terse::test::emulated_cuda::detail::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return terse::test::emulated_cuda::detail::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return terse::test::emulated_cuda::detail::rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return terse::test::emulated_cuda::detail::rounded(a / b); }
inline float __fsqrt_rn(float a) { return terse::test::emulated_cuda::detail::rounded(sqrtf(a)); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return terse::test::emulated_cuda::detail::rounded(a + b); }
inline double __dsub_rn(double a, double b) { return terse::test::emulated_cuda::detail::rounded(a - b); }
inline double __dmul_rn(double a, double b) { return terse::test::emulated_cuda::detail::rounded(a * b); }
inline double __ddiv_rn(double a, double b) { return terse::test::emulated_cuda::detail::rounded(a / b); }
inline double __dsqrt_rn(double a) { return terse::test::emulated_cuda::detail::rounded(sqrt(a)); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

#define TERSE_EMULATED_CUDA_MIN_MAX(T)                \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
TERSE_EMULATED_CUDA_MIN_MAX(int)
TERSE_EMULATED_CUDA_MIN_MAX(unsigned)
TERSE_EMULATED_CUDA_MIN_MAX(long)
TERSE_EMULATED_CUDA_MIN_MAX(unsigned long)
TERSE_EMULATED_CUDA_MIN_MAX(long long)
TERSE_EMULATED_CUDA_MIN_MAX(unsigned long long)
#undef TERSE_EMULATED_CUDA_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

namespace terse::test::emulated_cuda {

/// kernel<<<grid, block, 0, stream>>>(args...): the arguments are copied now, the kernel runs later. Errors
/// are told by cudaGetLastError().
template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t stream,
            std::type_identity_t<P>... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...) && (!std::is_reference_v<P> && ...));
  detail::enqueue_kernel([kernel, copies = std::tuple<P...>(args...)] { std::apply(kernel, copies); },
                         reinterpret_cast<const void*>(kernel), grid, block, stream);
}

}  // namespace terse::test::emulated_cuda

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** args,
                             std::size_t /*shared_bytes*/ = 0, cudaStream_t stream = nullptr) {
  static_assert((std::is_trivially_copyable_v<P> && ...) && (!std::is_reference_v<P> && ...));
  const auto copies = [args]<std::size_t... I>(std::index_sequence<I...>) {
    return std::tuple<P...>(*static_cast<P*>(args[I])...);
  }
  (std::index_sequence_for<P...>{});
  return terse::test::emulated_cuda::detail::enqueue_kernel([kernel, copies] { std::apply(kernel, copies); },
                                                            reinterpret_cast<const void*>(kernel), grid,
                                                            block, stream);
}

// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "emulated_cuda.hpp"

namespace terse::test::emulated_cuda {
namespace {

constexpr unsigned kAll = ~0u;

class EmulatedCuda : public testing::Test {
 protected:
  ~EmulatedCuda() override {
    set_lag(1);
    set_host_may_touch(false);
    set_descending_order(false);
    cudaSetDevice(0);
    cudaGetLastError();
  }
};

template <class T>
T* on_device(std::size_t count) {
  T* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, count * sizeof(T)), cudaSuccess);
  return pointer;
}

template <class T>
T* pinned(std::size_t count) {
  T* pointer = nullptr;
  EXPECT_EQ(cudaMallocHost(&pointer, count * sizeof(T)), cudaSuccess);
  return pointer;
}

template <class T>
std::vector<T> take(T* from, std::size_t count) {
  std::vector<T> values(count);
  EXPECT_EQ(cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(cudaFree(from), cudaSuccess);
  return values;
}

// Runs a kernel that writes `count` values, with one block.
template <class T>
std::vector<T> run(void (*kernel)(T*), unsigned threads, std::size_t count) {
  T* out = on_device<T>(count);
  launch(kernel, 1, threads, nullptr, out);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  return take(out, count);
}

__global__ void ballots(unsigned* out) {
  const unsigned i = threadIdx.x;
  if (i % 4 == 3) return;
  const unsigned odd = __ballot_sync(kAll, i % 2 != 0);
  out[i] = odd;
  if (i % 2 == 0) out[i] = __ballot_sync(0x55555555u, i % 4 == 2) | 1u;
}

TEST_F(EmulatedCuda, BallotsLeaveOutTheExitedAndTheAbsent) {
  const auto out = run(ballots, 40, 40);  // The second warp has 8 lanes.
  EXPECT_EQ(out[1], 0x22222222u);
  EXPECT_EQ(out[0], 0x44444445u);
  EXPECT_EQ(out[3], kAll);  // Fresh memory.
  EXPECT_EQ(out[33], 0x22u);
  EXPECT_EQ(out[34], 0x45u);
}

__global__ void shuffles(std::uint64_t* out) {
  const unsigned i = threadIdx.x;
  const std::uint64_t own = (std::uint64_t{1} << 40) + i;
  out += 6 * i;
  out[0] = __shfl_sync(kAll, own, 5);
  out[1] = __shfl_xor_sync(kAll, own, 3);
  out[2] = __shfl_down_sync(kAll, own, 2, 8);
  out[3] = __shfl_up_sync(kAll, own, 2);
  out[4] = static_cast<std::uint64_t>(__shfl_sync(kAll, static_cast<int>(i), 9, 8));
  out[5] = (__any_sync(kAll, i == 7) != 0 ? 2 : 0) + (__all_sync(kAll, i < 20) != 0 ? 1 : 0);
}

TEST_F(EmulatedCuda, ShufflesFollowWidthAndGiveTheOwnValueForAbsentLanes) {
  const auto out = run(shuffles, 20, 120);
  const auto at = [&](std::size_t lane, std::size_t which) { return out[6 * lane + which] & 0xffffffffu; };
  EXPECT_EQ(out[0], (std::uint64_t{1} << 40) + 5);
  EXPECT_EQ(at(4, 1), 7u);
  EXPECT_EQ(at(5, 2), 7u);
  EXPECT_EQ(at(6, 2), 6u);    // Out of its eight.
  EXPECT_EQ(at(17, 2), 19u);  // 18 would want lane 20, which is absent.
  EXPECT_EQ(at(18, 2), 18u);
  EXPECT_EQ(at(1, 3), 1u);
  EXPECT_EQ(at(2, 3), 0u);
  EXPECT_EQ(at(10, 4), 9u);
  EXPECT_EQ(at(0, 5), 3u);
}

__global__ void sums(unsigned* out) {
  __shared__ unsigned partial[4];
  unsigned value = threadIdx.x;
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  out[threadIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

TEST_F(EmulatedCuda, SeveralWarpsMeetAtBarriersInEitherOrder) {
  EXPECT_EQ(run(sums, 128, 128), std::vector<unsigned>(128, 127 * 64));
  set_descending_order(true);
  EXPECT_EQ(run(sums, 128, 128), std::vector<unsigned>(128, 127 * 64));
}

__global__ void diverged(unsigned* out) {
  const unsigned i = threadIdx.x;
  if (i < 8) {
    out[i] = __activemask();
  } else {
    atomicAdd(&out[8], 1u);
    __syncwarp(0xffffff00u);
    out[i + 1] = __ballot_sync(0xffffff00u, 1);
  }
}

TEST_F(EmulatedCuda, LanesOutsideOfTheMaskAreNotWaitedFor) {
  unsigned* out = on_device<unsigned>(33);
  cudaMemset(out, 0, 33 * sizeof(unsigned));
  launch(diverged, 1, 32, nullptr, out);
  const auto values = take(out, 33);
  EXPECT_EQ(values[0], 0xffu);
  EXPECT_EQ(values[8], 24u);
  EXPECT_EQ(values[32], 0xffffff00u);
}

__global__ void store(int* to, int value) { *to = value; }
__global__ void mismatched() { threadIdx.x == 0 ? __syncwarp() : void(__ballot_sync(kAll, 1)); }
__global__ void stuck() {
  if (threadIdx.x == 0) __syncthreads();
  if (threadIdx.x != 0) __syncwarp();
}
__global__ void throwing() { throw std::runtime_error("no"); }
void run_alone(void (*kernel)()) {
  launch(kernel, 1, 64, nullptr);
  cudaDeviceSynchronize();
}

TEST_F(EmulatedCuda, WrongKernelsAreDiagnosed) {
  EXPECT_DEATH(run_alone(mismatched), "different collectives");
  EXPECT_DEATH(run_alone(stuck), "deadlock");
  EXPECT_DEATH(run_alone(throwing), "threw an exception: no");
  int* out = on_device<int>(3);
  EXPECT_DEATH(launch(store, 1, 1, nullptr, out + 3, 1); cudaDeviceSynchronize(), "guard bytes behind");
  EXPECT_DEATH(launch(store, 1, 1, nullptr, out - 1, 1); cudaDeviceSynchronize(), "guard bytes before");
  EXPECT_DEATH(cudaMemset(out, 0, 13), "run out of");
  EXPECT_DEATH(cudaMemset(out + 3, 0, 1), "begin outside");
  cudaFree(out);
}

TEST_F(EmulatedCuda, DeviceMemoryIsNotTheHosts) {
  int* mine = on_device<int>(1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mine) % 256, 0u);
  EXPECT_DEATH(*mine = 1, "");
  set_host_may_touch(true);
  EXPECT_EQ(std::exchange(*mine, 1), -1);
  set_host_may_touch(false);
  EXPECT_DEATH(*mine = 1, "");
  cudaSetDevice(1);
  EXPECT_DEATH(launch(store, 1, 1, nullptr, mine, 1); cudaDeviceSynchronize(), "");  // No peer access.
  check();
  unsigned kind = 0;
  int attribute = 2;
  void* to = &kind;
  EXPECT_EQ(cuPointerGetAttributes(1, &attribute, &to, reinterpret_cast<std::uintptr_t>(mine)), 0);
  EXPECT_EQ(kind, 2u);
  EXPECT_EQ(cuPointerGetAttributes(1, &attribute, &to, reinterpret_cast<std::uintptr_t>(&kind)), 0);
  EXPECT_EQ(kind, 0u);
  cudaFree(mine);
}

TEST_F(EmulatedCuda, StreamsAdvanceByTicksAndWaitForEvents) {
  cudaStream_t first = nullptr;
  cudaStream_t second = nullptr;
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  cudaEvent_t stored = nullptr;
  cudaEvent_t done = nullptr;
  cudaEventCreateWithFlags(&stored, cudaEventDisableTiming);
  cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
  EXPECT_EQ(cudaEventQuery(done), cudaSuccess);  // Never recorded.

  int* device = on_device<int>(1);
  int* host = pinned<int>(1);
  set_lag(2);
  launch(store, 1, 1, first, device, 7);
  cudaEventRecord(stored, first);
  cudaStreamWaitEvent(second, stored);
  cudaMemcpyAsync(host, device, sizeof(int), cudaMemcpyDeviceToHost, second);
  cudaEventRecord(done, second);
  cudaEventRecord(stored, first);  // The wait is for the record before.
  int ticks = 0;
  for (; cudaEventQuery(done) == cudaErrorNotReady; ++ticks) EXPECT_EQ(*host, ticks < 7 ? -1 : 7);
  EXPECT_EQ(ticks, 10);  // Kernel, record, wait, copy, record.
  EXPECT_EQ(cudaGetLastError(), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(first), cudaErrorNotReady);
  EXPECT_EQ(cudaEventSynchronize(stored), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(first), cudaSuccess);

  // Pinned memory is read late, pageable memory at once.
  int pageable = 1;
  cudaMemcpyAsync(device, &pageable, sizeof(int), cudaMemcpyHostToDevice, first);
  pageable = 2;
  cudaMemcpyAsync(host, device, sizeof(int), cudaMemcpyDeviceToHost, first);
  cudaStreamSynchronize(first);
  EXPECT_EQ(*host, 1);
  cudaMemcpyAsync(device, host, sizeof(int), cudaMemcpyHostToDevice, first);
  *host = 3;
  cudaMemcpyAsync(&pageable, device, sizeof(int), cudaMemcpyDeviceToHost, first);
  EXPECT_EQ(pageable, 3);
  for (cudaStream_t stream : {first, second}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(first), cudaErrorInvalidResourceHandle);
  for (cudaEvent_t event : {stored, done}) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  cudaFree(device);
  cudaFreeHost(host);
}

TEST_F(EmulatedCuda, TheLegacyStreamWaitsForBlockingStreamsOnly) {
  cudaStream_t blocking = nullptr;
  cudaStream_t other = nullptr;
  cudaStreamCreate(&blocking);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  int* values = nullptr;
  cudaMallocManaged(&values, 3 * sizeof(int));
  launch(store, 1, 1, blocking, values, 1);
  launch(store, 1, 1, other, values + 1, 1);
  launch(store, 1, 1, nullptr, values + 2, 1);
  cudaStreamSynchronize(nullptr);
  EXPECT_EQ(std::vector<int>(values, values + 3), (std::vector<int>{1, -1, 1}));
  launch(store, 1, 1, nullptr, values, 2);
  launch(store, 1, 1, blocking, values, 3);
  cudaStreamSynchronize(blocking);
  EXPECT_EQ(values[0], 3);
  cudaStreamDestroy(other);  // What is queued still runs.
  cudaFree(values);
  cudaStreamDestroy(blocking);
  EXPECT_EQ(statistics().pending_operations, 0u);
}

TEST_F(EmulatedCuda, StreamsAndEventsBelongToDevices) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  cudaEventCreate(&event);
  cudaSetDevice(1);
  cudaStreamCreate(&stream);
  std::thread([] {
    int device = -1;
    cudaGetDevice(&device);
    EXPECT_EQ(device, 0);
  }).join();
  EXPECT_EQ(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  int* there = on_device<int>(1);
  cudaSetDevice(0);
  launch(store, 1, 1, stream, there, 1);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaMemsetAsync(there, 0, sizeof(int), stream), cudaSuccess);
  launch(store, 0, 1, nullptr, there, 1);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  cudaStreamDestroy(stream);
  cudaEventDestroy(event);
  cudaFree(there);
}

TEST_F(EmulatedCuda, CountsAndFailures) {
  reset_statistics();
  const Statistics before = statistics();
  fail_next_malloc(2);
  int* first = on_device<int>(4);
  int* second = nullptr;
  EXPECT_EQ(cudaMalloc(&second, 4), cudaErrorMemoryAllocation);
  cudaGetLastError();
  fail_next_launch(1);
  launch(store, 1, 1, nullptr, first, 1);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  launch(store, 1, 1, nullptr, first, 1);
  const int values[4] = {};
  cudaMemcpy(first, values, sizeof values, cudaMemcpyHostToDevice);
  const Statistics after = statistics();
  EXPECT_EQ(after.kernels, 1u);
  EXPECT_EQ(after.h2d.bytes, 16u);
  EXPECT_EQ(after.device_synchronizations, 0u);
  EXPECT_EQ(after.live_device_allocations, before.live_device_allocations + 1);
  cudaFree(first);
  EXPECT_EQ(cudaFree(first), cudaErrorInvalidValue);
  EXPECT_EQ(statistics().live_device_allocations, before.live_device_allocations);
  EXPECT_EQ(before.live_device_allocations + before.live_streams + before.live_events, 0u);
}

TEST_F(EmulatedCuda, HostThreadsWorkAtTheSameTime) {
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([rank] {
      cudaSetDevice(rank % 2);
      for (int i = 0; i < 50; ++i) EXPECT_EQ(run(sums, 128, 128)[5], 127u * 64);
    });
  }
  for (auto& rank : ranks) rank.join();
}

}  // namespace
}  // namespace terse::test::emulated_cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// The CUDA runtime on the CPU. Two devices. Nothing runs when it is enqueued: operations run when somebody
// synchronizes with them, or one by one as somebody asks whether they have finished. Device memory is
// inaccessible to the host except while an operation runs. Wrong use that CUDA would leave undefined is
// printed to stderr and ends in abort(): copies beyond an allocation, writes into the guard bytes around it,
// warp collectives that do not match, deadlocks.
namespace terse::test::emulated_cuda {

/// A query that finds something unfinished is a tick; after `ticks` of them its stream (or one that this
/// waits for) does one operation. Such a query says cudaErrorNotReady all the same. Default 1. With 0,
/// operations run when they are enqueued.
void set_lag(unsigned ticks);

/// True keeps device memory accessible at all times, as for a CUDA-aware transport. Default false.
void set_host_may_touch(bool may);

/// True runs blocks, warps and lanes in descending order, to find code that lacks a synchronization in the
/// other direction. Default false.
void set_descending_order(bool descending);

/// The n-th next allocation (cudaMalloc, cudaHostAlloc, cudaMallocHost, cudaMallocManaged) finds no memory;
/// 0: none.
void fail_next_malloc(unsigned n);
/// The n-th next launch gives cudaErrorLaunchFailure and runs nothing; 0: none.
void fail_next_launch(unsigned n);

/// Looks at the guard bytes of all allocations.
void check();

struct Statistics {
  struct Copies {
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
  };
  // Counted when enqueued. Managed memory counts as the device's.
  std::uint64_t kernels = 0;
  Copies h2d;
  Copies d2h;
  Copies d2d;
  Copies h2h;
  std::uint64_t memsets = 0;
  std::uint64_t event_records = 0;
  std::uint64_t event_waits = 0;

  // Calls, whether or not there was something to wait for.
  std::uint64_t stream_synchronizations = 0;
  std::uint64_t event_synchronizations = 0;
  std::uint64_t device_synchronizations = 0;
  std::uint64_t event_queries = 0;
  std::uint64_t stream_queries = 0;
  // Those that nobody asked for by name: cudaFree; cudaMemcpy; cudaMemcpyAsync to pageable memory or within
  // the host.
  std::uint64_t free_synchronizations = 0;
  std::uint64_t memcpy_synchronizations = 0;
  std::uint64_t pageable_synchronizations = 0;

  std::uint64_t device_mallocs = 0;
  std::uint64_t pinned_mallocs = 0;
  std::uint64_t managed_mallocs = 0;

  // At this moment; reset_statistics() leaves them.
  std::uint64_t live_device_allocations = 0;
  std::uint64_t live_pinned_allocations = 0;
  std::uint64_t live_managed_allocations = 0;
  std::uint64_t live_streams = 0;
  std::uint64_t live_events = 0;
  std::uint64_t pending_operations = 0;
};
Statistics statistics();
void reset_statistics();

}  // namespace terse::test::emulated_cuda

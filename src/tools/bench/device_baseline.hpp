// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstddef>
#include <terse/types.hpp>

#include "baseline.hpp"
#include "device_memory.hpp"

namespace terse::bench {

/// Whether MPI says that it takes pointers to device memory (MPIX_Query_cuda_support).
bool mpi_takes_device_memory();

/// The plain call on a tensor in device memory, as programs make it: by way of pinned memory of the host, or
/// directly. For 16-bit types it is of f32, as Baseline's.
class DeviceBaseline {
 public:
  /// For up to host_in.count elements; `host_in` is on the host. Errors: std::bad_alloc, std::runtime_error.
  explicit DeviceBaseline(ConstView host_in);

  /// Copies the first `count` elements to the host, sums them there, in place, over all ranks of `comm`, and
  /// copies the sums to the device. Collective.
  void run_staged(std::size_t count, MPI_Comm comm) const;
  /// Gives MPI the pointers to device memory. Collective; only for an MPI that takes them.
  void run_direct(std::size_t count, MPI_Comm comm) const;

 private:
  DeviceTensor in_;
  DeviceTensor out_;
  DeviceTensor pinned_;
  Baseline on_host_;
  Baseline on_device_;
};

}  // namespace terse::bench

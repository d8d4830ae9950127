// SPDX-License-Identifier: Apache-2.0
#include "device_baseline.hpp"

#include <dlfcn.h>

namespace terse::bench {

bool mpi_takes_device_memory() {
  using Query = int (*)();
  const auto query = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support"));
  return query != nullptr && query() != 0;
}

DeviceBaseline::DeviceBaseline(ConstView host_in)
    : in_(host_in.count, baseline_dtype(host_in.dtype)),
      out_(in_.view().count, in_.view().dtype),
      pinned_(in_.view().count, in_.view().dtype, DeviceTensor::Place::pinned),
      on_host_(pinned_.view(), pinned_.view()),
      on_device_(in_.view(), out_.view()) {
  copy(in_.view(), host_in.dtype == in_.view().dtype ? host_in : widened(host_in).view());
}

void DeviceBaseline::run_staged(std::size_t count, MPI_Comm comm) const {
  const View host = pinned_.view().slice(0, count);
  copy(host, in_.view().slice(0, count));
  on_host_.run(count, comm);
  copy(out_.view().slice(0, count), host);
}

void DeviceBaseline::run_direct(std::size_t count, MPI_Comm comm) const { on_device_.run(count, comm); }

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
#include "baseline.hpp"

#ifdef OPEN_MPI
#include <mpi-ext.h>
#endif

#include <algorithm>

namespace terse::bench {
namespace {

constexpr std::size_t kMostPerCall = std::size_t{1} << 30;  // MPI 3.1 counts in int

}  // namespace

DType baseline_dtype(DType dtype) noexcept { return size_of(dtype) < 4 ? DType::f32 : dtype; }

Tensor widened(ConstView values) {
  Tensor wide(values.count, DType::f32);
  with_type(values.dtype, [&]<class T>(std::type_identity<T>) {
    std::transform(values.as<T>().begin(), values.as<T>().end(), wide.view().as<float>().begin(),
                   [](T element) { return static_cast<float>(element); });
  });
  return wide;
}

Baseline::Baseline(ConstView in, View out) : in_(in), out_(out) {
  if (baseline_dtype(in.dtype) == in.dtype) return;
  wide_in_ = widened(in);
  wide_out_ = Tensor(in.count, DType::f32);
  in_ = wide_in_.view();
  out_ = wide_out_.view();
}

template <class Call>
void Baseline::in_parts(Slice slice, Call&& call) const {
  const MPI_Datatype type = in_.dtype == DType::f64 ? MPI_DOUBLE : MPI_FLOAT;
  for (std::size_t done = 0; done < slice.count; done += kMostPerCall) {
    const std::size_t n = std::min(kMostPerCall, slice.count - done);
    call(in_.slice(slice.begin + done, n).data, out_.slice(slice.begin + done, n).data, static_cast<int>(n),
         type);
  }
}

void Baseline::run(Slice slice, MPI_Comm comm) const {
  in_parts(slice, [&](const void* in, void* out, int n, MPI_Datatype type) {
    MPI_Allreduce(in == out ? MPI_IN_PLACE : in, out, n, type, MPI_SUM, comm);
  });
}

void Baseline::begin(std::size_t count, MPI_Comm comm, std::vector<MPI_Request>& requests) const {
  requests.clear();
  in_parts({0, count}, [&](const void* in, void* out, int n, MPI_Datatype type) {
    MPI_Iallreduce(in, out, n, type, MPI_SUM, comm, &requests.emplace_back(MPI_REQUEST_NULL));
  });
}

void Baseline::init(std::size_t count, MPI_Comm comm, std::vector<MPI_Request>& requests) const {
  requests.clear();
  in_parts({0, count}, [&](const void* in, void* out, int n, MPI_Datatype type) {
    [[maybe_unused]] MPI_Request& request = requests.emplace_back(MPI_REQUEST_NULL);
#if MPI_VERSION >= 4
    MPI_Allreduce_init(in, out, n, type, MPI_SUM, comm, MPI_INFO_NULL, &request);
#elif defined(OMPI_HAVE_MPI_EXT_PCOLLREQ)
    MPIX_Allreduce_init(in, out, n, type, MPI_SUM, comm, MPI_INFO_NULL, &request);
#endif
  });
}

std::string_view persistent_call() {
#if MPI_VERSION >= 4
  return "MPI_Allreduce_init";
#elif defined(OMPI_HAVE_MPI_EXT_PCOLLREQ)
  return "MPIX_Allreduce_init";
#else
  return "";
#endif
}

std::string describe_baseline(DType dtype) {
  const std::string call = "MPI_Allreduce of ";
  const DType wide = baseline_dtype(dtype);
  if (wide == dtype) return call + std::string(name(dtype));
  return call + std::string(name(wide)) + " and the same count, since MPI has no " + std::string(name(dtype));
}

}  // namespace terse::bench

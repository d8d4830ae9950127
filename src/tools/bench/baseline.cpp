// SPDX-License-Identifier: Apache-2.0
#include "baseline.hpp"

#include <algorithm>

namespace terse::bench {
namespace {

constexpr std::size_t kMostPerCall = std::size_t{1} << 30;  // MPI 3.1 counts in int

DType baseline_dtype(DType dtype) { return size_of(dtype) < 4 ? DType::f32 : dtype; }

}  // namespace

Baseline::Baseline(ConstView in, View out) : in_(in), out_(out) {
  const DType wide = baseline_dtype(in.dtype);
  if (wide == in.dtype) return;
  wide_in_ = Tensor(in.count, wide);
  wide_out_ = Tensor(in.count, wide);
  with_type(in.dtype, [&]<class T>(std::type_identity<T>) {
    std::transform(in.as<T>().begin(), in.as<T>().end(), wide_in_.view().as<float>().begin(),
                   [](T element) { return static_cast<float>(element); });
  });
  in_ = wide_in_.view();
  out_ = wide_out_.view();
}

void Baseline::run(std::size_t count, MPI_Comm comm) const {
  const MPI_Datatype type = in_.dtype == DType::f64 ? MPI_DOUBLE : MPI_FLOAT;
  for (std::size_t begin = 0; begin < count; begin += kMostPerCall) {
    const std::size_t n = std::min(kMostPerCall, count - begin);
    MPI_Allreduce(in_.slice(begin, n).data, out_.slice(begin, n).data, static_cast<int>(n), type, MPI_SUM,
                  comm);
  }
}

std::string describe_baseline(DType dtype) {
  const std::string call = "MPI_Allreduce of ";
  const DType wide = baseline_dtype(dtype);
  if (wide == dtype) return call + std::string(name(dtype));
  return call + std::string(name(wide)) + " and the same count, since MPI has no " + std::string(name(dtype));
}

}  // namespace terse::bench

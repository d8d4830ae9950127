// SPDX-License-Identifier: Apache-2.0
#include "accuracy.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensors.hpp"

namespace terse::bench {
namespace {

constexpr std::size_t kSlice = std::size_t{1} << 20;  // elements whose exact sums are held at a time

double square(double x) { return x * x; }

}  // namespace

Accuracy measure_accuracy(const Session& session, ConstView in, View out, Op op, std::size_t calls,
                          std::span<double> sums, const std::function<bool()>& allreduce) {
  Accuracy accuracy;
  double norm2 = 0;
  double error2 = 0;
  const bool may_differ = allreduce();
  accuracy.same_bits = same_on_all_ranks(session, hash_of(out));

  // What the results of all calls add up to, less what they would if they were exact.
  const auto all = static_cast<double>(calls);
  const double factor = op == Op::average ? 1.0 / session.size : 1.0;
  std::vector<double> exact(std::min(kSlice, in.count));
  with_type(in.dtype, [&]<class T>(std::type_identity<T>) {
    const auto results = out.as<T>();
    for (std::size_t begin = 0; begin < in.count; begin += kSlice) {
      const std::size_t n = std::min(kSlice, in.count - begin);
      const auto inputs = in.slice(begin, n).as<T>();
      std::transform(inputs.begin(), inputs.end(), exact.begin(), to_double<T>);
      MPI_Allreduce(MPI_IN_PLACE, exact.data(), static_cast<int>(n), MPI_DOUBLE, MPI_SUM, session.comm);
      for (std::size_t i = 0; i < n; ++i) {
        const double want = exact[i] * factor;
        const double got = to_double(results[begin + i]);
        norm2 += square(want);
        error2 += square(got - want);
        sums[begin + i] = got - all * want;
      }
    }
  });
  accuracy.rel_error = max_over_ranks(session, std::sqrt(error2 / norm2));
  if (!may_differ) {
    accuracy.mean_error = accuracy.rel_error;
    return accuracy;
  }

  with_type(in.dtype, [&]<class T>(std::type_identity<T>) {
    const auto results = out.as<T>();
    for (std::size_t call = 1; call < calls; ++call) {
      allreduce();
      for (std::size_t i = 0; i < results.size(); ++i) sums[i] += to_double(results[i]);
    }
  });
  double mean_error2 = 0;
  for (const double sum : sums.first(in.count)) mean_error2 += square(sum / all);
  accuracy.mean_error = max_over_ranks(session, std::sqrt(mean_error2 / norm2));
  accuracy.same_bits = same_on_all_ranks(session, hash_of(out)) && accuracy.same_bits;
  return accuracy;
}

}  // namespace terse::bench

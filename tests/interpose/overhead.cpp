// SPDX-License-Identifier: Apache-2.0
//
// What the drop-in adds to a call that it passes on: sums of 8 bytes by PMPI_Allreduce and MPI_Allreduce, in
// turn.
//   mpirun -np 1 terse run --codec onebit -- drop-in-overhead
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace {

constexpr int kCalls = 1000;
constexpr int kBatches = 501;

template <class F>
double nanoseconds(F&& call) {
  const double start = MPI_Wtime();
  for (int i = 0; i < kCalls; ++i) call();
  return (MPI_Wtime() - start) * 1e9 / kCalls;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + kBatches / 2, values.end());
  return values[kBatches / 2];
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  double in = 1;
  double out = 0;
  std::vector<double> plain;
  std::vector<double> through;
  std::vector<double> difference;
  for (int batch = 0; batch < kBatches; ++batch) {
    plain.push_back(nanoseconds([&] { PMPI_Allreduce(&in, &out, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD); }));
    through.push_back(nanoseconds([&] { MPI_Allreduce(&in, &out, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD); }));
    difference.push_back(through.back() - plain.back());
  }
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0) {
    std::printf("8 bytes, medians of %d batches of %d calls: PMPI %.1f ns, MPI %.1f ns, difference %.1f ns\n",
                kBatches, kCalls, median(plain), median(through), median(difference));
  }
  MPI_Finalize();
}

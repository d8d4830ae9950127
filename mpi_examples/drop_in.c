// SPDX-License-Identifier: Apache-2.0
//
// A program that knows nothing of Terse: it learns a linear map from samples that every rank draws for
// itself, and sums the ranks' gradients, 256 KiB each, by MPI_Allreduce. As it is, and with a thirty-second
// of the bytes:
//   mpirun -np 4 ./drop_in_c
//   mpirun -np 4 terse run --codec onebit -- ./drop_in_c
// What is compressed is the gradient alone: the loss is one number, and goes uncompressed.
//
// Exit code: 0 if the loss fell to less than a twentieth and all ranks hold the same bits at the end.

#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { kInputs = 256, kOutputs = 256, kSamples = 32, kSteps = 200 };
static float truth[kOutputs][kInputs], weights[kOutputs][kInputs], gradient[kOutputs][kInputs];
static float of_rank_0[kOutputs][kInputs];

// Numbers of mean 0 and variance 1, from a state that makes a sequence of its own.
static float draw(uint64_t* state) {
  float sum = 0;
  for (int i = 0; i < 3; ++i) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    sum += (float)(*state >> 40) * (2.0f / (1 << 24)) - 1.0f;
  }
  return sum;
}

// Adds this rank's samples to the gradient; the sum of their squared errors.
static double learn(uint64_t* state) {
  double loss = 0;
  for (int s = 0; s < kSamples; ++s) {
    float x[kInputs];
    for (int i = 0; i < kInputs; ++i) x[i] = draw(state);
    for (int o = 0; o < kOutputs; ++o) {
      float error = 0.1f * draw(state);  // what is measured is not exact
      for (int i = 0; i < kInputs; ++i) error += (weights[o][i] - truth[o][i]) * x[i];
      for (int i = 0; i < kInputs; ++i) gradient[o][i] += error * x[i];
      loss += (double)error * error;
    }
  }
  return loss;
}

int main(int argc, char** argv) {
  int rank = 0, ranks = 1;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);

  uint64_t of_all = 1, own = 1000 + (uint64_t)rank;
  for (int o = 0; o < kOutputs; ++o) {
    for (int i = 0; i < kInputs; ++i) truth[o][i] = draw(&of_all) / 16;
  }
  double first = 0, last = 0;
  for (int step = 0; step < kSteps; ++step) {
    memset(gradient, 0, sizeof gradient);
    double loss = learn(&own);
    MPI_Allreduce(MPI_IN_PLACE, gradient, kOutputs * kInputs, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    last = loss / (ranks * kSamples * kOutputs);
    if (step == 0) first = last;

    // the rate falls to zero, as it should: what compression still owes then hardly matters
    const float rate = 0.2f * (float)(kSteps - step) / kSteps;
    for (int o = 0; o < kOutputs; ++o) {
      for (int i = 0; i < kInputs; ++i) weights[o][i] -= rate / (float)(ranks * kSamples) * gradient[o][i];
    }
  }
  if (rank == 0) printf("loss %.3f at first, %.5f after %d steps\n", first, last, kSteps);

  memcpy(of_rank_0, weights, sizeof weights);  // all ranks must hold the same
  MPI_Bcast(of_rank_0, kOutputs * kInputs, MPI_FLOAT, 0, MPI_COMM_WORLD);
  int same = memcmp(of_rank_0, weights, sizeof weights) == 0;
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  if (rank == 0 && !same) fprintf(stderr, "the ranks' weights differ\n");
  const int learned = last < first / 20;
  if (rank == 0 && !learned) fprintf(stderr, "it has not learned\n");
  MPI_Finalize();
  return !(same && learned);
}

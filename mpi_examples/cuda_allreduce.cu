// SPDX-License-Identifier: Apache-2.0
//
// The smallest program with a GPU: averages a gradient in device memory, which a kernel makes and another one
// uses.
//   mpirun -np 4 cuda_allreduce

#include <cuda_runtime.h>
#include <mpi.h>

#include <exception>
#include <iostream>
#include <terse/terse.hpp>
#include <vector>

namespace {

/// CUDA's errors are one rank's alone: the others wait for it, so all are ended.
void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  std::cerr << "cuda_allreduce: " << what << ": " << cudaGetErrorString(code) << std::endl;
  MPI_Abort(MPI_COMM_WORLD, 1);
}

__global__ void make_gradient(float* gradient, int count, int step, int rank) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) gradient[i] = sinf(0.001f * static_cast<float>(i) + static_cast<float>(step + rank));
}

__global__ void take_step(float* weights, const float* gradient, int count, float rate) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) weights[i] -= rate * gradient[i];
}

/// Whether all ranks hold the same weights at the end.
bool run() {
  constexpr int kCount = 1 << 20;
  constexpr int kSteps = 3;
  constexpr int kThreads = 256;
  constexpr int kBlocks = kCount / kThreads;
  terse::Communicator world(MPI_COMM_WORLD);
  terse::Feedback residual;  // one for each tensor: what the codec left out goes in with the next step
  cudaStream_t stream = nullptr;
  float* gradient = nullptr;
  float* weights = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  check(cudaMalloc(&gradient, kCount * sizeof(float)), "memory for the gradient");
  check(cudaMalloc(&weights, kCount * sizeof(float)), "memory for the weights");
  check(cudaMemsetAsync(weights, 0, kCount * sizeof(float), stream), "weights of zero");

  for (int step = 0; step < kSteps; ++step) {
    make_gradient<<<kBlocks, kThreads, 0, stream>>>(gradient, kCount, step, world.rank());
    check(cudaGetLastError(), "make_gradient");
    // The call begins, on the device, after the kernel. Its result is there when it returns: any stream may
    // use it.
    const terse::View tensor{gradient, kCount, terse::DType::f32};
    const terse::Outcome outcome =
        world.allreduce({tensor, &residual}, terse::Op::average,
                        {.policy = {.codec = "onebit", .algorithm = "two_phase"}, .stream = stream});
    take_step<<<kBlocks, kThreads, 0, stream>>>(weights, gradient, kCount, 0.1f);
    check(cudaGetLastError(), "take_step");
    if (world.rank() == 0) {
      std::cout << "step " << step << ": " << terse::name(outcome.result) << ", " << outcome.bytes_sent
                << " bytes sent for a gradient of " << kCount * sizeof(float) << std::endl;
    }
  }

  std::vector<float> mine(kCount);
  check(cudaMemcpyAsync(mine.data(), weights, kCount * sizeof(float), cudaMemcpyDeviceToHost, stream),
        "a copy");
  check(cudaStreamSynchronize(stream), "the stream");
  std::vector<float> of_rank_0 = mine;
  MPI_Bcast(of_rank_0.data(), kCount, MPI_FLOAT, 0, MPI_COMM_WORLD);
  int same = mine == of_rank_0 ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  if (world.rank() == 0)
    std::cout << (same != 0 ? "same weights on all ranks" : "the weights DIFFER") << std::endl;
  check(cudaFree(weights), "cudaFree");
  check(cudaFree(gradient), "cudaFree");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return same != 0;
}

/// Takes a device of this host for each of its ranks in turn. Why this cannot be; nothing where all is well.
const char* take_device() {
  MPI_Comm host = MPI_COMM_NULL;
  int rank_on_host = 0;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &rank_on_host);
  MPI_Comm_free(&host);
  if (!terse::has_cuda()) return "this Terse was built without CUDA (-DTERSE_CUDA=ON builds it with CUDA)";
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    return "there is no CUDA device on this machine";
  }
  check(cudaSetDevice(rank_on_host % devices), "a device");
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  int code = 1;
  const char* obstacle = take_device();
  int obstacles = obstacle != nullptr ? 1 : 0;  // on some host
  MPI_Allreduce(MPI_IN_PLACE, &obstacles, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  try {
    if (obstacles == 0) code = run() ? 0 : 1;
    if (obstacle != nullptr && rank == 0) std::cerr << "cuda_allreduce: " << obstacle << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "cuda_allreduce: rank " << rank << ": " << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return code;
}

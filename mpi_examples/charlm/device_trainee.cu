// SPDX-License-Identifier: Apache-2.0
//
// The network of model.hpp on a CUDA device: the same matrices in the same order, products by cuBLAS, the
// rest by a few kernels. Everything is on one stream, which the host waits for where it wants a number.
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <mpi.h>

#include <numeric>
#include <stdexcept>
#include <string>

#include "trainee.hpp"

namespace charlm {
namespace {

void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}
void check(cublasStatus_t code, const char* what) {
  if (code != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error(std::string(what) + ": cuBLAS status " + std::to_string(static_cast<int>(code)));
  }
}

/// Elements in device memory, kept until more are asked for.
template <class T>
class DeviceVector {
 public:
  DeviceVector() = default;
  explicit DeviceVector(std::size_t count) { resize(count); }
  ~DeviceVector() { cudaFree(data_); }
  DeviceVector(const DeviceVector&) = delete;
  DeviceVector& operator=(const DeviceVector&) = delete;

  void resize(std::size_t count) {
    if (count <= count_) return;
    cudaFree(data_);
    data_ = nullptr;
    count_ = 0;
    void* memory = nullptr;
    check(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(memory);
    count_ = count;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

// --- kernels: a thread for each element of a matrix, whose columns belong to examples
// -------------------------

__device__ int thread_number() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

/// x's column j is the embeddings of the symbols in column j of `contexts`, one behind the other.
__global__ void embed(const float* embedding, const std::uint8_t* contexts, float* x, int width, int count) {
  const int i = thread_number();
  if (i < count) x[i] = embedding[contexts[i / width] * width + i % width];
}

/// z += b, sigmoid = 1 / (1 + e^-z), out = silu(z) = z sigmoid(z).
__global__ void activate(const float* z, const float* b, float* sigmoid, float* out, int rows, int count) {
  const int i = thread_number();
  if (i >= count) return;
  const float value = z[i] + b[i % rows];
  sigmoid[i] = 1.0f / (1.0f + expf(-value));
  out[i] = value * sigmoid[i];
}

/// The slope at the activation's output becomes the slope at its input.
__global__ void deactivate(const float* sigmoid, const float* out, float* d, int count) {
  const int i = thread_number();
  if (i < count) d[i] *= sigmoid[i] + out[i] * (1.0f - sigmoid[i]);
}

/// A thread for each example: its loss, and in p the slope of the mean loss at the logits.
__global__ void softmax(float* p, const float* b, const std::uint8_t* targets, float* losses, int rows,
                        int examples) {
  const int j = thread_number();
  if (j >= examples) return;
  float* column = p + static_cast<std::size_t>(j) * static_cast<std::size_t>(rows);
  float most = column[0] + b[0];
  for (int i = 0; i < rows; ++i) {
    column[i] += b[i];
    most = fmaxf(most, column[i]);
  }
  const float target = column[targets[j]] - most;
  float total = 0.0f;
  for (int i = 0; i < rows; ++i) {
    column[i] = expf(column[i] - most);
    total += column[i];
  }
  for (int i = 0; i < rows; ++i) {
    column[i] = (column[i] / total - (i == targets[j] ? 1.0f : 0.0f)) / static_cast<float>(examples);
  }
  losses[j] = logf(total) - target;
}

/// A thread for each number of the embedding: the sum of what its symbol's places say, in their order.
__global__ void gather_slopes(const float* d, const std::uint8_t* contexts, float* slopes, int width,
                              int places, int count) {
  const int i = thread_number();
  if (i >= count) return;
  float sum = 0.0f;
  for (int place = 0; place < places; ++place) {
    if (contexts[place] == i / width)
      sum += d[static_cast<std::size_t>(place) * static_cast<std::size_t>(width) +
               static_cast<std::size_t>(i % width)];
  }
  slopes[i] = sum;
}

__global__ void fill(float* to, float value, int count) {
  const int i = thread_number();
  if (i < count) to[i] = value;
}

__global__ void descend(float* parameters, float* velocity, const float* gradient, float momentum, float rate,
                        int count) {
  const int i = thread_number();
  if (i >= count) return;
  velocity[i] = momentum * velocity[i] + gradient[i];
  parameters[i] -= rate * velocity[i];
}

// --- the model
// --------------------------------------------------------------------------------------------------

class DeviceTrainee final : public Trainee {
 public:
  explicit DeviceTrainee(const Shape& shape)
      : shape_(shape),
        count_(static_cast<int>(shape.parameters())),
        parameters_(static_cast<std::size_t>(count_)),
        gradient_(static_cast<std::size_t>(count_)),
        velocity_(static_cast<std::size_t>(count_)),
        layers_(parameters_.data(), shape_),
        slopes_(gradient_.data(), shape_) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cublasCreate(&blas_), "cublasCreate");
    check(cublasSetStream(blas_, stream_), "cublasSetStream");
    check(cudaMemsetAsync(velocity_.data(), 0, static_cast<std::size_t>(count_) * sizeof(float), stream_),
          "cudaMemsetAsync");
  }
  ~DeviceTrainee() override {
    cublasDestroy(blas_);
    cudaStreamDestroy(stream_);
  }

  const Shape& shape() const override { return shape_; }
  std::vector<float> parameters() const override {
    std::vector<float> numbers(static_cast<std::size_t>(count_));
    fetch(numbers.data(), parameters_.data(), numbers.size());
    return numbers;
  }
  void set_parameters(std::span<const float> numbers) override {
    check(
        cudaMemcpyAsync(parameters_.data(), numbers.data(), numbers.size_bytes(), cudaMemcpyDefault, stream_),
        "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  double loss(const Batch& batch) override { return forward(batch); }

  double loss_and_gradient(const Batch& batch) override {
    const double sum = forward(batch);
    backward(static_cast<int>(batch.size()));
    return sum;
  }

  terse::View gradient() override {
    return {gradient_.data(), static_cast<std::size_t>(count_), terse::DType::f32};
  }
  std::vector<float> gradient_values() override {
    std::vector<float> numbers(static_cast<std::size_t>(count_));
    fetch(numbers.data(), gradient_.data(), numbers.size());
    return numbers;
  }
  void* stream() const override { return stream_; }
  double gradient_norm() override {
    float norm = 0.0f;
    check(cublasSnrm2(blas_, count_, gradient_.data(), 1, &norm), "cublasSnrm2");
    return norm;
  }
  void scale_gradient(float factor) override {
    check(cublasSscal(blas_, count_, &factor, gradient_.data(), 1), "cublasSscal");
  }
  void step(float momentum, float rate) override {
    run(descend, count_, parameters_.data(), velocity_.data(), gradient_.data(), momentum, rate, count_);
  }

 private:
  template <class... P>
  void run(void (*kernel)(P...), int threads, std::type_identity_t<P>... arguments) {
    constexpr unsigned kBlock = 256;
    void* pointers[] = {&arguments...};
#ifdef __CUDACC__
    const auto* function = reinterpret_cast<const void*>(kernel);
#else
    const auto function = kernel;
#endif
    check(cudaLaunchKernel(function, dim3((static_cast<unsigned>(threads) + kBlock - 1) / kBlock),
                           dim3(kBlock), pointers, 0, stream_),
          "a kernel");
  }

  /// c = op(a) op(b); a, b and c by columns, c of rows x columns, `inner` the dimension that a and b share.
  void multiply(cublasOperation_t op_a, cublasOperation_t op_b, int rows, int columns, int inner,
                const float* a, const float* b, float* c) {
    const float one = 1.0f;
    const float zero = 0.0f;
    check(cublasSgemm(blas_, op_a, op_b, rows, columns, inner, &one, a, op_a == CUBLAS_OP_N ? rows : inner, b,
                      op_b == CUBLAS_OP_N ? inner : columns, &zero, c, rows),
          "cublasSgemm");
  }
  /// The sums of d's rows.
  void sum_rows(const float* d, int rows, int columns, float* sums) {
    const float one = 1.0f;
    const float zero = 0.0f;
    check(cublasSgemv(blas_, CUBLAS_OP_N, rows, columns, &one, d, rows, ones_.data(), 1, &zero, sums, 1),
          "cublasSgemv");
  }

  void fetch(float* to, const float* from, std::size_t count) const {
    check(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDefault, stream_), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  /// Leaves the slopes at the logits in p_.
  double forward(const Batch& batch) {
    const auto n = static_cast<std::size_t>(batch.size());
    const auto examples = static_cast<int>(n);
    const auto places = static_cast<std::size_t>(batch.contexts.size());
    for (auto* matrix : {&z_, &s1_, &h1_, &s2_, &h2_}) matrix->resize(n * static_cast<std::size_t>(hidden()));
    x_.resize(n * static_cast<std::size_t>(inputs()));
    d_.resize(n * static_cast<std::size_t>(inputs()));
    p_.resize(n * static_cast<std::size_t>(alphabet()));
    losses_.resize(n);
    contexts_.resize(places);
    targets_.resize(n);
    check(cudaMemcpyAsync(contexts_.data(), batch.contexts.data(), places, cudaMemcpyDefault, stream_),
          "cudaMemcpyAsync");
    check(cudaMemcpyAsync(targets_.data(), batch.targets.data(), n, cudaMemcpyDefault, stream_),
          "cudaMemcpyAsync");

    run(embed, inputs() * examples, layers_.embedding.data(), contexts_.data(), x_.data(), width(),
        inputs() * examples);
    multiply(CUBLAS_OP_N, CUBLAS_OP_N, hidden(), examples, inputs(), layers_.w1.data(), x_.data(), z_.data());
    run(activate, hidden() * examples, z_.data(), layers_.b1.data(), s1_.data(), h1_.data(), hidden(),
        hidden() * examples);
    multiply(CUBLAS_OP_N, CUBLAS_OP_N, hidden(), examples, hidden(), layers_.w2.data(), h1_.data(),
             z_.data());
    run(activate, hidden() * examples, z_.data(), layers_.b2.data(), s2_.data(), h2_.data(), hidden(),
        hidden() * examples);
    multiply(CUBLAS_OP_T, CUBLAS_OP_N, alphabet(), examples, hidden(), layers_.w3.data(), h2_.data(),
             p_.data());
    run(softmax, examples, p_.data(), layers_.b3.data(), targets_.data(), losses_.data(), alphabet(),
        examples);
    std::vector<float> losses(n);
    fetch(losses.data(), losses_.data(), n);
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  /// The chain rule, from the slopes in p_ back to the embedding.
  void backward(int examples) {
    ones_.resize(static_cast<std::size_t>(examples));
    run(fill, examples, ones_.data(), 1.0f, examples);
    multiply(CUBLAS_OP_N, CUBLAS_OP_T, hidden(), alphabet(), examples, h2_.data(), p_.data(),
             slopes_.w3.data());
    sum_rows(p_.data(), alphabet(), examples, slopes_.b3.data());

    multiply(CUBLAS_OP_N, CUBLAS_OP_N, hidden(), examples, alphabet(), layers_.w3.data(), p_.data(),
             z_.data());
    run(deactivate, hidden() * examples, s2_.data(), h2_.data(), z_.data(), hidden() * examples);
    multiply(CUBLAS_OP_N, CUBLAS_OP_T, hidden(), hidden(), examples, z_.data(), h1_.data(),
             slopes_.w2.data());
    sum_rows(z_.data(), hidden(), examples, slopes_.b2.data());

    multiply(CUBLAS_OP_T, CUBLAS_OP_N, hidden(), examples, hidden(), layers_.w2.data(), z_.data(),
             h2_.data());
    run(deactivate, hidden() * examples, s1_.data(), h1_.data(), h2_.data(), hidden() * examples);
    multiply(CUBLAS_OP_N, CUBLAS_OP_T, hidden(), inputs(), examples, h2_.data(), x_.data(),
             slopes_.w1.data());
    sum_rows(h2_.data(), hidden(), examples, slopes_.b1.data());

    multiply(CUBLAS_OP_T, CUBLAS_OP_N, inputs(), examples, hidden(), layers_.w1.data(), h2_.data(),
             d_.data());
    run(gather_slopes, width() * alphabet(), d_.data(), contexts_.data(), slopes_.embedding.data(), width(),
        static_cast<int>(shape_.context) * examples, width() * alphabet());
  }

  int width() const { return static_cast<int>(shape_.embedding); }
  int hidden() const { return static_cast<int>(shape_.hidden); }
  int alphabet() const { return static_cast<int>(shape_.alphabet); }
  int inputs() const { return static_cast<int>(shape_.context * shape_.embedding); }

  Shape shape_;
  int count_;
  DeviceVector<float> parameters_, gradient_, velocity_;
  Layers<float> layers_;  // of which only the pointers are used here
  Layers<float> slopes_;
  DeviceVector<float> x_, z_, s1_, h1_, s2_, h2_, p_, d_, losses_, ones_;
  DeviceVector<std::uint8_t> contexts_, targets_;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
};

}  // namespace

std::unique_ptr<Trainee> make_device_trainee(const Shape& shape) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    throw std::runtime_error("there is no CUDA device on this machine");
  }
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  int local_rank = 0;
  MPI_Comm_rank(node, &local_rank);
  MPI_Comm_free(&node);
  check(cudaSetDevice(local_rank % devices), "cudaSetDevice");
  return std::make_unique<DeviceTrainee>(shape);
}

}  // namespace charlm

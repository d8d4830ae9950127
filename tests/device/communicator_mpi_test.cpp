// SPDX-License-Identifier: Apache-2.0
//
// The public calls, in C++ and C, on tensors in device memory: found by asking the driver, on any device,
// after the caller's stream, with the bits of the same calls on the host.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <mpi.h>
#include <terse/terse.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <terse/gradient_buckets.hpp>
#include <vector>

#include "device/device.hpp"
#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

constexpr std::size_t kCount = 20011;

Tensor values(int seed, DType dtype = DType::f32, std::size_t count = kCount) {
  return {normal_values(count, dtype, static_cast<std::uint64_t>(seed), world_rank()), dtype};
}

// This rank's device.
int own_device() { return world_rank() % device_count(); }

// Elements on a device, of which the View says nothing.
struct OnIt {
  explicit OnIt(const Tensor& tensor, int device = own_device(), std::size_t offset = 0)
      : count(tensor.count()), dtype(tensor.dtype()) {
    const OnDevice current(device);
    bytes = on_device(tensor.view(), offset);
  }
  View view() const { return {bytes.data(), count, dtype}; }
  Tensor get() const {
    Tensor tensor(count, dtype);
    bytes.get(tensor.view().data);
    return tensor;
  }
  std::size_t count;
  DType dtype;
  DeviceBytes bytes;
};

class DeviceCommunicator : public ::testing::Test {
 protected:
  void SetUp() override {
    TERSE_NEEDS_DEVICE();
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::reset_statistics();
#endif
  }
  void TearDown() override {
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::set_host_may_touch(false);
    emulated_cuda::check();
    EXPECT_EQ(emulated_cuda::statistics().device_synchronizations, 0u);
#endif
  }
  // Makes MPI take device pointers, where that can be.
  static bool can_be_aware() {
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::set_host_may_touch(true);
    return true;
#else
    return MpiAware();
#endif
  }

 private:
  [[maybe_unused]] static bool MpiAware() {
    using Query = int (*)();
    const auto query = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support"));
    return query != nullptr && query() != 0;
  }
};

TEST_F(DeviceCommunicator, AsOnTheHost) {
  for (const CudaAware aware : {CudaAware::off, CudaAware::on, CudaAware::automatic}) {
    if (aware == CudaAware::on && !can_be_aware()) continue;
    Communicator world(MPI_COMM_WORLD, {.cuda_aware = aware});
    for (const char* codec : {"onebit", "cast:bf16", "identity"}) {
      for (const DType dtype : kAllDTypes) {
        if (!make_codec(codec)->supports(dtype)) continue;
        Feedback on_host;
        Feedback on_device;
        for (int step = 0; step < 3; ++step) {
          const Tensor gradient = values(step, dtype);
          Tensor out(kCount, dtype);
          const OnIt in(gradient, own_device(), 1);
          const OnIt result(out, own_device(), static_cast<std::size_t>(step));
          const Op op = step == 1 ? Op::sum : Op::average;
          CallOptions options = compressing(codec);
          options.policy.segment_bytes = 4096;  // those of auto are longer on a device
          const Outcome host = world.allreduce({gradient.view(), out.view(), &on_host}, op, options);
          Outcome device;
          if (step == 2) {
            Request request = world.iallreduce({in.view(), result.view(), &on_device}, op, options);
            while (!request.test()) {
            }
            const Tensor done = result.get();  // before it is waited for, as it is over
            EXPECT_TRUE(done.same_bits(out));
            device = request.wait();
          } else {
            device = world.allreduce({in.view(), result.view(), &on_device}, op, options);
          }
          ASSERT_TRUE(result.get().same_bits(out)) << codec << " " << name(dtype) << " step " << step;
          ASSERT_TRUE(in.get().same_bits(gradient));
          EXPECT_EQ(device.bytes_sent, host.bytes_sent);
          EXPECT_EQ(device.result, host.result);
          EXPECT_EQ(on_device.save(), on_host.save());
        }
      }
    }
  }
}

// Some ranks' tensors on the host, others' on devices.
TEST_F(DeviceCommunicator, MixedJob) {
  for (const CudaAware aware : {CudaAware::off, CudaAware::on}) {
    if (aware == CudaAware::on && !can_be_aware()) continue;
    Communicator world(MPI_COMM_WORLD, {.cuda_aware = aware});
    for (const char* algorithm : {"two_phase", "exact"}) {
      Feedback all_host;
      Feedback mixed;
      for (int step = 0; step < 3; ++step) {
        Tensor want = values(step);
        Tensor mine = values(step);
        const OnIt device(mine);
        CallOptions options = compressing("onebit");
        options.policy.algorithm = algorithm;
        world.allreduce({want.view(), &all_host}, Op::average, options);
        const bool here = (world_rank() + step) % 2 == 0;  // and a rank's tensor may move
        world.allreduce({here ? mine.view() : device.view(), &mixed}, Op::average, options);
        const Tensor got = here ? mine : device.get();
        ASSERT_TRUE(got.same_bits(want)) << algorithm << " step " << step;
        EXPECT_EQ(mixed.save(), all_host.save());
      }
    }
  }
}

// auto makes its trial where the tensor is, and small tensors go uncompressed.
TEST_F(DeviceCommunicator, AutoAndSmall) {
  Communicator world(MPI_COMM_WORLD);
  for (const DType dtype : kAllDTypes) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{20000}}) {
      Tensor want(exact_values(count, dtype, 5, world_rank()), dtype);
      const OnIt device(want);
      world.allreduce(want.view(), Op::sum, {.policy = {.codec = "identity", .algorithm = "exact"}});
      const Outcome outcome = world.allreduce(device.view(), Op::sum, {.policy = {.codec = "onebit"}});
      if (outcome.result == Outcome::Result::exact) {
        EXPECT_TRUE(device.get().same_bits(want)) << name(dtype) << " " << count;
      }
      EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, device.get().bytes()));
    }
  }
}

TEST_F(DeviceCommunicator, PlansAndLists) {
  Communicator world(MPI_COMM_WORLD);
  const Tensor a = values(1);
  const Tensor b = values(2, DType::f32, 3001);
  Tensor host_a = a;
  Tensor host_b = b;
  const OnIt device_a(a);
  const OnIt device_b(b);
  const CallOptions options = compressing("onebit");
  const std::vector<terse::Tensor> on_host{host_a.view(), host_b.view()};
  const std::vector<terse::Tensor> on_device{device_a.view(), device_b.view()};
  Plan host = world.allreduce_init(on_host, Op::average, options);
  Plan device = world.allreduce_init(on_device, Op::average, options);
  for (int step = 0; step < 3; ++step) {
    host.start();
    host.wait();
    device.start();
    device.wait();
    ASSERT_TRUE(device_a.get().same_bits(host_a)) << step;
    ASSERT_TRUE(device_b.get().same_bits(host_b)) << step;
    EXPECT_EQ(device.feedback(1).save(), host.feedback(1).save());
    EXPECT_EQ(device.feedback(0).worker().memory, Memory::cuda);
  }
}

// After the caller's stream, and without a word to it afterwards.
TEST_F(DeviceCommunicator, AfterTheStream) {
  enum class Way : std::uint8_t { cpp, c_communicator, c_call };
#ifdef TERSE_EMULATED_CUDA
  emulated_cuda::set_lag(3);
#endif
  const OnDevice current(own_device());
  Communicator world(MPI_COMM_WORLD, {.cuda_aware = CudaAware::off});
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (const char* algorithm : {"two_phase", "exact"}) {
    for (const Way way : {Way::cpp, Way::c_communicator, Way::c_call}) {
      Tensor want = values(9);
      PinnedMemory pinned;
      std::memcpy(pinned.reserve(0, kCount * 4).data(), want.view().data, kCount * 4);
      CallOptions options = compressing("onebit");
      options.policy.algorithm = algorithm;
      world.allreduce(want.view(), Op::sum, options);
      const OnIt device(Tensor(kCount, DType::f32));
      for (int i = 0; i < 20; ++i) require(cudaMemsetAsync(device.bytes.data(), i, kCount * 4, stream));
      require(
          cudaMemcpyAsync(device.bytes.data(), pinned.data(), kCount * 4, cudaMemcpyHostToDevice, stream));
      if (way == Way::cpp) {
        options.stream = stream;
        world.allreduce(device.view(), Op::sum, options);
      } else {
        MPI_Comm comm = MPI_COMM_NULL;
        MPI_Comm_dup(MPI_COMM_WORLD, &comm);
        MPI_Info info = MPI_INFO_NULL;
        MPI_Info_create(&info);
        MPI_Info_set(info, "terse_codec", "onebit");
        MPI_Info_set(info, "terse_algorithm", algorithm);
        MPI_Info_set(info, "terse_min_bytes", "0");
        MPI_Info_set(info, "terse_cuda_aware", "off");
        EXPECT_EQ(Terse_Comm_set_info(comm, info), MPI_SUCCESS);
        MPI_Info_free(&info);
        Terse_Options of_call{};
        of_call.size = sizeof of_call;
        if (way == Way::c_communicator) {
          EXPECT_EQ(Terse_Comm_set_stream(comm, stream), MPI_SUCCESS);
        } else {
          of_call.stream = stream;
        }
        EXPECT_EQ(Terse_Allreduce_with(MPI_IN_PLACE, device.bytes.data(), kCount, MPI_FLOAT, MPI_SUM, comm,
                                       &of_call),
                  MPI_SUCCESS);
        MPI_Comm_free(&comm);
      }
      EXPECT_TRUE(device.get().same_bits(want)) << algorithm << ", way " << static_cast<int>(way);
    }
  }
  require(cudaStreamDestroy(stream));
}

// Managed memory goes with its partner, pinned memory is the host's.
TEST_F(DeviceCommunicator, ManagedAndPinned) {
  const OnDevice current(own_device());
  Communicator world(MPI_COMM_WORLD, {.cuda_aware = CudaAware::off});
  Tensor want = values(4);
  const Tensor given = values(4);
  const CallOptions options = compressing("onebit");
  world.allreduce(want.view(), Op::average, options);
  const std::size_t bytes = kCount * sizeof(float);
  void* managed = nullptr;
  require(cudaMallocManaged(&managed, bytes));
  PinnedMemory pinned;
  pinned.reserve(own_device(), bytes);
  EXPECT_EQ(memory_of(managed), Memory::host);
  EXPECT_EQ(memory_of(pinned.data()), Memory::host);
  const View in_managed{managed, kCount, DType::f32};
  const View in_pinned{pinned.data(), kCount, DType::f32};
  const OnIt device(given);
  EXPECT_EQ(memory_of(device.view().data), Memory::cuda);
  Tensor out(kCount, DType::f32);
  const auto fill = [&](void* memory) { std::memcpy(memory, given.view().data, bytes); };
  const auto holds = [&](const void* memory) { return std::memcmp(memory, want.view().data, bytes) == 0; };

  fill(managed);
  world.allreduce(in_managed, Op::average, options);  // alone
  EXPECT_TRUE(holds(managed));
  fill(managed);
  world.allreduce({in_managed, out.view()}, Op::average, options);  // to the host
  EXPECT_TRUE(out.same_bits(want));
  world.allreduce({in_managed, device.view()}, Op::average, options);  // to a device
  EXPECT_TRUE(device.get().same_bits(want));
  fill(pinned.data());
  world.allreduce(in_pinned, Op::average, options);
  EXPECT_TRUE(holds(pinned.data()));
  require(cudaFree(managed));
}

// Every refusal says what is wrong, on all ranks, and the next call is as if nothing had been.
TEST_F(DeviceCommunicator, Refusals) {
  Communicator world(MPI_COMM_WORLD, {.cuda_aware = CudaAware::off});
  const OnIt device(values(1));
  const CallOptions options = compressing("onebit");
  Tensor host = values(1);
  const bool first = world_rank() == 0;
  const std::string who = world_size() == 1 ? "" : "rank 0";
  const auto text = [](const std::function<void()>& call) { return error_of(call); };

  EXPECT_TRUE(is_error(
      text([&] {
        world.allreduce({first ? ConstView(device.view()) : host.view(), host.view()}, Op::average, options);
      }),
      "unsupported", {who, "the input is in device memory", "the output in the host's"}));
  View wrong = host.view();
  if (first) wrong.memory = Memory::cuda;
  EXPECT_TRUE(is_error(text([&] { world.allreduce(wrong, Op::average, options); }), "invalid_argument",
                       {who, "said to be in device memory"}));
  const CallOptions other = compressing("onebit:deepspeed");
  EXPECT_TRUE(is_error(text([&] { world.allreduce(device.view(), Op::average, other); }), "unsupported",
                       {"onebit:deepspeed", "no code for device memory"}));
  if (device_count() > 1) {
    const OnIt elsewhere(values(1), (own_device() + 1) % device_count());
    EXPECT_TRUE(is_error(text([&] {
                           world.allreduce({device.view(), elsewhere.view()}, Op::average, options);
                         }),
                         "unsupported", {"must be on one device"}));
    const std::vector<terse::Tensor> list{device.view(), elsewhere.view()};
    EXPECT_TRUE(is_error(text([&] { world.allreduce(list, Op::average, options); }), "unsupported",
                         {"tensor 1", "one device"}));
  }
  const std::vector<terse::Tensor> list{device.view(), host.view()};
  EXPECT_TRUE(is_error(text([&] { world.allreduce(list, Op::average, options); }), "unsupported",
                       {"tensor 1", "in the host's"}));

  View odd = device.view();
  odd.data = device.bytes.data() + 2;
  odd.count -= 1;
  EXPECT_TRUE(is_error(text([&] { world.allreduce(odd, Op::average, options); }), "unsupported",
                       {"no multiple of the size"}));

  Tensor want = values(1);
  world.allreduce(want.view(), Op::average, options);
  const OnIt again(values(1));
  world.allreduce(again.view(), Op::average, options);
  EXPECT_TRUE(again.get().same_bits(want));
}

// Buckets of gradients that become ready one by one.
TEST_F(DeviceCommunicator, Buckets) {
  Communicator world(MPI_COMM_WORLD, {.cuda_aware = CudaAware::off});
  std::vector<Tensor> host;
  std::vector<OnIt> device;
  host.reserve(4);
  for (int i = 0; i < 4; ++i) host.push_back(values(i, DType::f32, 3000 + static_cast<std::size_t>(i)));
  std::vector<View> on_host;
  std::vector<View> on_device;
  for (Tensor& tensor : host) {
    device.emplace_back(tensor);
    on_host.push_back(tensor.view());
    on_device.push_back(device.back().view());
  }
  const CallOptions options = compressing("onebit");
  GradientBuckets host_buckets(world, on_host, Op::average, 20000, options);
  GradientBuckets device_buckets(world, on_device, Op::average, 20000, options);
  for (std::size_t i = 4; i-- > 0;) host_buckets.ready(i);
  host_buckets.wait();
  for (std::size_t i = 4; i-- > 0;) device_buckets.ready(i);
  device_buckets.wait();
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(device[i].get().same_bits(host[i])) << i;
}

}  // namespace
}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
//
// Allreduce of tensors in device memory, on ranks that are threads, beside the same calls on the host: the
// same bits, residuals and bytes on the wire.
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <terse/feedback.hpp>
#include <thread>
#include <vector>

#include "device/device.hpp"
#include "support/covering.hpp"
#include "support/exact.hpp"
#include "support/faulty_transport.hpp"
#include "support/golden.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

// Takes a rank's tensors to the device.
struct Taken {
  Taken(Call& call, std::size_t offset, bool direct) : out_(call.out) {
    const bool in_place = call.in.data == call.out.data;
    device_out_ = on_device(call.out, offset);
    if (!in_place) device_in_ = on_device(call.in, offset);
    call.out = {device_out_.data(), call.out.count, call.out.dtype, Memory::cuda};
    call.in = in_place ? ConstView(call.out)
                       : ConstView(device_in_.data(), call.in.count, call.in.dtype, Memory::cuda);
    call.device = 0;
    call.direct = direct;
  }
  void bring_back() const { device_out_.get(out_.data); }

  View out_;
  DeviceBytes device_in_;
  DeviceBytes device_out_;
};

enum class Where : std::uint8_t { staged, direct, mixed };

void put_on_device(Rig& rig, Where where) {
  const std::size_t offset = rig.setting().offset;
  rig.place = [where, offset](int rank, Call& call) -> std::function<void()> {
    if (where == Where::mixed && rank % 2 == 1) return {};
    if (call.in.count == 0) return {};
    auto taken = std::make_shared<Taken>(call, offset, where == Where::direct);
    return [taken] { taken->bring_back(); };
  };
}

class DeviceAllreduce : public ::testing::Test {
 protected:
  void SetUp() override {
    TERSE_NEEDS_DEVICE();
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::reset_statistics();
    before_ = emulated_cuda::statistics();
#endif
  }
  void TearDown() override {
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::set_host_may_touch(false);
    emulated_cuda::set_lag(1);
    emulated_cuda::check();
    if (device_count() == 0) return;
    const auto after = emulated_cuda::statistics();
    EXPECT_EQ(after.device_synchronizations, 0u) << "a device-wide synchronisation";
    EXPECT_EQ(after.live_device_allocations, before_.live_device_allocations) << "device memory is left over";
    EXPECT_EQ(after.live_pinned_allocations, before_.live_pinned_allocations) << "pinned memory is left over";
    EXPECT_EQ(after.live_streams, before_.live_streams);
    EXPECT_EQ(after.live_events, before_.live_events);
    EXPECT_EQ(after.pending_operations, 0u);
#endif
  }
  // Whether the host may follow device pointers, as the threads' transport must for what is direct.
  static bool can(Where where) {
#ifdef TERSE_EMULATED_CUDA
    emulated_cuda::set_host_may_touch(where == Where::direct);
    return true;
#else
    return where != Where::direct;
#endif
  }
#ifdef TERSE_EMULATED_CUDA
  emulated_cuda::Statistics before_;
#endif
};

void expect_alike(Rig& host, Rig& device, const Rig::Result& on_host, const Rig::Result& on_device) {
  for (std::size_t r = 0; r < on_host.out.size(); ++r) {
    ASSERT_EQ(on_device.errors[r], on_host.errors[r]) << "rank " << r;
    if (!on_host.errors[r].empty()) continue;
    ASSERT_TRUE(on_device.out[r].same_bits(on_host.out[r])) << "rank " << r;
    ASSERT_EQ(on_device.wire[r], on_host.wire[r]) << "rank " << r;
    ASSERT_EQ(on_device.calls[r].bytes_sent, on_host.calls[r].bytes_sent) << "rank " << r;
    ASSERT_EQ(on_device.calls[r].exact_count, on_host.calls[r].exact_count) << "rank " << r;
    const auto rank = static_cast<int>(r);
    ASSERT_EQ(device.feedback(rank).save(), host.feedback(rank).save()) << "rank " << r;
  }
}

constexpr Where kWheres[] = {Where::staged, Where::direct, Where::mixed};
constexpr const char* kCodecs[] = {"onebit",
                                   "onebit:block=64",
                                   "onebit:block=4096",
                                   "cast:bf16",
                                   "cast:f16",
                                   "identity",
                                   "quant:bits=4",
                                   "quant:rounding=stochastic,block=64",
                                   "quant:bits=6,block=4096"};
constexpr int kNumbersOfRanks[] = {1, 2, 3, 4, 5, 7, 8};
constexpr std::size_t kCounts[] = {0, 1, 63, 2048, 2049, 20011};

// Places of a row.
struct At {
  enum Place : std::size_t {
    where,
    codec,
    dtype,
    ranks,
    count,
    op,
    feedback,
    residual,
    in_place,
    segment,
    checksum,
    offset,
    style,
    places
  };
};
constexpr std::size_t kLooped = At::op;  // nightly, all of these go with all; the others take turns

std::vector<int> sizes() {
  std::vector<int> all(At::places, 2);
  all[At::where] = std::size(kWheres);
  all[At::codec] = std::size(kCodecs);
  all[At::dtype] = std::size(kAllDTypes);
  all[At::ranks] = std::size(kNumbersOfRanks);
  all[At::count] = std::size(kCounts);
  all[At::style] = std::size(kAllStyles);
  return all;
}

bool possible(const Row& row) {
  if (row[At::where] != kOpen && kWheres[row[At::where]] == Where::direct && !kEmulated) return false;
  return row[At::codec] == kOpen || row[At::dtype] == kOpen ||
         make_codec(kCodecs[row[At::codec]])->supports(kAllDTypes[row[At::dtype]]);
}

std::vector<Row> rows() {
  if (!nightly()) return covering_rows(sizes(), possible);
  std::vector<Row> all;
  Row row(At::places, 0);
  std::mt19937_64 draw(1);
  const std::function<void(std::size_t)> fill = [&](std::size_t k) {
    for (int value = 0; k < kLooped && value < sizes()[k]; ++value) {
      row[k] = value;
      fill(k + 1);
    }
    if (k < kLooped || !possible(row)) return;
    for (std::size_t rest = kLooped; rest < At::places; ++rest) {
      row[rest] = static_cast<int>(draw() % static_cast<unsigned>(sizes()[rest]));
    }
    all.push_back(row);
  };
  fill(0);
  return all;
}

TEST_F(DeviceAllreduce, AsOnTheHost) {
  std::uint64_t turn = 0;
  for (const Row& row : rows()) {
    ++turn;
    const Where at = kWheres[row[At::where]];
    ASSERT_TRUE(can(at));
    Setting s;
    s.ranks = kNumbersOfRanks[row[At::ranks]];
    s.count = kCounts[row[At::count]];
    s.dtype = kAllDTypes[row[At::dtype]];
    s.op = row[At::op] == 0 ? Op::sum : Op::average;
    s.codec = kCodecs[row[At::codec]];
    s.feedback = row[At::feedback] == 0;
    s.residual = row[At::residual] == 0 ? residual_type_for(s.dtype, ResidualType::bf16) : ResidualType::full;
    s.in_place = row[At::in_place] == 0;
    s.segment_bytes = row[At::segment] == 0 ? 8192 : std::size_t{4} << 20;
    s.checksum = at != Where::direct && row[At::checksum] == 0;
    s.offset = row[At::offset] == 0 ? 1 : 0;
    s.style = kAllStyles[row[At::style]];
    SCOPED_TRACE(text_of(s) + (at == Where::direct ? ", direct" : at == Where::mixed ? ", mixed" : ""));
    Rig host(s);
    Rig device(s);
    put_on_device(device, at);
    for (const std::uint64_t call : {1u, 2u}) {
      const Rig::Matrix inputs = normal_inputs(device, 100 * turn + call);
      const auto on_host = host.call(inputs);
      const auto on_device = device.call(inputs, {.seed = turn});
      ASSERT_NO_FATAL_FAILURE(expect_alike(host, device, on_host, on_device));
    }
  }
  EXPECT_GE(turn, 60u);
}

// Where segments are the model's, those for a device are longer, but only if no rank's tensor is on the host.
TEST_F(DeviceAllreduce, ModelledSegments) {
  for (const Where where : {Where::staged, Where::mixed}) {
    for (const int ranks : {1, 2, 3}) {
      Setting s;
      s.ranks = ranks;
      s.count = 50021;
      s.codec = "onebit:block=64";
      s.models_segments = true;
      SCOPED_TRACE(text_of(s) + (where == Where::mixed ? ", mixed" : ""));
      Rig host(s);
      Rig device(s);
      put_on_device(device, where);
      for (const std::uint64_t call : {1u, 2u}) {
        const Rig::Matrix inputs = normal_inputs(device, call);
        const auto on_host = host.call(inputs);
        const auto on_device = device.call(inputs);
        for (int r = 0; r < ranks; ++r) {
          const auto i = static_cast<std::size_t>(r);
          ASSERT_EQ(on_device.errors[i], "");
          ASSERT_TRUE(on_device.out[i].same_bits(on_host.out[i])) << "rank " << r;
          ASSERT_EQ(device.feedback(r).save(), host.feedback(r).save()) << "rank " << r;
          const std::size_t bytes = on_device.calls[i].bytes_sent;
          if (where == Where::mixed && ranks > 1) {
            ASSERT_EQ(bytes, on_host.calls[i].bytes_sent);
          } else if (ranks > 1) {
            ASSERT_LT(bytes, on_host.calls[i].bytes_sent) << "headers of as many messages";
          }
        }
      }
    }
  }
}

TEST_F(DeviceAllreduce, GoldenVectors) {
  const auto expect = [](const std::vector<double>& got, const std::vector<double>& want, const char* what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_TRUE(near_golden(got[i], want[i])) << what << " " << i << ": " << got[i] << " for " << want[i];
    }
  };
  const auto files = load_golden("l1-block");
  ASSERT_FALSE(files.empty());
  for (const Golden& g : files) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      Rig rig({.ranks = g.ranks,
               .count = g.count,
               .dtype = dtype,
               .codec = g.codec(),
               .algorithm = g.algorithm()});
      SCOPED_TRACE(g.name + ": " + text_of(rig.setting()));
      put_on_device(rig, Where::staged);
      for (const auto& step : g.steps) {
        const auto result = rig.call(step.inputs);
        for (std::size_t r = 0; r < g.chunks.size(); ++r) {
          ASSERT_EQ(result.errors[r], "");
          expect(result.out[r].doubles(), step.average, "average");
          expect(rig.workers()[r], step.worker_residuals[r], "worker residual");
          expect(rig.servers()[r], step.server_residuals[r], "server residual");
        }
      }
    }
  }
}

// Pieces with values that are not finite go again exactly, and residuals of those are as before.
TEST_F(DeviceAllreduce, NonFinitePieces) {
  for (const Where where : {Where::staged, Where::direct, Where::mixed}) {
    if (!can(where)) continue;
    for (const char* codec : {"onebit", "onebit:block=4096", "cast:f16"}) {
      for (const int ranks : {1, 2, 3, 4}) {
        Setting s;
        s.ranks = ranks;
        s.count = 30011;
        s.codec = codec;
        s.segment_bytes = 16384;
        s.op = ranks % 2 == 0 ? Op::sum : Op::average;
        SCOPED_TRACE(text_of(s) + ", " + std::to_string(static_cast<int>(where)));
        Rig host(s);
        Rig device(s);
        put_on_device(device, where);
        for (const std::uint64_t call : {1u, 2u}) {
          Rig::Matrix inputs = normal_inputs(device, call);
          if (call == 2) {
            inputs[0][7001] = std::numeric_limits<double>::quiet_NaN();
            inputs[static_cast<std::size_t>(ranks) - 1][20001] = std::numeric_limits<double>::infinity();
          }
          const auto on_host = host.call(inputs);
          const auto on_device = device.call(inputs);
          for (std::size_t r = 0; r < on_host.out.size(); ++r) {
            ASSERT_EQ(on_device.errors[r], "");
            ASSERT_TRUE(on_device.out[r].same_bits(on_host.out[r])) << "rank " << r;
            ASSERT_EQ(on_device.wire[r], on_host.wire[r]);
            ASSERT_EQ(on_device.calls[r].exact_count, on_host.calls[r].exact_count);
            ASSERT_EQ(on_device.calls[r].exact_count != 0, call == 2);
          }
          const auto workers = host.workers();
          const auto own = device.workers();
          for (std::size_t r = 0; r < workers.size(); ++r) {
            for (std::size_t i = 0; i < workers[r].size(); ++i)
              ASSERT_NEAR(own[r][i], workers[r][i], 1e-5) << i;
          }
        }
      }
    }
  }
}

// Several tensors as one message, more than go into one launch, with residuals of any kind or none.
TEST_F(DeviceAllreduce, Lists) {
  constexpr int kRanks = 3;
  constexpr std::size_t kTensors = 50;
  for (const Where where : {Where::staged, Where::direct}) {
    if (!can(where)) continue;
    for (const char* codec : {"onebit:block=64", "cast:bf16"}) {
      std::vector<std::vector<std::byte>> saves[2];
      std::vector<std::vector<double>> outs[2];
      for (const bool on_the_device : {false, true}) {
        std::vector<std::vector<Feedback>> feedbacks(kRanks);
        outs[on_the_device].resize(kRanks);
        saves[on_the_device].resize(kRanks);
        for (auto& own : feedbacks) {
          for (std::size_t t = 0; t < kTensors; ++t) {
            own.emplace_back(t / 2 % 3 == 1 ? ResidualType::bf16 : ResidualType::full);
          }
        }
        for (const std::uint64_t round : {1u, 2u}) {
          run_ranks(kRanks, [&](ThreadTransport& transport) {
            const auto rank = static_cast<std::size_t>(transport.rank());
            std::vector<Tensor> tensors;
            std::vector<DeviceBytes> device;
            std::vector<CallTensor> list;
            tensors.reserve(kTensors);
            device.reserve(kTensors);
            for (std::size_t t = 0; t < kTensors; ++t) {
              const std::size_t n = t % 9 == 0 ? 0 : 1 + 37 * t % 500;
              tensors.emplace_back(normal_values(n, DType::f32, 10 * t + round, transport.rank()), DType::f32,
                                   t % 2);
              View view = tensors.back().view();
              if (on_the_device) {
                device.push_back(on_device(view, t % 2));
                view = {device.back().data(), n, DType::f32, Memory::cuda};
              }
              list.push_back({view, view, t % 4 == 2 ? nullptr : &feedbacks[rank][t]});
            }
            Call call;
            call.tensors = list;
            call.codec = make_codec(codec);
            call.algorithm = &find_algorithm("two_phase");
            call.op = Op::sum;
            call.segment_bytes = 5000;
            if (on_the_device) {
              call.device = 0;
              call.direct = where == Where::direct;
            }
            Engine engine(transport);
            engine.run(call);
            for (std::size_t t = 0; t < kTensors; ++t) {
              if (on_the_device) device[t].get(tensors[t].view().data);
              const auto values = tensors[t].doubles();
              outs[on_the_device][rank].insert(outs[on_the_device][rank].end(), values.begin(), values.end());
              EXPECT_TRUE(tensors[t].guards_intact());
            }
          });
        }
        for (std::size_t r = 0; r < kRanks; ++r) {
          for (const Feedback& f : feedbacks[r]) {
            const auto save = f.save();
            saves[on_the_device][r].insert(saves[on_the_device][r].end(), save.begin(), save.end());
          }
        }
      }
      EXPECT_EQ(outs[0], outs[1]) << codec;
      EXPECT_EQ(saves[0], saves[1]) << codec;
    }
  }
}

TEST_F(DeviceAllreduce, Exact) {
  std::size_t turn = 0;
  for (const Where where : {Where::staged, Where::direct, Where::mixed}) {
    if (!can(where)) continue;
    for (const DType dtype : kAllDTypes) {
      for (const int ranks : {1, 2, 3}) {
        for (const Op op : {Op::sum, Op::average}) {
          ++turn;
          std::size_t number = turn + turn / 6 + turn / 24;  // each style with each of the others
          for (const Style style :
               {Style::blocking, Style::nonblocking, Style::list, Style::progress_thread}) {
            if (++number % 4 != 0 && !nightly()) continue;
            Setting s;
            s.ranks = ranks;
            s.count = 1003;
            s.dtype = dtype;
            s.op = op;
            s.codec = "identity";
            s.algorithm = "exact";
            s.feedback = false;
            s.in_place = op == Op::sum;
            s.style = style;
            s.offset = 1;
            SCOPED_TRACE(text_of(s));
            Rig host(s);
            Rig device(s);
            put_on_device(device, where);
            const Rig::Matrix inputs = exact_inputs(s, 5);
            const auto on_host = host.call(inputs);
            const auto on_device = device.call(inputs);
            ASSERT_NO_FATAL_FAILURE(expect_alike(host, device, on_host, on_device));
          }
        }
      }
    }
  }
}

// A Feedback goes to where its tensor is, and a save is one, wherever it was made.
TEST_F(DeviceAllreduce, ResidualsMove) {
  Setting s;
  s.ranks = 3;
  s.count = 5003;
  Rig host(s);
  Rig moving(s);
  for (std::uint64_t call = 1; call <= 6; ++call) {
    if (call % 2 == 0) {
      put_on_device(moving, Where::staged);
    } else {
      moving.place = nullptr;
    }
    if (call == 4) {
      for (int r = 0; r < s.ranks; ++r) {
        const auto save = moving.feedback(r).save();
        moving.feedback(r).reset();
        moving.feedback(r).load(save);
      }
    }
    const Rig::Matrix inputs = normal_inputs(host, call);
    const auto on_host = host.call(inputs);
    const auto on_device = moving.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_alike(host, moving, on_host, on_device));
    EXPECT_EQ(moving.feedback(1).worker().memory, call % 2 == 0 ? Memory::cuda : Memory::host);
  }
}

// What differs between ranks is told to all, and leaves everything as it was.
TEST_F(DeviceAllreduce, Mismatch) {
  for (const Where where : {Where::staged, Where::direct, Where::mixed}) {
    if (!can(where)) continue;
    for (const char* algorithm : {"two_phase", "exact"}) {
      Setting s;
      s.ranks = 3;
      s.count = 10007;
      s.algorithm = algorithm;
      Rig host(s);
      Rig device(s);
      put_on_device(device, where);
      for (std::uint64_t call = 1; call <= 3; ++call) {
        Rig::Matrix inputs;
        for (int r = 0; r < s.ranks; ++r) inputs.push_back(normal_values(s.count, s.dtype, call, r));
        const auto spoil = [&](int rank, Call& c) {
          if (call == 2 && rank == 1) c.op = Op::sum;
        };
        const auto on_host = host.call(inputs, {}, spoil);
        const auto on_device = device.call(inputs, {}, spoil);
        for (std::size_t r = 0; r < on_host.out.size(); ++r) {
          EXPECT_EQ(on_host.errors[r], on_device.errors[r]);
          EXPECT_EQ(on_host.errors[r].empty(), call != 2);
          EXPECT_TRUE(call != 1 || on_device.out[r].same_bits(on_host.out[r]));
        }
      }
    }
  }
}

#ifdef TERSE_EMULATED_CUDA

// A device that fails on one rank half way: that rank says why, and none waits.
TEST_F(DeviceAllreduce, DeviceFails) {
  for (const Where where : {Where::staged, Where::direct}) {
    ASSERT_TRUE(can(where));
    for (unsigned nth = 1; nth <= 12; ++nth) {
      SCOPED_TRACE(std::to_string(nth));
      Setting s;
      s.ranks = 2;
      s.count = 20011;
      s.segment_bytes = 16384;
      Rig device(s);
      put_on_device(device, where);
      const Rig::Matrix inputs = normal_inputs(device, nth);
      emulated_cuda::fail_next_launch(nth);
      const auto result = device.call(inputs);
      emulated_cuda::fail_next_launch(0);
      EXPECT_TRUE(result.failed());
      const bool says = result.errors[0].find("device: ") != std::string::npos ||
                        result.errors[1].find("device: ") != std::string::npos;
      EXPECT_TRUE(says) << result.errors[0] << " / " << result.errors[1];
    }
  }
}

// That there is no memory is found before the first message, and reported on all ranks.
TEST_F(DeviceAllreduce, NoMemory) {
  int failures = 0;
  for (unsigned nth = 1; nth <= 6; ++nth) {
    Setting s;
    s.ranks = 2;
    s.count = 20011;
    Rig host(s);
    Rig device(s);
    put_on_device(device, Where::staged);
    const auto place = device.place;
    std::atomic<int> placed{0};
    device.place = [&](int rank, Call& call) {
      auto back = place(rank, call);
      ++placed;
      while (placed < s.ranks) std::this_thread::yield();
      if (rank == 0) emulated_cuda::fail_next_malloc(nth);
      return back;
    };
    const Rig::Matrix inputs = normal_inputs(device, nth);
    const auto result = device.call(inputs);
    emulated_cuda::fail_next_malloc(0);
    device.place = place;
    if (!result.failed()) continue;  // there were not as many
    ++failures;
    for (const std::string& error : result.errors) {
      EXPECT_NE(error.find("out_of_memory"), std::string::npos) << error;
      EXPECT_NE(error.find("rank"), std::string::npos) << error;
    }
    // and the next call is as if nothing had been
    const auto on_host = host.call(inputs);
    const auto again = device.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_alike(host, device, on_host, again));
  }
  EXPECT_GE(failures, 4);
}

// Whatever changes on its way is reported on all ranks that can know, as on the host; nobody hangs.
TEST_F(DeviceAllreduce, Faults) {
  int failures = 0;
  for (const bool checksum : {true, false}) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      Setting s;
      s.ranks = 3;
      s.count = 9001;
      s.segment_bytes = 16384;
      s.checksum = checksum;
      SCOPED_TRACE("seed " + std::to_string(seed));
      Rig device(s);
      put_on_device(device, Where::staged);
      const Rig::Matrix inputs = normal_inputs(device, seed);
      auto result = device.empty_result();
      try_ranks(s.ranks, [&](ThreadTransport& t) {
        if (t.rank() != 1) return device.call_on(static_cast<Transport&>(t), inputs, result);
        FaultyTransport faulty(t, {.fault = kAllFaults[seed % std::size(kAllFaults)],
                                   .rank = 1,
                                   .channel = static_cast<int>(seed % 2),
                                   .nth = seed / 2 % 5,
                                   .seed = seed});
        device.call_on(static_cast<Transport&>(faulty), inputs, result);
      });
      failures += result.failed() ? 1 : 0;
      if (checksum && result.failed()) {
        for (const std::string& error : result.errors) EXPECT_NE(error, "");
      }
      if (!checksum || result.failed()) continue;
      for (std::size_t r = 1; r < result.out.size(); ++r) EXPECT_TRUE(result.out[r].same_bits(result.out[0]));
    }
  }
  EXPECT_GE(failures, 20);
}

// The call comes after what the caller's stream holds, and does not wait for it when it begins.
TEST_F(DeviceAllreduce, ComesAfterTheStream) {
  emulated_cuda::set_lag(5);
  constexpr std::size_t kCount = 10007;
  for (const char* algorithm : {"two_phase", "exact"}) {
    std::vector<std::vector<double>> outs(2);
    run_ranks(2, [&](ThreadTransport& transport) {
      const auto values = normal_values(kCount, DType::f32, 3, transport.rank());
      const Tensor tensor(values, DType::f32);
      PinnedMemory pinned;
      std::memcpy(pinned.reserve(0, kCount * 4).data(), tensor.view().data, kCount * 4);
      const DeviceBytes memory(kCount * 4);
      cudaStream_t stream = nullptr;
      require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      {
        Engine engine(transport);
        require(cudaMemsetAsync(memory.data(), 0, kCount * 4, stream));
        require(cudaMemcpyAsync(memory.data(), pinned.data(), kCount * 4, cudaMemcpyHostToDevice, stream));
        Call call;
        call.out = {memory.data(), kCount, DType::f32, Memory::cuda};
        call.in = call.out;
        call.codec = make_codec("onebit");
        call.algorithm = &find_algorithm(algorithm);
        call.op = Op::average;
        call.device = 0;
        call.stream = stream;
        Execution& execution = engine.start(call);
        engine.finish(execution);
        // without a word to any stream
        Tensor out(kCount, DType::f32);
        memory.get(out.view().data);
        outs[static_cast<std::size_t>(transport.rank())] = out.doubles();
      }
      require(cudaStreamDestroy(stream));
    });
    ASSERT_EQ(outs[0], outs[1]);
    double energy = 0;
    for (const double v : outs[0]) energy += v * v;
    EXPECT_GT(energy, 0.1 * kCount) << algorithm;
  }
}

// Only encoded bytes cross to the host and back, and where the transport takes device memory no more than
// headers.
TEST_F(DeviceAllreduce, WhatCrosses) {
  for (const Where where : {Where::staged, Where::direct}) {
    ASSERT_TRUE(can(where));
    Setting s;
    s.ranks = 2;
    s.count = std::size_t{1} << 19;
    s.segment_bytes = std::size_t{1} << 20;
    Rig device(s);
    std::array<std::uint64_t, 2> crossed{};
    const Rig::Matrix inputs(2, normal_values(s.count, s.dtype, 1, 0));
    put_on_device(device, where);
    const auto place = device.place;
    std::atomic<int> ready{0};
    device.place = [&](int rank, Call& call) -> std::function<void()> {
      auto back = place(rank, call);
      ++ready;
      while (ready < 2) std::this_thread::yield();
      if (rank == 0) emulated_cuda::reset_statistics();
      ++ready;
      while (ready < 4) std::this_thread::yield();
      return [&, rank, back] {
        ++ready;
        while (ready < 6) std::this_thread::yield();
        if (rank == 0) {
          const auto said = emulated_cuda::statistics();
          crossed = {said.d2h.bytes, said.h2d.bytes};
        }
        ++ready;
        while (ready < 8) std::this_thread::yield();
        back();
      };
    };
    const auto result = device.call(inputs);
    ASSERT_FALSE(result.failed()) << result.errors[0];
    const std::size_t wire = result.wire[0] + result.wire[1];
    if (where == Where::staged) {
      EXPECT_LT(crossed[0], wire);
      EXPECT_LT(crossed[1], wire);
      EXPECT_GT(crossed[0], wire * 9 / 10);
    } else {
      EXPECT_LT(crossed[0], 2000u);
      EXPECT_LT(crossed[1], 2000u);
    }
  }
}

#endif

}  // namespace
}  // namespace terse::test

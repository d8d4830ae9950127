// SPDX-License-Identifier: Apache-2.0
#include "api/tuning.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "core/device.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr int kWarmUps = 1;
constexpr double kDecisive = 2.0;

// The first tensor's that has one.
const Feedback* feedback_of(const Call& call) {
  if (call.feedback) return call.feedback;
  const auto found = std::find_if(call.tensors.begin(), call.tensors.end(),
                                  [](const CallTensor& tensor) { return tensor.feedback; });
  return found == call.tensors.end() ? nullptr : found->feedback;
}

bool in_place(const Call& call) {
  return call.in.data == call.out.data &&
         std::all_of(call.tensors.begin(), call.tensors.end(),
                     [](const CallTensor& tensor) { return tensor.in.data == tensor.out.data; });
}

// Two buffers for the largest trial, or one where the call is in place.
class Buffers {
 public:
  // Errors: std::bad_alloc, out_of_memory, device.
  void reserve(const Call& call, std::size_t bytes) {
    if (call.device < 0) {
      host_out_.resize(bytes);
      if (!in_place(call)) host_in_.resize(bytes);
      out_ = host_out_.data();
      in_ = host_in_.empty() ? out_ : host_in_.data();
      return;
    }
    DeviceQueue queue(call.device);
    in_ = out_ = device_out_.reserve(call.device, bytes);
    queue.clear(out_, bytes);
    if (!in_place(call)) {
      in_ = device_in_.reserve(call.device, bytes);
      queue.clear(in_, bytes);
    }
    queue.wait();
  }
  std::byte* in() const { return in_; }
  std::byte* out() const { return out_; }

 private:
  std::byte* in_ = nullptr;
  std::byte* out_ = nullptr;
  std::vector<std::byte> host_in_;
  std::vector<std::byte> host_out_;
  DeviceMemory device_in_;
  DeviceMemory device_out_;
};

Trial try_class(Engine& engine, const Call& call, std::size_t size_class, Buffers& buffers) {
  const std::size_t bytes = trial_bytes(size_class);
  const int calls = bytes <= 8192 ? 8 : bytes <= 131072 ? 2 : 1;  // back to back, so that a clock can tell
  const int rounds = bytes <= 131072 ? 5 : 3;
  const Feedback* given = feedback_of(call);
  Feedback feedback(given ? given->residual_type() : ResidualType::full);
  Call compressed = call;
  compressed.tensors = {};
  compressed.rows = 0;  // of the caller's tensor, which this is not
  const Memory memory = call.device < 0 ? Memory::host : Memory::cuda;
  compressed.out = {buffers.out(), bytes / size_of(call.dtype()), call.dtype(), memory};
  compressed.in = View{buffers.in(), compressed.out.count, compressed.out.dtype, memory};
  compressed.feedback = given ? &feedback : nullptr;
  compressed.agree = true;
  compressed.is_trial = true;
  Call plain = compressed;
  plain.algorithm = &find_algorithm("exact");
  plain.feedback = nullptr;

  std::array<std::uint64_t, 2> best;  // of the rounds, on this rank; then of the slowest rank
  best.fill(std::numeric_limits<std::uint64_t>::max());
  // No rank may leave a trial alone: what goes wrong here half way is told to all by the next call. The last
  // one is plain, and has no way to go half.
  std::optional<Error> failure;
  const auto run = [&](Call& trial) {
    trial.failure = failure;
    try {
      engine.run(trial);
    } catch (const AgreedError&) {
      throw;
    } catch (...) {
      failure = current_error("in a trial of auto");
    }
  };
  const Transport& clock = engine.transport();
  for (int round = -kWarmUps; round < rounds; ++round) {
    for (const std::size_t which : {1u, 0u}) {
      const std::uint64_t start = clock.now();
      for (int i = 0; i < calls; ++i) run(which == 0 ? plain : compressed);
      const std::uint64_t took = clock.now() - start;
      if (round >= 0) best[which] = std::min(best[which], took);
    }
  }
  if (failure) throw *failure;  // the transport's own: there is no other rank to talk to
  max_of_ranks(engine.transport(), best);
  const DefaultFloatingPoint mode;  // ranks must come to the same
  return {1e-3 * static_cast<double>(best[0]) / calls, 1e-3 * static_cast<double>(best[1]) / calls};
}

}  // namespace

std::size_t size_class(std::size_t bytes) noexcept {
  std::size_t found = 0;
  while (found + 1 < kSizeClasses && bytes >= kAlwaysExact << (2 * (found + 1))) ++found;
  return found;
}

std::size_t trial_bytes(std::size_t size_class) noexcept {
  const std::size_t begin = kAlwaysExact << (2 * size_class);
  return size_class + 1 == kSizeClasses ? begin : 2 * begin;  // the last is long enough as it is
}

bool is_settled(std::span<const Trial> trials) noexcept {
  return trials.size() >= 2 && std::all_of(trials.end() - 2, trials.end(), [](const Trial& trial) {
           return trial.plain_us >= kDecisive * trial.compressed_us;
         });
}

bool pays(std::span<const Trial> trials, std::size_t size_class) noexcept {
  const Trial& nearest = trials[std::min(size_class, trials.size() - 1)];
  return nearest.compressed_us < nearest.plain_us;
}

bool Tuning::compression_pays(Engine& engine, const Call& call) {
  Transport& transport = engine.transport();
  const std::size_t wanted = size_class(call.bytes());
  kind_.assign(call.codec->spec())
      .append(" ")
      .append(call.algorithm->name)
      .append(" ")
      .append(name(call.dtype()));
  kind_.append(" ").append(std::to_string(call.segment_bytes.value_or(0)));
  if (const Feedback* given = feedback_of(call)) {
    kind_.append(" feedback ").append(name(given->residual_type()));
  }
  if (call.checksum) kind_.append(" checksums");
  std::vector<Trial>& trials = trials_[kind_];
  if (trials.size() <= wanted && !is_settled(trials)) {
    engine.drain();  // ranks that have yet to come here may wait for this one in an earlier call
    require_agreement(transport, call);
    Buffers buffers;
    std::uint64_t no_memory = 0;
    try {
      buffers.reserve(call, trial_bytes(wanted));
    } catch (...) {
      no_memory = 1;
    }
    max_of_ranks(transport, {&no_memory, 1});
    if (no_memory != 0) return false;
    while (trials.size() <= wanted && !is_settled(trials)) {
      trials.push_back(try_class(engine, call, trials.size(), buffers));
    }
  }
  return pays(trials, wanted);
}

}  // namespace terse::inline v0_1

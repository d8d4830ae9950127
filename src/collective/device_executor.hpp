// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/device_codec.hpp"
#include "collective/executor.hpp"

namespace terse::inline v0_1 {

/// Computes on a device: kernels and copies are queued in the order in which steps are begun; the host looks
/// for their ends, opens and seals messages as it does without a device, and never waits but for what goes
/// wrong.
///
/// Where the transport takes device memory, payloads stay there, and only headers are copied; elsewhere the
/// payloads of messages that are sent or received are.
class DeviceExecutor final : public Executor {
 public:
  using Executor::Executor;

  void begin(const Schedule& schedule, const Binding& binding) override;
  void submit(std::uint32_t step) override;
  bool poll(Finished& finished) noexcept override;
  bool work(Finished& finished) noexcept override;
  void settle(Finished& finished) noexcept override;
  bool awaits_device() const noexcept override { return !under_way_.empty(); }

 private:
  struct Work {
    std::uint32_t step = 0;
    bool has_headers = false;  // those of messages that came there are on the host, or on their way
    bool queued = false;       // its kernels
    DeviceQueue::Mark mark = 0;
    std::uint8_t flags = 0;  // of the message that is made
    std::size_t bytes = 0;   // of that message without flags
    StepResult result{};
  };

  DeviceQueue& queue() const noexcept { return binding().device->queue; }
  const Step& step_of(const Work& work) const noexcept { return schedule()[work.step]; }
  std::byte* payload(std::uint32_t slot) const noexcept { return store_.on_device(slot) + kHeaderBytes; }
  DeviceReport& report_of(const Work& work) const noexcept;
  DeviceSum sum_of(const Step& step) const;
  std::size_t payload_due(const Step& step, const Range& elements) const;

  void end(Work& work, Finished& finished);
  bool go_on(Work& work) noexcept;
  bool try_to_go_on(Work& work);
  bool queue_work(Work& work);
  void give_up(Work& work) noexcept;
  bool fetch_headers(const Step& step);
  void upload(std::uint32_t slot, std::size_t bytes);
  void begin_message(Work& work);
  void end_message(Work& work);
  void publish(Work& work);
  void queue_encode(Work& work);
  bool queue_reduce(Work& work);
  bool queue_decode(Work& work);
  void end_encode(Work& work);
  void end_reduce(Work& work);
  void end_decode(Work& work);
  Error corrupt_payload(const Step& step, int author) const;
  void do_undo(const Step& step, const Contents& contents,
               std::span<const Fragment> fragments) const override;

  std::vector<std::uint32_t> ready_;  // a heap with the lowest step on top
  std::vector<Work> under_way_;       // in the order in which it was queued
};

}  // namespace terse::inline v0_1

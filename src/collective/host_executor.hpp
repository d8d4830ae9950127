// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "codec/rounds.hpp"
#include "collective/executor.hpp"
#include "collective/thread_pool.hpp"

namespace terse::inline v0_1 {

/// Computes on the host: the lowest step first, by the caller's thread, and by those of a pool where there is
/// one.
class HostExecutor final : public Executor, private ThreadPool::Client {
 public:
  /// The pool, which may be missing, outlives it.
  HostExecutor(MessageStore& store, int rank, ThreadPool* pool) : Executor(store, rank), pool_(pool) {}

  void begin(const Schedule& schedule, const Binding& binding) override;
  void submit(std::uint32_t step) override;
  bool poll(Finished&) noexcept override { return false; }
  bool work(Finished& finished) noexcept override;
  void settle(Finished& finished) noexcept override;

 private:
  // By any thread, as is all that these call.
  void run_task(std::uint32_t step) noexcept override;
  StepResult compute(std::uint32_t step) noexcept;
  void encode(const Step& step, std::uint8_t inherited, StepResult& result);
  void extract(const Step& step, StepResult& result);
  void reduce(const Step& step, StepResult& result);
  void decode(const Step& step, StepResult& result);
  void sum(const Step& step, StepResult& result);
  void contribute(const Step& step);
  void conclude(const Step& step, StepResult& result) const;
  RoundResults results_of(const Operand& rounds) const;
  RoundResults take_results(const Step& step, std::uint32_t rounds, const Fragment& fragment,
                            RoundResults& left) const;
  RoundContext round_context(const Step& step, const Fragment& fragment) const;
  std::optional<std::size_t> payload_due(const Step& step) const;
  void do_undo(const Step& step, const Contents& contents,
               std::span<const Fragment> fragments) const override;

  std::uint32_t take_lowest();
  std::size_t collect(Finished& finished);

  ThreadPool* pool_;
  std::uint64_t batch_ = 0;
  std::vector<std::uint32_t> ready_;  // a heap with the lowest step on top
  std::size_t handed_in_ = 0;         // to the pool, and not yet collected
  std::mutex mutex_;
  std::vector<FinishedStep> returned_;  // under the mutex
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "collective/runner.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "core/assert.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {

Runner::~Runner() {
  settle();
  if (has_transfers()) transport_.abandon();
}

void Runner::begin(std::shared_ptr<const Schedule> schedule, const Binding& binding, int first_tag) {
  TERSE_ASSERT(in_flight_.empty() || transport_.abandoned(),
               "a schedule begins while transfers of another one are under way", in_flight_.size());
  TERSE_ASSERT(first_tag >= 0, "a schedule begins without tags of its own", first_tag);
  Executor& executor = binding.device != nullptr ? static_cast<Executor&>(on_device_) : on_host_;
  binding_ = binding;
  store_.begin(*schedule, binding_, first_tag);
  executor.begin(*schedule, binding_);
  executor_ = &executor;
  first_tag_ = first_tag;
  gated_ = true;
  remote_failure_ = false;
  finished_ = 0;
  bytes_sent_ = 0;
  collectives_left_ = 0;
  waits_.resize(schedule->size());
  started_.assign(schedule->size(), 0);
  operations_.resize(schedule->size());
  for (auto* steps : {&ready_wire_, &starting_, &in_flight_, &encoded_behind_gate_}) {
    steps->reserve(schedule->size());  // what they hold depends on when messages come
  }
  computed_.reserve(schedule->size());
  ready_wire_.clear();
  encoded_behind_gate_.clear();
  flagged_.clear();
  failure_.reset();
  schedule_ = std::move(schedule);
  for (std::uint32_t i = 0; i < schedule_->size(); ++i) {
    waits_[i] = schedule_->prerequisites(i);
    if ((*schedule_)[i].verb == Verb::all_reduce) ++collectives_left_;
    if (waits_[i] == 0) make_ready(i);
  }
}

void Runner::make_ready(std::uint32_t step) {
  if (is_on_wire((*schedule_)[step].verb)) {
    ready_wire_.push_back(step);
  } else {
    executor_->submit(step);
  }
}

void Runner::finish(std::uint32_t step) {
  ++finished_;
  for (const std::uint32_t next : schedule_->successors(step)) {
    TERSE_ASSERT(waits_[next] != 0, "a step is over twice", step, next);
    if (--waits_[next] == 0) make_ready(next);
  }
}

bool Runner::advance(Collectives collectives) {
  collect();
  const bool news = executor_->poll(computed_);
  finish_computed();
  start_wire(collectives);
  const bool computed = executor_->work(computed_) || news;
  finish_computed();
  if (computed) start_wire(collectives);
  return computed;
}

void Runner::finish_computed() {
  for (FinishedStep& done : computed_) {
    const Step& step = (*schedule_)[done.step];
    if (done.result.failure && !failure_) failure_ = std::move(done.result.failure);
    remote_failure_ = remote_failure_ || done.result.remote_failure;
    // what nobody owns is resent in one order all the same
    if (done.result.flagged) flagged_.push_back({std::max(step.peer, 0), step.in.elements});
    if (gated_ && step.verb == Verb::encode) encoded_behind_gate_.push_back(done.step);
    if (done.result.flags != 0 && step.out.space == Space::scratch) {
      for (const std::uint32_t next : schedule_->successors(done.step)) {
        executor_->inherit(next, done.result.flags);
      }
    }
    finish(done.step);
  }
  computed_.clear();
}

void Runner::start_wire(Collectives collectives) {
  if (gated_ || ready_wire_.empty()) return;
  std::optional<OnDevice> current;  // MPI looks for it where it is given device memory
  if (binding_.device != nullptr && binding_.direct) current.emplace(binding_.device->queue.device());
  starting_.clear();
  starting_.swap(ready_wire_);  // to which finish() may add
  std::sort(starting_.begin(), starting_.end());
  for (const std::uint32_t i : starting_) {
    const Step& step = (*schedule_)[i];
    // with several threads, what is to be sent later may be encoded first
    if (const std::uint32_t before = schedule_->started_after(i); before != kNoStep && !started_[before]) {
      ready_wire_.push_back(i);
      continue;
    }
    started_[i] = 1;
    switch (step.verb) {
      case Verb::send: {
        const std::size_t bytes = store_.size(step.in.slot);
        TERSE_ASSERT(bytes != 0, "a message is sent that has not been made", i, step.in.slot);
        bytes_sent_ += bytes;
        transport_.send(store_.on_wire(step.in.slot).first(bytes), step.peer, first_tag_ + step.in.channel,
                        operations_[i]);
        in_flight_.push_back(i);
        break;
      }
      case Verb::receive:
        store_.set_at_host(step.out.slot, false);
        transport_.receive(store_.on_wire(step.out.slot), step.peer, first_tag_ + step.out.channel,
                           operations_[i]);
        in_flight_.push_back(i);
        break;
      default: {
        if (collectives == Collectives::wait) {
          ready_wire_.push_back(i);
          break;
        }
        --collectives_left_;
        start_reduction(i);
        break;
      }
    }
  }
}

void Runner::start_reduction(std::uint32_t i) {
  const Step& step = (*schedule_)[i];
  const bool of_message = step.in.space == Space::message;
  const BoundTensor& tensor = binding_.tensors[0];
  const void* in = of_message ? store_.slot(step.in.slot).data() : tensor.in.data;
  void* out = of_message ? store_.slot(step.out.slot).data() : tensor.out.data;
  const std::size_t bytes = of_message ? store_.size(step.in.slot) : tensor.in.bytes();
  const auto ranks = static_cast<std::size_t>(transport_.size());
  // what MPI sends is its own affair: no algorithm sends less
  if (of_message) bytes_sent_ += 2 * (ranks - 1) * bytes / ranks;
  const std::size_t count = bytes / size_of(step.reduction);
  TERSE_ASSERT(count * size_of(step.reduction) == bytes, "a reduction is not one of whole elements", i, bytes,
               size_of(step.reduction));
  if (binding_.blocks) {
    transport_.all_reduce(step.reduction, in, out, count);
    finish(i);
  } else {
    transport_.start_all_reduce(step.reduction, in, out, count, operations_[i]);
    in_flight_.push_back(i);
  }
}

void Runner::collect() {
  // finish() may add to ready_wire_ but not to in_flight_
  std::erase_if(in_flight_, [&](std::uint32_t i) {
    if (!operations_[i].done) return false;
    const Step& step = (*schedule_)[i];
    if (step.verb == Verb::receive) store_.set_size(step.out.slot, operations_[i].bytes);
    finish(i);
    return true;
  });
}

void Runner::poison(const Error& failure) {
  failure_ = failure;
  executor_->poison();
}

// Waits for those who compute.
void Runner::settle() {
  executor_->settle(computed_);
  finish_computed();
}

void Runner::roll_back() {
  settle();
  const DefaultFloatingPoint mode;
  for (const std::uint32_t i : encoded_behind_gate_) {
    try {
      executor_->undo(i);
    } catch (...) {
      if (!failure_) {
        failure_ =
            current_error("taking back what " + binding_.codecs[(*schedule_)[i].codec]->spec() + " encoded");
      }
    }
  }
  encoded_behind_gate_.clear();
}

}  // namespace terse::inline v0_1

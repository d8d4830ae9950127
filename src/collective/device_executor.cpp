// SPDX-License-Identifier: Apache-2.0
#include "collective/device_executor.hpp"

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "core/assert.hpp"
#include "core/floating_point.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kBeginning = kHeaderBytes + kTrailerBytes;  // all of a message without payload

}  // namespace

void DeviceExecutor::begin(const Schedule& schedule, const Binding& binding) {
  DeviceSide& side = *binding.device;
  side.reports.reserve(side.queue.device(), schedule.size() * sizeof(DeviceReport));
  ready_.reserve(schedule.size());
  under_way_.reserve(schedule.size());
  ready_.clear();
  Executor::begin(schedule, binding);
}

void DeviceExecutor::submit(std::uint32_t step) {
  ready_.push_back(step);
  std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
}

bool DeviceExecutor::work(Finished& finished) noexcept {
  if (ready_.empty()) return false;
  std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
  Work begun{.step = ready_.back()};
  ready_.pop_back();
  end(begun, finished);
  return true;
}

// Goes on with a step, and ends it if that was all.
void DeviceExecutor::end(Work& work, Finished& finished) {
  if (go_on(work)) {
    finished.push_back({work.step, std::move(work.result)});
  } else {
    under_way_.push_back(std::move(work));  // for which there is room
  }
}

bool DeviceExecutor::poll(Finished& finished) noexcept {
  bool news = false;
  while (!under_way_.empty()) {
    Work& first = under_way_.front();
    try {
      if (!queue().reached(first.mark)) break;
    } catch (...) {
      first.result.failure = current_error();
      first.flags = kPoisoned;
    }
    news = true;
    Work work = std::move(first);
    under_way_.erase(under_way_.begin());
    end(work, finished);
  }
  return news;
}

void DeviceExecutor::settle(Finished& finished) noexcept {
  ready_.clear();
  while (!under_way_.empty()) {
    if (!poll(finished)) std::this_thread::yield();
  }
}

DeviceReport& DeviceExecutor::report_of(const Work& work) const noexcept {
  return reinterpret_cast<DeviceReport*>(binding().device->reports.data())[work.step];
}

DeviceSum DeviceExecutor::sum_of(const Step& step) const {
  const std::byte* first = store_.on_device(step.in.slot);
  const std::size_t stride =
      step.in.slots == 1 ? 0 : static_cast<std::size_t>(store_.on_device(step.in.slot + 1) - first);
  return {.payloads = first + kHeaderBytes,
          .stride = stride,
          .ranks = static_cast<int>(step.in.slots),
          .divisor = step.divisor,
          .factor = step.factor};
}

std::size_t DeviceExecutor::payload_due(const Step& step, const Range& elements) const {
  return pieces().message_bytes(codec(step), elements) - kHeaderBytes;
}

// Takes a step as far as it can be taken without waiting; whether it is over.
bool DeviceExecutor::go_on(Work& work) noexcept {
  const DefaultFloatingPoint mode;  // the host makes factors for kernels
  try {
    return try_to_go_on(work);
  } catch (...) {
    if (!work.result.failure) work.result.failure = current_error();
    give_up(work);
    return true;
  }
}

// Something went wrong here: whoever waits for the message is told.
void DeviceExecutor::give_up(Work& work) noexcept {
  try {
    queue().wait();  // what was queued may write to the message
  } catch (...) {
    // the device has failed, which is what the failure says
  }
  const Verb verb = step_of(work).verb;
  if (verb != Verb::encode && verb != Verb::reduce) return;
  work.flags = kPoisoned;
  publish(work);
}

bool DeviceExecutor::try_to_go_on(Work& work) {
  const Step& step = step_of(work);
  if (work.flags != 0 || (poisoned() && step.verb == Verb::encode)) {
    give_up(work);
    return true;
  }
  const bool opens = step.verb == Verb::reduce || step.verb == Verb::decode;
  if (opens && !std::exchange(work.has_headers, true) && fetch_headers(step)) {
    work.mark = queue().mark();
    return false;
  }
  if (!std::exchange(work.queued, true) && queue_work(work)) {
    work.mark = queue().mark();
    return false;
  }
  switch (step.verb) {
    case Verb::encode:
      end_encode(work);
      break;
    case Verb::reduce:
      end_reduce(work);
      break;
    case Verb::decode:
      end_decode(work);
      break;
    default:
      break;
  }
  return true;
}

// Whether there is something to wait for.
bool DeviceExecutor::queue_work(Work& work) {
  const Step& step = step_of(work);
  switch (step.verb) {
    case Verb::encode:
      queue_encode(work);
      return true;
    case Verb::reduce:
      return queue_reduce(work);
    case Verb::decode:
      return queue_decode(work);
    case Verb::divide:
      divide_on_device(queue(), binding().tensors[0].out, step.divisor);
      return true;
    default:
      TERSE_ASSERT(step.verb == Verb::join, "a device is to do a step that it has no code for", work.step,
                   step.verb);
      return false;
  }
}

// Before a message is made: what is known of it.
void DeviceExecutor::begin_message(Work& work) {
  const Step& step = step_of(work);
  const std::uint32_t slot = step.out.slot;
  work.bytes = pieces().message_bytes(codec(step), step.out.elements);
  report_of(work) = {};
  store_.set_at_host(slot, false);
  if (!binding().direct || !store_.is_sent(slot)) return;
  // where its payload does not come to the host, its header goes to the device
  write_header(codec(step), step.out.elements.count, binding().dtype, 0, store_.slot(slot));
  store_.seal(step.out, work.bytes);
  queue().copy(store_.on_device(slot), store_.slot(slot).data(), kHeaderBytes);
}

void DeviceExecutor::end_message(Work& work) {
  const std::uint32_t slot = step_of(work).out.slot;
  if (binding().direct || !store_.is_sent(slot)) return;
  queue().copy(store_.slot(slot).data() + kHeaderBytes, payload(slot), work.bytes - kHeaderBytes);
}

// Once a message is made, or could not be.
void DeviceExecutor::publish(Work& work) {
  const Step& step = step_of(work);
  if (work.flags != 0) {
    store_.set_at_host(step.out.slot, true);
    store_.write_flagged(step, work.flags);
  } else if (binding().direct && store_.is_sent(step.out.slot)) {
    store_.set_size(step.out.slot, work.bytes);
  } else {
    write_header(codec(step), step.out.elements.count, binding().dtype, 0, store_.slot(step.out.slot));
    store_.seal(step.out, work.bytes);
  }
}

// Brings the beginnings of messages that came to the device to the host; whether there are any.
bool DeviceExecutor::fetch_headers(const Step& step) {
  if (!binding().direct) return false;
  bool any = false;
  for (std::uint32_t member = 0; member < step.in.slots; ++member) {
    const int author =
        step.verb == Verb::decode ? step.peer : schedule().group(step).rank(static_cast<int>(member));
    if (author == rank_) continue;
    const std::uint32_t slot = step.in.slot + member;
    queue().copy(store_.slot(slot).data(), store_.on_device(slot), kBeginning);
    any = true;
  }
  return any;
}

// Brings the payload of a message that came to the host to the device.
void DeviceExecutor::upload(std::uint32_t slot, std::size_t bytes) {
  if (binding().direct) return;
  queue().copy(payload(slot), store_.slot(slot).data() + kHeaderBytes, bytes);
}

// What a kernel has found in a message.
Error DeviceExecutor::corrupt_payload(const Step& step, int author) const {
  return {ErrorCode::corrupt_data, "a message from rank " + std::to_string(author) +
                                       ": corrupt message for codec " + codec(step).spec() +
                                       ": its payload is not one that it writes"};
}

void DeviceExecutor::queue_encode(Work& work) {
  const DeviceRange range("terse encode");
  const Step& step = step_of(work);
  begin_message(work);
  device_codec_of(codec(step))
      ->encode(queue(), pieces().inputs(step.in, step.out.elements, step.phase), context(step).random,
               payload(step.out.slot), &report_of(work));
  end_message(work);
}

void DeviceExecutor::end_encode(Work& work) {
  const Step& step = step_of(work);
  if (report_of(work).non_finite != 0) {
    device_codec_of(codec(step))
        ->undo(queue(), pieces().inputs(step.in, step.out.elements, step.phase), payload(step.out.slot));
    queue().wait();
    work.flags = kNonFinite;
  }
  publish(work);
}

bool DeviceExecutor::queue_reduce(Work& work) {
  const DeviceRange range("terse reduce");
  const Step& step = step_of(work);
  const std::size_t due = payload_due(step, step.in.elements);
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  report_of(work) = {};
  work.flags = open_all(step, messages, work.result, due);
  if (work.flags != 0) return false;
  begin_message(work);
  for (std::uint32_t member = 0; member < step.in.slots; ++member) {
    if (schedule().group(step).rank(static_cast<int>(member)) != rank_) upload(step.in.slot + member, due);
  }
  device_codec_of(codec(step))
      ->reduce(queue(), sum_of(step), pieces().sums(step.out.elements, step.phase), context(step).random,
               payload(step.out.slot), &report_of(work));
  end_message(work);
  return true;
}

void DeviceExecutor::end_reduce(Work& work) {
  const Step& step = step_of(work);
  const DeviceReport report = report_of(work);
  if (work.flags == 0 && report.corrupt != 0) {
    const int author = schedule().group(step).rank(static_cast<int>(report.corrupt) - 1);
    work.result.failure = corrupt_payload(step, author);
    work.flags = kPoisoned;
  } else if (work.flags == 0 && report.non_finite != 0) {
    device_codec_of(codec(step))
        ->undo_reduce(queue(), sum_of(step), pieces().sums(step.out.elements, step.phase),
                      payload(step.out.slot));
    queue().wait();
    work.flags = kNonFinite;
  }
  publish(work);
}

bool DeviceExecutor::queue_decode(Work& work) {
  const DeviceRange range("terse decode");
  const Step& step = step_of(work);
  report_of(work) = {};
  try {
    const Contents contents = store_.open(step, step.in, 0, step.peer);
    work.result.remote_failure = (contents.flags & kPoisoned) != 0;
    if (contents.flags == kNonFinite) {
      work.result.flagged = true;
      if (step.undoes != kNoStep) undo(step.undoes);
    }
    if (contents.flags != 0) return false;
    const std::size_t due = payload_due(step, step.in.elements);
    require_payload(step, contents, due);
    if (step.peer != rank_) upload(step.in.slot, due);
    device_codec_of(codec(step))
        ->decode(queue(), payload(step.in.slot), pieces().outputs(step.out, step.in.elements),
                 Into::overwrite, step.factor, &report_of(work));
    return true;
  } catch (...) {
    work.result.failure = current_error("a message from rank " + std::to_string(step.peer));
    return false;
  }
}

void DeviceExecutor::end_decode(Work& work) {
  const Step& step = step_of(work);
  if (report_of(work).corrupt != 0) work.result.failure = corrupt_payload(step, step.peer);
}

void DeviceExecutor::do_undo(const Step& step, const Contents& contents,
                             std::span<const Fragment> fragments) const {
  if (contents.flags != 0) return;
  device_codec_of(codec(step))->undo(queue(), fragments, payload(step.out.slot));
  queue().wait();
}

}  // namespace terse::inline v0_1

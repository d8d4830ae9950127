// SPDX-License-Identifier: Apache-2.0
//
// A runner's steps where the tensors are in device memory. Kernels and copies are queued in the order of the
// steps; the host looks for their ends, opens and addresses messages as it does without a device, and never
// waits but for what goes wrong.
//
// A message has two places, one on the device and one in pinned memory. Its payload is made and read on the
// device; its header, and the whole of a message without payload, on the host. Where the transport takes
// device memory, payloads stay there, and only headers are copied; elsewhere the payloads of messages that
// are sent or received are.
#include <string>
#include <utility>

#include "collective/runner.hpp"
#include "core/floating_point.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kBeginning = kHeaderBytes + kTrailerBytes;  // all of a message without payload

}  // namespace

void Runner::prepare_device(const Schedule& schedule, DeviceSide& side) {
  side.messages.reserve(side.queue.device(), schedule.message_bytes());
  side.on_host.reserve(side.queue.device(), schedule.message_bytes());
  side.reports.reserve(side.queue.device(), schedule.size() * sizeof(DeviceReport));
  on_device_.reserve(schedule.size());
  sent_.assign(schedule.messages().size(), 0);
  at_host_.assign(schedule.messages().size(), 0);
  for (const Step& step : schedule.steps()) {
    if (step.verb == Verb::send) sent_[step.message] = 1;
  }
}

std::byte* Runner::device_slot(std::uint32_t message) const noexcept {
  return binding_.device->messages.data() + schedule_->messages()[message].offset;
}

DeviceReport& Runner::report_of(const DeviceStep& work) const noexcept {
  return reinterpret_cast<DeviceReport*>(binding_.device->reports.data())[work.step];
}

DeviceSum Runner::sum_on_device(const Step& step) const {
  const int ranks = transport_.size();
  const std::byte* first = device_slot(step.from);
  const std::size_t stride = ranks == 1 ? 0 : static_cast<std::size_t>(device_slot(step.from + 1) - first);
  return {.payloads = first + kHeaderBytes,
          .stride = stride,
          .ranks = ranks,
          .divisor = step.average ? static_cast<double>(ranks) : 1.0,
          .factor = binding_.factor};
}

void Runner::launch(std::uint32_t step) noexcept {
  DeviceStep work{.step = step};
  if (go_on(work)) {
    apply(step, work.result);
  } else {
    on_device_.push_back(std::move(work));  // for which there is room
  }
}

// Looks for steps whose work on the device is done; whether there were any.
bool Runner::poll_device() noexcept {
  bool news = false;
  while (!on_device_.empty()) {
    DeviceStep& first = on_device_.front();
    try {
      if (!binding_.device->queue.reached(first.mark)) break;
    } catch (...) {
      first.result.failure = current_error();
      first.flags = kSpoilt;
    }
    news = true;
    DeviceStep work = std::move(first);
    on_device_.erase(on_device_.begin());
    if (go_on(work)) {
      apply(work.step, work.result);
    } else {
      on_device_.push_back(std::move(work));
    }
  }
  return news;
}

// Takes a step as far as it can be taken without waiting; whether it is over.
bool Runner::go_on(DeviceStep& work) noexcept {
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
void Runner::give_up(DeviceStep& work) noexcept {
  try {
    binding_.device->queue.wait();  // what was queued may write to the message
  } catch (...) {
    // the device has failed, which is what the failure says
  }
  const Verb verb = (*schedule_)[work.step].verb;
  if (verb != Verb::encode && verb != Verb::reduce) return;
  work.flags = kSpoilt;
  publish(work);
}

bool Runner::try_to_go_on(DeviceStep& work) {
  const Step& step = (*schedule_)[work.step];
  if (work.flags != 0 || (spoilt_ && step.verb == Verb::encode)) {
    give_up(work);
    return true;
  }
  const bool opens = step.verb == Verb::reduce || step.verb == Verb::decode;
  if (opens && !std::exchange(work.has_headers, true) && fetch_headers(step)) {
    work.mark = binding_.device->queue.mark();
    return false;
  }
  if (!std::exchange(work.queued, true)) {
    bool queued = false;
    switch (step.verb) {
      case Verb::encode:
        queue_encode(work);
        queued = true;
        break;
      case Verb::reduce:
        queued = queue_reduce(work);
        break;
      case Verb::decode:
        queued = queue_decode(work);
        break;
      case Verb::divide:
        divide_on_device(binding_.device->queue, binding_.tensors[0].out, transport_.size());
        queued = true;
        break;
      default:
        break;
    }
    if (queued) {
      work.mark = binding_.device->queue.mark();
      return false;
    }
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

// A message of these fragments.
std::size_t Runner::bytes_of(std::span<const Fragment> fragments) const {
  auto& counts = kept_by_thread<std::vector<std::size_t>>([] {});
  counts.clear();
  for (const Fragment& fragment : fragments) counts.push_back(fragment.values.count);
  return PieceCoder(*binding_.codec, binding_.dtype).max_bytes(counts);
}

// Before a message is made: what is known of it.
void Runner::begin_message(DeviceStep& work, std::span<const Fragment> fragments) {
  const Step& step = (*schedule_)[work.step];
  work.bytes = bytes_of(fragments);
  report_of(work) = {};
  at_host_[step.message] = 0;
  if (!binding_.direct || !is_sent(step.message)) return;
  // where its payload does not come to the host, its header goes to the device
  const auto out = slot(step.message);
  write_header(*binding_.codec, step.elements.count, binding_.dtype, 0, out);
  address(step, out, work.bytes);
  binding_.device->queue.copy(device_slot(step.message), out.data(), kHeaderBytes);
}

void Runner::end_message(DeviceStep& work) {
  const Step& step = (*schedule_)[work.step];
  if (binding_.direct || !is_sent(step.message)) return;
  binding_.device->queue.copy(slot(step.message).data() + kHeaderBytes,
                              device_slot(step.message) + kHeaderBytes, work.bytes - kHeaderBytes);
}

// Once a message is made, or could not be.
void Runner::publish(DeviceStep& work) {
  const Step& step = (*schedule_)[work.step];
  const auto out = slot(step.message);
  if (work.flags != 0) {
    at_host_[step.message] = 1;
    write_header(*binding_.codec, step.elements.count, binding_.dtype, work.flags, out);
    message_size_[step.message] = address(step, out, kHeaderBytes);
  } else if (binding_.direct && is_sent(step.message)) {
    message_size_[step.message] = work.bytes;
  } else {
    write_header(*binding_.codec, step.elements.count, binding_.dtype, 0, out);
    message_size_[step.message] = address(step, out, work.bytes);
  }
}

// Brings the beginnings of messages that came to the device to the host; whether there are any.
bool Runner::fetch_headers(const Step& step) {
  if (!binding_.direct) return false;
  const auto me = transport_.rank();
  DeviceQueue& queue = binding_.device->queue;
  if (step.verb == Verb::decode) {
    if (step.peer == me) return false;
    queue.copy(slot(step.message).data(), device_slot(step.message), kBeginning);
    return true;
  }
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank == me) continue;
    const std::uint32_t message = step.from + static_cast<std::uint32_t>(rank);
    queue.copy(slot(message).data(), device_slot(message), kBeginning);
  }
  return transport_.size() > 1;
}

// Brings the payload of a message that came to the host to the device.
void Runner::upload(std::uint32_t message, std::size_t payload) {
  if (binding_.direct) return;
  binding_.device->queue.copy(device_slot(message) + kHeaderBytes, slot(message).data() + kHeaderBytes,
                              payload);
}

// Where a device reads a payload, its size must be what is due.
void Runner::require_payload(const Contents& contents, std::size_t due) const {
  if (contents.payload.size() == due) return;
  throw Error(ErrorCode::corrupt_data, "corrupt message for codec " + binding_.codec->spec() +
                                           ": its payload is cut short or too long");
}

// What a kernel has found in a message.
Error Runner::corrupt_payload(int author) const {
  return {ErrorCode::corrupt_data, "a message from rank " + std::to_string(author) +
                                       ": corrupt message for codec " + binding_.codec->spec() +
                                       ": its payload is not one that it writes"};
}

void Runner::queue_encode(DeviceStep& work) {
  const DeviceRange range("terse encode");
  const Step& step = (*schedule_)[work.step];
  const auto fragments = inputs_of(step.elements);
  begin_message(work, fragments);
  binding_.codec->device()->encode(binding_.device->queue, fragments, occasion(0),
                                   device_slot(step.message) + kHeaderBytes, &report_of(work));
  end_message(work);
}

void Runner::end_encode(DeviceStep& work) {
  const Step& step = (*schedule_)[work.step];
  if (report_of(work).non_finite != 0) {
    binding_.codec->device()->undo(binding_.device->queue, inputs_of(step.elements),
                                   device_slot(step.message) + kHeaderBytes);
    binding_.device->queue.wait();
    work.flags = kNonFinite;
  }
  publish(work);
}

bool Runner::queue_reduce(DeviceStep& work) {
  const DeviceRange range("terse reduce");
  const Step& step = (*schedule_)[work.step];
  const auto fragments = sums_of(step.elements);
  const std::size_t due = bytes_of(fragments) - kHeaderBytes;
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  report_of(work) = {};
  work.flags = open_all(step, messages, work.result, due);
  if (work.flags != 0) return false;
  begin_message(work, fragments);
  for (int rank = 0; rank < transport_.size(); ++rank) {
    if (rank != transport_.rank()) upload(step.from + static_cast<std::uint32_t>(rank), due);
  }
  binding_.codec->device()->reduce(binding_.device->queue, sum_on_device(step), fragments, occasion(1),
                                   device_slot(step.message) + kHeaderBytes, &report_of(work));
  end_message(work);
  return true;
}

void Runner::end_reduce(DeviceStep& work) {
  const Step& step = (*schedule_)[work.step];
  const DeviceReport report = report_of(work);
  if (work.flags == 0 && report.corrupt != 0) {
    work.result.failure = corrupt_payload(static_cast<int>(report.corrupt) - 1);
    work.flags = kSpoilt;
  } else if (work.flags == 0 && report.non_finite != 0) {
    binding_.codec->device()->undo_reduce(binding_.device->queue, sum_on_device(step), sums_of(step.elements),
                                          device_slot(step.message) + kHeaderBytes);
    binding_.device->queue.wait();
    work.flags = kNonFinite;
  }
  publish(work);
}

bool Runner::queue_decode(DeviceStep& work) {
  const DeviceRange range("terse decode");
  const Step& step = (*schedule_)[work.step];
  report_of(work) = {};
  try {
    const Contents contents = open(step, step.message, step.peer, step.channel);
    work.result.told = (contents.flags & kSpoilt) != 0;
    if (contents.flags == kNonFinite) {
      work.result.flagged = true;
      undo(step.undo, step.elements);
    }
    if (contents.flags != 0) return false;
    const auto to = fragments_of(step.elements, [](const BoundTensor& tensor, const Range& own, auto) {
      return tensor.out.slice(own.offset, own.count);
    });
    const std::size_t due = bytes_of(inputs_of(step.elements)) - kHeaderBytes;
    require_payload(contents, due);
    if (step.peer != transport_.rank()) upload(step.message, due);
    binding_.codec->device()->decode(binding_.device->queue, device_slot(step.message) + kHeaderBytes, to,
                                     Into::overwrite, binding_.factor, &report_of(work));
    return true;
  } catch (...) {
    work.result.failure = current_error("a message from rank " + std::to_string(step.peer));
    return false;
  }
}

void Runner::end_decode(DeviceStep& work) {
  if (report_of(work).corrupt != 0) {
    work.result.failure = corrupt_payload((*schedule_)[work.step].peer);
  }
}

}  // namespace terse::inline v0_1

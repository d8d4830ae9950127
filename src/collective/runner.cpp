// SPDX-License-Identifier: Apache-2.0
#include "collective/runner.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <string>

#include "codec/elements.hpp"
#include "codec/message.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// An output of this size is unlikely to find room in caches that the ranks of a node share.
constexpr std::size_t kStreamedBytes = std::size_t{8} << 20;

bool on_wire(Verb verb) { return verb == Verb::send || verb == Verb::receive || verb == Verb::all_reduce; }

}  // namespace

Runner::Runner(const Schedule& schedule, const Binding& binding, Transport& transport, int first_tag,
               Workspace& workspace)
    : schedule_(schedule),
      binding_(binding),
      transport_(transport),
      workspace_(workspace),
      first_tag_(first_tag),
      waits_(schedule.size()),
      operations_(schedule.size()),
      message_size_(schedule.messages().size()),
      sum_flags_(schedule.sums().size()) {
  workspace_.messages.reserve(schedule.message_bytes());
  workspace_.sums.reserve(schedule.sum_count() * size_of(accumulator_of(binding.in.dtype)));
  for (std::uint32_t i = 0; i < schedule.size(); ++i) {
    waits_[i] = schedule.prerequisites(i);
    if (waits_[i] == 0) make_ready(i);
  }
}

Runner::~Runner() {
  if (!in_flight_.empty()) transport_.abandon();
}

void Runner::make_ready(std::uint32_t step) {
  if (on_wire(schedule_[step].verb)) {
    ready_wire_.push_back(step);
  } else {
    ready_.push_back(step);
    std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
  }
}

void Runner::finish(std::uint32_t step) {
  ++finished_;
  for (const std::uint32_t next : schedule_.successors(step)) {
    if (--waits_[next] == 0) make_ready(next);
  }
}

void Runner::advance(Transport::Wait wait) {
  start_wire();
  if (!ready_.empty()) {
    std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
    const std::uint32_t step = ready_.back();
    ready_.pop_back();
    compute(step);
    finish(step);
    start_wire();
    transport_.progress(Transport::Wait::no);
  } else if (!done()) {
    transport_.progress(wait);
  }
  collect();
}

void Runner::open_gate() {
  gated_ = false;
  start_wire();
}

void Runner::start_wire() {
  if (gated_ || ready_wire_.empty()) return;
  starting_.clear();
  starting_.swap(ready_wire_);  // to which finish() may add
  std::sort(starting_.begin(),
            starting_.end());  // messages of one kind between two ranks: in the order of steps
  for (const std::uint32_t i : starting_) {
    const Step& step = schedule_[i];
    const int tag = first_tag_ + step.channel;
    switch (step.verb) {
      case Verb::send:
        bytes_sent_ += message_size_[step.message];
        transport_.send(slot(step.message).first(message_size_[step.message]), step.peer, tag,
                        operations_[i]);
        in_flight_.push_back(i);
        break;
      case Verb::receive:
        transport_.receive(slot(step.message), step.peer, tag, operations_[i]);
        in_flight_.push_back(i);
        break;
      default:
        transport_.all_reduce(binding_.in.slice(step.elements.offset, step.elements.count),
                              binding_.out.slice(step.elements.offset, step.elements.count));
        finish(i);
        break;
    }
  }
}

void Runner::collect() {
  // finish() may add to ready_wire_ but not to in_flight_
  std::erase_if(in_flight_, [&](std::uint32_t i) {
    if (!operations_[i].done) return false;
    if (schedule_[i].verb == Verb::receive) message_size_[schedule_[i].message] = operations_[i].bytes;
    finish(i);
    return true;
  });
}

std::span<std::byte> Runner::slot(std::uint32_t message) const noexcept {
  const Range& range = schedule_.messages()[message];
  return {workspace_.messages.data() + range.offset, range.count};
}

View Runner::sum(const Step& step) const noexcept {
  const DType dtype = accumulator_of(binding_.in.dtype);
  const std::size_t offset = schedule_.sums()[step.sum].offset;
  return {workspace_.sums.data() + offset * size_of(dtype), step.elements.count, dtype};
}

View Runner::residual(const Step& step) const noexcept {
  switch (step.residual) {
    case Residual::worker:
      if (binding_.worker.data != nullptr)
        return binding_.worker.slice(step.elements.offset, step.elements.count);
      break;
    case Residual::server:
      if (binding_.server.data != nullptr) {
        return binding_.server.slice(step.elements.offset - binding_.chunk_begin, step.elements.count);
      }
      break;
    case Residual::none:
      break;
  }
  return {};
}

void Runner::compute(std::uint32_t step_id) {
  const Step& step = schedule_[step_id];
  switch (step.verb) {
    case Verb::encode:
      encode(step);
      if (gated_) encoded_behind_gate_.push_back(step_id);
      break;
    case Verb::part:
      part(step);
      break;
    case Verb::decode:
      decode(step);
      break;
    case Verb::divide:
      if (step.place == Place::output) {
        divide(binding_.out.slice(step.elements.offset, step.elements.count), transport_.size());
      } else if (sum_flags_[step.sum] == 0) {
        divide(sum(step), transport_.size());
      }
      break;
    default:
      break;
  }
}

// What makes a message of these elements fit here and nowhere else: the tag is one of this call and phase.
std::uint64_t Runner::place(const Step& step, int author) const noexcept {
  const std::array<std::uint64_t, 3> parts = {static_cast<std::uint64_t>(first_tag_ + step.channel),
                                              static_cast<std::uint64_t>(author), step.elements.offset};
  return hash(std::as_bytes(std::span(parts)));
}

void Runner::encode(const Step& step) {
  const auto out = slot(step.message);
  const DType dtype = binding_.in.dtype;
  const bool from_sum = step.place == Place::sum;
  std::uint8_t flags = from_sum ? sum_flags_[step.sum] : 0;
  if (spoilt_) flags = kSpoilt;
  std::size_t bytes = kHeaderBytes;
  if (flags == 0) {
    try {
      const ConstView values =
          from_sum ? ConstView(sum(step)) : binding_.in.slice(step.elements.offset, step.elements.count);
      bytes = binding_.codec->encode(values, residual(step), out, dtype, from_sum ? binding_.factor : 1.0);
    } catch (...) {
      fail("encoding with " + binding_.codec->spec());
      flags = kSpoilt;
    }
  }
  if (flags != 0) write_header(*binding_.codec, step.elements.count, dtype, flags, out);
  message_size_[step.message] = step.kept ? bytes : address(step, out, bytes);
}

void Runner::part(const Step& step) {
  const auto out = slot(step.message);
  const DType dtype = binding_.in.dtype;
  std::size_t bytes = kHeaderBytes;
  try {
    bytes = binding_.codec->part(slot(step.whole).first(message_size_[step.whole]), binding_.in.count, dtype,
                                 step.elements.offset, step.elements.count, out);
  } catch (...) {
    fail("taking apart what " + binding_.codec->spec() + " encoded");
    write_header(*binding_.codec, step.elements.count, dtype, kSpoilt, out);
  }
  message_size_[step.message] = address(step, out, bytes);
}

// The last thing that is done to a message of this rank's. What a flag says leads all ranks to meet: none may
// believe in one that was never sent.
std::size_t Runner::address(const Step& step, std::span<std::byte> out, std::size_t bytes) const {
  const Sealed sealed = binding_.checksum || is_flagged(out.first(bytes)) ? Sealed::yes : Sealed::no;
  return terse::address(out, bytes, place(step, transport_.rank()), sealed);
}

void Runner::decode(const Step& step) {
  const std::span<const std::byte> message = slot(step.message).first(message_size_[step.message]);
  const bool into_sum = step.place == Place::sum;
  if (into_sum && step.into == Into::overwrite) sum_flags_[step.sum] = 0;
  const bool streams = step.into == Into::overwrite && binding_.out.bytes() >= kStreamedBytes;
  std::uint8_t flags = 0;
  try {
    const bool own = step.peer == transport_.rank();
    const Contents contents =
        open_message(*binding_.codec, step.elements.count, binding_.in.dtype, message,
                     own ? std::optional<std::uint64_t>() : std::optional(place(step, step.peer)));
    if (!contents.sealed && (binding_.checksum || contents.flags != 0)) {
      throw Error(ErrorCode::corrupt_data, "corrupt message: its checksum is missing");
    }
    flags = contents.flags;
    if (flags & kSpoilt) told_ = told_ || !into_sum;
    if (flags == 0 && into_sum && sum_flags_[step.sum] == 0) {
      contents.decode(*binding_.codec, sum(step), step.into, 1.0);
    } else if (flags == 0 && !into_sum) {
      contents.decode(*binding_.codec, binding_.out.slice(step.elements.offset, step.elements.count),
                      streams ? Into::stream : step.into, binding_.factor);
    } else if (flags == kNonFinite && !into_sum) {
      flagged_.push_back({step.peer, step.elements});
      undo(step.undo, step.elements);
    }
  } catch (...) {
    fail("a message from rank " + std::to_string(step.peer));
    flags = kSpoilt;
  }
  if (into_sum) sum_flags_[step.sum] |= flags;
}

void Runner::undo(std::uint32_t message, const Range& elements) {
  if (binding_.worker.data == nullptr) return;
  open_message(*binding_.codec, elements.count, binding_.in.dtype,
               slot(message).first(message_size_[message]), std::nullopt)
      .undo(*binding_.codec, binding_.in.slice(elements.offset, elements.count),
            binding_.worker.slice(elements.offset, elements.count));
}

// In a catch block. The others wait for messages, so they get flagged ones, and all fail at the end.
void Runner::fail(const std::string& where) {
  if (!failure_) failure_ = current_error(where);
}

void Runner::spoil(const Error& failure) {
  failure_ = failure;
  spoilt_ = true;
}

void Runner::roll_back() {
  for (const std::uint32_t i : encoded_behind_gate_) {
    const Step& step = schedule_[i];
    if (step.residual != Residual::worker) continue;
    try {
      undo(step.message, step.elements);
    } catch (...) {
      fail("taking back what " + binding_.codec->spec() + " encoded");
    }
  }
  encoded_behind_gate_.clear();
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "collective/runner.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "codec/elements.hpp"
#include "codec/summable.hpp"
#include "core/floating_point.hpp"
#include "core/hash.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

// An output of this size is unlikely to find room in caches that the ranks of a node share.
constexpr std::size_t kStreamedBytes = std::size_t{8} << 20;

}  // namespace

Runner::~Runner() {
  settle();
  if (!in_flight_.empty()) transport_.abandon();
}

void Runner::begin(std::shared_ptr<const Schedule> schedule, const Binding& binding, int first_tag) {
  if (binding.device != nullptr) {
    prepare_device(*schedule, *binding.device);
  } else {
    messages_.reserve(schedule->message_bytes());
  }
  binding_ = binding;
  first_tag_ = first_tag;
  gated_ = true;
  told_ = false;
  spoilt_ = false;
  finished_ = 0;
  bytes_sent_ = 0;
  collectives_left_ = 0;
  waits_.resize(schedule->size());
  started_.assign(schedule->size(), 0);
  operations_.resize(schedule->size());
  message_size_.resize(schedule->messages().size());
  for (auto* steps : {&ready_, &ready_wire_, &starting_, &in_flight_, &encoded_behind_gate_}) {
    steps->reserve(schedule->size());  // what they hold depends on when messages come
  }
  ready_.clear();
  ready_wire_.clear();
  encoded_behind_gate_.clear();
  flagged_.clear();
  failure_.reset();
  if (pool_) {
    order_ = pool_->next_order(schedule->size());
    returned_.reserve(schedule->size());
    taken_back_.reserve(schedule->size());
  }
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
    ready_.push_back(step);
    std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
  }
}

void Runner::finish(std::uint32_t step) {
  ++finished_;
  for (const std::uint32_t next : schedule_->successors(step)) {
    if (--waits_[next] == 0) make_ready(next);
  }
}

bool Runner::advance(Collectives collectives) {
  collect();
  const bool news = poll_device();
  start_wire(collectives);
  const bool computed = compute_some() || news;
  if (computed) start_wire(collectives);
  return computed;
}

bool Runner::compute_some() {
  if (binding_.device != nullptr) {
    if (ready_.empty()) return false;
    std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
    const std::uint32_t step = ready_.back();
    ready_.pop_back();
    launch(step);
    return true;
  }
  if (pool_) {
    while (!ready_.empty()) {
      std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
      ++lent_;
      pool_->lend(*this, ready_.back());
      ready_.pop_back();
    }
    if (lent_ == 0) return false;
    pool_->help();
    take_back();
    return true;
  }
  if (ready_.empty()) return false;
  std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
  const std::uint32_t step = ready_.back();
  ready_.pop_back();
  StepResult result = compute(step);
  apply(step, result);
  return true;
}

void Runner::take_back() {
  pool_->take_back(*this);
  lent_ -= taken_back_.size();
  for (auto& [step, result] : taken_back_) apply(step, result);
  taken_back_.clear();
}

void Runner::apply(std::uint32_t step, StepResult& result) {
  if (result.failure && !failure_) failure_ = std::move(result.failure);
  told_ = told_ || result.told;
  if (result.flagged) flagged_.push_back({(*schedule_)[step].peer, (*schedule_)[step].elements});
  if (gated_ && (*schedule_)[step].verb == Verb::encode) encoded_behind_gate_.push_back(step);
  finish(step);
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
    if (const std::uint32_t before = schedule_->started_after(i); before != kNoSlot && !started_[before]) {
      ready_wire_.push_back(i);
      continue;
    }
    started_[i] = 1;
    const int tag = first_tag_ + step.channel;
    switch (step.verb) {
      case Verb::send:
        bytes_sent_ += message_size_[step.message];
        transport_.send(wire_slot(step.message).first(message_size_[step.message]), step.peer, tag,
                        operations_[i]);
        in_flight_.push_back(i);
        break;
      case Verb::receive:
        if (binding_.device != nullptr) at_host_[step.message] = 0;
        transport_.receive(wire_slot(step.message), step.peer, tag, operations_[i]);
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
  const bool of_message = step.message != kNoSlot;
  const BoundTensor& tensor = binding_.tensors[0];
  const auto what = of_message ? step.reduction : sum_of(tensor.in.dtype);
  const void* in = of_message ? slot(step.message).data() : tensor.in.data;
  void* out = of_message ? slot(step.message).data() : tensor.out.data;
  const std::size_t bytes = of_message ? message_size_[step.message] : tensor.in.bytes();
  const auto ranks = static_cast<std::size_t>(transport_.size());
  // what MPI sends is its own affair: no algorithm sends less
  if (of_message) bytes_sent_ += 2 * (ranks - 1) * bytes / ranks;
  const std::size_t count = bytes / size_of(what);
  if (binding_.blocks) {
    transport_.all_reduce(what, in, out, count);
    finish(i);
  } else {
    transport_.start_all_reduce(what, in, out, count, operations_[i]);
    in_flight_.push_back(i);
  }
}

void Runner::collect() {
  // finish() may add to ready_wire_ but not to in_flight_
  std::erase_if(in_flight_, [&](std::uint32_t i) {
    if (!operations_[i].done) return false;
    const Step& step = (*schedule_)[i];
    if (step.verb == Verb::receive) message_size_[step.message] = operations_[i].bytes;
    finish(i);
    return true;
  });
}

std::span<std::byte> Runner::slot(std::uint32_t message) const noexcept {
  const Range& range = schedule_->messages()[message];
  std::byte* memory = binding_.device != nullptr ? binding_.device->on_host.data() : messages_.data();
  return {memory + range.offset, range.count};
}

std::span<std::byte> Runner::wire_slot(std::uint32_t message) const noexcept {
  if (through_host(message)) return slot(message);
  return {device_slot(message), slot(message).size()};
}

std::span<const std::byte> Runner::message_in(std::uint32_t message) const noexcept {
  return slot(message).first(message_size_[message]);
}

// What is encoded.
std::span<const Fragment> Runner::inputs_of(const Range& elements) const {
  return fragments_of(elements, [](const BoundTensor& tensor, const Range& own, std::uint64_t position) {
    return Fragment{tensor.in.slice(own.offset, own.count),
                    tensor.worker.data ? tensor.worker.slice(own.offset, own.count) : View{}, position,
                    tensor.note};
  });
}

// The owner's sums: no values, but their type.
std::span<const Fragment> Runner::sums_of(const Range& elements) const {
  return fragments_of(elements, [](const BoundTensor& tensor, const Range& own, std::uint64_t position) {
    return Fragment{
        ConstView(nullptr, own.count, tensor.in.dtype, tensor.in.memory),
        tensor.server.data ? tensor.server.slice(own.offset - tensor.server_begin, own.count) : View{},
        position};
  });
}

StepResult Runner::compute(std::uint32_t step_id) noexcept {
  const DefaultFloatingPoint mode;
  const Step& step = (*schedule_)[step_id];
  StepResult result;
  switch (step.verb) {
    case Verb::encode:
      encode(step, result);
      break;
    case Verb::part:
      part(step, result);
      break;
    case Verb::reduce:
      reduce(step, result);
      break;
    case Verb::decode:
      decode(step, result);
      break;
    case Verb::sum:
      sum(step, result);
      break;
    case Verb::divide:
      divide(binding_.tensors[0].out, transport_.size());
      break;
    case Verb::measure:
      measure(step);
      break;
    case Verb::encode_addends:
      encode_addends(step);
      break;
    case Verb::decode_addends:
      decode_addends(step, result);
      break;
    default:
      break;
  }
  return result;
}

// What makes a message of these elements fit here and nowhere else: the tag is one of this call and phase.
std::uint64_t Runner::place(std::uint8_t channel, int author, const Range& elements) const noexcept {
  const std::array<std::uint64_t, 3> parts = {static_cast<std::uint64_t>(first_tag_ + channel),
                                              static_cast<std::uint64_t>(author), elements.offset};
  return hash(std::as_bytes(std::span(parts)));
}

// The last thing that is done to a message of this rank's. What a flag says leads all ranks to meet: none may
// believe in one that was never sent.
std::size_t Runner::address(const Step& step, std::span<std::byte> out, std::size_t bytes) const {
  const Sealed sealed = binding_.checksum || is_flagged(out.first(bytes)) ? Sealed::yes : Sealed::no;
  return terse::address(out, bytes, place(step.channel, transport_.rank(), step.elements), sealed);
}

Contents Runner::open(const Step& step, std::uint32_t message, int author, std::uint8_t channel) const {
  const bool own = author == transport_.rank();
  const Contents contents = open_message(
      *binding_.codec, step.elements.count, binding_.dtype, message_in(message),
      own ? std::optional<std::uint64_t>() : std::optional(place(channel, author, step.elements)));
  if (contents.dtype != binding_.dtype) {
    throw Error(ErrorCode::corrupt_data, "corrupt message: it holds " + std::string(name(contents.dtype)) +
                                             " where " + std::string(name(binding_.dtype)) + " is due");
  }
  if (!contents.sealed && (binding_.checksum || contents.flags != 0)) {
    throw Error(ErrorCode::corrupt_data, "corrupt message: its checksum is missing");
  }
  return contents;
}

void Runner::encode(const Step& step, StepResult& result) {
  const auto out = slot(step.message);
  std::size_t bytes = kHeaderBytes;
  bool sound = !spoilt_;
  if (sound) {
    try {
      const auto fragments = inputs_of(step.elements);
      bytes = coder(0).encode(fragments, step.elements.count, out);
    } catch (...) {
      result.failure = current_error("encoding with " + binding_.codec->spec());
      sound = false;
    }
  }
  if (!sound) write_header(*binding_.codec, step.elements.count, binding_.dtype, kSpoilt, out);
  message_size_[step.message] = step.kept ? bytes : address(step, out, bytes);
}

void Runner::part(const Step& step, StepResult& result) {
  const auto out = slot(step.message);
  std::size_t bytes = kHeaderBytes;
  try {
    bytes = binding_.codec->part(message_in(step.whole), binding_.layout[0].count, binding_.dtype,
                                 step.elements.offset, step.elements.count, out);
  } catch (...) {
    result.failure = current_error("taking apart what " + binding_.codec->spec() + " encoded");
    write_header(*binding_.codec, step.elements.count, binding_.dtype, kSpoilt, out);
  }
  message_size_[step.message] = address(step, out, bytes);
}

// The messages that an owner sums, and what flags there are among them, kSpoilt where one cannot be read or
// has a payload of another size than is due.
std::uint8_t Runner::open_all(const Step& step, std::vector<Contents>& messages, StepResult& result,
                              std::optional<std::size_t> due) const {
  std::uint8_t flags = spoilt_ ? kSpoilt : 0;
  messages.clear();
  for (int rank = 0; rank < transport_.size(); ++rank) {
    try {
      messages.push_back(open(step, step.from + static_cast<std::uint32_t>(rank), rank, step.from_channel));
      if (due && messages.back().flags == 0) require_payload(messages.back(), *due);
      flags |= messages.back().flags;
    } catch (...) {
      if (!result.failure) result.failure = current_error("a message from rank " + std::to_string(rank));
      flags |= kSpoilt;
    }
  }
  return flags;
}

// What a message's size must be, where that is known: where another rank's flag keeps a message from being
// decoded, a wrong one shows all the same.
std::optional<std::size_t> Runner::payload_due(const Step& step) const {
  if (!binding_.codec->traits().fixed_size) return std::nullopt;
  return bytes_of(inputs_of(step.elements)) - kHeaderBytes;
}

void Runner::reduce(const Step& step, StepResult& result) {
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  const auto out = slot(step.message);
  std::uint8_t flags = open_all(step, messages, result, payload_due(step));
  std::size_t bytes = kHeaderBytes;
  if (flags == 0) {
    std::size_t reading = messages.size();
    try {
      bytes = coder(1).reduce(messages, sums_of(step.elements), step.average ? transport_.size() : 1.0,
                              binding_.factor, step.elements.count, out, reading);
    } catch (...) {
      result.failure =
          current_error(reading < messages.size() ? "a message from rank " + std::to_string(reading)
                                                  : "encoding with " + binding_.codec->spec());
      flags = kSpoilt;
    }
  }
  if (flags != 0) write_header(*binding_.codec, step.elements.count, binding_.dtype, flags, out);
  message_size_[step.message] = address(step, out, bytes);
}

void Runner::decode(const Step& step, StepResult& result) {
  try {
    const Contents contents = open(step, step.message, step.peer, step.channel);
    result.told = (contents.flags & kSpoilt) != 0;
    if (contents.flags == 0) {
      bool streams = false;
      const auto to = fragments_of(step.elements, [&](const BoundTensor& tensor, const Range& own, auto) {
        streams = streams || tensor.out.bytes() >= kStreamedBytes;
        return tensor.out.slice(own.offset, own.count);
      });
      PieceCoder(*binding_.codec, binding_.dtype)
          .decode(contents, to, streams ? Into::stream : Into::overwrite, binding_.factor);
    } else if (contents.flags == kNonFinite) {
      result.flagged = true;
      undo(step.undo, step.elements);
    }
  } catch (...) {
    result.failure = current_error("a message from rank " + std::to_string(step.peer));
  }
}

// Every rank looks at all messages of a piece, and so knows by itself what an owner would have told it.
void Runner::sum(const Step& step, StepResult& result) {
  auto& messages = kept_by_thread<std::vector<Contents>>([] {});
  const std::uint8_t flags = open_all(step, messages, result, payload_due(step));
  for (const Contents& contents : messages) {
    result.told = result.told || (contents.flags & kSpoilt) != 0;
    result.flagged = result.flagged || contents.flags == kNonFinite;
  }
  std::size_t reading = messages.size();
  try {
    if (flags == 0) {
      const auto to = fragments_of(step.elements, [](const BoundTensor& tensor, const Range& own, auto) {
        return tensor.out.slice(own.offset, own.count);
      });
      PieceCoder(*binding_.codec, binding_.dtype)
          .sum(messages, to, step.average ? transport_.size() : 1.0, reading);
    } else if (result.flagged && !result.failure) {
      undo(step.undo, step.elements);
    }
  } catch (...) {
    result.failure =
        current_error(reading < messages.size() ? "a message from rank " + std::to_string(reading)
                                                : "taking back what " + binding_.codec->spec() + " encoded");
  }
}

// Numbers that ranks share: whether the piece is flagged, then those of the codec, of each fragment.
View Runner::shared_numbers(std::uint32_t message) const noexcept {
  const DType type = accumulator_of(binding_.dtype);
  return {slot(message).data(), message_size_[message] / size_of(type), type};
}

bool Runner::is_flagged_by_any(const View& shared) {
  return shared.dtype == DType::f64 ? shared.as<double>()[0] != 0 : shared.as<float>()[0] != 0;
}

void Runner::measure(const Step& step) {
  const SummableCodec& codec = *binding_.codec->summable();
  const auto fragments = inputs_of(step.elements);
  std::size_t numbers = 1;
  for (const Fragment& fragment : fragments) numbers += codec.shared_count(fragment.values.count);
  message_size_[step.message] = numbers * size_of(accumulator_of(binding_.dtype));
  const View shared = shared_numbers(step.message);
  bool flagged = false;
  std::size_t at = 1;
  for (const Fragment& fragment : fragments) {
    const View own = shared.slice(at, codec.shared_count(fragment.values.count));
    flagged =
        !codec.measure(fragment.values, fragment.residual, binding_.dtype, binding_.most, own) || flagged;
    at += own.count;
  }
  if (shared.dtype == DType::f64) {
    shared.as<double>()[0] = flagged ? 1 : 0;
  } else {
    shared.as<float>()[0] = flagged ? 1 : 0;
  }
}

void Runner::encode_addends(const Step& step) {
  const SummableCodec& codec = *binding_.codec->summable();
  const View shared = shared_numbers(step.shared);
  const bool flagged = is_flagged_by_any(shared);
  const auto out = slot(step.message);
  std::size_t written = 0;
  std::size_t at = 1;
  for (const Fragment& fragment : inputs_of(step.elements)) {
    const View numbers = shared.slice(at, codec.shared_count(fragment.values.count));
    const auto own = out.subspan(written, codec.addend_bytes(fragment.values.count, binding_.dtype));
    if (flagged) {
      std::fill(own.begin(), own.end(), std::byte{0});
    } else {
      codec.encode_addends(fragment.values, fragment.residual, binding_.dtype,
                           occasion(0).at(fragment.position), numbers, transport_.size(), own);
    }
    written += own.size();
    at += numbers.count;
  }
  message_size_[step.message] = written;
}

void Runner::decode_addends(const Step& step, StepResult& result) const {
  const View shared = shared_numbers(step.shared);
  result.flagged = is_flagged_by_any(shared);
  if (result.flagged) return;
  const SummableCodec& codec = *binding_.codec->summable();
  std::span<const std::byte> in = slot(step.message);
  std::size_t at = 1;
  const auto outputs =
      fragments_of(step.elements, [](const BoundTensor& tensor, const Range& own, std::uint64_t position) {
        return std::pair(tensor.out.slice(own.offset, own.count), position);
      });
  for (const auto& [out, position] : outputs) {
    const View numbers = shared.slice(at, codec.shared_count(out.count));
    const std::size_t bytes = codec.addend_bytes(out.count, binding_.dtype);
    codec.decode_addends(in.first(bytes), binding_.dtype, occasion(0).at(position), numbers,
                         transport_.size(), out, step.average ? 1.0 / transport_.size() : 1.0);
    in = in.subspan(bytes);
    at += numbers.count;
  }
}

void Runner::undo(std::uint32_t message, const Range& elements) const {
  const auto fragments = inputs_of(elements);
  if (std::all_of(fragments.begin(), fragments.end(),
                  [](const Fragment& f) { return f.residual.data == nullptr; })) {
    return;
  }
  const Contents contents =
      open_message(*binding_.codec, elements.count, binding_.dtype, message_in(message), std::nullopt);
  if (binding_.device == nullptr) {
    PieceCoder(*binding_.codec, binding_.dtype).undo(contents, fragments);
  } else if (contents.flags == 0) {
    binding_.codec->device()->undo(binding_.device->queue, fragments, device_slot(message) + kHeaderBytes);
    binding_.device->queue.wait();
  }
}

void Runner::spoil(const Error& failure) {
  failure_ = failure;
  spoilt_ = true;
}

// Waits for those who compute.
void Runner::settle() {
  while (!on_device_.empty()) {
    if (!poll_device()) std::this_thread::yield();
  }
  while (lent_ != 0) {
    pool_->wait_for(*this);
    take_back();
  }
}

void Runner::roll_back() {
  settle();
  const DefaultFloatingPoint mode;
  for (const std::uint32_t i : encoded_behind_gate_) {
    const Step& step = (*schedule_)[i];
    try {
      undo(step.message, step.elements);
    } catch (...) {
      if (!failure_) failure_ = current_error("taking back what " + binding_.codec->spec() + " encoded");
    }
  }
  encoded_behind_gate_.clear();
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "collective/message_store.hpp"

#include <array>
#include <string>

#include "collective/algorithms.hpp"
#include "core/assert.hpp"
#include "core/hash.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {

void MessageStore::begin(const Schedule& schedule, const Binding& binding, int first_tag) {
  const std::size_t bytes = schedule.slot_bytes();
  if (binding.device != nullptr) {
    DeviceSide& side = *binding.device;
    side.messages.reserve(side.queue.device(), bytes);
    side.on_host.reserve(side.queue.device(), bytes);
  } else {
    memory_.reserve(bytes);
  }
  const std::size_t slots = schedule.slots().size();
  sizes_.assign(slots, 0);
  at_host_.assign(slots, 0);
  sent_.assign(slots, 0);
  for (const Step& step : schedule.steps()) {
    if (step.verb == Verb::send) sent_[step.in.slot] = 1;
  }
  schedule_ = &schedule;
  binding_ = &binding;
  first_tag_ = first_tag;
}

std::span<std::byte> MessageStore::slot(std::uint32_t i) const noexcept {
  TERSE_ASSERT(i < sizes_.size(), "a slot is asked for that the schedule does not have", i, sizes_.size());
  const Range& range = schedule_->slots()[i];
  std::byte* memory = binding_->device != nullptr ? binding_->device->on_host.data() : memory_.data();
  return {memory + range.offset, range.count};
}

std::byte* MessageStore::on_device(std::uint32_t i) const noexcept {
  return binding_->device->messages.data() + schedule_->slots()[i].offset;
}

std::span<std::byte> MessageStore::on_wire(std::uint32_t i) const noexcept {
  const auto on_host = slot(i);
  if (binding_->device == nullptr || !binding_->direct || at_host_[i] != 0) return on_host;
  return {on_device(i), on_host.size()};
}

void MessageStore::set_size(std::uint32_t i, std::size_t bytes) noexcept {
  TERSE_ASSERT(bytes <= slot(i).size(), "a message is larger than its slot", i, bytes, slot(i).size());
  sizes_[i] = bytes;
}

// What makes a message fit here and nowhere else: the tag is one of this call and phase.
std::uint64_t MessageStore::message_id(std::uint8_t channel, int author,
                                       const Range& elements) const noexcept {
  const std::array<std::uint64_t, 3> parts = {static_cast<std::uint64_t>(first_tag_ + channel),
                                              static_cast<std::uint64_t>(author), elements.offset};
  return hash(std::as_bytes(std::span(parts)));
}

// What a flag says leads all ranks to meet: none may believe in one that was never sent.
void MessageStore::seal(const Operand& to, std::size_t bytes) noexcept {
  const auto out = slot(to.slot);
  if (to.channel != kUnsent) {
    const Sealed sealed = binding_->checksum || is_flagged(out.first(bytes)) ? Sealed::yes : Sealed::no;
    TERSE_ASSERT(bytes + (sealed == Sealed::yes ? kTrailerBytes : 0) <= out.size(),
                 "a message is larger than its slot", to.slot, bytes, out.size());
    bytes = terse::seal(out, bytes, message_id(to.channel, rank_, to.elements), sealed);
  }
  set_size(to.slot, bytes);
}

void MessageStore::write_flagged(const Step& step, std::uint8_t flags) noexcept {
  write_header(*binding_->codecs[step.codec], step.out.elements.count, binding_->dtype, flags,
               slot(step.out.slot));
  seal(step.out, kHeaderBytes);
}

Contents MessageStore::open(const Step& step, const Operand& from, std::uint32_t index, int author) const {
  TERSE_ASSERT(from.space == Space::message && index < from.slots,
               "a step opens a message that it does not read", from.space, index, from.slots);
  const bool own = author == rank_;
  const Contents contents = open_message(
      *binding_->codecs[step.codec], from.elements.count, binding_->dtype, message(from.slot + index),
      own ? std::optional<std::uint64_t>() : std::optional(message_id(from.channel, author, from.elements)));
  if (contents.dtype != binding_->dtype) {
    throw Error(ErrorCode::corrupt_data, "corrupt message: it holds " + std::string(name(contents.dtype)) +
                                             " where " + std::string(name(binding_->dtype)) + " is due");
  }
  if (!contents.sealed && (binding_->checksum || contents.flags != 0)) {
    throw Error(ErrorCode::corrupt_data, "corrupt message: its checksum is missing");
  }
  return contents;
}

namespace {

// The place of a fragment, which begins at `at` among the tensors one behind the other, in a space that holds
// at `operand` what the message of `elements` stands for.
std::size_t place_in(const Operand& operand, const Range& elements, std::size_t at) {
  return at - elements.offset + operand.elements.offset;
}

// The same in one tensor of that space, which begins there.
template <class ViewOf>
ViewOf slice_of(const ViewOf& whole, std::size_t place, std::size_t begin, std::size_t count) {
  TERSE_ASSERT(place >= begin && place - begin <= whole.count && count <= whole.count - (place - begin),
               "a step works on elements that its tensor does not have", place, begin, count, whole.count);
  return whole.slice(place - begin, count);
}

View residual_of(const BoundTensor& tensor, std::uint8_t phase, const Range& own) {
  if (phase == kNoResidual) return {};
  const Residual& residual = tensor.residuals[phase];
  if (residual.values.data == nullptr) return {};
  return slice_of(residual.values, own.offset, residual.begin, own.count);
}

// Elements `own` of a tensor, which begin at `at` among all. What is of a tensor as a whole goes with no
// part.
Fragment fragment_of(const BoundTensor& tensor, const ConstView& values, std::uint8_t phase, const Range& own,
                     std::size_t at, std::size_t count) {
  const bool whole = own.count == count;
  return {values, residual_of(tensor, phase, own), at, whole ? tensor.state : std::span<std::byte>(),
          whole ? tensor.rows : 0};
}

// make(tensor's index, its elements, where they begin among all) for what lies in a range.
template <class Make>
auto fragments_of(std::span<const Range> layout, const Range& elements, Make&& make) {
  using Made = decltype(make(std::size_t{}, elements, std::size_t{}));
  auto& made = kept_by_thread<std::vector<Made>>([] {});
  made.clear();
  for_each_fragment(layout, elements, [&](std::size_t t, const Range& own) {
    made.push_back(make(t, own, layout[t].offset + own.offset));
  });
  return std::span<const Made>(made);
}

View in_scratch(const MessageStore& store, const Operand& operand, DType dtype) {
  const auto memory = store.slot(operand.slot);
  return {memory.data(), memory.size() / size_of(dtype), dtype};
}

std::size_t begin_of(std::span<const Range> part, std::span<const Range> layout, std::size_t t) {
  return part.empty() ? layout[t].offset : part[t].offset;
}

}  // namespace

std::span<const Fragment> Pieces::inputs(const Operand& from, const Range& elements,
                                         std::uint8_t phase) const {
  return fragments_of(binding_.layout, elements, [&](std::size_t t, const Range& own, std::size_t at) {
    const BoundTensor& tensor = binding_.tensors[t];
    const std::size_t place = place_in(from, elements, at);
    const ConstView values =
        from.space == Space::scratch
            ? slice_of(ConstView(in_scratch(store_, from, binding_.dtype)), place, 0, own.count)
            : slice_of(from.space == Space::output ? ConstView(tensor.out) : tensor.in, place,
                       begin_of(from.space == Space::output ? binding_.out_layout : binding_.in_layout,
                                binding_.layout, t),
                       own.count);
    return fragment_of(tensor, values, phase, own, at, binding_.layout[t].count);
  });
}

std::span<const Fragment> Pieces::sums(const Range& elements, std::uint8_t phase) const {
  return fragments_of(binding_.layout, elements, [&](std::size_t t, const Range& own, std::size_t at) {
    const BoundTensor& tensor = binding_.tensors[t];
    return fragment_of(tensor, ConstView(nullptr, own.count, tensor.out.dtype, tensor.out.memory), phase, own,
                       at, binding_.layout[t].count);
  });
}

std::span<const View> Pieces::outputs(const Operand& to, const Range& elements) const {
  return fragments_of(binding_.layout, elements, [&](std::size_t t, const Range& own, std::size_t at) {
    const std::size_t place = place_in(to, elements, at);
    if (to.space == Space::scratch) {
      return slice_of(in_scratch(store_, to, binding_.dtype), place, 0, own.count);
    }
    return slice_of(binding_.tensors[t].out, place, begin_of(binding_.out_layout, binding_.layout, t),
                    own.count);
  });
}

std::size_t Pieces::message_bytes(const Codec& codec, const Range& elements) const {
  return terse::message_bytes(codec, binding_.dtype, binding_.layout, elements);
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "support/faulty_transport.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <thread>
#include <utility>

namespace terse::test {
namespace {

constexpr std::size_t kHeader = 16;
// How long a message waits for one to change places with, since there may be none, and how long it is left
// alone between two looks: who is to send the other needs the processor.
constexpr auto kPatience = std::chrono::milliseconds(50);
constexpr auto kNap = std::chrono::microseconds(100);

}  // namespace

std::string_view name(Fault fault) noexcept {
  constexpr std::array<std::string_view, std::size(kAllFaults)> kNames = {
      "flip", "flip_header", "overwrite", "truncate", "extend", "repeat_header", "swap", "replay", "delay"};
  return kNames[static_cast<std::size_t>(fault)];
}

std::string text_of(const FaultPlan& plan) {
  return std::string(name(plan.fault)) + " of " + std::to_string(plan.times) + " message(s) from " +
         std::to_string(plan.nth) + " on to rank " + std::to_string(plan.rank) + " under channel " +
         std::to_string(plan.channel) + (plan.bit ? ", bit " + std::to_string(*plan.bit) : "") + ", seed " +
         std::to_string(plan.seed);
}

FaultyTransport::FaultyTransport(Transport& inner, const FaultPlan& plan)
    : inner_(inner), plan_(plan), random_(plan.seed) {}

FaultyTransport::~FaultyTransport() {
  if (!transfers_.empty()) abandon();
}

int FaultyTransport::take_tags(int channels) { return first_tag_ = inner_.take_tags(channels); }

FaultyTransport::Transfer& FaultyTransport::add(Operation& operation) {
  operation = {};
  transfers_.emplace_back().outer = &operation;
  return transfers_.back();
}

void FaultyTransport::send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) {
  inner_.send(bytes, to, tag, add(operation).inner);
}

void FaultyTransport::start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                                       Operation& operation) {
  inner_.start_all_reduce(what, in, out, count, add(operation).inner);
}

void FaultyTransport::receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) {
  Transfer& transfer = add(operation);
  transfer.out = bytes;
  transfer.bytes.resize(bytes.size());
  transfer.from = from;
  transfer.tag = tag;
  for (Transfer& earlier : transfers_) {
    if (&earlier != &transfer && earlier.from == from && earlier.tag == tag && !earlier.next) {
      earlier.next = &transfer;
    }
  }
  if (inner_.rank() == plan_.rank && tag == first_tag_ + plan_.channel) {
    transfer.chosen = seen_ >= plan_.nth && seen_ - plan_.nth < plan_.times;
    ++seen_;
  }
  if (transfer.chosen && plan_.fault == Fault::delay) transfer.held = 1 + below(100);
  if (transfer.chosen && plan_.fault == Fault::swap) transfer.held = 1;
  inner_.receive(transfer.bytes, from, tag, transfer.inner);
}

bool FaultyTransport::is_held(const Transfer& transfer) const noexcept {
  if (!transfer.inner.done) return false;
  if (transfer.held != 0) return true;
  // who is to change places waits for the other
  return std::any_of(transfers_.begin(), transfers_.end(), [&](const Transfer& t) {
    return t.next == &transfer && t.held != 0 && plan_.fault == Fault::swap;
  });
}

void FaultyTransport::progress(Wait wait) {
  while (true) {
    bool holds = false;
    for (Transfer& transfer : transfers_) {
      if (transfer.inner.done && transfer.held != 0) {
        holds = true;
        if (plan_.fault == Fault::delay) {
          --transfer.held;
          delayed_ = true;
        } else if (transfer.since == Clock::time_point()) {
          transfer.since = Clock::now();
        } else if (Clock::now() - transfer.since > kPatience) {
          transfer.held = 0;
        }
      }
    }
    inner_.progress(wait == Wait::yes && !holds ? Wait::yes : Wait::no);
    if (settle() || wait == Wait::no || transfers_.empty()) return;
    if (holds && plan_.fault == Fault::swap) std::this_thread::sleep_for(kNap);
  }
}

bool FaultyTransport::settle() {
  bool any_done = false;
  for (Transfer& transfer : transfers_) {
    if (!transfer.inner.done || !transfer.outer) continue;
    const bool receives = transfer.from >= 0;
    Transfer* const next = transfer.next;
    if (transfer.held != 0 && plan_.fault == Fault::swap && next && next->inner.done && next->outer &&
        next->inner.bytes <= transfer.out.size() && transfer.inner.bytes <= next->out.size()) {
      const Bytes first(transfer.bytes.data(), transfer.bytes.data() + transfer.inner.bytes);
      const Bytes second(next->bytes.data(), next->bytes.data() + next->inner.bytes);
      transfer.held = 0;
      altered_ = altered_ || first != second;
      hand_over(transfer, second);
      hand_over(*next, first);
      any_done = true;
      continue;
    }
    if (is_held(transfer)) continue;
    any_done = true;
    if (!receives) {
      *std::exchange(transfer.outer, nullptr) = transfer.inner;
      continue;
    }
    const Bytes message(transfer.bytes.data(), transfer.bytes.data() + transfer.inner.bytes);
    const Bytes handed = transfer.chosen ? spoil(transfer, message) : message;
    altered_ = altered_ || handed != message;
    hand_over(transfer, handed);
    past_.push_back({transfer.from, message});
  }
  const auto is_over = [](const Transfer& t) { return t.outer == nullptr; };
  for (Transfer& transfer : transfers_) {
    if (transfer.next && is_over(*transfer.next)) transfer.next = nullptr;
  }
  transfers_.remove_if(is_over);
  return any_done;
}

void FaultyTransport::hand_over(Transfer& transfer, const Bytes& message) {
  std::copy(message.begin(), message.end(), transfer.out.begin());
  *std::exchange(transfer.outer, nullptr) = {true, message.size()};
}

FaultyTransport::Bytes FaultyTransport::spoil(const Transfer& transfer, const Bytes& message) {
  Bytes bytes = message;
  const std::size_t room = transfer.out.size();
  const auto flip_one_of = [&](std::size_t first) {
    const std::size_t bit = plan_.bit ? *plan_.bit : below(8 * first);
    if (bit >= 8 * first) return;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  };
  switch (plan_.fault) {
    case Fault::flip:
      flip_one_of(bytes.size());
      break;
    case Fault::flip_header:
      flip_one_of(std::min(kHeader, bytes.size()));
      break;
    case Fault::overwrite: {
      const std::size_t begin = below(bytes.size());
      const std::size_t end = begin + 1 + below(bytes.size() - begin);
      for (std::size_t i = begin; i < std::min(end, bytes.size()); ++i) bytes[i] = any();
      break;
    }
    case Fault::truncate:
      bytes.resize(random_() % 4 == 0 ? 0 : below(bytes.size()));
      break;
    case Fault::extend:
      for (std::size_t more = 1 + below(room - bytes.size()); more > 0 && bytes.size() < room; --more) {
        bytes.push_back(any());
      }
      break;
    case Fault::repeat_header: {
      const std::size_t header = std::min(kHeader, message.size());
      bytes.insert(bytes.begin(), message.begin(), message.begin() + static_cast<std::ptrdiff_t>(header));
      bytes.resize(std::min(bytes.size(), room));
      break;
    }
    case Fault::replay: {
      std::vector<const Bytes*> candidates;
      for (const Past& past : past_) {
        if (past.from == transfer.from && past.bytes.size() <= room && past.bytes != message) {
          candidates.push_back(&past.bytes);
        }
      }
      if (!candidates.empty()) bytes = *candidates[below(candidates.size())];
      break;
    }
    case Fault::swap:  // had nobody to change places with
    case Fault::delay:
      break;
  }
  return bytes;
}

void FaultyTransport::abandon() noexcept {
  inner_.abandon();
  // what was on its way may still be written to
  static std::mutex mutex;
  static std::list<std::list<Transfer>> given_up;
  const std::lock_guard lock(mutex);
  given_up.push_back(std::move(transfers_));
  transfers_.clear();
}

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#include "collective/max_reduction.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <terse/error.hpp>

namespace terse::inline v0_1 {

MaxReduction::~MaxReduction() {
  if (!done()) transport_.abandon();
}

void MaxReduction::start(std::span<const std::uint64_t> values, int tag) {
  count_ = values.size();
  bytes_sent_ = 0;
  std::copy(values.begin(), values.end(), values_.begin());
  tag_ = tag;
  distance_ = 0;
  if (transport_.size() == 1) return;
  distance_ = 1;
  begin_round();
}

void MaxReduction::begin_round() {
  const int ranks = transport_.size();
  const int rank = transport_.rank();
  out_ = values_;
  bytes_sent_ += count_ * sizeof(std::uint64_t);
  transport_.receive(std::as_writable_bytes(std::span(in_).first(count_)), (rank - distance_ + ranks) % ranks,
                     tag_, received_);
  transport_.send(std::as_bytes(std::span(out_).first(count_)), (rank + distance_) % ranks, tag_, sent_);
}

void MaxReduction::advance() {
  while (!done() && sent_.done && received_.done) {
    if (received_.bytes != count_ * sizeof(std::uint64_t)) {
      throw Error(ErrorCode::communication,
                  "ranks are in different calls: " + std::to_string(received_.bytes) +
                      " bytes came where numbers to agree on were due");
    }
    for (std::size_t i = 0; i < count_; ++i) values_[i] = std::max(values_[i], in_[i]);
    distance_ *= 2;
    if (distance_ >= transport_.size()) {
      distance_ = 0;
    } else {
      begin_round();
    }
  }
}

void max_of_ranks(Transport& transport, std::span<std::uint64_t> values) {
  auto reduction = std::make_unique<MaxReduction>(transport);
  try {
    reduction->start(values, transport.take_tags(1));
    while (reduction->advance(), !reduction->done()) transport.progress(Transport::Wait::yes);
  } catch (...) {
    transport.abandon();
    static_cast<void>(reduction.release());  // messages may still be on their way
    throw;
  }
  std::copy(reduction->values().begin(), reduction->values().end(), values.begin());
}

}  // namespace terse::inline v0_1

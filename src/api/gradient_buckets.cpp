// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <terse/gradient_buckets.hpp>
#include <utility>
#include <vector>

#include "codec/feedback_state.hpp"

namespace terse::inline v0_1 {

struct GradientBuckets::Impl {
  struct Bucket {
    std::vector<Tensor> tensors;
    std::size_t missing = 0;
    Request request;
  };

  Communicator* communicator = nullptr;
  Op op = Op::sum;
  CallOptions options;
  std::vector<Feedback> feedbacks;     // by tensor
  std::vector<std::size_t> bucket_of;  // by tensor
  std::vector<bool> is_ready;          // by tensor
  std::vector<Bucket> buckets;
  std::size_t next = 0;  // bucket that has not begun

  static Impl& of(const std::unique_ptr<Impl>& buckets) {
    if (buckets) return *buckets;
    throw Error(ErrorCode::invalid_state, "these GradientBuckets were moved from: make new ones");
  }
  void begin_due() {
    for (; next < buckets.size() && buckets[next].missing == 0; ++next) begin(buckets[next]);
  }
  void begin(Bucket& bucket) { bucket.request = communicator->iallreduce(bucket.tensors, op, options); }
  void begin_step() {
    next = 0;
    is_ready.assign(is_ready.size(), false);
    for (Bucket& bucket : buckets) bucket.missing = bucket.tensors.size();
  }
  std::size_t checked(std::size_t tensor) const {
    if (tensor < bucket_of.size()) return tensor;
    throw Error(ErrorCode::invalid_argument, "there is no tensor " + std::to_string(tensor) +
                                                 ": these buckets hold " + std::to_string(bucket_of.size()));
  }
};

GradientBuckets::GradientBuckets(Communicator& communicator, std::span<const View> tensors, Op op,
                                 std::size_t bucket_bytes, const CallOptions& options)
    : impl_(std::make_unique<Impl>()) {
  if (bucket_bytes == 0) {
    throw Error(ErrorCode::invalid_argument, "bucket_bytes is 0: use at least 1, such as 25 MiB");
  }
  if (options.feedback != nullptr) {
    throw Error(ErrorCode::invalid_argument,
                "GradientBuckets keep the residuals of their tensors: leave options.feedback null");
  }
  impl_->communicator = &communicator;
  impl_->op = op;
  impl_->options = options;
  // small ones too, since others must hear where a tensor was not ready
  const Policy& defaults = communicator.options().policy;
  impl_->options.policy.check = std::max(options.policy.check.value_or(*defaults.check), Check::all);
  const ResidualType residual = options.policy.residual.value_or(*defaults.residual);
  for (const View& tensor : tensors) {
    impl_->feedbacks.emplace_back(residual_type_for(tensor.dtype, residual));
  }
  impl_->is_ready.resize(tensors.size());
  std::size_t bytes = bucket_bytes;  // in the last bucket, which takes no more
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    auto& buckets = impl_->buckets;
    if (bytes >= bucket_bytes || buckets.back().tensors[0].in.dtype != tensors[t].dtype) {
      buckets.emplace_back();
      bytes = 0;
    }
    buckets.back().tensors.emplace_back(tensors[t], &impl_->feedbacks[t]);
    bytes += tensors[t].bytes();
    impl_->bucket_of.push_back(buckets.size() - 1);
  }
  impl_->begin_step();
}

GradientBuckets::GradientBuckets(GradientBuckets&&) noexcept = default;
GradientBuckets& GradientBuckets::operator=(GradientBuckets&&) noexcept = default;
GradientBuckets::~GradientBuckets() = default;

void GradientBuckets::ready(std::size_t tensor) {
  Impl::of(impl_);
  if (impl_->is_ready[impl_->checked(tensor)]) {
    throw Error(
        ErrorCode::invalid_argument,
        "tensor " + std::to_string(tensor) + " is ready twice: wait() ends a step, and another may begin");
  }
  impl_->is_ready[tensor] = true;
  --impl_->buckets[impl_->bucket_of[tensor]].missing;
  impl_->begin_due();
  if (impl_->next != 0) impl_->buckets[impl_->next - 1].request.test();
}

Outcome GradientBuckets::wait() {
  Impl::of(impl_);
  Outcome all{.reason = Outcome::Reason::none};
  std::exception_ptr error;
  const auto note = [&](auto&& work) {
    try {
      work();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  };
  // What this rank did not fill, the others are about to reduce, so it takes part and tells them.
  for (std::size_t t = 0; t < impl_->is_ready.size() && !impl_->options.failure; ++t) {
    if (impl_->is_ready[t]) continue;
    impl_->options.failure =
        Error(ErrorCode::invalid_state, "tensor " + std::to_string(t) +
                                            " was not ready when its step was to end: call ready() for each");
  }
  note([&] {
    for (; impl_->next < impl_->buckets.size(); ++impl_->next) impl_->begin(impl_->buckets[impl_->next]);
  });
  impl_->options.failure.reset();
  for (Impl::Bucket& bucket : impl_->buckets) {
    if (!bucket.request.active()) continue;
    note([&] {
      const Outcome one = bucket.request.wait();
      all.algorithm = one.algorithm;
      if (one.result == Outcome::Result::compressed) all.result = Outcome::Result::compressed;
      if (one.reason != Outcome::Reason::none) all.reason = one.reason;
      all.bytes_sent += one.bytes_sent;
      all.exact_count += one.exact_count;
    });
  }
  impl_->begin_step();
  if (error) std::rethrow_exception(error);
  return all;
}

std::size_t GradientBuckets::buckets() const noexcept { return impl_ ? impl_->buckets.size() : 0; }

Feedback& GradientBuckets::feedback(std::size_t tensor) {
  return Impl::of(impl_).feedbacks[impl_->checked(tensor)];
}

}  // namespace terse::inline v0_1

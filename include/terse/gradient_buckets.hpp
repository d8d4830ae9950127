// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <terse/communicator.hpp>
#include <terse/options.hpp>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// A training step's gradients in buckets, each reduced in place as one message as soon as all of its tensors
/// are there: so that the network works while the backward pass does.
///
///   for (layer = last; layer >= first; --layer) { backward(layer); buckets.ready(index_of(layer)); }
///   buckets.wait();
///
/// Tensors may become ready in any order, another one on each rank: buckets always go out in their own order.
/// Keeps the residuals of all tensors, of type options.policy.residual. For the thread that uses its
/// Communicator, which outlives it and stays where it is.
class TERSE_API GradientBuckets {
 public:
  /// `tensors` in the order in which they are expected to become ready, as backward passes have it the last
  /// layer's first; a bucket holds consecutive ones of one dtype, and is closed once it has `bucket_bytes`.
  /// All ranks pass the same. Small buckets are agreed upon too (Check::all). Errors: invalid_argument where
  /// bucket_bytes is 0, or options.feedback is not null, since each tensor has residuals of its own here.
  GradientBuckets(Communicator& communicator, std::span<const View> tensors, Op op, std::size_t bucket_bytes,
                  const CallOptions& options = {});
  GradientBuckets(GradientBuckets&&) noexcept;
  GradientBuckets& operator=(GradientBuckets&&) noexcept;
  /// As Request's.
  ~GradientBuckets();

  /// This step's gradient is in its memory, or that is queued on options.stream of its device: it belongs to
  /// the buckets until wait(). Begins the reductions that are due, and makes progress with those under way.
  /// Errors: invalid_argument for a tensor that there is not, or that is ready already; invalid_state for
  /// buckets that were moved from, as wait() and feedback().
  void ready(std::size_t tensor);
  /// Waits until all are reduced; then another step may begin. Says what it did: `compressed` where any
  /// bucket was, the bytes and exact elements of all, and the reason of the last that gives one. Errors:
  /// those of Communicator::allreduce, the first bucket's that has one; on all ranks invalid_state, which
  /// names tensor and rank, where a tensor of a rank was not ready.
  Outcome wait();

  std::size_t buckets() const noexcept;
  /// A tensor's residuals, to save, load or reset between steps. Errors: invalid_argument.
  Feedback& feedback(std::size_t tensor);

 private:
  struct [[gnu::visibility("hidden")]] Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace terse::inline v0_1

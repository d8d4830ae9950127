// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <terse/types.hpp>
#include <vector>

namespace terse::inline v0_1 {

struct FeedbackState;

/// What a lossy codec has left out of one tensor so far: this rank's worker residual (one value per element)
/// and its server residual (one value per element of the chunk that this rank owns). The caller keeps one per
/// tensor and rank.
///
/// Residuals are kept in the accumulator's type, or in bf16: half the memory of f32 and less of its traffic,
/// at an error in each step of up to 2^-8 of the residual, which no later step makes good
/// (docs/algorithms.md). All ranks' Feedbacks of a tensor must be of one type; bf16 is not for f64 tensors,
/// whose calls throw unsupported.
///
/// Sized by the first call that uses it, and bound to that call's count, dtype, codec, algorithm, rank and
/// number of ranks, and where the codec keeps a state (EncodeContext::state) to the tensor's rows: another
/// use is an error until reset(). One call at a time; after a call that threw half way (see
/// Communicator::allreduce), reset() it or load an earlier save.
class TERSE_API Feedback {
 public:
  Feedback();
  explicit Feedback(ResidualType type);
  ~Feedback();
  Feedback(Feedback&&) noexcept;
  Feedback& operator=(Feedback&&) noexcept;

  /// All that is needed to go on later with bit-identical results: residuals and the codec's state, or that
  /// `auto` chose plain MPI for this tensor. Empty if never used.
  std::vector<std::byte> save() const;
  /// Takes the place of what is held, and brings its own type of residuals along, if it is not empty. For the
  /// same rank of the same number of ranks. Saves of earlier formats are of type `full`.
  /// Errors: corrupt_data, unsupported for another format's, invalid_state while a call uses it; what was
  /// held is then unchanged.
  void load(std::span<const std::byte> saved);
  /// Re-sharding: the saves of *all* ranks of an earlier run, in rank order, for use on any number of ranks.
  /// Nothing owed is lost: the new server residuals are the old ones plus the mean of the old worker
  /// residuals, the new worker residuals are zero. The codec's state begins anew. Sums are formed in the
  /// accumulator's type; saves with bf16 residuals, whose type this Feedback takes on, make the first call
  /// round them to bf16.
  /// Errors: corrupt_data, invalid_argument where the saves are not of one run, unsupported for those of
  /// onebit:deepspeed, invalid_state while a call uses it; what was held is then unchanged.
  void load(std::span<const std::vector<std::byte>> saved_of_all_ranks);
  /// Forgets everything but the type of residuals. Errors: invalid_state while a call uses it.
  void reset();

  /// How residuals are kept.
  ResidualType residual_type() const;
  /// Compressed calls since the start or the last reset.
  std::uint64_t calls() const;
  /// The worker residual, as many elements as the tensor (as the padded one, by onebit:deepspeed); empty
  /// before the first use. In device memory where the last call's tensor was.
  ConstView worker() const;
  /// The server residual, as many elements as this rank's chunk; empty before the first use.
  ConstView server() const;
  /// Where the chunk begins in the tensor, in elements.
  std::size_t server_begin() const;

 private:
  friend FeedbackState& state_of(const Feedback& feedback);
  FeedbackState& state() const;

  std::unique_ptr<FeedbackState> state_;
};

}  // namespace terse::inline v0_1

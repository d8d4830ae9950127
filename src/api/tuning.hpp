// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <terse/types.hpp>
#include <utility>
#include <vector>

#include "collective/engine.hpp"

namespace terse::inline v0_1 {

/// What calls took in a trial: the slowest rank's times.
struct Trial {
  double plain_us;
  double compressed_us;
};

/// With min_bytes=auto, tensors below this are always reduced exactly, without a trial and without agreement:
/// the two phases, and the agreement itself, cost more than one small reduction on any network.
inline constexpr std::size_t kAlwaysExact = 2048;

/// Tensors of similar size have a class in common: class k begins at kAlwaysExact * 4^k, but for the first,
/// which has all that is smaller, and the last, which has all that is larger.
inline constexpr std::size_t kSizeClasses = 8;
std::size_t size_class(std::size_t bytes) noexcept;
/// The size at which a class is tried.
std::size_t trial_bytes(std::size_t size_class) noexcept;

/// Whether larger sizes need no trial: compression won by a factor of two, twice in succession.
bool is_settled(std::span<const Trial> trials) noexcept;
/// Whether compression pays for a class: by its own trial, or by the last where larger sizes need none.
bool pays(std::span<const Trial> trials, std::size_t size_class) noexcept;

/// What a communicator's trials have shown so far, the same on all its ranks.
class Tuning {
 public:
  /// Whether the call's codec and algorithm take less time than plain MPI, with feedback if the call has it.
  /// Tries what is not known yet, class by class; then it is collective and begins with the agreement, by the
  /// call's terms. Times are the transport's. Where a rank has no memory for that, plain MPI takes the call.
  bool compression_pays(Engine& engine, const Call& call);

 private:
  // by codec, algorithm, dtype and whatever else changes the time: a trial a class
  std::map<std::string, std::vector<Trial>> trials_;
  std::string kind_;  // the key that is being looked for
};

}  // namespace terse::inline v0_1

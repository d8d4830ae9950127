// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/error.hpp>
#include <utility>
#include <vector>

#include "collective/max_reduction.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// An error that all ranks throw in the same place: they are still in step.
class AgreedError : public Error {
 public:
  explicit AgreedError(const Error& error) : Error(error) {}
};

/// Whether all ranks make the same call, or have come to the same end of it: one small reduction, which may
/// travel while something else is done. Used again and again.
class Agreement {
 public:
  explicit Agreement(Transport& transport) : maximum_(transport) {}

  /// Begins with what the ranks must have in common, as a number, and how this rank stands: whether its
  /// tensors are the host's is no fault, but the others may want to know. Collective.
  enum class Stand : std::uint8_t { well, host_tensor, failed };
  void start(std::uint64_t digest, Stand stand, int tag);
  /// Collects what the transport has done and goes on.
  void advance() { maximum_.advance(); }
  bool done() const noexcept { return maximum_.done(); }
  /// When done: whether all ranks agree and none has failed. All ranks get the same answer.
  bool reached() const noexcept;
  /// Where it is reached: whether any rank has its tensors on the host.
  bool any_host_tensor() const noexcept;
  std::size_t bytes_sent() const noexcept { return maximum_.bytes_sent(); }

 private:
  MaxReduction maximum_;
};

/// What each rank has to say to all others, by messages: what it thinks the ranks have in common, or what it
/// has found wrong.
class ErrorReports {
 public:
  /// Names and values.
  using Fields = std::vector<std::pair<std::string, std::string>>;

  explicit ErrorReports(Transport& transport) : transport_(transport) {}
  /// Left before its end, it takes the transport with it.
  ~ErrorReports();
  ErrorReports(const ErrorReports&) = delete;
  ErrorReports& operator=(const ErrorReports&) = delete;

  /// Memory that start() needs, which stays in place even if the transport gives up.
  static std::size_t bytes(int ranks) noexcept;
  enum class Hears : std::uint8_t { no, yes };
  /// Sends this rank's report to all others. With Hears::no it does not wait for theirs: a report is small
  /// enough to be sent eagerly, so that it needs nobody to receive it.
  void start(const Fields& fields, const std::optional<Error>& failure, int tag, std::span<std::byte> memory,
             Hears hears);
  bool done() const noexcept;
  /// When done, with Hears::yes.
  struct Verdict {
    /// The same on all ranks that received all reports: which have failed, or how ranks differ.
    std::optional<Error> error{};
    /// A report that came corrupt says nothing. Where no other rank is known to have failed and the reports
    /// that could be read agree, this is why this rank cannot tell.
    std::optional<Error> unheard{};
    /// What to throw where it is known that all is not well.
    Error agreed() const;
  };
  Verdict verdict() const;
  /// Bytes of this rank's reports.
  std::size_t bytes_sent() const noexcept { return bytes_sent_; }

 private:
  Transport& transport_;
  int tag_ = 0;
  std::size_t bytes_sent_ = 0;
  std::size_t own_bytes_ = 0;
  std::span<std::byte> memory_{};
  std::vector<Operation> sent_;
  std::vector<Operation> heard_;
};

/// The whole of it at once: collective; throws AgreedError on all ranks alike unless all agree and none has
/// failed.
void require_agreement(Transport& transport, const ErrorReports::Fields& fields,
                       const std::optional<Error>& failure);
/// The same with a digest of the fields, and under this tag and the next.
void require_agreement(Transport& transport, std::uint64_t digest, const ErrorReports::Fields& fields,
                       const std::optional<Error>& failure, int tag);

}  // namespace terse::inline v0_1

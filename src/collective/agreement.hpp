// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/error.hpp>
#include <utility>
#include <vector>

#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// An error that all ranks throw in the same place: they are still in step.
class AgreedError : public Error {
 public:
  explicit AgreedError(const Error& error) : Error(error) {}
};

/// Whether all ranks make the same call, or have come to the same end of it: one small reduction, which may
/// travel while something else is done.
class Agreement {
 public:
  /// What the ranks must have in common, by name; or what this rank has found wrong with its own arguments.
  using Fields = std::vector<std::pair<std::string_view, std::string>>;
  Agreement(Transport& transport, const Fields& fields, const std::optional<Error>& failure);
  /// Left before its end, it takes the transport with it.
  ~Agreement();
  Agreement(const Agreement&) = delete;
  Agreement& operator=(const Agreement&) = delete;

  /// The whole of it: collective; throws AgreedError on all ranks alike unless all agree and none has failed.
  void require();

  // The same in parts, for those who have something to do meanwhile.
  /// Starts the reduction: collective, in start order.
  void start();
  bool done() const noexcept { return operation_.done; }
  /// When done: whether all ranks agree and none has failed.
  bool reached() const noexcept;
  /// When done and not reached: collective; throws the same AgreedError on all ranks, which names ranks and
  /// values.
  [[noreturn]] void explain();

  // The same by messages under a tag, where it is not known whether all ranks take part: a rank may have
  // failed without knowing whether the others have reason to stop. The memory, part_bytes() of it, stays in
  // place even if the transport gives up.
  static std::size_t part_bytes(int ranks) noexcept;
  /// Leaves word of this rank with all others. Needs nobody to listen: a word is a message of the kind that
  /// MPI libraries keep for who asks for it later, or never.
  void tell(int tag, std::span<std::byte> memory);
  /// The same, and hears the others' words: throws Error where require() would throw AgreedError. A word that
  /// came corrupt says nothing: where nobody else is known to have failed, it is returned as an error, and
  /// those who heard all words go on.
  std::optional<Error> tell_and_hear(int tag, std::span<std::byte> memory);
  /// Bytes of this rank's words.
  std::size_t bytes_sent() const noexcept { return bytes_sent_; }

 private:
  std::span<std::byte> write_record(std::span<std::byte> memory, std::uint64_t place) const;
  enum class Hears : std::uint8_t { no, yes };
  std::vector<std::size_t> exchange(int tag, std::span<std::byte> memory, Hears hears);
  Transport& transport_;
  std::string text_;  // name=value lines, or the sentence of a failure
  std::optional<ErrorCode> failure_;
  std::array<std::uint64_t, 3> words_{};  // hash, its complement, failed
  bool started_ = false;
  bool exchanging_ = false;
  std::size_t bytes_sent_ = 0;
  Operation operation_;
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transport/transport.hpp"

namespace terse::test {

/// What may happen to a message on its way.
enum class Fault : std::uint8_t {
  flip,           ///< one bit
  flip_header,    ///< one bit of the first 16 bytes
  overwrite,      ///< a run of bytes, by others
  truncate,       ///< cut anywhere, to nothing too
  extend,         ///< more bytes than were sent, where the receive has room
  repeat_header,  ///< the first 16 bytes once more, in front of the rest
  swap,           ///< changes places with the next one of the same sender and tag
  replay,         ///< an earlier message of the same sender comes instead, of this call or another
  delay           ///< comes late, as it was sent
};
inline constexpr Fault kAllFaults[] = {Fault::flip,     Fault::flip_header, Fault::overwrite,
                                       Fault::truncate, Fault::extend,      Fault::repeat_header,
                                       Fault::swap,     Fault::replay,      Fault::delay};
std::string_view name(Fault fault) noexcept;

/// What happens to whom.
struct FaultPlan {
  Fault fault = Fault::delay;
  int rank = 0;                      ///< who receives the message
  int channel = 0;                   ///< its tag, counted from the first of its call
  std::size_t nth = 0;               ///< which of these messages, counted over all calls
  std::size_t times = 1;             ///< how many from that one on
  std::optional<std::size_t> bit{};  ///< the one that flips
  std::uint64_t seed = 1;            ///< of what the plan leaves open
};
std::string text_of(const FaultPlan& plan);

/// A rank's transport on which some messages do not arrive as they were sent. It keeps the contract of
/// Transport over any other that does, and so it serves ranks that are threads and ranks under mpirun alike.
/// A message is changed where it is received: only there is it known what room there is.
class FaultyTransport final : public Transport {
 public:
  /// `inner` outlives it.
  FaultyTransport(Transport& inner, const FaultPlan& plan);
  ~FaultyTransport() override;
  FaultyTransport(const FaultyTransport&) = delete;
  FaultyTransport& operator=(const FaultyTransport&) = delete;

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int take_tags(int channels) override;
  void send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) override;
  void receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) override;
  void progress(Wait wait) override;
  using Transport::all_reduce;
  using Transport::start_all_reduce;
  void all_reduce(Reduction what, const void* in, void* out, std::size_t count) override {
    inner_.all_reduce(what, in, out, count);
  }
  void start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                        Operation& operation) override;
  std::uint64_t now() const noexcept override { return inner_.now(); }
  void abandon() noexcept override;
  bool abandoned() const noexcept override { return inner_.abandoned(); }

  /// Whether this rank was handed other bytes than were sent to it.
  bool altered() const noexcept { return altered_; }
  /// Whether a message was held back.
  bool delayed() const noexcept { return delayed_; }

 private:
  using Bytes = std::vector<std::byte>;
  using Clock = std::chrono::steady_clock;
  struct Transfer {
    Operation inner{};
    Operation* outer = nullptr;
    std::span<std::byte> out{};  // of a receive: where the caller wants it
    Bytes bytes{};               // and where it comes first, with as much room
    int from = -1;
    int tag = -1;
    bool chosen = false;
    std::size_t held = 0;       // not 0: still held back; of a delayed one, for so many calls of progress()
    Clock::time_point since{};  // of one that waits to change places
    Transfer* next = nullptr;   // of a chosen one: the next receive of the same sender and tag
  };

  Transfer& add(Operation& operation);
  /// Ends what is done inside; says whether anything was.
  bool settle();
  bool is_held(const Transfer& transfer) const noexcept;
  void hand_over(Transfer& transfer, const Bytes& message);
  Bytes spoil(const Transfer& transfer, const Bytes& message);
  std::size_t below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random_() % n); }
  std::byte any() { return static_cast<std::byte>(random_()); }

  Transport& inner_;
  FaultPlan plan_;
  std::mt19937_64 random_;
  int first_tag_ = 0;
  std::size_t seen_ = 0;  // messages that the plan speaks of
  bool altered_ = false;
  bool delayed_ = false;
  std::list<Transfer> transfers_;  // stay where they are: the inner transport writes to them
  struct Past {
    int from;
    Bytes bytes;
  };
  std::vector<Past> past_;
};

}  // namespace terse::test

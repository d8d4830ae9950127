// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "support/stack_dump.hpp"
#include "transport/transport.hpp"

namespace terse::test {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// What a loop goes over, such as numbers of ranks; under a sanitizer, which takes long and looks for
/// something else than wrong results, every second one, with the last.
template <class T>
std::vector<T> thinned(std::initializer_list<T> all) {
  std::vector<T> kept(all);
  if (!kSanitized) return kept;
  std::size_t n = 0;
  for (std::size_t i = (kept.size() + 1) % 2; i < kept.size(); i += 2) kept[n++] = kept[i];
  kept.resize(n);
  return kept;
}

/// How the ranks' threads are run.
struct ThreadOptions {
  std::uint64_t seed = 1;  ///< of the order in which operations complete
  int max_delay_us = 0;    ///< every message is held back for a random time up to this
  double patience_s = 60;  ///< without any progress of any rank: a hang
  /// What a rank's clock shows each time it is read; by default, the time.
  std::function<std::uint64_t(int rank)> clock{};
};

class ThreadWorld;

/// A rank of a ThreadWorld. Completes operations in random order and as late as the contract allows; is
/// strict where MPI leaves things undefined: the bytes of a send may not change before it is done, a message
/// must fit its receive, collectives must come in one order and size on all ranks. Breaking a rule is an
/// Error(communication) on all ranks.
class ThreadTransport final : public Transport {
 public:
  ThreadTransport(ThreadWorld& world, int rank, std::uint64_t seed);

  int rank() const override { return rank_; }
  int size() const override;
  int take_tags(int channels) override;
  void send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) override;
  void receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) override;
  void progress(Wait wait) override;
  using Transport::all_reduce;
  using Transport::start_all_reduce;
  void all_reduce(Reduction what, const void* in, void* out, std::size_t count) override;
  void start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                        Operation& operation) override;
  std::uint64_t now() const noexcept override;
  void abandon() noexcept override;
  bool abandoned() const noexcept override { return abandoned_; }

  /// Operations started and not done.
  std::size_t in_flight() const;
  /// Bytes of all messages sent so far, and how many there were.
  std::size_t bytes_sent() const noexcept { return bytes_sent_; }
  /// The least that reductions have sent: 2 (P - 1) / P of their bytes.
  std::size_t bytes_reduced() const noexcept { return bytes_reduced_; }
  std::size_t messages_sent() const noexcept { return messages_sent_; }

 private:
  friend class ThreadWorld;
  struct Send {
    std::span<const std::byte> bytes;
    std::vector<std::byte> copy;
    int to, tag;
    bool delivered;
    Operation* operation;
  };
  struct Receive {
    std::span<std::byte> bytes;
    int from, tag;
    Operation* operation;
  };
  struct Started {
    Reduction what;
    void* out;
    std::size_t count;
    std::size_t collective;
    Operation* operation;
  };
  using Lock = std::unique_lock<std::mutex>;

  void check_usable() const;
  void note_reduced(std::size_t bytes);
  void deliver(Send& send);
  void deliver_all();
  bool complete_some(bool at_least_one, std::chrono::steady_clock::time_point& next);
  std::vector<std::byte> collective(const char* kind, std::span<const std::byte> mine);
  std::vector<std::byte> take_parts(std::size_t index);
  std::string waits_for() const;

  ThreadWorld& world_;
  int rank_;
  std::mt19937_64 random_;
  bool abandoned_ = false;
  int next_tag_ = 0;
  std::size_t next_collective_ = 0;
  std::size_t bytes_sent_ = 0;
  std::size_t bytes_reduced_ = 0;
  std::size_t messages_sent_ = 0;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  std::vector<Started> reductions_;
};

/// Mailboxes and what ranks know of one another; see run_ranks.
class ThreadWorld {
 public:
  ThreadWorld(int ranks, ThreadOptions options);
  std::vector<std::exception_ptr> run(const std::function<void(ThreadTransport&)>& body);

 private:
  friend class ThreadTransport;
  using Clock = std::chrono::steady_clock;
  using Lock = std::unique_lock<std::mutex>;
  struct Message {
    std::vector<std::byte> bytes;
    Clock::time_point visible;
  };
  struct Collective {
    std::string kind;
    std::size_t bytes = 0;
    int arrived = 0;
    int left = 0;  // ranks that have taken the result
    std::vector<std::vector<std::byte>> parts;
  };
  struct Rank {
    std::condition_variable changed;
    bool blocked = false;
    bool ended = false;
    const char* inside = nullptr;
    pid_t thread = 0;
  };

  std::size_t join(int rank, std::size_t index, const char* kind, std::span<const std::byte> mine);
  void leave(std::size_t index);
  bool complete(std::size_t index) const { return collectives_[index].arrived == ranks(); }
  void block(Lock& lock, int rank, Clock::time_point next);
  void wake(int rank);
  void break_with(const std::string& why);
  void find_deadlock();
  std::string picture() const;
  std::string stacks() const;
  int ranks() const { return static_cast<int>(ranks_.size()); }
  void watch();

  mutable std::mutex mutex_;
  ThreadOptions options_;
  std::deque<Rank> ranks_;
  std::deque<ThreadTransport> transports_;
  std::map<std::tuple<int, int, int>, std::deque<Message>> boxes_;
  std::deque<Collective> collectives_;
  std::string broken_;
  std::uint64_t activity_ = 0;
  int ended_ = 0;
  std::condition_variable all_ended_;
};

/// Runs `body` on `ranks` threads, each with its transport, and gives each rank's exception back (null:
/// none). Ranks that wait for what can never come get an Error(communication) that draws the picture; a hang
/// of another kind does too, after the patience, shows all ranks' stacks, and ends the process if that does
/// not help. Messages or operations left over when no rank has thrown are an error of rank 0.
std::vector<std::exception_ptr> try_ranks(int ranks, const std::function<void(ThreadTransport&)>& body,
                                          const ThreadOptions& options = {});

/// The same; throws the first of the ranks' exceptions.
void run_ranks(int ranks, const std::function<void(ThreadTransport&)>& body,
               const ThreadOptions& options = {});

/// What an exception says: "mismatch: ..." for an Error; empty for none.
std::string sentence_of(const std::exception_ptr& error);

}  // namespace terse::test

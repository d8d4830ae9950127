// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <terse/communicator.hpp>
#include <vector>

#include "interpose/settings.hpp"
#include "interpose/tally.hpp"
#include "interpose/tensors.hpp"

namespace terse::interpose {

/// The arguments of MPI_Allreduce, as C has them, and where in the program the call stands.
struct Arguments {
  const void* sendbuf;
  void* recvbuf;
  int count;
  MPI_Datatype datatype;
  MPI_Op op;
  MPI_Comm comm;
  const void* site;
};

/// MPI_Allreduce: the call made as the drop-in sees fit, or passed on. Throws what an error handler of the
/// program throws, and nothing else.
int allreduce(const Arguments& call);

/// What is known of one of the program's communicators: an attribute of it.
struct CommState {
  bool passes = false;  ///< all calls on it are passed on
  bool own = false;     ///< the library has made it for itself
  std::uint64_t size = 1;
  /// As all ranks have it, empty where they differ; none: no rule has asked for it so far.
  std::optional<std::string> name{};
  /// Its ranks in a communicator of the drop-in's, made where first needed. Whatever the drop-in has to say
  /// to other ranks goes there.
  MPI_Comm talk = MPI_COMM_NULL;
  std::optional<Communicator> communicator{};  ///< over `talk`, made at the first call that is compressed
  Tensors tensors{};
  std::vector<std::uint64_t> matched{};  ///< by rule: calls so far
};

/// The drop-in's part of a process, from MPI_Init to MPI_Finalize.
///
/// The program's communicators are only looked at: no message is sent on one of them. What is collective over
/// one makes a communicator of the same ranks, by MPI_Comm_create, which copies no attributes.
///
/// Error handlers of the program may throw. They are called by MPI, which is called here outside of any try
/// block wherever it may come to that.
class DropIn {
 public:
  /// Reads the settings; collective over MPI_COMM_WORLD. Where they make no sense, or not the same on all
  /// ranks, says so once and ends the program with exit code 2. Does nothing if it has been done.
  static void start();
  /// Collective over MPI_COMM_WORLD if there is a report. From here on all calls are passed on.
  static void finish();
  /// Null where all calls are passed on.
  static DropIn* active() noexcept { return active_.load(std::memory_order_acquire); }

  /// Whether the call may be one for compression, by what is at hand: quick.
  bool concerns(int count, MPI_Datatype datatype, MPI_Op op) const noexcept;
  /// Makes the call and returns its code; nothing where it is to be passed on unchanged. Throws what error
  /// handlers of the program throw.
  std::optional<int> allreduce(const Arguments& call);
  void count_passed_on() noexcept { passed_on_.fetch_add(1, std::memory_order_relaxed); }

 private:
  explicit DropIn(Settings settings);
  std::optional<DType> dtype_of(MPI_Datatype datatype) const noexcept;
  static int delete_state(MPI_Comm comm, int key, void* value, void* extra) noexcept;
  // These return a code of MPI's: where it is not MPI_SUCCESS, the program's error handler has been called.
  int find_state(MPI_Comm comm, CommState*& state);
  int agree_on_name(MPI_Comm comm, CommState& state) const;
  int match(MPI_Comm comm, CommState& state, DType dtype, std::uint64_t bytes,
            std::optional<std::size_t>& rule) const;
  int compress(const Arguments& call, CommState& state, std::size_t rule, DType dtype, Entry& entry);

  bool try_compress(const Arguments& call, CommState& state, std::size_t rule, DType dtype, Entry& entry);
  Tensor* find_tensor(const Arguments& call, CommState& state, TensorKey& key, Entry& entry) const;
  Tensor* make_tensor(CommState& state, const TensorKey& key) const;
  bool agree_on_ordinals(CommState& state, const TensorKey& key) const;
  std::string word();
  void report();

  static std::atomic<DropIn*> active_;

  Settings settings_;
  std::uint64_t threshold_ = 0;  // calls of fewer bytes are no rule's
  bool feedback_ = false;        // of any rule: on all ranks alike
  int key_ = MPI_KEYVAL_INVALID;
  std::vector<std::pair<MPI_Datatype, DType>> types_;
  std::size_t feedback_bytes_ = 0;
  MPI_Comm talk_ = MPI_COMM_NULL;  // over all ranks, for the report; none: there is no report
  std::atomic<std::uint64_t> passed_on_{0};
  std::mutex mutex_;  // for what follows
  Tally tally_;
  std::set<CommState*> states_;
};

}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
//
// What the checker knows of a schedule: steps that read and write named memory, and what each must wait for.
// view.cpp makes it of the library's schedules, and is all that has to follow when these change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "collective/partition.hpp"

namespace terse::test::proof {

inline constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

enum class Kind : std::uint8_t {
  compute,
  send,
  receive,
  reduction,  ///< by the transport, over all ranks, in place or from input to output
  join        ///< nothing but a point to wait for
};

/// Memory of a rank. Ranges of a message store are slots, of all else elements of the tensor (or of the
/// tensors of a list, one behind the other). Input and output may be the same memory.
enum class Space : std::uint8_t { input, output, message, worker_residual, server_residual };

enum class Use : std::uint8_t {
  read,
  write,
  update,  ///< read, then written
  undo     ///< an update of a residual where a piece is flagged; else nothing
};

/// What a slot holds.
enum class What : std::uint8_t {
  nothing,
  message,     ///< values, encoded for other ranks
  unsealed,    ///< values, encoded; stays on the rank, and parts of it are taken
  statistics,  ///< numbers that ranks share before they encode
  addends      ///< values, encoded so that the transport can add them
};

/// What a step wants with what it reads.
enum class Role : std::uint8_t {
  none,
  term,        ///< a term of the sum that the step makes, or of each slot one, in their order
  statistics,  ///< of all ranks, of the step's elements
  own,         ///< the rank's own message of the step's elements, should it be taken back
  result       ///< where the sum goes
};

struct Access {
  Space space = Space::message;
  Use use = Use::read;
  Role role = Role::none;
  What what = What::nothing;  ///< of a slot that is read: what must be there
  int author = -1;            ///< and encoded by whom, of several slots the first one's; -1: all ranks' sum
  std::uint8_t tag = 0;       ///< and, where it came from another rank, for which tag
  Range where{};
};

struct Step {
  Kind kind = Kind::join;
  std::uint8_t tag = 0;  ///< of a transfer; of a computation: for which its result is sealed
  int peer = -1;
  const char* name = "";       ///< for sentences
  What makes = What::nothing;  ///< of a result in a slot
  int scale = 0;               ///< -1: the result is over the number of ranks; 1: times it
  Range elements{};            ///< that the result stands for; of a term: those that are needed of it
  std::size_t bytes = 0;       ///< of a result in a slot: its largest size, the exact one where that is fixed
  std::size_t trailer = 0;     ///< and what it may grow by when it is sealed
  bool maximum = false;        ///< of a reduction: the largest, not the sum
  std::size_t unit = 1;        ///< of a reduction: bytes of what is reduced
  int owner = -1;              ///< of a result in the output: who owns the piece if it is resent
  std::uint32_t started_after = kNone;  ///< a transfer that starts before this one does
  std::uint32_t first_access = 0;
  std::uint32_t accesses = 0;
  std::uint32_t first_before = 0;  ///< steps that are over before this one starts
  std::uint32_t befores = 0;
};

/// One rank's schedule.
struct RankView {
  std::vector<Step> steps;
  std::vector<Access> accesses;
  std::vector<std::uint32_t> before;
  std::vector<Range> slots;  ///< bytes of the message store
  Range owned{};             ///< the elements that its server residual is for

  std::span<const Access> accesses_of(const Step& step) const {
    return std::span(accesses).subspan(step.first_access, step.accesses);
  }
  std::span<const std::uint32_t> before_of(const Step& step) const {
    return std::span(before).subspan(step.first_before, step.befores);
  }
};

enum class Order : std::uint8_t { by_rank, of_the_transport };

/// The schedules of all ranks of one call, and what the documents say of them.
struct Job {
  std::string name;  ///< algorithm and parameters, for sentences
  int ranks = 1;
  std::size_t count = 0;
  std::vector<RankView> views;
  int tags = 0;  ///< that the call has

  Order order = Order::by_rank;
  bool average = false;
  std::vector<Range> due;      ///< elements of the output that are to be written; sorted, disjoint
  std::vector<Range> not_due;  ///< those that are not: other elements of the tensors
  std::vector<Range> worker;   ///< elements of the worker residual that are to be updated
  std::vector<std::vector<Range>> server;  ///< by rank: those of the server residual
  std::vector<std::size_t> messages;       ///< by rank: how many it sends
  std::vector<std::size_t> bytes;          ///< by rank: of those
  std::size_t reductions = 0;              ///< of the transport's
  std::size_t reduced_bytes = 0;           ///< that a rank gives to these
};

}  // namespace terse::test::proof

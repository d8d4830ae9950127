// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>
#include <terse/terse.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <terse/communicator.hpp>

#include "c_api/arguments.hpp"
#include "c_api/passing.hpp"
#include "c_api/residuals.hpp"
#include "c_api/state.hpp"

/// What a Terse_Request points to: a call under way, or a persistent one, which begins again and again.
struct Terse_Request_s {
  /// Begins a nonblocking call. Errors: what cannot be told to other ranks, those of check().
  Terse_Request_s(terse::c_api::State& state, const terse::c_api::Arguments& call);
  /// Makes a persistent one of the only tensor. Collective. Errors: those of Communicator::allreduce_init.
  Terse_Request_s(terse::c_api::State& state, const terse::c_api::Arguments& call,
                  const terse::CallOptions& options);
  Terse_Request_s(const Terse_Request_s&) = delete;
  Terse_Request_s& operator=(const Terse_Request_s&) = delete;
  /// As terse::Request's.
  ~Terse_Request_s();

  MPI_Comm comm() const noexcept { return state_->comm; }
  bool persistent() const noexcept { return persistent_ != nullptr; }
  bool active() const noexcept { return active_; }
  /// Begins a persistent call. Errors: invalid_state; those of a nonblocking call.
  void start();
  /// True where nothing is under way. Makes progress with everything on the communicator.
  bool is_over();
  /// Ends what is under way. Errors: those of the call, which is over all the same.
  void wait();
  /// Errors: invalid_argument for a nonblocking one, invalid_state where a call is under way.
  terse::Feedback& residuals();

 private:
  // What a persistent call begins with.
  struct Persistent {
    terse::c_api::Tensor tensor;
    MPI_Datatype datatype;
    MPI_Op op;
    terse::CallOptions options;
    Terse_Feedback_s residuals{};
    std::optional<terse::Plan> plan{};  // which has residuals by address: ends before them
    std::uint64_t planned_on = 0;       // the number of its Communicator
  };

  terse::c_api::Arguments arguments() const;
  void make_plan(terse::c_api::Meaning meaning);
  void make_room();
  void unlist() noexcept;

  const std::shared_ptr<terse::c_api::State> state_;
  bool passes_on_ = false;
  bool active_ = false;
  std::unique_ptr<Persistent> persistent_;
  terse::Request request_;
  terse::c_api::Passed passed_;
  Terse_Outcome passed_outcome_ = terse::c_api::kNoOutcome;
};

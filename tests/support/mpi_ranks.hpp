// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <terse/communicator.hpp>
#include <vector>

#include "support/serial_model.hpp"
#include "support/tensor.hpp"

namespace terse::test {

int rank_of(MPI_Comm comm);
int size_of_comm(MPI_Comm comm);
inline int world_rank() { return rank_of(MPI_COMM_WORLD); }
inline int world_size() { return size_of_comm(MPI_COMM_WORLD); }

/// A part of MPI_COMM_WORLD, freed at the end; get() is MPI_COMM_NULL where the color is MPI_UNDEFINED.
/// Collective.
class SubComm {
 public:
  SubComm(int color, int key);
  SubComm(const SubComm&) = delete;
  SubComm& operator=(const SubComm&) = delete;
  ~SubComm();
  MPI_Comm get() const { return comm_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Collective: whether all ranks of `comm` pass the same bytes.
testing::AssertionResult same_on_all(MPI_Comm comm, std::span<const std::byte> bytes);
testing::AssertionResult same_on_all(MPI_Comm comm, const std::string& text);
/// Collective: every rank's bytes, in rank order.
std::vector<std::vector<std::byte>> gather_all(MPI_Comm comm, std::span<const std::byte> mine);

/// What a call throws: "invalid_argument: ...", or nothing.
std::string error_of(const std::function<void()>& call);
/// Whether `text` begins with "code:" and contains all parts.
testing::AssertionResult is_error(const std::string& text, const std::string& code,
                                  const std::vector<std::string>& parts = {});

/// Options that compress whatever the size.
CallOptions compressing(CodecChoice codec, Feedback* feedback = nullptr);

/// The serial model of onebit in the role of all ranks of a communicator, with inputs that every rank can
/// make.
class Rehearsal {
 public:
  Rehearsal(int ranks, std::size_t count, DType dtype, std::size_t block, Op op, bool feedback = true);
  /// The inputs of all ranks for the next step, signs clear of rounding.
  const SerialModel::Matrix& next(std::uint64_t seed);
  /// Whether a rank's output and residuals are those of the model, after a step with the inputs that next()
  /// gave.
  testing::AssertionResult agrees(int rank, const Tensor& out, const Feedback* feedback);
  SerialModel& model() { return model_; }
  /// Puts the model's residuals of elements [begin, end) back to what they were.
  void keep(SerialModel before, std::size_t begin, std::size_t end);

 private:
  int ranks_;
  std::size_t count_;
  DType dtype_;
  Op op_;
  SerialModel model_;
  SerialModel::Matrix inputs_;
};

}  // namespace terse::test

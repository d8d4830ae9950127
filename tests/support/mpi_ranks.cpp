// SPDX-License-Identifier: Apache-2.0
#include "support/mpi_ranks.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "collective/algorithms.hpp"
#include "support/exact.hpp"

namespace terse::test {

int rank_of(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

int size_of_comm(MPI_Comm comm) {
  int size = 0;
  MPI_Comm_size(comm, &size);
  return size;
}

SubComm::SubComm(int color, int key) { MPI_Comm_split(MPI_COMM_WORLD, color, key, &comm_); }
SubComm::~SubComm() {
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

std::vector<std::vector<std::byte>> gather_all(MPI_Comm comm, std::span<const std::byte> mine) {
  const auto ranks = static_cast<std::size_t>(size_of_comm(comm));
  const int bytes = static_cast<int>(mine.size());
  std::vector<int> sizes(ranks), offsets(ranks);
  MPI_Allgather(&bytes, 1, MPI_INT, sizes.data(), 1, MPI_INT, comm);
  int total = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    offsets[r] = total;
    total += sizes[r];
  }
  std::vector<std::byte> all(static_cast<std::size_t>(total));
  MPI_Allgatherv(mine.data(), bytes, MPI_BYTE, all.data(), sizes.data(), offsets.data(), MPI_BYTE, comm);
  std::vector<std::vector<std::byte>> parts;
  for (std::size_t r = 0; r < ranks; ++r) {
    parts.emplace_back(all.begin() + offsets[r], all.begin() + offsets[r] + sizes[r]);
  }
  return parts;
}

testing::AssertionResult same_on_all(MPI_Comm comm, std::span<const std::byte> bytes) {
  const auto all = gather_all(comm, bytes);
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0]) return testing::AssertionFailure() << "rank " << r << " differs from rank 0";
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult same_on_all(MPI_Comm comm, const std::string& text) {
  return same_on_all(comm, std::as_bytes(std::span(text))) << ": " << text;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(name(error.code())) + ": " + error.what();
  } catch (const std::exception& error) {
    return std::string("not ours: ") + error.what();
  }
  return {};
}

testing::AssertionResult is_error(const std::string& text, const std::string& code,
                                  const std::vector<std::string>& parts) {
  if (text.substr(0, code.size() + 1) != code + ":") {
    return testing::AssertionFailure() << "no " << code << ": " << (text.empty() ? "no error at all" : text);
  }
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos)
      return testing::AssertionFailure() << part << " is not in: " << text;
  }
  return testing::AssertionSuccess() << text;
}

CallOptions compressing(CodecChoice codec, Feedback* feedback) {
  // a spec may be one that cannot be made
  const std::string algorithm = codec.codec() ? std::string(algorithm_for(*codec.codec(), world_size()).name)
                                : codec.spec() == "onebit:deepspeed" ? "deepspeed"
                                                                     : "two_phase";
  return {.policy = {.codec = std::move(codec), .algorithm = algorithm, .min_bytes = 0},
          .feedback = feedback};
}

Rehearsal::Rehearsal(int ranks, std::size_t count, DType dtype, std::size_t block, Op op, bool feedback)
    : ranks_(ranks),
      count_(count),
      dtype_(dtype),
      op_(op),
      model_(ranks, count,
             {.block = block, .feedback = feedback, .average = op == Op::average, .round = [dtype](double v) {
                return round_to(v, dtype);
              }}) {}

const SerialModel::Matrix& Rehearsal::next(std::uint64_t seed) {
  inputs_.clear();
  for (int r = 0; r < ranks_; ++r) inputs_.push_back(normal_values(count_, dtype_, seed, r));
  const double margin = size_of(dtype_) == 2 ? 0.05 : 1e-3;
  model_.keep_clear(inputs_, margin, [this](double v) { return round_to(v, dtype_); });
  return inputs_;
}

void Rehearsal::keep(SerialModel before, std::size_t begin, std::size_t end) {
  for (std::size_t r = 0; r < model_.worker().size(); ++r) {
    const auto chunk = model_.chunks()[r];
    for (std::size_t i = begin; i < end; ++i) {
      model_.worker()[r][i] = before.worker()[r][i];
      if (i < chunk.begin || i >= chunk.end) continue;
      model_.server()[r][i - chunk.begin] = before.server()[r][i - chunk.begin];
    }
  }
}

testing::AssertionResult Rehearsal::agrees(int rank, const Tensor& out, const Feedback* feedback) {
  model_.step(inputs_);
  // the model runs freely, so errors of a few steps add up; values are of the order of one
  const double tolerance = 40 * (unit_roundoff(dtype_) + 8 * unit_roundoff(accumulator_of(dtype_)));
  const double factor = op_ == Op::sum ? ranks_ : 1;
  const auto compare = [](const char* what, const std::vector<double>& got, const std::vector<double>& want,
                          double slack) -> testing::AssertionResult {
    if (got.size() != want.size()) {
      return testing::AssertionFailure() << what << ": " << got.size() << " elements for " << want.size();
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!(std::abs(got[i] - want[i]) <= slack)) {
        return testing::AssertionFailure() << what << " " << i << ": " << got[i] << " for " << want[i];
      }
    }
    return testing::AssertionSuccess();
  };
  if (auto same = compare("result", out.doubles(), model_.result(), factor * tolerance); !same) return same;
  if (!feedback) return testing::AssertionSuccess();
  const auto at = static_cast<std::size_t>(rank);
  if (auto same = compare("worker", doubles_of(feedback->worker()), model_.worker()[at], tolerance); !same) {
    return same;
  }
  return compare("server", doubles_of(feedback->server()), model_.server()[at], tolerance);
}

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace terse::test {

/// The two-phase error-feedback 1-bit allreduce of all ranks in one process, in float64 and one element after
/// the other. It is written from the algorithm's description and shares no line with the library.
class SerialModel {
 public:
  enum class Scale { l1, rms };
  struct Options {
    std::size_t block = 2048;
    Scale scale = Scale::l1;
    bool padded = false;  ///< onebit:deepspeed: zeros up to a multiple of 8 ranks, one scale for all of it
    bool feedback = true;
    bool average = true;
    /// Rounds a scale, and a result, to the tensor's type; nothing: float64 all the way.
    std::function<double(double)> round = {};
  };
  struct Chunk {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  using Matrix = std::vector<std::vector<double>>;

  SerialModel(int ranks, std::size_t count, Options options);

  /// One call: inputs[rank][element] -> the result that all ranks get. Residuals move on.
  const std::vector<double>& step(const Matrix& inputs);

  const std::vector<double>& result() const { return result_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  /// Residuals: worker()[rank][element], server()[rank][element - chunk begin], padding included. May be set
  /// between steps.
  Matrix& worker() { return worker_; }
  Matrix& server() { return server_; }
  /// Scales of the last step: [rank][block of the tensor], [rank][block of the chunk]; one each where padded.
  const Matrix& worker_scales() const { return worker_scales_; }
  const Matrix& server_scales() const { return server_scales_; }

  /// Moves inputs a little so that no sign of the next step is a matter of rounding: afterwards |v| is at
  /// least `margin` scales, and |u| at least `margin` times what the terms of its sum are in all.
  void keep_clear(Matrix& inputs, double margin, const std::function<double(double)>& round_input) const;

 private:
  double scale_of(const std::vector<double>& v, std::size_t begin, std::size_t end) const;

  int ranks_;
  std::size_t count_;
  Options options_;
  std::size_t elements_;      // with padding
  std::size_t worker_block_;  // elements that share a scale
  std::size_t server_block_;
  std::vector<Chunk> chunks_;
  std::vector<double> result_;
  Matrix worker_;
  Matrix server_;
  Matrix worker_scales_;
  Matrix server_scales_;
};

/// sum[element] over ranks, in rank order; exact where the inputs are (see exact.hpp).
std::vector<double> plain_sum(const SerialModel::Matrix& inputs);

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

// The command line of train_charlm.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace charlm {

struct Options {
  std::vector<std::filesystem::path> text;
  std::size_t max_megabytes = 0;

  std::string allreduce;  ///< "mpi", or the spec of a codec
  std::string algorithm;
  std::string device;  ///< "host" or "cuda": where the model computes

  std::int64_t context = 0;
  std::int64_t embedding = 0;
  std::int64_t hidden = 0;
  std::optional<std::int64_t> parameters;  ///< where given, `hidden` follows from it

  std::int64_t steps = 0;
  std::int64_t batch = 0;  ///< examples per rank and step
  double lr = 0.0;
  double momentum = 0.0;
  double clip = 0.0;
  std::uint64_t seed = 0;
  std::int64_t eval_every = 0;

  std::filesystem::path json;
  std::filesystem::path dump_gradients;
  std::int64_t dump_step = 0;  ///< of --dump-gradients, from 1 to `steps`
  bool check_gradient = false;
};

/// what() is a sentence that names the option and what it takes.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Errors: UsageError. Returns nothing where --help was asked for.
std::optional<Options> parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace charlm

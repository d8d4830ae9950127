// SPDX-License-Identifier: Apache-2.0
//
// Data-parallel training on MPI, with MPI_Allreduce or with Terse in its place: see average().
//
//   mpirun -np 4 train_charlm --allreduce mpi
//   mpirun -np 4 train_charlm --allreduce onebit
//   mpirun -np 4 train_charlm_cuda --allreduce onebit --device cuda
//
// The model is a character-level language model (charlm/model.hpp), trained by momentum SGD. Every rank holds
// all weights and draws minibatches of its own; in each step one allreduce averages the gradients of all
// parameters, which lie in one contiguous vector. Since that gives all ranks the same bits, the weights stay
// the same everywhere without ever being sent again, which is proven at the end.

#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <terse/terse.hpp>
#include <thread>
#include <vector>

#include "charlm/corpus.hpp"
#include "charlm/gradient_check.hpp"
#include "charlm/model.hpp"
#include "charlm/options.hpp"
#include "charlm/progress.hpp"
#include "charlm/ranks.hpp"
#include "charlm/trainee.hpp"

namespace charlm {
namespace {

using Clock = std::chrono::steady_clock;
using Symbols = std::vector<std::uint8_t>;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// --- the exchange of gradients ---------------------------------------------------------------------------

/// What all averaging so far has cost.
struct Traffic {
  std::size_t bytes_sent = 0;        ///< by this rank
  std::size_t exact_steps = 0;       ///< Terse chose plain MPI
  std::size_t non_finite_steps = 0;  ///< some values did not fit the codec and were resent uncompressed
};

/// Averages vectors over all ranks, by MPI or by Terse.
class Averager {
 public:
  /// Collective. Errors: terse::Error, on all ranks alike.
  explicit Averager(const Options& options) {
    MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
    if (options.allreduce != "mpi") {
      const terse::Policy policy{.codec = terse::make_codec(options.allreduce),
                                 .algorithm = options.algorithm};
      terse_.emplace(MPI_COMM_WORLD, terse::CommunicatorOptions{.policy = policy});
    } else if (options.device == "cuda") {  // MPI's own sum, of which Terse knows how MPI takes device memory
      terse_.emplace(MPI_COMM_WORLD, terse::CommunicatorOptions{.policy = {.algorithm = "exact"}});
    }
  }

  /// Replaces the gradient by its average over all ranks: the same bits everywhere.
  void average(Trainee& trainee) {
    if (terse_) {
      const terse::Outcome outcome = terse_->allreduce({trainee.gradient(), &residual_}, terse::Op::average,
                                                       {.stream = trainee.stream()});
      traffic_.bytes_sent += outcome.bytes_sent;
      if (outcome.result == terse::Outcome::Result::exact) ++traffic_.exact_steps;
      if (outcome.reason == terse::Outcome::Reason::non_finite) ++traffic_.non_finite_steps;
    } else {
      const std::span<float> gradient = trainee.gradient().as<float>();
      MPI_Allreduce(MPI_IN_PLACE, gradient.data(), static_cast<int>(gradient.size()), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
      for (float& slope : gradient) slope /= static_cast<float>(ranks_);
      // What MPI sends is not known. This is the least that any algorithm can: 2 (P - 1) / P of the vector.
      const auto p = static_cast<std::size_t>(ranks_);
      traffic_.bytes_sent += 2 * gradient.size_bytes() * (p - 1) / p;
    }
  }

  const Traffic& traffic() const noexcept { return traffic_; }

 private:
  int ranks_ = 1;
  Traffic traffic_;
  std::optional<terse::Communicator> terse_;  // none: plain MPI
  terse::Feedback residual_;  // what the codec has left out so far; goes in with the next gradient
};

// --- text ------------------------------------------------------------------------------------------------

/// The text as symbols 0, 1, ..., the same on all ranks.
struct Text {
  Symbols train;
  Symbols held_out;
  std::vector<double> frequencies;  ///< of each symbol in the training text
  std::string description;          ///< on rank 0
};

/// Rank 0 reads, all ranks learn what it read. Collective; where the text will not do, all ranks throw Stop.
Text read_text(const Options& options, int rank) {
  constexpr std::size_t kMegabyte = 1'000'000;
  Corpus corpus;
  Text text;
  std::string problem;
  if (rank == 0) {
    try {
      CorpusReport report;
      std::vector<Document> documents = gather(options.text, options.max_megabytes * kMegabyte, report);
      group_near_duplicates(documents);
      corpus = split(documents, 0.1, report);
      std::ostringstream description;
      description << corpus.report;
      text.description = description.str();
      const auto least = static_cast<std::size_t>(100 * options.context);
      if (corpus.held_out.size() < least || corpus.train.size() < least) {
        problem = "there is too little text to learn from (" + text.description +
                  "): both parts need at least " + std::to_string(least) + " bytes. Name more by --text.";
      }
    } catch (const CorpusError& error) {
      problem = error.what();
    }
  }
  agree(problem);
  broadcast(corpus.train);
  broadcast(corpus.held_out);

  // The alphabet: the bytes that occur, those that are frequent in training first.
  std::array<std::size_t, 256> in_train{};
  std::array<std::size_t, 256> in_held_out{};
  for (const char c : corpus.train) ++in_train[static_cast<unsigned char>(c)];
  for (const char c : corpus.held_out) ++in_held_out[static_cast<unsigned char>(c)];
  std::array<std::uint8_t, 256> bytes{};
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  std::stable_sort(bytes.begin(), bytes.end(),
                   [&](std::uint8_t a, std::uint8_t b) { return in_train[a] > in_train[b]; });
  std::array<std::uint8_t, 256> symbol{};
  for (const std::uint8_t byte : bytes) {
    if (in_train[byte] + in_held_out[byte] == 0) continue;
    symbol[byte] = static_cast<std::uint8_t>(text.frequencies.size());
    // Plus one: what occurs in the held-out text alone is not impossible.
    text.frequencies.push_back(static_cast<double>(in_train[byte] + 1) /
                               static_cast<double>(corpus.train.size()));
  }
  const auto translate = [&](const std::string& part) {
    Symbols symbols(part.size());
    std::transform(part.begin(), part.end(), symbols.begin(),
                   [&](char c) { return symbol[static_cast<unsigned char>(c)]; });
    return symbols;
  };
  text.train = translate(corpus.train);
  text.held_out = translate(corpus.held_out);
  return text;
}

/// The mean loss in bits per character over all of the text, or over `most` evenly spaced characters of it.
/// The ranks share the work. Collective.
double bits_per_character(Trainee& model, const Symbols& text, int rank, int ranks) {
  constexpr std::size_t kMost = 32768;
  constexpr std::size_t kColumns = 256;
  const std::size_t positions = text.size() - static_cast<std::size_t>(model.shape().context);
  const std::size_t samples = std::min(positions, kMost);
  std::vector<std::size_t> mine;
  for (auto i = static_cast<std::size_t>(rank); i < samples; i += static_cast<std::size_t>(ranks)) {
    mine.push_back(i * positions / samples);
  }
  double nats = 0.0;
  for (std::size_t begin = 0; begin < mine.size(); begin += kColumns) {
    const std::size_t columns = std::min(kColumns, mine.size() - begin);
    Batch batch(model.shape(), static_cast<Index>(columns));
    for (std::size_t j = 0; j < columns; ++j) batch.set(static_cast<Index>(j), text, mine[begin + j]);
    nats += model.loss(batch);
  }
  return sum(nats) / static_cast<double>(samples) / std::numbers::ln2;
}

// --- training --------------------------------------------------------------------------------------------

Shape shape_of_model(const Options& options, Index alphabet) {
  Shape shape{.alphabet = alphabet,
              .context = options.context,
              .embedding = options.embedding,
              .hidden = options.hidden};
  if (options.parameters) {
    // embedding alphabet + alphabet + hidden (context embedding + alphabet + 2) + hidden^2 = parameters
    const auto linear = static_cast<double>(shape.context * shape.embedding + alphabet + 2);
    const auto rest = static_cast<double>(*options.parameters - (shape.embedding + 1) * alphabet);
    const double hidden = (std::sqrt(linear * linear + 4.0 * std::max(rest, 0.0)) - linear) / 2.0;
    shape.hidden = std::max<Index>(1, std::llround(hidden));
  }
  return shape;
}

/// A sentence, empty where the shape will do.
std::string find_fault(const Shape& shape, const Options& options) {
  constexpr Index kMost = 1'000'000'000;  // MPI counts in int
  const std::string count = std::to_string(shape.parameters());
  if (shape.parameters() > kMost) {
    return "the model would have " + count + " parameters, and at most " + std::to_string(kMost) +
           " are possible: choose less of --hidden, --embedding or --context.";
  }
  if (options.parameters && shape.hidden == 1 && shape.parameters() > *options.parameters) {
    return "--parameters " + std::to_string(*options.parameters) + ": the smallest model has " + count +
           " with this text, --embedding and --context. Choose more, or less of those.";
  }
  return {};
}

/// Rises in a straight line over the first tenth of the steps, then falls to zero along a cosine.
double learning_rate(const Options& options, std::int64_t step) {
  const auto steps = static_cast<double>(options.steps);
  const auto at = static_cast<double>(step);  // from 1 to steps
  const double warm_up = std::ceil(steps / 10.0);
  if (at <= warm_up) return options.lr * at / warm_up;
  return options.lr * 0.5 * (1.0 + std::cos(std::numbers::pi * (at - warm_up) / (steps - warm_up + 1.0)));
}

/// Before the average, not after it: an odd minibatch can neither throw the weights off nor fill residuals.
void clip(Trainee& model, double largest_norm) {
  if (largest_norm <= 0.0) return;
  const double norm = model.gradient_norm();
  if (norm > largest_norm) model.scale_gradient(static_cast<float>(largest_norm / norm));
}

/// Rank 0's gradient as it lies in memory, which Terse builds for little-endian machines alone. Collective;
/// where it cannot be written, all ranks throw Stop.
void dump_gradient(Trainee& model, const std::filesystem::path& file, int rank) {
  std::string problem;
  if (rank == 0) {
    const std::vector<float> gradient = model.gradient_values();
    std::ofstream out(file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(gradient.data()),
              static_cast<std::streamsize>(gradient.size() * sizeof(float)));
    if (!out.flush()) {
      problem = "--dump-gradients " + file.string() + " could not be written: is the disk full?";
    }
  }
  agree(problem, 1);
}

std::string fixed(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}

struct Times {
  std::vector<double> compute_ms;  ///< one per step
  std::vector<double> allreduce_ms;
};

/// Trains for options.steps steps. Collective; where the training diverges, all ranks throw Stop.
Times train(Trainee& model, const Text& text, Averager& averager, const Options& options, int rank,
            int ranks) {
  Progress progress;
  std::seed_seq seeds{options.seed & 0xffffffffu, options.seed >> 32, static_cast<std::uint64_t>(rank)};
  std::mt19937_64 random(seeds);
  const auto context = static_cast<std::size_t>(options.context);
  std::uniform_int_distribution<std::size_t> position(0, text.train.size() - context - 1);
  Batch batch(model.shape(), options.batch);

  Times times;
  double nats = 0.0;  // of the examples since the last line
  std::int64_t examples = 0;
  double elapsed_ms = 0.0;
  for (std::int64_t step = 1; step <= options.steps; ++step) {
    const auto step_start = Clock::now();
    auto start = step_start;
    for (Index j = 0; j < batch.size(); ++j) batch.set(j, text.train, position(random));
    nats += model.loss_and_gradient(batch);
    examples += batch.size();
    clip(model, options.clip);
    double compute_ms = ms_since(start);
    if (step == options.dump_step && !options.dump_gradients.empty()) {
      dump_gradient(model, options.dump_gradients, rank);
    }

    // For the clock alone: waiting for the slowest rank is not the allreduce's time.
    MPI_Barrier(MPI_COMM_WORLD);
    start = Clock::now();
    averager.average(model);
    times.allreduce_ms.push_back(ms_since(start));

    start = Clock::now();
    if (!std::isfinite(model.gradient_norm())) {  // on all ranks alike
      agree("the gradient of step " + std::to_string(step) +
                " is not finite: the training has diverged. Choose a smaller --lr, or a --clip.",
            1);
    }
    model.step(static_cast<float>(options.momentum), static_cast<float>(learning_rate(options, step)));
    times.compute_ms.push_back(compute_ms + ms_since(start));

    elapsed_ms += ms_since(step_start);
    const std::string at = "step " + std::to_string(step) + "/" + std::to_string(options.steps);
    const bool last = step == options.steps;
    if (last || (options.eval_every > 0 && step % options.eval_every == 0)) {
      const double train = sum(nats) / sum(static_cast<double>(examples)) / std::numbers::ln2;
      const double held_out = bits_per_character(model, text.held_out, rank, ranks);
      if (rank == 0) {
        progress.line(at + "  bits/char: minibatches " + fixed(train, 3) + ", held out " +
                      fixed(held_out, 3) + "  " + fixed(elapsed_ms / static_cast<double>(step), 1) +
                      " ms/step");
      }
      nats = 0.0;
      examples = 0;
    } else if (rank == 0) {
      progress.overwrite(at + "  bits/char: minibatches " +
                         fixed(nats / static_cast<double>(examples) / std::numbers::ln2, 3) + "  " +
                         fixed(elapsed_ms / static_cast<double>(step), 1) + " ms/step");
    }
  }
  return times;
}

// --- the report ------------------------------------------------------------------------------------------

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

struct Result {
  std::string allreduce;
  int ranks = 0;
  std::int64_t steps = 0;
  Index parameters = 0;
  double train_bits = 0.0;
  double held_out_bits = 0.0;
  double wire_bytes_per_step = 0.0;  ///< that a rank sends: the mean over the ranks
  Times times{};                     ///< of the slowest rank, step by step
  Traffic traffic{};
  bool same_bits = false;
};

void print(const Result& r) {
  const auto row = [](const std::string& name, const std::string& value) {
    std::cout << "  " << std::left << std::setw(24) << name << value << '\n';
  };
  const auto time = [&](const std::string& name, const std::vector<double>& ms) {
    row(name, fixed(median(ms), 2) + " ms/step (median), " + fixed(total(ms) / 1000.0, 1) + " s in all");
  };
  const double vector_bytes = 4.0 * static_cast<double>(r.parameters);
  std::cout << "allreduce " << r.allreduce << ", " << r.ranks << " ranks, " << r.steps << " steps\n";
  row("training loss", fixed(r.train_bits, 4) + " bits/char");
  row("held-out loss", fixed(r.held_out_bits, 4) + " bits/char");
  row("wire bytes", fixed(r.wire_bytes_per_step, 0) + " per step and rank, " +
                        fixed(r.wire_bytes_per_step / vector_bytes, 3) + " of the gradient" +
                        (r.allreduce == "mpi" ? " (the least that any uncompressed algorithm sends)" : ""));
  time("compute", r.times.compute_ms);
  time("allreduce", r.times.allreduce_ms);
  if (r.traffic.exact_steps > 0) row("not compressed", std::to_string(r.traffic.exact_steps) + " steps");
  if (r.traffic.non_finite_steps > 0) {
    row("beyond the codec's range",
        std::to_string(r.traffic.non_finite_steps) + " steps had values that went exactly");
  }
  row("weights", r.same_bits ? "the same bits on all ranks" : "DIFFERENT on different ranks");
  std::cout << std::flush;
}

/// Leaves what the file holds as it is: nothing may come of the training that is to replace it.
bool is_writable(const std::filesystem::path& file) {
  std::error_code ignored;
  const bool existed = std::filesystem::exists(file, ignored);
  const bool writable = std::ofstream(file, std::ios::app).is_open();
  if (writable && !existed) std::filesystem::remove(file, ignored);
  return writable;
}

bool write_json(const Result& r, const std::filesystem::path& file) {
  const nlohmann::ordered_json json = {
      {"allreduce", r.allreduce},
      {"ranks", r.ranks},
      {"steps", r.steps},
      {"parameters", r.parameters},
      {"train_bits_per_char", r.train_bits},
      {"held_out_bits_per_char", r.held_out_bits},
      {"wire_bytes_per_step", r.wire_bytes_per_step},
      {"compute_ms", median(r.times.compute_ms)},
      {"allreduce_ms", median(r.times.allreduce_ms)},
      {"compute_total_ms", total(r.times.compute_ms)},
      {"allreduce_total_ms", total(r.times.allreduce_ms)},
      {"exact_steps", r.traffic.exact_steps},
      {"non_finite_steps", r.traffic.non_finite_steps},
      {"same_bits", r.same_bits},
  };
  std::ofstream out(file);
  out << json.dump(2) << '\n';
  return static_cast<bool>(out.flush());
}

// --- the program -----------------------------------------------------------------------------------------

int check_gradient(int rank) {
  constexpr double kTolerance = 1e-6;
  const double error = gradient_error();
  const bool good = error <= kTolerance;
  if (rank == 0) {
    std::cout << "the gradient differs from finite differences by " << error
              << " of its largest slope: " << (good ? "good" : "BAD") << std::endl;
  }
  return good ? 0 : 1;
}

/// Returns the exit code, on all ranks alike.
int run(int argc, char** argv) {
  int rank = 0;
  int ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);

  std::optional<Options> parsed;
  std::string problem;
  try {
    parsed = parse_options(argc, argv);
  } catch (const UsageError& error) {
    problem = error.what();
  }
  agree(problem);
  if (!parsed) {
    if (rank == 0) std::cout << help_text();
    return 0;
  }
  const Options& options = *parsed;
  if (options.check_gradient) return check_gradient(rank);

  std::optional<Averager> averager;
  try {
    averager.emplace(options);
  } catch (const terse::Error& error) {
    problem = error.what();
  }
  agree(problem);
  if (rank == 0 && !options.json.empty() && !is_writable(options.json)) {
    problem = "--json " + options.json.string() + " cannot be written: check the folder and permissions.";
  }
  if (rank == 0 && !options.dump_gradients.empty() && !is_writable(options.dump_gradients)) {
    problem = "--dump-gradients " + options.dump_gradients.string() +
              " cannot be written: check the folder and permissions.";
  }
  agree(problem);

  const Text text = read_text(options, rank);
  const Shape shape = shape_of_model(options, static_cast<Index>(text.frequencies.size()));
  agree(find_fault(shape, options));
  std::unique_ptr<Trainee> trainee;
  try {
    trainee = options.device == "cuda" ? make_device_trainee(shape) : make_host_trainee(shape);
    if (!trainee) problem = "--device cuda: this program was built without CUDA; train_charlm_cuda has it.";
  } catch (const std::runtime_error& error) {
    problem = "--device cuda: rank " + std::to_string(rank) + ": " + error.what();
  }
  agree(problem);
  Trainee& model = *trainee;
  std::vector<float> parameters = model.parameters();
  if (rank == 0) {
    Model<float> first(shape);
    first.initialise(options.seed, text.frequencies);
    parameters.assign(first.parameters().begin(), first.parameters().end());
    std::cout << "text: " << text.description << "\nmodel: " << shape.parameters() << " parameters (alphabet "
              << shape.alphabet << ", context " << shape.context << ", embedding " << shape.embedding
              << ", hidden " << shape.hidden << ")\ntraining: " << ranks << " ranks, " << options.batch
              << " examples for each rank and step, allreduce " << options.allreduce << std::endl;
  }
  broadcast(std::span(parameters));  // the same weights everywhere from the start
  model.set_parameters(parameters);

  Result result{.allreduce = options.allreduce, .ranks = ranks, .steps = options.steps};
  const Times times = train(model, text, *averager, options, rank, ranks);
  result.times = {slowest(times.compute_ms), slowest(times.allreduce_ms)};
  result.parameters = shape.parameters();
  result.train_bits = bits_per_character(model, text.train, rank, ranks);
  result.held_out_bits = bits_per_character(model, text.held_out, rank, ranks);
  result.traffic = averager->traffic();
  result.wire_bytes_per_step =
      sum(static_cast<double>(result.traffic.bytes_sent)) / ranks / static_cast<double>(options.steps);
  parameters = model.parameters();
  result.same_bits = same_bits(parameters);
  if (rank == 0) {
    print(result);
    if (!options.json.empty() && !write_json(result, options.json)) {
      problem = "--json " + options.json.string() + " could not be written: is the disk full?";
    }
  }
  if (!result.same_bits && rank == 0) problem = "the ranks ended with different weights.";
  if (!std::isfinite(result.held_out_bits))
    problem = "the held-out loss is not finite: the training has diverged.";
  agree(problem, 1);
  return 0;
}

}  // namespace
}  // namespace charlm

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int code = 0;
  try {
    code = charlm::run(argc, argv);
  } catch (const charlm::Stop& stop) {
    code = stop.code;
  } catch (const std::exception& error) {
    // Perhaps on this rank alone, so the others must be ended. An error of a collective comes to all ranks:
    // rank 0 speaks first, and the others only if it has nothing to say.
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank != 0) std::this_thread::sleep_for(std::chrono::seconds(2));
    std::cerr << "train_charlm: rank " << rank << ": " << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return code;
}

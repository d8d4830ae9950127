// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <boost/program_options.hpp>
#include <cmath>
#include <sstream>

namespace charlm {
namespace {

namespace po = boost::program_options;

po::options_description table(Options& o) {
  using Paths = std::vector<std::string>;
  po::options_description text("Text", 100);
  text.add_options()("text", po::value<Paths>()->composing()->value_name("FILE|DIR"),
                     "learn from this file, or from all regular files below this directory; may be repeated "
                     "(default: /usr/share/common-licenses)");
  text.add_options()("max-megabytes", po::value(&o.max_megabytes)->default_value(64)->value_name("N"),
                     "of more text than this, learn from a sample of the files");

  po::options_description exchange("Exchange of gradients", 100);
  exchange.add_options()("allreduce", po::value(&o.allreduce)->default_value("mpi")->value_name("mpi|SPEC"),
                         "average gradients by MPI_Allreduce, or by Terse with this codec, such as onebit");
  exchange.add_options()(
      "algorithm", po::value(&o.algorithm)->default_value("two_phase")->value_name("NAME"),
      "Terse's algorithm; auto lets it choose, and fall back to plain MPI where that is faster");

  po::options_description model("Model", 100);
  model.add_options()("device", po::value(&o.device)->default_value("host")->value_name("host|cuda"),
                      "where it computes, and so where its gradients lie: cuda, on a device for each rank");
  model.add_options()("context", po::value(&o.context)->default_value(16)->value_name("N"),
                      "characters that the network sees");
  model.add_options()("embedding", po::value(&o.embedding)->default_value(32)->value_name("N"),
                      "numbers that stand for a character");
  model.add_options()("hidden", po::value(&o.hidden)->default_value(512)->value_name("N"),
                      "units in each of the two hidden layers");
  model.add_options()("parameters", po::value<std::int64_t>()->value_name("N"),
                      "choose --hidden such that the model has about N parameters");

  po::options_description training("Training", 100);
  training.add_options()("steps", po::value(&o.steps)->default_value(1500)->value_name("N"),
                         "steps to train");
  training.add_options()("batch", po::value(&o.batch)->default_value(128)->value_name("N"),
                         "examples for each rank and step");
  training.add_options()(
      "lr", po::value(&o.lr)->default_value(0.2, "0.2")->value_name("X"),
      "learning rate at its peak: it rises over the first tenth of the steps and then falls to "
      "zero along a cosine");
  training.add_options()("momentum", po::value(&o.momentum)->default_value(0.9, "0.9")->value_name("X"),
                         "of the SGD");
  training.add_options()("clip", po::value(&o.clip)->default_value(1.0, "1")->value_name("X"),
                         "largest norm of a rank's gradient, 0 for any");
  training.add_options()("seed", po::value(&o.seed)->default_value(1)->value_name("N"),
                         "of the first weights and the minibatches");
  training.add_options()("eval-every", po::value(&o.eval_every)->default_value(250)->value_name("N"),
                         "measure the held-out loss every N steps, 0: only at the end");

  po::options_description other("Other", 100);
  other.add_options()("json", po::value<std::string>()->value_name("FILE"), "write the result there");
  other.add_options()("dump-gradients", po::value<std::string>()->value_name("FILE"),
                      "write rank 0's gradient of one step there, as it goes into the average: raw f32, "
                      "little-endian, all tensors one behind the other in the order of the model, such as "
                      "'terse-bench codec --input FILE' reads");
  other.add_options()("dump-step", po::value<std::int64_t>()->value_name("N"),
                      "which step's that is (default: the last)");
  other.add_options()("check-gradient", po::bool_switch(&o.check_gradient),
                      "compare the backward pass with finite differences in double precision, and stop");
  other.add_options()("help,h", "show this text");

  po::options_description all;
  all.add(text).add(exchange).add(model).add(training).add(other);
  return all;
}

void require(bool good, const std::string& option, const std::string& rule) {
  if (!good) throw UsageError("--" + option + " must be " + rule + ".");
}

}  // namespace

std::optional<Options> parse_options(int argc, const char* const* argv) {
  Options o;
  po::variables_map given;
  try {
    const po::options_description all = table(o);
    // No positional arguments: a forgotten "--text" before a path is an error, not a path ignored.
    po::store(po::command_line_parser(argc, argv).options(all).positional({}).run(), given);
    po::notify(given);
  } catch (const po::too_many_positional_options_error&) {
    throw UsageError(
        "there is an argument without an option: name text by --text FILE; --help lists the options.");
  } catch (const po::error& error) {
    throw UsageError(std::string(error.what()) + "; --help lists the options.");
  }
  if (given.contains("help")) return std::nullopt;

  const auto paths =
      given.contains("text") ? given["text"].as<std::vector<std::string>>() : std::vector<std::string>{};
  o.text.assign(paths.begin(), paths.end());
  if (o.text.empty()) o.text.emplace_back("/usr/share/common-licenses");
  if (given.contains("json")) o.json = given["json"].as<std::string>();
  if (given.contains("parameters")) {
    o.parameters = given["parameters"].as<std::int64_t>();
    require(given["hidden"].defaulted(), "parameters", "given without --hidden: each decides the other");
    require(*o.parameters >= 1000 && *o.parameters <= 1'000'000'000, "parameters", "from 1000 to 1000000000");
  }
  require(o.max_megabytes >= 1 && o.max_megabytes <= 4096, "max-megabytes", "from 1 to 4096");
  require(o.device == "host" || o.device == "cuda", "device", "host or cuda");
  require(!o.allreduce.empty(), "allreduce", "mpi or the spec of a codec");
  require(o.context >= 1 && o.context <= 1024, "context", "from 1 to 1024");
  require(o.embedding >= 1 && o.embedding <= 4096, "embedding", "from 1 to 4096");
  require(o.hidden >= 1 && o.hidden <= 16384, "hidden", "from 1 to 16384");
  require(o.steps >= 1 && o.steps <= 100'000'000, "steps", "from 1 to 100000000");
  o.dump_step = o.steps;
  if (given.contains("dump-gradients")) o.dump_gradients = given["dump-gradients"].as<std::string>();
  if (given.contains("dump-step")) {
    o.dump_step = given["dump-step"].as<std::int64_t>();
    require(!o.dump_gradients.empty(), "dump-step",
            "given with --dump-gradients: it says which step's they are");
    require(o.dump_step >= 1 && o.dump_step <= o.steps, "dump-step", "from 1 to --steps");
  }
  require(o.batch >= 1 && o.batch <= 65536, "batch", "from 1 to 65536");
  require(std::isfinite(o.lr) && o.lr > 0.0, "lr", "a number above 0");
  require(o.momentum >= 0.0 && o.momentum < 1.0, "momentum", "at least 0 and below 1");
  require(std::isfinite(o.clip) && o.clip >= 0.0, "clip", "at least 0");
  require(o.eval_every >= 0, "eval-every", "at least 0");
  return o;
}

std::string help_text() {
  Options o;
  std::ostringstream out;
  out << "mpirun -np P train_charlm [options]\n\n"
         "Trains a character-level language model data-parallel with momentum SGD. Each rank draws "
         "minibatches of its\n"
         "own; one allreduce averages the gradients of all parameters.\n"
      << table(o);
  return out.str();
}

}  // namespace charlm

// SPDX-License-Identifier: Apache-2.0
//
// terse-stress: random calls against the oracle, under mpirun, through the public interface.
//
// An episode deals the ranks out to groups of any size and order, each a communicator of its own. A group
// calls with a few tensors in turn: any codec, dtype, op, algorithm, segment size, check and type of
// residuals, in place or not, with values that are not finite now and then. After each call every rank
// gathers what all ranks hold (results, and Feedbacks by their saves) and expects of it what the conformance
// tests do: the serial model, the identities, the same bits, the bytes on the wire. All of it follows from
// the seed and the episode's number.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <terse/terse.hpp>
#include <vector>

#include "support/checks.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"
#include "support/rig.hpp"
#include "support/watchdog.hpp"

namespace terse::test {
namespace {

std::string where = "the start";  // what this rank is at

class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t episode, std::uint64_t group) {
    std::seed_seq sequence{seed, seed >> 32, episode, group};
    engine_.seed(sequence);
  }
  /// A number below n.
  std::size_t below(std::size_t n) { return engine_() % n; }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  const T& of(const std::vector<T>& choices) {
    return choices[below(choices.size())];
  }
  std::uint64_t seed() { return engine_(); }
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
};

/// How the ranks are dealt out in an episode: the group of each, and its place in it.
struct Deal {
  std::vector<int> group;
  std::vector<int> key;
  int groups = 0;

  Deal(Random& random, int ranks) : group(static_cast<std::size_t>(ranks)), key(group.size()) {
    groups = static_cast<int>(1 + random.below(3));
    for (int& g : group) g = static_cast<int>(random.below(static_cast<std::size_t>(groups)));
    std::iota(key.begin(), key.end(), 0);
    std::shuffle(key.begin(), key.end(), random.engine());
  }
  bool empty(int g) const { return std::find(group.begin(), group.end(), g) == group.end(); }
};

/// A tensor of one episode: what its calls have in common, and this rank's residuals.
struct Subject {
  Setting setting;
  CallOptions options;
  Feedback feedback;
  Rig shadow;  // all ranks' residuals, for the checks

  Subject(const Setting& s, Policy policy)
      : setting(s), options{.policy = std::move(policy)}, feedback(s.residual), shadow(s) {
    if (setting.feedback) options.feedback = &feedback;
  }
  /// Whether its calls begin with an agreement: those are counted.
  bool is_agreed_upon() const {
    const bool small = setting.count * size_of(setting.dtype) < *options.policy.min_bytes;
    return !small || *options.policy.check != Check::call;
  }
  bool lossy() const { return shadow.algorithm().compresses && !shadow.codec()->traits().lossless; }
};

std::size_t random_count(Random& random, const Codec& codec, int ranks) {
  const std::size_t block = codec.traits().block;
  switch (random.below(8)) {
    case 0:
      return random.below(4);
    case 1:
      return std::min<std::size_t>(3000, block * static_cast<std::size_t>(ranks) + random.below(3) - 1);
    case 2:
      return 1000 + random.below(3000);
    default:
      return random.below(400);
  }
}

std::unique_ptr<Subject> random_subject(Random& random, int ranks) {
  static const std::vector<std::string> specs = [] {
    auto all = all_specs();
    for (const char* more : {"onebit:block=8", "onebit:block=128", "onebit:block=16,scale=rms"})
      all.push_back(more);
    return all;
  }();
  Setting s;
  s.codec = random.of(specs);
  const auto codec = make_codec(s.codec);
  do {
    s.dtype = kAllDTypes[random.below(std::size(kAllDTypes))];
  } while (!codec->supports(s.dtype));
  s.ranks = ranks;
  s.count = random_count(random, *codec, ranks);
  s.op = random.one_in(2) ? Op::average : Op::sum;
  s.algorithm = algorithm_for(*codec, ranks).name;
  s.feedback = !random.one_in(4) && (codec->traits().contractive || codec->traits().whole_tensor);
  if (random.one_in(2) && s.dtype != DType::f64) s.residual = ResidualType::bf16;
  s.in_place = random.one_in(2);
  s.segment_bytes = random.of<std::size_t>({1, 100, 1000, 5000, std::size_t{4} << 20});
  s.checksum = random.one_in(4);
  s.offset = random.below(4);

  Policy policy;
  policy.codec = random.one_in(2) ? CodecChoice(s.codec) : CodecChoice(codec);
  policy.segment_bytes = s.segment_bytes;
  policy.check = s.checksum ? Check::payload : random.one_in(3) ? Check::all : Check::call;
  policy.algorithm = s.algorithm;
  policy.min_bytes = 0;
  const std::size_t bytes = s.count * size_of(s.dtype);
  switch (random.below(6)) {
    case 0:
      policy.algorithm = s.algorithm = "exact";
      break;
    case 1:
      policy.algorithm = "auto";
      if (codec->traits().lossless || s.ranks == 1) s.algorithm = "exact";
      break;
    case 2:
      policy.min_bytes = random.below(2 * bytes + 1);
      if (bytes < *policy.min_bytes) s.algorithm = "exact";
      break;
    default:
      break;
  }
  return std::make_unique<Subject>(s, policy);
}

/// What all ranks hold after a call.
Rig::Result gather(MPI_Comm comm, Subject& subject, const Tensor& out, const Outcome& outcome) {
  Rig::Result result = subject.shadow.empty_result();
  const bool compressed = outcome.result == Outcome::Result::compressed;
  const std::uint64_t numbers[] = {outcome.bytes_sent, compressed ? outcome.exact_count : 0};
  const auto all_numbers = gather_all(comm, std::as_bytes(std::span(numbers)));
  const auto all_bytes = gather_all(comm, out.bytes());
  const auto all_saves = gather_all(comm, subject.feedback.save());
  for (std::size_t r = 0; r < all_bytes.size(); ++r) {
    std::uint64_t of_rank[2];
    std::memcpy(of_rank, all_numbers[r].data(), sizeof of_rank);
    result.calls[r] = {.bytes_sent = of_rank[0], .exact_count = of_rank[1]};
    result.wire[r] = of_rank[0];
    result.out[r] = Tensor(out.count(), out.dtype());
    if (out.count() != 0) std::memcpy(result.out[r].view().data, all_bytes[r].data(), all_bytes[r].size());
    subject.shadow.feedback(static_cast<int>(r)).load(all_saves[r]);
  }
  return result;
}

void one_call(Communicator& world, MPI_Comm comm, Subject& subject, Random& random) {
  const Setting& s = subject.setting;
  const auto me = static_cast<std::size_t>(world.rank());
  Rig::Matrix inputs =
      subject.lossy() ? normal_inputs(subject.shadow, random.seed()) : exact_inputs(s, random.seed());
  std::vector<Spot> spots;
  if (subject.lossy() && s.count != 0 && random.one_in(8)) {
    const double infinity = std::numeric_limits<double>::infinity();
    for (std::size_t n = 1 + random.below(3); n != 0; --n) {
      const double value = random.of<double>({std::nan(""), infinity, -infinity});
      spots.push_back({static_cast<int>(random.below(inputs.size())), random.below(s.count), value});
      inputs[static_cast<std::size_t>(spots.back().rank)][spots.back().element] = value;
    }
  }
  const Before before(subject.shadow);
  Tensor in(inputs[me], s.dtype, s.offset);
  const Tensor unchanged = in;
  Tensor out(s.count, s.dtype, s.offset);
  const terse::Tensor tensor =
      s.in_place ? terse::Tensor(in.view()) : terse::Tensor(std::as_const(in).view(), out.view());
  const Outcome outcome = world.allreduce(tensor, s.op, subject.options);
  if (s.in_place) {
    out = in;
  } else if (!in.same_bits(unchanged)) {
    throw std::runtime_error("the input was changed");
  }
  if (!in.guards_intact() || !out.guards_intact()) throw std::runtime_error("written beside the tensor");
  if ((outcome.result == Outcome::Result::compressed) != subject.lossy()) {
    throw std::runtime_error("the outcome says " + std::string(name(outcome.result)));
  }
  if ((outcome.reason == Outcome::Reason::non_finite) != !spots.empty()) {
    throw std::runtime_error("the outcome's reason is " + std::string(name(outcome.reason)));
  }
  const Rig::Result result = gather(comm, subject, out, outcome);
  if (spots.empty()) {
    expect_call(subject.shadow, before, inputs, result);
  } else {
    expect_flagged_call(subject.shadow, before, inputs, result, spots);
  }
  if (s.feedback && random.one_in(6)) {  // a checkpoint
    const auto saved = subject.feedback.save();
    subject.feedback.reset();
    subject.feedback.load(saved);
  }
}

struct Arguments {
  std::uint64_t cases = 2000;
  std::uint64_t seed = 1;
  std::uint64_t episode = 0;
};

std::string place_of(const Arguments& arguments, std::uint64_t episode, const std::string& what) {
  return "--seed " + std::to_string(arguments.seed) + " --episode " + std::to_string(episode) + ": " + what;
}

/// Returns the calls that all groups of the episode have made.
std::uint64_t run_episode(const Arguments& arguments, std::uint64_t episode, Watchdog& watchdog) {
  where = place_of(arguments, episode, "its start, or the end of other groups");
  watchdog.now_at(where);
  Random common(arguments.seed, episode, 0);
  const Deal deal(common, world_size());
  const auto me = static_cast<std::size_t>(world_rank());
  const SubComm part(deal.group[me], deal.key[me]);
  std::uint64_t made = 0;
  for (int g = 0; g < deal.groups; ++g) {
    Random random(arguments.seed, episode, 1 + static_cast<std::uint64_t>(g));
    const std::size_t calls = 6 + random.below(20);
    if (!deal.empty(g)) made += calls;
    if (g != deal.group[me]) continue;
    Communicator world(part.get());
    std::vector<std::unique_ptr<Subject>> subjects;
    for (std::size_t n = 1 + random.below(4); n != 0; --n)
      subjects.push_back(random_subject(random, world.size()));
    std::uint64_t agreed = 0;
    for (std::size_t call = 0; call < calls; ++call) {
      Subject& subject = *random.of(subjects);
      where = place_of(arguments, episode,
                       "call " + std::to_string(call) + " of group " + std::to_string(g) + ", " +
                           text_of(subject.setting) + ", algorithm=" + subject.options.policy.algorithm);
      watchdog.now_at(where);
      subject.shadow.set_call(agreed);
      one_call(world, part.get(), subject, random);
      if (subject.is_agreed_upon()) ++agreed;
    }
  }
  return made;
}

/// False where only help was asked for.
bool parse(int argc, char** argv, Arguments& arguments) {
  namespace po = boost::program_options;
  po::options_description options("mpirun -np 8 terse-stress: random calls against the oracle");
  options.add_options()("help,h", "this text")("cases",
                                               po::value(&arguments.cases)->default_value(arguments.cases),
                                               "calls to make, in whole episodes")(
      "seed", po::value(&arguments.seed)->default_value(arguments.seed), "of all that is random")(
      "episode", po::value(&arguments.episode)->default_value(arguments.episode), "where to begin");
  po::variables_map map;
  po::store(po::parse_command_line(argc, argv, options), map);
  po::notify(map);
  if (!map.contains("help")) return true;
  if (world_rank() == 0) std::cout << options;
  return false;
}

int run(int argc, char** argv) {
  Arguments arguments;
  try {
    if (!parse(argc, argv, arguments)) return 0;
  } catch (const boost::program_options::error& error) {  // the same on all ranks
    if (world_rank() == 0) std::cerr << "terse-stress: " << error.what() << " (see --help)" << std::endl;
    return 2;
  }
  std::uint64_t made = 0;
  std::uint64_t episode = arguments.episode;
  {
    Watchdog watchdog(world_rank());
    for (; made < arguments.cases; ++episode) made += run_episode(arguments, episode, watchdog);
  }
  int ranks = world_size();
  MPI_Barrier(MPI_COMM_WORLD);
  if (world_rank() == 0) {
    std::cout << made << " calls in " << episode - arguments.episode << " episodes on " << ranks
              << " ranks, seed " << arguments.seed << ": no mismatch\n";
  }
  return 0;
}

}  // namespace
}  // namespace terse::test

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);  // the watchdog calls MPI only to end it
  int no_arguments = 1;
  testing::InitGoogleTest(&no_arguments, argv);
  testing::GTEST_FLAG(throw_on_failure) = true;  // an expectation that is not met ends the run
  int status = 1;
  try {
    status = terse::test::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "terse-stress: rank " << terse::test::world_rank() << ", " << terse::test::where << "\n  "
              << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return status;
}

// SPDX-License-Identifier: Apache-2.0
//
// terse-bench: what compressed collectives take, beside what they take the place of.
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <vector>

#include "../command_line.hpp"
#include "arguments.hpp"
#include "device_memory.hpp"
#include "environment.hpp"
#include "plain_algorithms.hpp"
#include "session.hpp"
#include "suite.hpp"

namespace terse::bench {
namespace {

constexpr std::array kSuites = {&kAllreduceSuite, &kOverlapSuite, &kPersistentSuite, &kFusedSuite,
                                &kCodecSuite};

void print_help() {
  std::cout << "terse-bench " << version() << ": what compressed collectives take\n\n";
  for (const Suite* suite : kSuites)
    std::cout << "  " << suite->usage << "\n      " << suite->summary << "\n\n";
  std::cout << "  terse-bench SUITE --help\n  terse-bench --version\n";
}

/// The suite that the first word names; none where it is an option.
const Suite* find_suite(const std::vector<std::string>& arguments) {
  const std::string names =
      tools::list_names(kSuites, [](const Suite* suite) { return std::string(suite->name); });
  if (arguments.empty()) throw tools::UsageError("a suite is missing: " + names + ", or --help");
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h" || first == "--version") return nullptr;
  const auto found =
      std::find_if(kSuites.begin(), kSuites.end(), [&](const Suite* suite) { return suite->name == first; });
  if (found == kSuites.end()) {
    throw tools::UsageError((first.starts_with('-') ? "there is no option '" : "there is no suite '") +
                            first + "': use " + names + ", --help or --version");
  }
  return *found;
}

/// Whether a launcher started this process: there may be other ranks.
bool is_launched() {
  constexpr std::array kVariables = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
  return std::any_of(kVariables.begin(), kVariables.end(),
                     [](const char* variable) { return std::getenv(variable) != nullptr; });
}

/// Starts MPI for its lifetime where there are ranks to meet, and not otherwise: what needs one rank works
/// where no MPI job can be started, too.
class Start {
 public:
  Start(int& argc, char**& argv) : argc_(argc), argv_(argv) {
    if (is_launched()) start_mpi();
  }
  ~Start() {
    if (session_.comm != MPI_COMM_NULL) MPI_Finalize();
  }
  Start(const Start&) = delete;
  Start& operator=(const Start&) = delete;

  void start_mpi() {
    if (session_.comm != MPI_COMM_NULL) return;
    const bool chooses_baseline = std::any_of(
        argv_, argv_ + argc_, [](std::string_view word) { return word.starts_with("--baseline"); });
    if (chooses_baseline) permit_plain_algorithms();
    // more than is needed costs locks
    int provided = 0;
    MPI_Init_thread(&argc_, &argv_, wants_progress_thread() ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE,
                    &provided);
    session_.comm = MPI_COMM_WORLD;
    MPI_Comm_rank(session_.comm, &session_.rank);
    MPI_Comm_size(session_.comm, &session_.size);
  }
  const Session& session() const noexcept { return session_; }

 private:
  /// Before anything is parsed, as MPI must know when it starts.
  bool wants_progress_thread() const {
    const char* set = std::getenv("TERSE_PROGRESS");
    std::string_view value = set == nullptr ? "" : set;
    for (int i = 1; i < argc_; ++i) {
      constexpr std::string_view kOption = "--progress";
      const std::string_view word = argv_[i];
      if (word == kOption && i + 1 < argc_) value = argv_[i + 1];
      if (word.starts_with(std::string(kOption) + "=")) value = word.substr(kOption.size() + 1);
    }
    return value == "thread";
  }

  int& argc_;
  char**& argv_;
  Session session_;
};

int run(Start& start, const std::vector<std::string>& arguments) {
  const Suite* suite = find_suite(arguments);
  if (suite == nullptr) {
    if (!start.session().is_root()) return 0;
    if (arguments.front() == "--version") {
      std::cout << "terse-bench " << version() << '\n';
    } else {
      print_help();
    }
    return 0;
  }
  const std::string program = "terse-bench " + arguments.front();
  const auto options = suite->options();
  const auto values = tools::parse_command_line(program, options, {arguments.begin() + 1, arguments.end()});
  if (values.count("help") != 0) {
    if (start.session().is_root()) {
      std::cout << suite->usage << "\n\n"
                << suite->summary << "\n\n"
                << options << '\n'
                << suite->notes << '\n';
    }
    return 0;
  }
  if (suite->ranks == Suite::Ranks::any) {
    start.start_mpi();
  } else if (start.session().size > 1) {
    throw tools::UsageError(program + " measures one rank: run it without mpirun, or with -np 1");
  }
  Session session = start.session();
  if (memory_argument(values) == Memory::cuda) {
    if (suite->tensors == Suite::Tensors::host) {
      throw tools::UsageError("--device cuda: " + program +
                              " measures tensors on the host; allreduce and codec measure them on a device");
    }
    const int place = rank_on_host(session);
    session.device = agreed(session, [&] { return choose_device(place); });
  }
  return suite->run(session, values);
}

/// Run, with errors as sentences and exit codes.
int guarded_run(Start& start, const std::vector<std::string>& arguments) {
  const auto complain = [](const std::exception& error) {
    std::cout.flush();
    std::cerr << "terse-bench: " << error.what() << std::endl;
  };
  const Session& session = start.session();
  const auto abort_all = [&] {
    if (session.comm != MPI_COMM_NULL) MPI_Abort(session.comm, 1);
  };
  try {
    return run(start, arguments);
  } catch (const tools::UsageError& error) {
    if (session.is_root()) complain(error);
    return tools::kUsageExit;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::communication) {  // not all ranks need have met it
      complain(error);
      abort_all();
    }
    if (session.is_root()) complain(error);
    return 1;
  } catch (const std::exception& error) {  // on this rank only: the others wait for it
    complain(error);
    abort_all();
  }
  return 1;
}

}  // namespace
}  // namespace terse::bench

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  terse::bench::Start start(argc, argv);
  const int status = terse::bench::guarded_run(start, arguments);
  std::cout.flush();
  return status;
}

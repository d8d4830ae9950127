// SPDX-License-Identifier: Apache-2.0
//
// Options of a communicator as an MPI_Info.
#include "c_api/info.hpp"

#include <mpi.h>
#include <terse/terse.h>

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <terse/communicator.hpp>

#include "c_api/handles.hpp"
#include "c_api/raise.hpp"
#include "c_api/state.hpp"

namespace terse::c_api {
namespace {

constexpr std::string_view kPrefix = "terse_";

std::string value_of(MPI_Info info, const char* key) {
  int length = 0;
  int found = 0;
  check([&] { return MPI_Info_get_valuelen(info, key, &length, &found); });
  std::string value(static_cast<std::size_t>(length) + 1, '\0');
  check([&] { return MPI_Info_get(info, key, length, value.data(), &found); });
  value.resize(static_cast<std::size_t>(length));
  return value;
}

bool is_for(const CommunicatorOptions&, std::string_view) { return true; }
bool is_for(const CallOptions&, std::string_view name) {
  const auto all = options();
  return std::none_of(all.begin(), all.end(),
                      [&](const OptionInfo& one) { return one.name == name && !one.of_policy; });
}

void set(CommunicatorOptions& options, std::string_view name, std::string_view value) {
  set_option(options, name, value);
}
void set(CallOptions& options, std::string_view name, std::string_view value) {
  set_option(options.policy, name, value);
}

template <class Options>
void read(MPI_Info info, Options& options) {
  if (info == MPI_INFO_NULL) return;
  int keys = 0;
  check([&] { return MPI_Info_get_nkeys(info, &keys); });
  for (int i = 0; i < keys; ++i) {
    char key[MPI_MAX_INFO_KEY + 1] = {};
    check([&] { return MPI_Info_get_nthkey(info, i, key); });
    const std::string_view name = key;
    if (name.substr(0, kPrefix.size()) != kPrefix) continue;
    const std::string_view option = name.substr(kPrefix.size());
    if (!is_for(options, option)) continue;
    try {
      set(options, option, value_of(info, key));
    } catch (const Error& error) {
      throw Error(error.code(), "MPI_Info key " + std::string(key) + ": " + error.what());
    }
  }
}

// An option's value wherever it comes from.
std::string in_force(const State& state, const CommunicatorOptions& environment, const OptionInfo& option) {
  std::string value;
  if (state.communicator) {
    value = get_option(state.communicator->options(), option.name);
  } else {
    value = get_option(state.options, option.name);
    if (value.empty()) value = get_option(environment, option.name);
  }
  return value.empty() ? std::string(option.default_value) : value;
}

template <class Options>
std::exception_ptr read_all(MPI_Info info, Options& options) {
  const auto unreadable = [&] {
    options.failure = Error(ErrorCode::invalid_argument, "MPI cannot read the info");
    return std::current_exception();
  };
  try {
    read(info, options);
  } catch (const MpiFailure&) {
    return unreadable();
  } catch (const HandlerThrew&) {
    return unreadable();
  } catch (const std::exception&) {
    options.failure = current_error();
  }
  return nullptr;
}

}  // namespace

std::exception_ptr read_info(MPI_Info info, CommunicatorOptions& options) { return read_all(info, options); }
std::exception_ptr read_info(MPI_Info info, CallOptions& options) { return read_all(info, options); }

std::exception_ptr read_options(const Terse_Options* given, CallOptions& options, Terse_Feedback* feedback) {
  if (given == nullptr) return nullptr;
  const auto refuse = [&](const std::string& why) -> std::exception_ptr {
    options.failure = Error(ErrorCode::invalid_argument, why);
    return nullptr;
  };
  if (given->size < sizeof(Terse_Options)) {  // the first version's, the smallest that there is
    return refuse("Terse_Options::size is " + std::to_string(given->size) +
                  ", which no version has had: set it to sizeof(Terse_Options)");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + sizeof(Terse_Options), bytes + given->size,
                  [](unsigned char byte) { return byte != 0; })) {
    return refuse(
        "Terse_Options has members that this library, which is older than the program, does not know");
  }
  options.stream = given->stream;
  if (feedback != nullptr) {
    *feedback = given->feedback;
  } else if (given->feedback != TERSE_FEEDBACK_NULL) {
    return refuse("Terse_Options::feedback is of one tensor, and this call has a list: pass their feedbacks");
  }
  if (given->tensor != nullptr) options.tensor = given->tensor;
  // zero is what a member is that nobody has set, whatever MPI_INFO_NULL is
  return given->info == MPI_Info{} ? nullptr : read_info(given->info, options);
}

}  // namespace terse::c_api

using namespace terse::c_api;

int Terse_Comm_set_info(MPI_Comm comm, MPI_Info info) {
  return run("Terse_Comm_set_info", comm, [&] {
    State& state = state_of(comm);
    terse::CommunicatorOptions wanted = state.options;
    const std::exception_ptr found_by_mpi = read_info(info, wanted);
    telling_others(found_by_mpi, [&] { state.make_communicator(wanted); });
    return MPI_SUCCESS;
  });
}

int Terse_Comm_set_stream(MPI_Comm comm, void* stream) {
  return run("Terse_Comm_set_stream", comm, [&] {
    state_of(comm).stream = stream;
    return MPI_SUCCESS;
  });
}

int Terse_Comm_get_info(MPI_Comm comm, MPI_Info* info_used) {
  return run("Terse_Comm_get_info", comm, [&] {
    if (info_used == nullptr) {
      throw terse::Error(terse::ErrorCode::invalid_argument,
                         "there is nowhere to put the info: the pointer is null");
    }
    const State& state = state_of(comm);
    const terse::CommunicatorOptions environment =
        state.communicator ? terse::CommunicatorOptions{} : terse::options_from_environment();
    MPI_Info info = MPI_INFO_NULL;
    check([&] { return MPI_Info_create(&info); });
    try {
      for (const terse::OptionInfo& option : terse::options()) {
        const std::string key = std::string(kPrefix) + std::string(option.name);
        const std::string value = in_force(state, environment, option);
        check([&] { return MPI_Info_set(info, key.c_str(), value.c_str()); });
      }
    } catch (...) {
      MPI_Info_free(&info);
      throw;
    }
    *info_used = info;
    return MPI_SUCCESS;
  });
}

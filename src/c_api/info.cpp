// SPDX-License-Identifier: Apache-2.0
//
// Options of a communicator as an MPI_Info.
#include "c_api/info.hpp"

#include <mpi.h>
#include <terse/terse.h>

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

void read(MPI_Info info, AllreduceOptions& options) {
  if (info == MPI_INFO_NULL) return;
  int keys = 0;
  check([&] { return MPI_Info_get_nkeys(info, &keys); });
  for (int i = 0; i < keys; ++i) {
    char key[MPI_MAX_INFO_KEY + 1] = {};
    check([&] { return MPI_Info_get_nthkey(info, i, key); });
    const std::string_view name = key;
    if (name.substr(0, kPrefix.size()) != kPrefix) continue;
    try {
      set_option(options, name.substr(kPrefix.size()), value_of(info, key));
    } catch (const Error& error) {
      throw Error(error.code(), "MPI_Info key " + std::string(key) + ": " + error.what());
    }
  }
}

// An option's value wherever it comes from.
std::string in_force(const State& state, const AllreduceOptions& environment, const OptionInfo& option) {
  std::string value;
  if (state.communicator) {
    value = get_option(state.communicator->defaults(), option.name);
  } else {
    value = get_option(state.options, option.name);
    if (value.empty()) value = get_option(environment, option.name);
  }
  return value.empty() ? std::string(option.default_value) : value;
}

}  // namespace

std::exception_ptr read_info(MPI_Info info, AllreduceOptions& options) {
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

}  // namespace terse::c_api

using namespace terse::c_api;

int Terse_Comm_set_info(MPI_Comm comm, MPI_Info info) {
  return run("Terse_Comm_set_info", comm, [&] {
    State& state = state_of(comm);
    terse::AllreduceOptions wanted = state.options;
    const std::exception_ptr found_by_mpi = read_info(info, wanted);
    telling_others(found_by_mpi, [&] { state.make_communicator(wanted); });
    return MPI_SUCCESS;
  });
}

int Terse_Comm_set_stream(MPI_Comm comm, void* stream) {
  return run("Terse_Comm_set_stream", comm, [&] {
    state_of(comm).options.stream = stream;
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
    const terse::AllreduceOptions environment =
        state.communicator ? terse::AllreduceOptions{} : terse::options_from_environment();
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

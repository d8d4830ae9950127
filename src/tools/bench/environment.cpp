// SPDX-License-Identifier: Apache-2.0
#include "environment.hpp"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <terse/version.hpp>

#include "../output.hpp"

namespace terse::bench {
namespace {

/// Variables that change what is measured: those of the library, of plain MPI's algorithms, of the allocator,
/// threads.
constexpr std::array kSettings = {"TERSE_",     "OMPI_MCA_coll", "OMPI_MCA_btl", "OMPI_MCA_mpi_yield",
                                  "MPIR_CVAR_", "I_MPI_ADJUST",  "MALLOC_",      "GLIBC_TUNABLES",
                                  "HWY_"};

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name") && !line.starts_with("cpu\t")) continue;
    const auto begin = line.find_first_not_of(" \t:", line.find(':'));
    if (begin != std::string::npos) return line.substr(begin);
  }
  utsname system{};
  return uname(&system) == 0 ? system.machine : "unknown";
}

std::string utc_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

Json settings() {
  Json result = Json::object();
  std::vector<std::string> found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string setting = *entry;
    const bool listed = std::any_of(kSettings.begin(), kSettings.end(),
                                    [&](const char* prefix) { return setting.starts_with(prefix); });
    if (listed && setting.find('/') == std::string::npos) found.push_back(setting);
  }
  std::sort(found.begin(), found.end());
  for (const std::string& setting : found) {
    const auto equals = setting.find('=');
    result[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  return result;
}

/// Among the ranks of the same host.
struct PlaceOnHost {
  int rank = 0;
  int size = 1;
};

PlaceOnHost place_on_host(const Session& session) {
  PlaceOnHost place;
  if (session.size == 1) return place;
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(session.comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &place.rank);
  MPI_Comm_size(host, &place.size);
  MPI_Comm_free(&host);
  return place;
}

/// "32768K" as the system writes it; 0 for anything else.
std::size_t cache_size(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::size_t number = 0;
  char unit = ' ';
  stream >> number >> unit;
  if (!stream) return 0;
  return unit == 'K' ? number << 10 : unit == 'M' ? number << 20 : unit == 'G' ? number << 30 : 0;
}

}  // namespace

int rank_on_host(const Session& session) { return place_on_host(session).rank; }

std::vector<int> ranks_per_host(const Session& session) {
  if (session.size == 1) return {1};
  const PlaceOnHost place = place_on_host(session);
  const int mine = place.rank == 0 ? place.size : 0;  // the first rank of a host speaks for it
  std::vector<int> layout(static_cast<std::size_t>(session.size));
  MPI_Allgather(&mine, 1, MPI_INT, layout.data(), 1, MPI_INT, session.comm);
  std::erase(layout, 0);
  return layout;
}

Json describe_environment(const Session& session, const std::vector<int>& layout) {
  return {{"terse", version()},
          {"mpi_library", tools::mpi_library()},
          {"cpu", cpu_model()},
          {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
          {"cores_allowed", allowed_cores()},
          {"date", utc_date()},
          {"ranks", session.size},
          {"hosts", layout.size()},
          {"ranks_per_host", layout},
          {"device", session.on_device() ? Json(session.device) : Json()},
          {"optimized", is_optimized()},
          {"settings", settings()}};
}

std::size_t last_level_cache_bytes() {
  constexpr std::size_t kUsual = std::size_t{32} << 20;
  std::size_t most = 0;
  std::error_code error;
  for (const auto& index : std::filesystem::directory_iterator("/sys/devices/system/cpu/cpu0/cache", error)) {
    most = std::max(most, cache_size(index.path() / "size"));
  }
#ifdef _SC_LEVEL3_CACHE_SIZE
  for (const int level : {_SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE}) {
    if (most == 0) most = static_cast<std::size_t>(std::max(0L, sysconf(level)));
  }
#endif
  return most == 0 ? kUsual : most;
}

std::size_t allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return static_cast<std::size_t>(CPU_COUNT(&set));
}

bool is_optimized() noexcept {
#ifdef __OPTIMIZE__
  return true;
#else
  return false;
#endif
}

}  // namespace terse::bench

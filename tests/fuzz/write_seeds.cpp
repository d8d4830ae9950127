// SPDX-License-Identifier: Apache-2.0
//
// write_seeds DIRECTORY: writes each target's seeds into a directory of its name.
// write_seeds DIRECTORY REGRESSIONS: and into DIRECTORY/TARGET.inputs, for libFuzzer's -seed_inputs=@FILE,
// the names of these files in their order, and of those in REGRESSIONS/TARGET in alphabetical order. From a
// folder libFuzzer would take them as the file system lists them, which differs from machine to machine, and
// with it all that follows. write_seeds --specs: prints the examples of the codec table.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace {

bool write(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (out.flush()) return true;
  std::fprintf(stderr, "write_seeds: cannot write %s\n", file.c_str());
  return false;
}

// Separated by commas, as libFuzzer reads them.
std::string list_of(const std::vector<std::filesystem::path>& seeds,
                    const std::filesystem::path& regressions) {
  std::set<std::filesystem::path> found;
  if (std::filesystem::exists(regressions)) {
    for (const auto& entry : std::filesystem::directory_iterator(regressions)) found.insert(entry.path());
  }
  std::string list;
  for (const auto& file : seeds) list += (list.empty() ? "" : ",") + file.string();
  for (const auto& file : found) list += "," + file.string();
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: write_seeds DIRECTORY [REGRESSIONS] | --specs\n");
    return 2;
  }
  if (std::string_view(argv[1]) == "--specs") {
    for (const std::string& spec : terse::fuzz::specs()) std::printf("%s\n", spec.c_str());
    return 0;
  }
  for (const terse::fuzz::Target& target : terse::fuzz::targets()) {
    const auto directory = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(directory);
    std::vector<std::filesystem::path> written;
    for (const terse::fuzz::Bytes& seed : target.seeds()) {
      written.push_back(directory / ("seed-" + std::to_string(written.size())));
      if (!write(written.back(), {reinterpret_cast<const char*>(seed.data()), seed.size()})) return 1;
    }
    if (argc == 3 && !write(directory.string() + ".inputs",
                            list_of(written, std::filesystem::path(argv[2]) / target.name))) {
      return 1;
    }
  }
  return 0;
}

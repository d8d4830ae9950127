// SPDX-License-Identifier: Apache-2.0
//
// write_seeds DIRECTORY: writes each target's seeds into a directory of its name.
// write_seeds --specs: prints the examples of the codec table.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "fuzz/fuzz.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_seeds DIRECTORY | --specs\n");
    return 2;
  }
  if (std::string_view(argv[1]) == "--specs") {
    for (const std::string& spec : terse::fuzz::specs()) std::printf("%s\n", spec.c_str());
    return 0;
  }
  for (const terse::fuzz::Target& target : terse::fuzz::targets()) {
    const auto directory = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(directory);
    std::size_t number = 0;
    for (const terse::fuzz::Bytes& seed : target.seeds()) {
      std::ofstream file(directory / ("seed-" + std::to_string(number++)), std::ios::binary);
      file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
      if (!file.flush()) {
        std::fprintf(stderr, "write_seeds: cannot write into %s\n", directory.c_str());
        return 1;
      }
    }
  }
  return 0;
}

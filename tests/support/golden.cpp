// SPDX-License-Identifier: Apache-2.0
#include "support/golden.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace terse::test {
namespace {

const std::string kFolder = TERSE_TEST_GOLDEN_DIR;

}  // namespace

std::vector<Golden> load_golden(const std::string& mode) {
  namespace fs = std::filesystem;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Golden> files;
  for (const auto& path : paths) {
    std::ifstream in(path);
    const auto json = nlohmann::json::parse(in);
    if (json.at("mode") != mode) continue;
    Golden g;
    g.name = path.stem().string();
    g.mode = mode;
    g.block = json.at("block");
    g.ranks = json.at("ranks");
    g.count = json.at("count");
    g.chunks = json.at("chunks").get<decltype(g.chunks)>();
    for (const auto& step : json.at("steps")) {
      g.steps.push_back({step.at("inputs"), step.at("average"), step.at("worker_scales"),
                         step.at("server_scales"), step.at("worker_residuals"), step.at("server_residuals")});
    }
    files.push_back(std::move(g));
  }
  if (files.empty()) throw std::runtime_error("no golden file of mode " + mode + " in " + kFolder);
  return files;
}

}  // namespace terse::test

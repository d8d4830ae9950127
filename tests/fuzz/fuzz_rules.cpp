// SPDX-License-Identifier: Apache-2.0
//
// parse_rules of any text: invalid_argument that begins with file and line, or rules that can be described.
//
// Input: text.
#include "fuzz/fuzz.hpp"
#include "interpose/settings.hpp"

namespace terse::fuzz {

void fuzz_rules(std::span<const std::byte> bytes) {
  Input input(bytes);
  const std::string text = input.text();
  interpose::Settings settings;
  const std::string outcome = outcome_of([&] { settings.rules = interpose::parse_rules(text, "FILE"); });
  require(outcome.empty() || is(outcome, ErrorCode::invalid_argument), outcome);
  require(outcome.empty() || outcome.find("FILE:") != std::string::npos, "it names the file: " + outcome);
  for (const interpose::Rule& rule : settings.rules) {
    require(threshold(rule) >= 1, "no call of nothing is a rule's");
    require(rule.passes || rule.policy.codec.codec() != nullptr, "a codec is there");
    require(rule.period >= 1, "a step has calls");
    require(rule.bytes.least <= rule.bytes.most && rule.comm_size.least <= rule.comm_size.most, "intervals");
  }
  require(settings.rules.empty() == interpose::describe(settings).empty(), "rules have a description");
}

std::vector<Bytes> rules_seeds() {
  std::vector<Bytes> seeds;
  std::string all = "# all\n[all]\n";
  for (const interpose::SettingInfo& info : interpose::setting_infos()) {
    const std::string line = std::string(info.name) + " = " + std::string(info.default_value) + "\n";
    seeds.push_back(Writer().text("[one]\ncodec=onebit\n" + line).done());
    if (info.of_a_rule && info.name != "codec") all += line;
  }
  seeds.push_back(Writer().text(all + "codec = onebit:block=64\n[rest]\r\ncodec=none").done());
  for (const char* line :
       {"bytes=4K:1G", "bytes=:7", "comm_size=8:", "key=sequence:12", "key=site", "after=100", "sample=0",
        "feedback=off", "residual=bf16", "datatype=f64", "comm_name=a b", "[one]", "x", "=", "a.b=c"}) {
    seeds.push_back(Writer().text(std::string("[one]\ncodec=onebit\n") + line + "\n").done());
  }
  return seeds;
}

}  // namespace terse::fuzz

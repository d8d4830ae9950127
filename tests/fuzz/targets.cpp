// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdlib>

#include "fuzz/fuzz.hpp"

namespace terse::fuzz {

std::span<const Target> targets() {
  static constexpr std::array<Target, 7> kTargets = {{
      {"fuzz_message", fuzz_message, message_seeds},
      {"fuzz_decode", fuzz_decode, decode_seeds},
      {"fuzz_roundtrip", fuzz_roundtrip, roundtrip_seeds},
      {"fuzz_spec", fuzz_spec, spec_seeds},
      {"fuzz_feedback", fuzz_feedback, feedback_seeds},
      {"fuzz_options", fuzz_options, options_seeds},
      {"fuzz_rules", fuzz_rules, rules_seeds},
  }};
  return kTargets;
}

const std::vector<std::string>& specs() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> found;
    for (const CodecEntry& row : codecs())
      found.insert(found.end(), row.examples.begin(), row.examples.end());
    if (const char* one = std::getenv("TERSE_FUZZ_CODEC")) found = {one};
    return found;
  }();
  return all;
}

std::shared_ptr<const Codec> codec_of(std::uint8_t choice) {
  static const std::vector<std::shared_ptr<const Codec>> made = [] {
    std::vector<std::shared_ptr<const Codec>> codecs;
    for (const std::string& spec : specs()) codecs.push_back(make_codec(spec));
    return codecs;
  }();
  return made[choice % made.size()];
}

}  // namespace terse::fuzz

// SPDX-License-Identifier: Apache-2.0
//
// set_option and parse_bytes of any text: invalid_argument that names the option, or a value that means the
// same again.
//
// Input: option (1), text.
#include <terse/communicator.hpp>

#include "api/options.hpp"
#include "fuzz/fuzz.hpp"

namespace terse::fuzz {

void fuzz_options(std::span<const std::byte> bytes) {
  Input input(bytes);
  const std::size_t choice = input.number<std::uint8_t>();
  const std::string text = input.text();
  CommunicatorOptions options;
  const auto table = terse::options();
  if (choice % (table.size() + 1) == table.size()) {  // the name, too, is anyone's
    const std::size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
    const std::string outcome = outcome_of([&] { set_option(options, name, value); });
    require(outcome.empty() || is(outcome, ErrorCode::invalid_argument), outcome);
    return;
  }
  const std::string name(table[choice % (table.size() + 1)].name);
  const std::string outcome = outcome_of([&] { set_option(options, name, text); });
  require(outcome.empty() || is(outcome, ErrorCode::invalid_argument), outcome);
  // a codec's complaint names the codec
  require(outcome.empty() || name == "codec" || outcome.find(name) != std::string::npos,
          "it names the option: " + outcome);
  if (outcome.empty() && name == "segment_bytes") {
    require(parse_bytes(name, std::to_string(*options.policy.segment_bytes)) == *options.policy.segment_bytes,
            "as a plain number");
  }
  if (outcome.empty() && name == "codec")
    require(options.policy.codec.codec() != nullptr, "a codec is there");
  // a policy says the same, or that the option is not one of its own
  Policy policy;
  const std::string of_policy = outcome_of([&] { set_option(policy, name, text); });
  if (table[choice % (table.size() + 1)].of_policy) {
    require(of_policy == outcome, "a policy takes what a Communicator takes: " + of_policy);
    if (outcome.empty()) require(get_option(policy, name) == get_option(options, name), "the same value");
  } else {
    require(is(of_policy, ErrorCode::invalid_argument), of_policy);
    require(of_policy.find(name) != std::string::npos, "it names the option: " + of_policy);
  }
}

std::vector<Bytes> options_seeds() {
  std::vector<Bytes> seeds;
  const auto table = terse::options();
  for (std::size_t k = 0; k < table.size(); ++k) {
    seeds.push_back(Writer().number(static_cast<std::uint8_t>(k)).text(table[k].default_value).done());
    const std::string line = std::string(table[k].name) + "=" + std::string(table[k].default_value);
    seeds.push_back(Writer().number(static_cast<std::uint8_t>(table.size())).text(line).done());
  }
  for (const char* text :
       {"64KiB", "3g", "1TB", "18446744073709551615", "7 K", "payload", "two_phase", "onebit:block=64"}) {
    for (std::size_t k = 0; k < table.size(); ++k) {
      seeds.push_back(Writer().number(static_cast<std::uint8_t>(k)).text(text).done());
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

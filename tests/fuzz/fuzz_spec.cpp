// SPDX-License-Identifier: Apache-2.0
//
// make_codec of any text: invalid_argument, or a codec whose canonical spec makes the same codec.
#include "fuzz/fuzz.hpp"

namespace terse::fuzz {

void fuzz_spec(std::span<const std::byte> bytes) {
  const std::string spec = Input(bytes).text();
  std::shared_ptr<const Codec> codec;
  const std::string outcome = outcome_of([&] { codec = make_codec(spec); });
  require(outcome.empty() || is(outcome, ErrorCode::invalid_argument), outcome);
  if (!codec) return;
  require(make_codec(codec->spec())->spec() == codec->spec(), "the canonical spec is its own");
  // of a composition, it is the part that is made of the others
  const std::string name(codec->name());
  require(spec.substr(0, spec.find_first_of(":+")) == name || spec.find('+' + name) != std::string::npos,
          "the name is what stands in front, or behind a +");
  require(codec->traits().block > 0 && codec->max_bytes(1000, DType::f32) >= 16, "a codec that can be asked");
}

std::vector<Bytes> spec_seeds() {
  std::vector<Bytes> seeds;
  for (const CodecEntry& row : codecs()) {
    seeds.push_back(Writer().text(row.name).done());
    std::string all = row.name;
    for (const CodecOption& option : row.options) {
      all += (all == row.name ? ":" : ",") + option.name + "=" + option.default_value;
    }
    seeds.push_back(Writer().text(all).done());
    for (const std::string& example : row.examples) {
      seeds.push_back(Writer().text(example).done());
      seeds.push_back(Writer().text(make_codec(example)->spec()).done());
    }
  }
  return seeds;
}

}  // namespace terse::fuzz

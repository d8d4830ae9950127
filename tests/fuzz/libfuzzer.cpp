// SPDX-License-Identifier: Apache-2.0
//
// What libFuzzer calls; TERSE_FUZZ_TARGET is the target.
#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  terse::fuzz::TERSE_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/error.hpp>
#include <utility>
#include <vector>

namespace terse::fuzz {

using Bytes = std::vector<std::byte>;

/// Where a target takes its bytes. What it asks for beyond the end is zero.
class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T number() {
    T value{};
    const std::size_t n = std::min(sizeof value, bytes_.size());
    if (n != 0) std::memcpy(&value, bytes_.data(), n);
    bytes_ = bytes_.subspan(n);
    return value;
  }
  Bytes bytes(std::size_t n) {
    const auto front = bytes_.first(std::min(n, bytes_.size()));
    bytes_ = bytes_.subspan(front.size());
    return {front.begin(), front.end()};
  }
  /// In memory of exactly their size, so that a sanitizer sees each step beyond.
  Bytes rest() { return bytes(bytes_.size()); }
  std::string text() {
    const Bytes all = rest();
    return {reinterpret_cast<const char*>(all.data()), all.size()};
  }

 private:
  std::span<const std::byte> bytes_;
};

/// What a target promises; ends the run, or fails the test that replays it.
inline void require(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error("not so: " + what);
}

/// Every example of the codec table; or the one that TERSE_FUZZ_CODEC names.
const std::vector<std::string>& specs();
/// The one that a byte of the input chooses.
std::shared_ptr<const Codec> codec_of(std::uint8_t choice);

/// "" where `work` ends, or the code and sentence of its Error. All else that it throws goes on.
template <class F>
std::string outcome_of(F&& work) {
  try {
    work();
    return "";
  } catch (const Error& error) {
    require(*error.what() != '\0', "an error says something");
    return std::string(name(error.code())) + ": " + error.what();
  }
}
inline bool is(const std::string& outcome, ErrorCode code) {
  return outcome.rfind(std::string(name(code)) + ": ", 0) == 0;
}

/// A function that libFuzzer drives, and inputs that lead it behind the first checks.
struct Target {
  std::string_view name;
  void (*run)(std::span<const std::byte> input);
  std::vector<Bytes> (*seeds)();
};
std::span<const Target> targets();

// One file each.
void fuzz_message(std::span<const std::byte> input);
void fuzz_decode(std::span<const std::byte> input);
void fuzz_roundtrip(std::span<const std::byte> input);
void fuzz_spec(std::span<const std::byte> input);
void fuzz_feedback(std::span<const std::byte> input);
void fuzz_options(std::span<const std::byte> input);
void fuzz_rules(std::span<const std::byte> input);
std::vector<Bytes> message_seeds();
std::vector<Bytes> decode_seeds();
std::vector<Bytes> roundtrip_seeds();
std::vector<Bytes> spec_seeds();
std::vector<Bytes> feedback_seeds();
std::vector<Bytes> options_seeds();
std::vector<Bytes> rules_seeds();

/// Puts a seed together, number by number.
class Writer {
 public:
  template <class T>
  Writer& number(T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return add(bytes);
  }
  Writer& add(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Writer& text(std::string_view text) { return add(std::as_bytes(std::span(text))); }
  Bytes done() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

}  // namespace terse::fuzz

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <terse/feedback.hpp>
#include <vector>

#include "collective/engine.hpp"
#include "support/serial_model.hpp"
#include "support/tensor.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {

/// How a call is made; what it does does not depend on that.
enum class Style : std::uint8_t {
  blocking,
  nonblocking,      ///< begun, tested and waited for
  list,             ///< as the only tensor of a list
  threads,          ///< blocking, with three threads that compute
  progress_thread,  ///< begun, while a thread makes progress
};
inline constexpr Style kAllStyles[] = {Style::blocking, Style::nonblocking, Style::list, Style::threads,
                                       Style::progress_thread};
std::string_view name(Style style) noexcept;
/// They take turns; those that make threads come seldom, since that takes longer than a small call.
inline Style style_of(std::uint64_t turn) {
  constexpr std::uint64_t kTurns = 13;
  constexpr std::uint64_t kWithoutThreads = 3;
  const std::uint64_t t = turn % kTurns;
  return kAllStyles[t < kTurns - 2 ? t % kWithoutThreads : t - (kTurns - 2) + kWithoutThreads];
}

/// What ranks that are threads do together.
struct Setting {
  int ranks = 2;
  std::size_t count = 0;
  DType dtype = DType::f32;
  Op op = Op::average;
  std::string codec = "onebit";
  std::string algorithm = "two_phase";
  bool feedback = true;
  ResidualType residual = ResidualType::full;
  bool in_place = false;
  std::size_t segment_bytes = std::size_t{4} << 20;
  bool models_segments = false;  ///< segment_bytes does not count, but what the model says
  bool checksum = false;
  std::size_t offset = 0;  ///< elements that the tensors lie off their boundary
  Style style = Style::blocking;
  std::uint64_t call = 0;  ///< how many came before, of the next one's engine
};
std::string text_of(const Setting& setting);

/// Makes a call of that style.
CallResult make_call(Style style, Transport& transport, Call call);

/// The ranks' side of one tensor: feedback and scratch that live from call to call.
class Rig {
 public:
  using Matrix = SerialModel::Matrix;  ///< [rank][element]
  struct Result {
    std::vector<Tensor> out;          ///< by rank
    std::vector<CallResult> calls;    ///< by rank
    std::vector<std::string> errors;  ///< by rank, empty: none
    std::vector<std::size_t> wire;    ///< by rank, bytes that the transport saw

    bool failed() const;
  };
  using Change = std::function<void(int rank, Call&)>;

  explicit Rig(const Setting& setting);

  /// Called before each call of a rank, last of all, to take its buffers elsewhere; what it returns is called
  /// after it.
  std::function<std::function<void()>(int rank, Call&)> place;

  /// One call on all ranks, each a thread. `change` may spoil a rank's call before it is made.
  Result call(const Matrix& inputs, const ThreadOptions& options = {}, const Change& change = {});
  /// The call of one rank, for use inside try_ranks; fills this rank's part of the result.
  void call_on(Transport& transport, const Matrix& inputs, Result& result, const Change& change = {});
  /// The same, and notes the bytes that the transport saw.
  void call_on(ThreadTransport& transport, const Matrix& inputs, Result& result, const Change& change = {});
  Result empty_result() const;

  const Setting& setting() const { return setting_; }
  void set_call(std::uint64_t call) { setting_.call = call; }
  const std::shared_ptr<const Codec>& codec() const { return codec_; }
  const Algorithm& algorithm() const { return find_algorithm(setting_.algorithm); }
  Problem problem(int rank) const;
  Pairing pairing(int rank) const;
  Feedback& feedback(int rank) { return feedbacks_[static_cast<std::size_t>(rank)]; }
  /// Residuals as double; zeros before the first call.
  Matrix workers() const;
  Matrix servers() const;
  /// Whether ranks own chunks, and keep server residuals for them.
  bool owns() const { return algorithm().chunks != nullptr; }
  /// Whether what is encoded is added without being decoded.
  bool sums_addends() const { return algorithm().codecs == Algorithm::For::summable; }
  /// [begin, end) of each rank's chunk.
  std::vector<Range> chunks() const;
  /// All (chunk, segment) pieces, in order of the tensor.
  std::vector<Range> pieces() const;

 private:
  Setting setting_;
  std::shared_ptr<const Codec> codec_;
  std::vector<Feedback> feedbacks_;
};

/// Bytes that a rank sends to agree with the others, at the beginning of a call or, with checksums, at its
/// end: three numbers in each round.
inline std::size_t agreement_bytes(int ranks) {
  std::size_t bytes = 0;
  for (int distance = 1; distance < ranks; distance *= 2) bytes += 24;
  return bytes;
}

/// Why an algorithm does not serve a codec, dtype and feedback: the sentence; empty if they go together.
std::string refusal(const Setting& setting);

/// The serial model of a setting with onebit; its residuals are those of the rig.
SerialModel model_of(const Rig& rig);
/// How much rounding changes a residual that is kept, over its magnitude: nothing to speak of, or that of
/// bf16.
double residual_roundoff(const Setting& setting);
/// What magnitudes may be off, relative to what went into them: rounding of sums and scales.
double tolerance_of(DType dtype);

/// Inputs of one call: normal values, signs clear of rounding where the codec is onebit.
Rig::Matrix normal_inputs(const Rig& rig, std::uint64_t seed);
Rig::Matrix exact_inputs(const Setting& setting, std::uint64_t seed);

}  // namespace terse::test

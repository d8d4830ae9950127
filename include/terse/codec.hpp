// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/error.hpp>
#include <terse/types.hpp>
#include <vector>

namespace terse::inline v0_1 {

class CodecInternals;

/// What random numbers depend on, beside a codec's seed, so that they can be drawn again: see docs/codecs.md.
struct RandomKey {
  std::uint64_t call = 0;      ///< how many calls came before
  std::uint32_t stream = 0;    ///< who encodes: 2 * rank, and for an owner's sums 2 * rank + 1
  std::uint64_t position = 0;  ///< of the first value in its tensor, or in the list of tensors

  constexpr RandomKey at(std::uint64_t offset) const noexcept { return {call, stream, position + offset}; }
};

/// What a codec is told about the values that it encodes, beside themselves.
struct EncodeContext {
  RandomKey random{};
  /// The codec's state for this tensor on this rank: Codec::state_bytes() of them, of any alignment, zeros at
  /// first, which it may change. The tensor's Feedback keeps them from call to call and saves them; after a
  /// call that throws they are as before. Empty where nobody keeps any, as without a Feedback and for
  /// lossless codecs: the codec then does without.
  std::span<std::byte> state{};
  /// A hint: the values are a matrix of so many rows of equal length, one behind the other. 0: not known, or
  /// they are not the whole tensor.
  std::size_t rows = 0;
  /// The largest magnitude of a decoded value with which sums of all ranks' are surely within their type's
  /// range, for codecs that send what is owed for many steps at once. Infinity: whoever adds looks at the
  /// sums.
  double limit = std::numeric_limits<double>::infinity();

  /// For some of the values, from `offset` on, or what is made of them: a part has neither state nor rows.
  EncodeContext at(std::uint64_t offset) const noexcept {
    return {.random = random.at(offset), .state = {}, .rows = 0, .limit = limit};
  }
};

/// What may be relied on about a codec. Algorithms declare which of these they need.
struct CodecTraits {
  bool lossless = false;   ///< decode(encode(v)) is bit-identical to v
  bool fixed_size = true;  ///< a message's size depends on count and dtype alone
  /// Encoded tensors can be added without decoding them; of the library's own codecs alone.
  bool summable = false;
  bool unbiased = false;  ///< the mean of decode(encode(v)) is v
  /// |v - decode(encode(v))|_2 <= c |v|_2 with c < 1, of a codec that draws random numbers in the mean of its
  /// draws: error feedback is sound.
  bool contractive = false;
  /// Encodes a tensor only as a whole, since all of its elements share something.
  bool whole_tensor = false;
  /// Of such a codec: a message can be taken apart; of the library's own codecs alone.
  bool splittable = false;
  bool sparse = false;    ///< most elements of decode(encode(v)) are zero
  std::size_t block = 1;  ///< elements of a unit that is never split between two messages
  /// The largest |v - decode(encode(v))| / |v| of one element within the normal range, where there is a
  /// bound.
  std::optional<double> error_bound{};
  /// The largest |v - decode(encode(v))| of one element over the largest |v| of its block, where there is a
  /// bound and the block's values are within the normal range.
  std::optional<double> block_error_bound{};
};

/// Elements <-> bytes. Immutable once made, so one codec may serve many threads.
///
/// A message is a 16-byte header (docs/wire-format.md) and the codec's payload. Messages hold whole tensors
/// or pieces of tensors that begin at a multiple of traits().block.
///
/// To write a codec, derive, override the private do_... functions and pass a CodecEntry to register_codec.
/// They are called in the default floating-point mode, whatever the caller's.
class TERSE_API Codec {
 public:
  virtual ~Codec();
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;

  /// The name in the table, "onebit".
  std::string_view name() const noexcept { return name_; }
  /// The canonical spec: equal for codecs that do the same, "onebit:block=2048,scale=l1".
  const std::string& spec() const noexcept { return spec_; }
  const CodecTraits& traits() const noexcept { return traits_; }
  /// Whether elements of this type can be encoded.
  bool supports(DType dtype) const noexcept { return do_supports(dtype); }
  /// Whether buffers of encode, decode and of a Communicator's calls may be in that memory.
  bool supports(Memory memory) const noexcept;
  /// An upper bound of a message's bytes, header included; the exact size where traits().fixed_size.
  std::size_t max_bytes(std::size_t count, DType dtype) const;
  /// Bytes of state that it keeps from call to call for a tensor of `count` elements, in `rows` rows where
  /// that is not 0: see EncodeContext::state. 0 for no elements, and for codecs without
  /// traits().whole_tensor.
  std::size_t state_bytes(std::size_t count, DType dtype, std::size_t rows = 0) const;

  /// Encodes `values` into the front of `out` and returns the bytes written.
  ///
  /// With a residual (`residual.count == values.count`, of type accumulator_of(as), or bf16 where that is
  /// f32): v = value + residual is encoded, and residual becomes v - decode(encode(v)). A residual of bf16 is
  /// that difference rounded to nearest even; one that would be infinite then is the largest that bf16 has.
  /// `as` is the type of the tensor, which the decoded values have; it is `values.dtype` unless `values` are
  /// sums kept in accumulator_of(as). `factor` is what the receivers will multiply by: where it is not 1, or
  /// the values are sums, the residual is taken from what they will hold, rounded to `as`, over `factor`.
  /// `context` is for codecs that draw random numbers, of which equal keys give the same, and for those that
  /// have a state or use the rows.
  ///
  /// Where a value (value + residual) is NaN, Inf or beyond the codec's range, or would be beyond that of
  /// `as` after the factor, the message is a flagged header without payload (see is_flagged) and the residual
  /// is as before, to rounding. Nothing is allocated per element.
  ///
  /// Values in device memory (their `memory` says so) have residual and `out` there too: the same bytes as on
  /// the host come after what the legacy default stream holds, and are there on return. Neither `as` nor
  /// `factor` may differ then, and `out` begins at a multiple of 8. Errors also: device.
  ///
  /// Errors: invalid_argument where out is smaller than max_bytes, or the residual, a state or rows do not
  /// fit, unsupported for a dtype or kind of memory that the codec does not serve.
  std::size_t encode(ConstView values, View residual, std::span<std::byte> out, DType as, double factor = 1.0,
                     const EncodeContext& context = {}) const;
  std::size_t encode(ConstView values, View residual, std::span<std::byte> out) const {
    return encode(values, residual, out, values.dtype);
  }

  /// Decodes a message into `out` (overwriting it or adding to it), each value times `factor`. `out.dtype` is
  /// the tensor's type or its accumulator. Never touches memory outside the two spans, whatever the bytes
  /// are. Where `out` is in device memory, as its `memory` says, so is the message, as in encode, and
  /// `out.dtype` is the tensor's.
  ///
  /// Errors: corrupt_data where the message is none of this codec's for out.count elements of that type,
  /// non_finite where it is flagged. `out` may be partly written when an error is thrown.
  void decode(std::span<const std::byte> message, View out, Into into = Into::overwrite,
              double factor = 1.0) const;

  /// Takes back the last encode: residual += decode(message) - values, to rounding (to that of bf16 where the
  /// residual is). Does nothing for a flagged message. Errors: those of decode and encode.
  void undo(std::span<const std::byte> message, ConstView values, View residual) const;

 protected:
  Codec(std::string name, std::string spec, CodecTraits traits);
  /// residual += decode(payload) - values for the elements of `values` only, the first ones of the payload;
  /// they end at a multiple of do_run(). What an override of do_encode_feedback needs when it has to give up
  /// half way.
  void undo_run(std::span<const std::byte> payload, DType as, ConstView values, View residual,
                double factor) const;
  /// What do_encode_feedback does where it is not overridden.
  std::optional<std::size_t> encode_runs(ConstView values, View residual, DType as, double factor,
                                         const EncodeContext& context, std::span<std::byte> payload) const;

 private:
  friend class CodecAccess;  // the library's own way in

  virtual bool do_supports(DType dtype) const noexcept = 0;
  /// Largest payload of `count` elements, without the header.
  virtual std::size_t do_max_bytes(std::size_t count, DType dtype) const = 0;
  /// Encodes and returns the payload's bytes; nothing where a value cannot be represented.
  virtual std::optional<std::size_t> do_encode(ConstView values, DType as, const EncodeContext& context,
                                               std::span<std::byte> payload) const = 0;
  /// Decodes, in the accumulator's type: what `out` cannot hold is rounded at the end. All that is not
  /// Into::add overwrites. Must check the payload's size and contents before it trusts them (throw
  /// corrupt_data).
  virtual void do_decode(std::span<const std::byte> payload, DType as, View out, Into into,
                         double factor) const = 0;
  /// Encodes value + residual and updates the residual, whose type is one of those of encode; where a value
  /// cannot be represented, leaves the residual as it was (to rounding) and returns nothing. `factor` as in
  /// encode; without residual (null) only its range is looked after. The default serves every codec by
  /// do_encode and do_decode, a few thousand elements at a time where do_run allows it; a codec with a fused
  /// loop overrides it.
  virtual std::optional<std::size_t> do_encode_feedback(ConstView values, View residual, DType as,
                                                        double factor, const EncodeContext& context,
                                                        std::span<std::byte> payload) const;
  /// See state_bytes(). Only asked of codecs with traits().whole_tensor: pieces of a tensor are encoded by
  /// several threads at once. 0, the default: it has no state.
  virtual std::size_t do_state_bytes(std::size_t count, DType dtype, std::size_t rows) const;
  /// How many elements (a multiple of the block) make a payload of their own, such that the payloads of
  /// consecutive runs, one behind the other, are the payload of the whole. SIZE_MAX, the default: only the
  /// whole is. Not asked of codecs whose messages vary in size.
  virtual std::size_t do_run() const noexcept;
  /// For the library's own codecs, which have more to offer than this interface says. Null, the default:
  /// nothing.
  virtual const CodecInternals* do_internals() const noexcept;

  /// How many of `count` elements the base class takes at a time.
  std::size_t run_elements(std::size_t count) const noexcept;
  /// Decodes a payload into the accumulator's type as those who receive it will hold it; says whether all is
  /// finite.
  bool decode_as_received(std::span<const std::byte> payload, DType as, DType values, double factor,
                          View out) const;

  std::string name_;
  std::string spec_;
  CodecTraits traits_;
};

/// Whether a message is a flagged header without values: some value that was to be encoded was not finite or
/// beyond the codec's range.
TERSE_API bool is_flagged(std::span<const std::byte> message) noexcept;

/// One option of a codec, as the table declares it.
struct CodecOption {
  std::string name;
  std::string default_value;  ///< empty: the option must be given
  std::string help;
  bool positional = false;  ///< may be given without its name: "cast:f16" is "cast:to=f16"
};

/// The options of a spec by name, defaults filled in.
using CodecArguments = std::map<std::string, std::string, std::less<>>;

/// A row of the codec table.
struct CodecEntry {
  std::string name;
  std::string summary;
  std::vector<CodecOption> options;
  std::vector<std::string> examples;  ///< specs that tests, fuzzers and benchmarks loop over
  /// Null for a row that is only part of a composition.
  std::function<std::shared_ptr<const Codec>(const CodecArguments&)> make;
  /// Makes a codec with another one that stands behind it in the spec, as in "topk:ratio=0.01+quant:bits=8",
  /// or in front of it, as in "quant:bits=4+lossless". Null: it does not go with another. Throws
  /// invalid_argument where it does not go with this one.
  std::function<std::shared_ptr<const Codec>(const CodecArguments&, std::shared_ptr<const Codec> other)>
      compose{};
  bool follows = false;  ///< composes with what stands in front of it
  /// By the value of the positional option: other defaults, which that value stands for. It counts as that
  /// option's default then: "quant:qsgd,bits=8" is qsgd's choices, but for the bits.
  std::map<std::string, CodecArguments, std::less<>> presets{};
};

/// All rows: those built in, in the order of the table, then the registered ones.
TERSE_API std::vector<CodecEntry> codecs();

/// Adds a row; its name must be new. Thread-safe. The order of calls does not matter; all ranks need the same
/// rows.
TERSE_API void register_codec(CodecEntry entry);

/// Makes a codec from a spec: NAME or NAME:OPTION=VALUE,... ("onebit", "onebit:block=1024", "cast:f16"), or
/// several of these with + in between. Errors: invalid_argument, naming what is wrong and what is allowed.
TERSE_API std::shared_ptr<const Codec> make_codec(std::string_view spec);

}  // namespace terse::inline v0_1

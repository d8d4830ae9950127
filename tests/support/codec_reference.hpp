// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <utility>
#include <vector>

#include "support/tensor.hpp"

namespace terse::test {

/// What decode(encode(v)) should be, found without the library's loops: `values` in double, for a tensor of
/// type `as`, and how far each may be off. The key matters to randomk alone: what other codecs draw is
/// within their slack.
struct Expected {
  std::vector<double> values;
  std::vector<double> slack;
};
Expected expected_decode(const Codec& codec, const std::vector<double>& values, DType as,
                         const RandomKey& key = {});

/// The codes of sum8 or sum4 for values whose blocks' largest magnitudes, over all of `parties` ranks, are
/// these, in exact steps; `steps`, by block, is what a code stands for.
std::vector<double> expected_codes(const Codec& codec, const std::vector<double>& values, DType as,
                                   int parties, const std::vector<double>& largest,
                                   std::vector<double>& steps);

/// The name that a spec begins with: of "cast:bf16+lossless", cast.
std::string first_name(const Codec& codec);

/// What hadamard, with this block and seed, makes of values of the accumulator's type (H D x, each part over
/// the root of its size), or back (D H y), one step after the other in that type: what a codec does is
/// bit-identical to this.
std::vector<double> rotated(std::vector<double> values, DType accumulator, std::size_t block,
                            std::uint32_t seed);
std::vector<double> rotated_back(std::vector<double> values, DType accumulator, std::size_t block,
                                 std::uint32_t seed);

/// Whether the table has a row of that name, which may need a library.
bool has_row(std::string_view name);

/// Of a spec of topk: elements of a block, `count` where the whole tensor is one; and how many of m are kept.
std::size_t topk_block(const std::string& spec, std::size_t count);
std::size_t topk_kept(const std::string& spec, std::size_t m);
/// Of a canonical spec of randomk: the elements that are kept of `count`.
std::vector<std::size_t> randomk_kept(const std::string& spec, std::size_t count, const RandomKey& key);

/// All examples of all rows of the table.
std::vector<std::string> all_specs();
/// Counts at which something may go wrong for a codec.
std::vector<std::size_t> interesting_counts(const Codec& codec, std::size_t prime);

/// v = value + residual as the codec must form it, in the accumulator's type.
std::vector<double> add_in(DType accumulator, const std::vector<double>& a, const std::vector<double>& b);

}  // namespace terse::test

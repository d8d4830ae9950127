// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace terse::inline v0_1 {

/// A run of elements of the tensor.
struct Range {
  std::size_t offset = 0;
  std::size_t count = 0;

  std::size_t end() const noexcept { return offset + count; }
  bool operator==(const Range&) const = default;
};

/// Tensors one behind the other, each beginning at a multiple of the block: so a block never spans two.
inline void append(std::vector<Range>& layout, std::size_t count, std::size_t block) {
  const std::size_t end = layout.empty() ? 0 : layout.back().end();
  layout.push_back({(end + block - 1) / block * block, count});
}

/// What of each tensor lies in a piece: calls visit(tensor's index, its elements) in order, for those that
/// have any.
template <class Visit>
void for_each_fragment(std::span<const Range> tensors, const Range& piece, Visit&& visit) {
  auto tensor = std::upper_bound(tensors.begin(), tensors.end(), piece.offset,
                                 [](std::size_t offset, const Range& t) { return offset < t.end(); });
  for (; tensor != tensors.end() && tensor->offset < piece.end(); ++tensor) {
    const std::size_t begin = std::max(piece.offset, tensor->offset);
    const std::size_t end = std::min(piece.end(), tensor->end());
    if (begin < end) {
      visit(static_cast<std::size_t>(tensor - tensors.begin()), Range{begin - tensor->offset, end - begin});
    }
  }
}

/// Deals `count` elements out to `ranks` in chunks of whole blocks: blocks go out in order, as evenly as can
/// be, the first (blocks mod ranks) ranks holding one more. Chunks may be empty.
inline std::vector<Range> deal_chunks(std::size_t count, std::size_t block, int ranks) {
  const std::size_t blocks = count / block + (count % block != 0);
  const auto parties = static_cast<std::size_t>(ranks);
  std::vector<Range> chunks(parties);
  std::size_t first = 0;
  for (std::size_t r = 0; r < parties; ++r) {
    const std::size_t held = blocks / parties + (r < blocks % parties);
    const std::size_t begin = std::min(count, first * block);
    first += held;
    chunks[r] = {begin, std::min(count, first * block) - begin};
  }
  return chunks;
}

/// A piece: the part of rank `owner`'s chunk that one segment covers.
struct Piece {
  int owner = 0;
  Range range;
};

/// Cuts the chunks into segments: segment k holds the k-th run of `piece_elements` of every chunk (a multiple
/// of the block), at most one piece per owner, no empty ones.
inline std::vector<std::vector<Piece>> cut_segments(const std::vector<Range>& chunks,
                                                    std::size_t piece_elements) {
  std::vector<std::vector<Piece>> segments;
  for (std::size_t r = 0; r < chunks.size(); ++r) {
    for (std::size_t at = 0, k = 0; at < chunks[r].count; at += piece_elements, ++k) {
      if (k == segments.size()) segments.emplace_back();
      segments[k].push_back(
          {static_cast<int>(r), {chunks[r].offset + at, std::min(piece_elements, chunks[r].count - at)}});
    }
  }
  return segments;
}

/// Pieces to resend, in tensor order, become segments of their own: the k-th piece of each owner goes into
/// segment k.
inline std::vector<std::vector<Piece>> regroup(const std::vector<Piece>& flagged, int ranks) {
  std::vector<std::size_t> next(static_cast<std::size_t>(ranks));
  std::vector<std::vector<Piece>> segments;
  for (const Piece& piece : flagged) {
    const std::size_t k = next[static_cast<std::size_t>(piece.owner)]++;
    if (k == segments.size()) segments.emplace_back();
    segments[k].push_back(piece);
  }
  return segments;
}

}  // namespace terse::inline v0_1

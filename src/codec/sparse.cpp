// SPDX-License-Identifier: Apache-2.0
#include "codec/sparse.hpp"

#include <charconv>
#include <cstring>

#include "codec/internals.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::byte kBitmap{0};
constexpr std::byte kDistances{1};

std::size_t bitmap_bytes(std::size_t m) { return (m + 7) / 8; }

// The most that k distances of m elements may take. Each further byte costs more than the one before, so
// cheap ones come first.
std::size_t most_distance_bytes(std::size_t m, std::size_t k) {
  std::size_t bytes = k;
  std::size_t left = m - k;
  std::size_t reached = k;  // distances that have as many bytes as that
  for (unsigned shift = 7; shift < 63 && reached != 0; shift += 7) {
    const std::size_t cost = (std::size_t{1} << shift) - (shift == 7 ? 0 : std::size_t{1} << (shift - 7));
    reached = std::min(reached, left / cost);
    bytes += reached;
    left -= reached * cost;
  }
  return bytes;
}

void write_bitmap(const Indices& indices, std::size_t m, std::byte* out) {
  std::fill_n(out, bitmap_bytes(m), std::byte{0});
  for (const std::size_t i : indices) out[i / 8] |= std::byte{1} << (i % 8);
}

bool read_bitmap(const std::byte* in, std::size_t m, Indices& indices) {
  std::size_t found = 0;
  const std::size_t bytes = bitmap_bytes(m);
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, in + at, std::min(bytes - at, sizeof bits));
    if (indices.size() - found < static_cast<std::size_t>(std::popcount(bits))) return false;
    for (; bits != 0; bits &= bits - 1) {
      indices[found++] = 8 * at + static_cast<std::size_t>(std::countr_zero(bits));
    }
  }
  return found == indices.size() && indices.back() < m;
}

std::size_t bytes_of_distances(const Indices& indices) {
  std::size_t bytes = 0;
  std::size_t next = 0;
  for (const std::size_t i : indices) {
    bytes += number_bytes(i - next);
    next = i + 1;
  }
  return bytes;
}

void write_distances(const Indices& indices, std::byte* out) {
  std::size_t next = 0;
  for (const std::size_t i : indices) {
    out = write_number(i - next, out);
    next = i + 1;
  }
}

std::size_t read_distances(std::span<const std::byte> in, std::size_t m, Indices& indices) {
  std::size_t at = 0;
  std::size_t next = 0;
  for (std::size_t& index : indices) {
    std::size_t distance = 0;
    const std::size_t bytes = read_number(in.subspan(at), distance);
    if (bytes == 0 || next >= m || distance >= m - next) return 0;
    at += bytes;
    index = next + distance;
    next = index + 1;
  }
  return at;
}

}  // namespace

std::size_t kept_of(std::size_t m, double ratio) {
  if (m == 0) return 0;
  // a product a rounding error above a whole number is that number
  const double wanted = std::ceil(static_cast<double>(m) * ratio * (1 - 0x1p-40));
  return std::clamp(static_cast<std::size_t>(wanted), std::size_t{1}, m);
}

std::size_t number_bytes(std::size_t number) {
  return (static_cast<std::size_t>(std::bit_width(number | 1)) + 6) / 7;
}

std::byte* write_number(std::size_t number, std::byte* out) {
  for (; number >= 0x80; number >>= 7) *out++ = static_cast<std::byte>(number | 0x80);
  *out++ = static_cast<std::byte>(number);
  return out;
}

std::size_t read_number(std::span<const std::byte> in, std::size_t& number) {
  number = 0;
  std::size_t at = 0;
  for (unsigned shift = 0; at < in.size() && shift < 63; shift += 7) {
    const auto byte = std::to_integer<std::size_t>(in[at++]);
    number |= (byte & 0x7f) << shift;
    if (byte < 0x80) return byte == 0 && shift != 0 ? 0 : at;  // no longer than need be
  }
  return 0;
}

std::size_t most_index_bytes(std::size_t m, std::size_t k) {
  return 1 + std::min(bitmap_bytes(m), most_distance_bytes(m, k));
}

std::size_t write_indices(const Indices& indices, std::size_t m, std::byte* out) {
  const std::size_t distances = bytes_of_distances(indices);
  if (distances <= bitmap_bytes(m)) {
    out[0] = kDistances;
    write_distances(indices, out + 1);
    return 1 + distances;
  }
  out[0] = kBitmap;
  write_bitmap(indices, m, out + 1);
  return 1 + bitmap_bytes(m);
}

std::size_t read_indices(std::span<const std::byte> in, std::size_t m, Indices& indices) {
  if (in.empty()) return 0;
  if (in[0] == kDistances) {
    const std::size_t bytes = read_distances(in.subspan(1), m, indices);
    return bytes == 0 ? 0 : 1 + bytes;
  }
  if (in[0] != kBitmap || in.size() - 1 < bitmap_bytes(m) || !read_bitmap(in.data() + 1, m, indices))
    return 0;
  return 1 + bitmap_bytes(m);
}

namespace {

bool are_within(const View& values, double most) {
  if (most == std::numeric_limits<double>::infinity()) return true;
  const auto all = [&](auto* v) {
    return std::all_of(v, v + values.count, [&](auto x) { return std::abs(static_cast<double>(x)) <= most; });
  };
  return values.dtype == DType::f64 ? all(static_cast<const double*>(values.data))
                                    : all(static_cast<const float*>(values.data));
}

}  // namespace

CodecTraits Sparse::traits_of(const Codec* inner) {
  CodecTraits traits;
  traits.contractive = inner == nullptr || inner->traits().contractive;
  traits.sparse = true;
  return traits;
}

void Sparse::corrupt() const {
  throw Error(ErrorCode::corrupt_data,
              "corrupt message for codec " + spec() + ": its payload is not one that it writes");
}

bool Sparse::do_supports(DType dtype) const noexcept { return inner_ == nullptr || inner_->supports(dtype); }

std::size_t Sparse::value_bytes(std::size_t k, DType as) const {
  return inner_ == nullptr ? k * size_of(as) : CodecAccess(*inner_).max_payload(k, as);
}

// Encodes the kept values, and says what those who decode will hold of them, over `factor`.
std::optional<std::size_t> Sparse::encode_values(View kept, DType as, const EncodeContext& context,
                                                 std::span<std::byte> out, DType values, double factor,
                                                 View received) const {
  std::size_t bytes = kept.count * size_of(as);
  if (inner_ == nullptr) {
    const View sent{out.data(), kept.count, as};
    if (!round_to(kept, sent)) return std::nullopt;
    convert(sent, received, Into::overwrite, factor);
  } else if (kept.count != 0) {
    const auto encoded = CodecAccess(*inner_).encode(kept, as, context.at(0), out);
    if (!encoded) return std::nullopt;
    bytes = *encoded;
    CodecAccess(*inner_).decode(out.first(bytes), as, received, Into::overwrite, factor);
  }
  const bool as_it_is = values == as && factor == 1.0;  // goes into a sum, which is kept in its type
  if (!as_it_is) {
    auto& memory = kept_by_thread<Scratch>([] {});
    const View rounded = memory.view(kept.count, as);
    if (!round_to(received, rounded)) return std::nullopt;
    convert(rounded, received, Into::overwrite, 1.0);
    divide(received, factor);
  }
  if (!are_within(received, context.limit)) return std::nullopt;
  return bytes;
}

void Sparse::decode_unit(std::span<const std::byte> payload, DType as, View out, Into into, double factor,
                         const Indices& indices) const {
  auto& memory = kept_by_thread<Scratch>([] {});
  const View values = memory.view(indices.size(), accumulator_of(as));
  if (inner_ == nullptr) {
    convert({payload.data(), indices.size(), as}, values, Into::overwrite, 1.0);
  } else if (!indices.empty()) {
    CodecAccess(*inner_).decode(payload, as, values, Into::overwrite, 1.0);
  }
  with_element_type(out.dtype, [&]<class T>(T) { scatter<T>(values, out, into, factor, indices); });
}

template <class T>
void Sparse::scatter(View values, View out, Into into, double factor, const Indices& indices) const {
  using A = AccumulatorOf<T>;
  const auto* v = static_cast<const A*>(values.data);
  auto* to = static_cast<T*>(out.data);
  const auto by = static_cast<A>(factor);
  bool finite = true;
  for (std::size_t i = 0; i < indices.size(); ++i) finite = finite && is_finite(v[i]);
  if (!finite) corrupt();
  if (into == Into::add) {
    for (std::size_t i = 0; i < indices.size(); ++i) {
      T& element = to[indices[i]];
      element = rounded<T>(widened(element) + v[i] * by);
    }
    return;
  }
  std::memset(out.data, 0, out.bytes());
  for (std::size_t i = 0; i < indices.size(); ++i) to[indices[i]] = rounded<T>(v[i] * by);
}

std::string ratio_text(double ratio) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), ratio).ptr};
}

std::string inner_text(const std::string& name, const Codec* inner) {
  if (inner == nullptr) return {};
  const CodecTraits& traits = inner->traits();
  const char* why = traits.sparse         ? "it is sparse itself"
                    : traits.whole_tensor ? "it encodes a tensor only as a whole"
                    : !traits.fixed_size  ? "its messages vary in size"
                                          : nullptr;
  if (why != nullptr) {
    throw Error(ErrorCode::invalid_argument, "codec " + name + ": " + inner->spec() +
                                                 " cannot encode the values that are kept, since " + why +
                                                 ": use one such as cast or onebit, or none");
  }
  return "+" + inner->spec();
}

}  // namespace terse::inline v0_1

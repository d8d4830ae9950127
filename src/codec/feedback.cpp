// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <new>
#include <terse/error.hpp>
#include <terse/feedback.hpp>
#include <utility>

#include "codec/elements.hpp"
#include "codec/feedback_state.hpp"
#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// A save: magic, version, the shape's numbers and names, the residuals, and a hash of all that.
constexpr std::uint64_t kMagic = 0x31626665'65737274;  // "trseefb1"
constexpr std::uint32_t kSaveVersion = 1;
// The algorithm of a save without residuals: `auto` chose plain MPI.
constexpr std::string_view kDeclined = "exact";
// The algorithm whose padding depends on the ranks.
constexpr std::string_view kBoundToRanks = "deepspeed";

std::size_t bytes_of(std::uint64_t count, DType dtype) {
  return static_cast<std::size_t>(count) * size_of(accumulator_of(dtype));
}

class Writer {
 public:
  template <class T>
  void number(T value) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store(bytes_.data() + at, value);
  }
  void bytes(std::span<const std::byte> more) { bytes_.insert(bytes_.end(), more.begin(), more.end()); }
  void text(const std::string& t) {
    number(static_cast<std::uint32_t>(t.size()));
    bytes(std::as_bytes(std::span(t)));
  }
  std::vector<std::byte> finish() {
    number(hash(bytes_));
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> take(std::uint64_t n) {
    if (n > bytes_.size())
      throw Error(ErrorCode::corrupt_data, "this is not a saved Feedback: it ends too early");
    const auto front = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return front;
  }
  template <class T>
  T number() {
    return load<T>(take(sizeof(T)).data());
  }
  std::string text() {
    const auto t = take(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(t.data()), t.size()};
  }
  bool empty() const noexcept { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
};

FeedbackState read_save(std::span<const std::byte> saved) {
  const auto corrupt = [](const char* why) {
    return Error(ErrorCode::corrupt_data, std::string("this is not a saved Feedback: ") + why);
  };
  FeedbackState state;
  if (saved.empty()) return state;
  if (saved.size() < 2 * sizeof(std::uint64_t)) throw corrupt("it ends too early");
  const auto body = saved.first(saved.size() - sizeof(std::uint64_t));
  Reader reader(body);
  if (reader.number<std::uint64_t>() != kMagic) throw corrupt("it begins with something else");
  if (load<std::uint64_t>(saved.data() + body.size()) != hash(body))
    throw corrupt("its checksum does not fit");
  if (const auto v = reader.number<std::uint32_t>(); v != kSaveVersion) {
    throw Error(ErrorCode::unsupported, "this Feedback was saved in format " + std::to_string(v) +
                                            ", this library reads format " + std::to_string(kSaveVersion));
  }
  FeedbackShape& shape = state.shape;
  shape.count = reader.number<std::uint64_t>();
  const auto dtype = reader.number<std::uint8_t>();
  if (dtype > static_cast<std::uint8_t>(DType::bf16)) throw corrupt("unknown dtype");
  shape.dtype = static_cast<DType>(dtype);
  shape.codec = reader.text();
  shape.algorithm = reader.text();
  shape.rank = reader.number<std::uint32_t>();
  shape.ranks = reader.number<std::uint32_t>();
  shape.worker_count = reader.number<std::uint64_t>();
  shape.server_begin = reader.number<std::uint64_t>();
  shape.server_count = reader.number<std::uint64_t>();
  state.calls = reader.number<std::uint64_t>();
  if (shape.rank >= shape.ranks || shape.worker_count > body.size() ||
      shape.worker_count < (shape.algorithm == kDeclined ? 0 : shape.count) ||
      shape.server_begin > shape.worker_count ||
      shape.server_count > shape.worker_count - shape.server_begin) {
    throw corrupt("its numbers make no sense");
  }
  const auto worker = reader.take(bytes_of(shape.worker_count, shape.dtype));
  const auto server = reader.take(bytes_of(shape.server_count, shape.dtype));
  if (!reader.empty()) throw corrupt("it is too long");
  state.worker.assign(worker.begin(), worker.end());
  state.server.assign(server.begin(), server.end());
  state.declined = shape.algorithm == kDeclined;
  state.bound = !state.declined;
  return state;
}

std::string describe(const FeedbackShape& shape) {
  return std::to_string(shape.count) + " elements of " + std::string(name(shape.dtype)) + " by codec " +
         shape.codec + " and algorithm " + shape.algorithm;
}

}  // namespace

FeedbackShape owned(const FeedbackShapeView& view) {
  return {.count = view.count,
          .dtype = view.dtype,
          .codec = std::string(view.codec),
          .algorithm = std::string(view.algorithm),
          .rank = view.rank,
          .ranks = view.ranks,
          .worker_count = view.worker_count,
          .server_begin = view.server_begin,
          .server_count = view.server_count};
}

void FeedbackState::bind(const FeedbackShapeView& view) {
  if (bound && owed.empty() && shape == view) return;
  const FeedbackShape wanted = owned(view);
  try {
    if (!owed.empty()) {
      FeedbackShape same = wanted;
      same.rank = shape.rank;
      same.ranks = shape.ranks;
      same.server_begin = shape.server_begin;
      same.server_count = shape.server_count;
      if (same == shape) {
        const std::size_t size = size_of(accumulator_of(wanted.dtype));
        const auto* from = owed.data() + wanted.server_begin * size;
        Bytes chunk(from, from + wanted.server_count * size);
        worker.assign(bytes_of(wanted.worker_count, wanted.dtype), std::byte{0});
        server = std::move(chunk);
        shape = wanted;
        owed = {};
        bound = true;
        return;
      }
    } else if (!bound) {
      worker.assign(bytes_of(wanted.worker_count, wanted.dtype), std::byte{0});
      server.assign(bytes_of(wanted.server_count, wanted.dtype), std::byte{0});
      shape = wanted;
      calls = 0;
      declined = false;
      bound = true;
      return;
    }
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory,
                "no memory for the residuals of " + describe(wanted) + ": they take " +
                    std::to_string(bytes_of(wanted.worker_count + wanted.server_count, wanted.dtype)) +
                    " bytes");
  }
  if (shape != wanted || !owed.empty()) {
    std::string ranks;
    if (owed.empty() && (shape.ranks != wanted.ranks || shape.rank != wanted.rank)) {
      ranks = ", as rank " + std::to_string(shape.rank) + " of " + std::to_string(shape.ranks) +
              " where this is rank " + std::to_string(wanted.rank) + " of " + std::to_string(wanted.ranks);
    }
    throw Error(ErrorCode::invalid_state, "this Feedback holds residuals of " + describe(shape) + ranks +
                                              "; this call has " + describe(wanted) +
                                              ": use one Feedback per tensor, or reset() it first");
  }
}

FeedbackState& Feedback::state() const {
  if (!state_) throw Error(ErrorCode::invalid_state, "this Feedback was moved from: make a new one");
  return *state_;
}

Feedback::Feedback() : state_(std::make_unique<FeedbackState>()) {}
Feedback::~Feedback() = default;
Feedback::Feedback(Feedback&& other) noexcept = default;
Feedback& Feedback::operator=(Feedback&& other) noexcept = default;

std::vector<std::byte> Feedback::save() const {
  const FeedbackState& held = state();
  if (!held.owed.empty()) {
    throw Error(ErrorCode::invalid_state,
                "this Feedback was loaded from all ranks' saves and not used since: keep those, or save "
                "after a call");
  }
  if (!held.bound && !held.declined) return {};
  const FeedbackShape& shape = held.shape;
  Writer writer;
  writer.number(kMagic);
  writer.number(kSaveVersion);
  writer.number(shape.count);
  writer.number(static_cast<std::uint8_t>(shape.dtype));
  writer.text(shape.codec);
  writer.text(held.declined ? std::string(kDeclined) : shape.algorithm);
  writer.number(shape.rank);
  writer.number(shape.ranks);
  writer.number(shape.worker_count);
  writer.number(shape.server_begin);
  writer.number(shape.server_count);
  writer.number(held.calls);
  writer.bytes(held.worker);
  writer.bytes(held.server);
  return writer.finish();
}

void Feedback::load(std::span<const std::byte> saved) { state() = read_save(saved); }

void Feedback::load(std::span<const std::vector<std::byte>> saved_of_all_ranks) {
  FeedbackState sum;
  if (std::all_of(saved_of_all_ranks.begin(), saved_of_all_ranks.end(),
                  [](const std::vector<std::byte>& save) { return save.empty(); })) {
    state() = std::move(sum);  // never used
    return;
  }
  for (std::size_t r = 0; r < saved_of_all_ranks.size(); ++r) {
    FeedbackState one = read_save(saved_of_all_ranks[r]);
    FeedbackShape alike = one.shape;
    if (alike.algorithm == kBoundToRanks) {
      throw Error(ErrorCode::unsupported, "residuals of algorithm " + alike.algorithm +
                                              " depend on the number of ranks, by their padding and their "
                                              "scales: load them on the same ranks, or reset()");
    }
    if (r == 0) {
      sum.shape = one.shape;
      sum.calls = one.calls;
      sum.declined = one.declined;
      sum.owed.assign(one.worker.size(), std::byte{0});
      sum.worker.assign(one.worker.size(), std::byte{0});
    }
    alike.rank = sum.shape.rank;
    alike.server_begin = sum.shape.server_begin;
    alike.server_count = sum.shape.server_count;
    if ((!one.bound && !one.declined) || alike != sum.shape || one.shape.rank != r ||
        one.shape.ranks != saved_of_all_ranks.size() || one.calls != sum.calls) {
      throw Error(
          ErrorCode::invalid_argument,
          "save " + std::to_string(r) + " of " + std::to_string(saved_of_all_ranks.size()) +
              " is not that of rank " + std::to_string(r) +
              " of the same run: pass the saves of all ranks, made after the same call, in rank order");
    }
    if (one.declined) continue;
    const DType dtype = accumulator_of(sum.shape.dtype);
    const View total{sum.worker.data(), sum.shape.count, dtype};
    add(total, one.worker_view(), total);
    const View chunk =
        View{sum.owed.data(), sum.shape.count, dtype}.slice(one.shape.server_begin, one.shape.server_count);
    add(chunk, one.server_view(), chunk);
  }
  if (!sum.owed.empty()) {
    const DType dtype = accumulator_of(sum.shape.dtype);
    const View total{sum.worker.data(), sum.shape.count, dtype};
    const View owed{sum.owed.data(), sum.shape.count, dtype};
    divide(total, static_cast<double>(sum.shape.ranks));
    add(owed, total, owed);
    sum.worker = {};
  }
  if (sum.declined) sum = {};  // for other ranks, auto decides anew
  state() = std::move(sum);
}

void Feedback::reset() noexcept {
  if (state_) *state_ = FeedbackState{};
}

std::uint64_t Feedback::calls() const { return state().calls; }
ConstView Feedback::worker() const { return state().bound ? state().worker_view() : View{}; }
ConstView Feedback::server() const { return state().bound ? state().server_view() : View{}; }
std::size_t Feedback::server_begin() const { return state().shape.server_begin; }

}  // namespace terse::inline v0_1

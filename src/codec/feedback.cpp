// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <new>
#include <terse/error.hpp>
#include <terse/feedback.hpp>
#include <utility>

#include "codec/elements.hpp"
#include "codec/feedback_state.hpp"
#include "core/assert.hpp"
#include "core/bytes.hpp"
#include "core/floating_point.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// A save: magic, version, the shape's numbers and names, the residuals, the tensor's rows, the bytes of the
// codec's state and these, and a hash of all that.
constexpr std::uint64_t kMagic = 0x31626665'65737274;  // "trseefb1"
// Format 1 has no type of residuals: they are `full`. Formats 1 and 2 have no state; format 3 has one of 16
// bytes, of zeros where the codec has none.
constexpr std::uint32_t kSaveVersion = 4;
constexpr std::size_t kStateBytesOfFormat3 = 16;
// The algorithm of a save without residuals: `auto` chose plain MPI.
constexpr std::string_view kDeclined = "exact";
// The one algorithm that pads the tensor, by how much depends on the ranks.
constexpr std::string_view kBoundToRanks = "deepspeed";

std::size_t bytes_of(std::uint64_t count, DType dtype, ResidualType type) {
  return static_cast<std::size_t>(count) * size_of(residual_of(dtype, type));
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

// Nothing at all is the save of a Feedback, of any type, that was never used.
FeedbackState read_save(std::span<const std::byte> saved, ResidualType type_of_none) {
  const auto corrupt = [](const char* why) {
    return Error(ErrorCode::corrupt_data, std::string("this is not a saved Feedback: ") + why);
  };
  FeedbackState state;
  state.residual_type = type_of_none;
  if (saved.empty()) return state;
  if (saved.size() < 2 * sizeof(std::uint64_t)) throw corrupt("it ends too early");
  const auto body = saved.first(saved.size() - sizeof(std::uint64_t));
  Reader reader(body);
  if (reader.number<std::uint64_t>() != kMagic) throw corrupt("it begins with something else");
  if (load<std::uint64_t>(saved.data() + body.size()) != hash(body))
    throw corrupt("its checksum does not fit");
  const auto version = reader.number<std::uint32_t>();
  if (version == 0 || version > kSaveVersion) {
    throw Error(ErrorCode::unsupported, "this Feedback was saved in format " + std::to_string(version) +
                                            ", this library reads formats up to " +
                                            std::to_string(kSaveVersion));
  }
  FeedbackShape& shape = state.shape;
  shape.count = reader.number<std::uint64_t>();
  const auto dtype = reader.number<std::uint8_t>();
  if (dtype > static_cast<std::uint8_t>(DType::bf16)) throw corrupt("unknown dtype");
  shape.dtype = static_cast<DType>(dtype);
  const auto type = version == 1 ? std::uint8_t{0} : reader.number<std::uint8_t>();
  if (type > static_cast<std::uint8_t>(ResidualType::bf16)) throw corrupt("unknown type of residuals");
  state.residual_type = static_cast<ResidualType>(type);
  if (!serves(state.residual_type, shape.dtype)) throw corrupt("residuals of a type that its dtype has not");
  shape.codec = reader.text();
  shape.algorithm = reader.text();
  shape.rank = reader.number<std::uint32_t>();
  shape.ranks = reader.number<std::uint32_t>();
  // of the worker residual only a count is saved: it begins where the tensor does
  ResidualShape& worker = shape.residuals[kWorkerPhase];
  ResidualShape& server = shape.residuals[kServerPhase];
  worker.count = reader.number<std::uint64_t>();
  server.begin = reader.number<std::uint64_t>();
  server.count = reader.number<std::uint64_t>();
  state.calls = reader.number<std::uint64_t>();
  // Only that one algorithm pads the tensor, and what auto left to MPI has no residuals. Everywhere else the
  // worker residual has the tensor's elements and no others: one beyond the end belongs to no element of the
  // tensor, so no call could take it up, and load() of all saves would lose it.
  const bool declined = shape.algorithm == kDeclined;
  const std::uint64_t elements = declined ? 0 : shape.count;
  const bool fits = shape.algorithm == kBoundToRanks ? worker.count >= elements : worker.count == elements;
  if (shape.rank >= shape.ranks || worker.count > body.size() || !fits || server.begin > worker.count ||
      server.count > worker.count - server.begin) {
    throw corrupt("its numbers make no sense");
  }
  for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
    const auto bytes = reader.take(bytes_of(shape.residuals[phase].count, shape.dtype, state.residual_type));
    state.residuals[phase].assign(bytes.begin(), bytes.end());
  }
  if (version >= 3) {
    if (version > 3) state.state_rows = reader.number<std::uint64_t>();
    const auto bytes = reader.take(version == 3 ? kStateBytesOfFormat3 : reader.number<std::uint64_t>());
    const bool none = version == 3 &&
                      std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
    if (!none) state.codec_state.assign(bytes.begin(), bytes.end());
    if (state.codec_state.empty() && state.state_rows != 0) throw corrupt("it has rows without a state");
  }
  if (!reader.empty()) throw corrupt("it is too long");
  state.declined = declined;
  state.bound = !declined;
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
          .residuals = view.residuals,
          .owns = view.owns};
}

FeedbackState::Bytes FeedbackState::bytes(std::size_t phase) const {
  if (memory == Memory::host) return residuals[phase];
  Bytes copy(bytes_of(shape.residuals[phase].count, shape.dtype, residual_type));
  DeviceQueue queue(device);
  queue.copy(copy.data(), device_residuals[phase].data(), copy.size());
  queue.wait();
  return copy;
}

void FeedbackState::move_to(DeviceQueue* queue) {
  const bool stays =
      queue == nullptr ? memory == Memory::host : memory == Memory::cuda && device == queue->device();
  if (stays) return;
  if (memory == Memory::cuda) {
    std::array<Bytes, kMostPhases> own;
    for (std::size_t phase = 0; phase < kMostPhases; ++phase) own[phase] = bytes(phase);
    residuals = std::move(own);
    device_residuals = {};
    memory = Memory::host;
  }
  if (queue == nullptr) return;
  for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
    const Bytes& from = residuals[phase];
    queue->copy(device_residuals[phase].reserve(queue->device(), from.size()), from.data(), from.size());
  }
  queue->wait();
  residuals = {};
  memory = Memory::cuda;
  device = queue->device();
}

void FeedbackState::unbind() noexcept {
  bound = false;
  residuals = {};
  device_residuals = {};
  codec_state.clear();
  memory = Memory::host;
}

void FeedbackState::bind(const FeedbackShapeView& wanted, const CodecState& state, DeviceQueue* queue) {
  const bool fresh = !bound;
  bind_residuals(wanted, queue);
  if (fresh || codec_state.empty()) {
    // what was loaded for another number of ranks, or from a format without it, has no state
    codec_state.assign(state.bytes, std::byte{0});
    state_rows = state.rows;
  } else if (codec_state.size() != state.bytes || state_rows != state.rows) {
    const auto text = [](std::size_t bytes, std::uint64_t rows) {
      return std::to_string(bytes) + " bytes for " +
             (rows == 0 ? "a tensor without rows" : "a matrix of " + std::to_string(rows) + " rows");
    };
    throw Error(ErrorCode::invalid_state,
                "this Feedback holds a state of codec " + std::string(wanted.codec) + " of " +
                    text(codec_state.size(), state_rows) + "; this call wants one of " +
                    text(state.bytes, state.rows) + ": pass the same rows, or reset() it first");
  }
}

std::span<std::byte> FeedbackState::copy_state() {
  next_state_ = codec_state;
  return next_state_;
}

void FeedbackState::bind_residuals(const FeedbackShapeView& view, DeviceQueue* queue) {
  if (bound && owed.empty() && shape == view) return move_to(queue);
  const FeedbackShape wanted = owned(view);
  try {
    if (!owed.empty()) {
      FeedbackShape same = wanted;
      same.algorithm = shape.algorithm;  // another one may go with the codec on so many ranks
      same.rank = shape.rank;
      same.ranks = shape.ranks;
      same.residuals[kServerPhase] = shape.residuals[kServerPhase];
      if (same == shape) {
        std::array<Bytes, kMostPhases> zeros;
        for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
          zeros[phase].assign(bytes_of(wanted.residuals[phase].count, wanted.dtype, residual_type),
                              std::byte{0});
        }
        residuals = std::move(zeros);
        shape = wanted;
        const ConstView all{owed.data(), shape.count, accumulator_of(shape.dtype)};
        if (shape.owns) {
          const ResidualShape& own = shape.residuals[kServerPhase];
          keep(all.slice(own.begin, own.count), this->view(kServerPhase));
        } else {
          keep(all, this->view(kWorkerPhase));  // each alike
        }
        owed = {};
        bound = true;
        return move_to(queue);
      }
    } else if (!bound) {
      for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
        const std::size_t bytes = bytes_of(wanted.residuals[phase].count, wanted.dtype, residual_type);
        if (queue == nullptr) {
          residuals[phase].assign(bytes, std::byte{0});
        } else {
          queue->clear(device_residuals[phase].reserve(queue->device(), bytes), bytes);
        }
      }
      if (queue != nullptr) {
        memory = Memory::cuda;
        device = queue->device();
      }
      shape = wanted;
      calls = 0;
      declined = false;
      bound = true;
      return;
    }
  } catch (const std::bad_alloc&) {
    std::uint64_t values = 0;
    for (const ResidualShape& residual : wanted.residuals) values += residual.count;
    throw Error(ErrorCode::out_of_memory,
                "no memory for the residuals of " + describe(wanted) + ": they take " +
                    std::to_string(bytes_of(values, wanted.dtype, residual_type)) + " bytes");
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

FeedbackState& state_of(const Feedback& feedback) { return feedback.state(); }

FeedbackState& Feedback::state() const {
  if (!state_) throw Error(ErrorCode::invalid_state, "this Feedback was moved from: make a new one");
  return *state_;
}

Feedback::Feedback() : Feedback(ResidualType::full) {}
Feedback::Feedback(ResidualType type) : state_(std::make_unique<FeedbackState>()) {
  state_->residual_type = type;
}
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
  writer.number(static_cast<std::uint8_t>(held.residual_type));
  writer.text(shape.codec);
  writer.text(held.declined ? std::string(kDeclined) : shape.algorithm);
  writer.number(shape.rank);
  writer.number(shape.ranks);
  TERSE_ASSERT(shape.residuals[kWorkerPhase].begin == 0,
               "a worker residual does not begin where its tensor does", shape.residuals[kWorkerPhase].begin);
  writer.number(shape.residuals[kWorkerPhase].count);
  writer.number(shape.residuals[kServerPhase].begin);
  writer.number(shape.residuals[kServerPhase].count);
  writer.number(held.calls);
  for (std::size_t phase = 0; phase < kMostPhases; ++phase) {
    if (held.memory == Memory::host) {
      writer.bytes(held.residuals[phase]);
    } else {
      writer.bytes(held.bytes(phase));
    }
  }
  writer.number(held.codec_state.empty() ? std::uint64_t{0} : held.state_rows);
  writer.number(static_cast<std::uint64_t>(held.codec_state.size()));
  writer.bytes(held.codec_state);
  return writer.finish();
}

namespace {

void require_idle(FeedbackState& state) {
  if (!std::atomic_ref(state.in_use).load()) return;
  throw Error(ErrorCode::invalid_state, "a call that is under way uses this Feedback: wait for it first");
}

}  // namespace

void Feedback::load(std::span<const std::byte> saved) {
  require_idle(state());
  state() = read_save(saved, residual_type());
}

void Feedback::load(std::span<const std::vector<std::byte>> saved_of_all_ranks) {
  const DefaultFloatingPoint mode;
  require_idle(state());
  FeedbackState sum;
  sum.residual_type = residual_type();
  if (std::all_of(saved_of_all_ranks.begin(), saved_of_all_ranks.end(),
                  [](const std::vector<std::byte>& save) { return save.empty(); })) {
    state() = std::move(sum);  // never used
    return;
  }
  for (std::size_t r = 0; r < saved_of_all_ranks.size(); ++r) {
    FeedbackState one = read_save(saved_of_all_ranks[r], sum.residual_type);
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
      sum.residual_type = one.residual_type;
      const std::size_t bytes =
          bytes_of(one.shape.residuals[kWorkerPhase].count, one.shape.dtype, ResidualType::full);
      sum.owed.assign(bytes, std::byte{0});
      sum.residuals[kWorkerPhase].assign(bytes, std::byte{0});
    }
    alike.rank = sum.shape.rank;
    alike.residuals[kServerPhase] = sum.shape.residuals[kServerPhase];
    if ((!one.bound && !one.declined) || alike != sum.shape || one.shape.rank != r ||
        one.shape.ranks != saved_of_all_ranks.size() || one.calls != sum.calls ||
        one.residual_type != sum.residual_type) {
      throw Error(
          ErrorCode::invalid_argument,
          "save " + std::to_string(r) + " of " + std::to_string(saved_of_all_ranks.size()) +
              " is not that of rank " + std::to_string(r) +
              " of the same run: pass the saves of all ranks, made after the same call, in rank order");
    }
    if (one.declined) continue;
    const DType dtype = accumulator_of(sum.shape.dtype);
    const View total{sum.residuals[kWorkerPhase].data(), sum.shape.count, dtype};
    add(total, one.view(kWorkerPhase), total);
    const ResidualShape& own = one.shape.residuals[kServerPhase];
    const View chunk = View{sum.owed.data(), sum.shape.count, dtype}.slice(own.begin, own.count);
    add(chunk, one.view(kServerPhase), chunk);
  }
  if (!sum.owed.empty()) {
    const DType dtype = accumulator_of(sum.shape.dtype);
    const View total{sum.residuals[kWorkerPhase].data(), sum.shape.count, dtype};
    const View owed{sum.owed.data(), sum.shape.count, dtype};
    divide(total, static_cast<double>(sum.shape.ranks));
    add(owed, total, owed);
    sum.residuals[kWorkerPhase] = {};
  }
  if (sum.declined) {  // for other ranks, auto decides anew
    const ResidualType type = sum.residual_type;
    sum = {};
    sum.residual_type = type;
  }
  state() = std::move(sum);
}

void Feedback::reset() {
  if (!state_) return;
  require_idle(*state_);
  const ResidualType type = state_->residual_type;
  *state_ = FeedbackState{};
  state_->residual_type = type;
}

ResidualType Feedback::residual_type() const { return state().residual_type; }
std::uint64_t Feedback::calls() const { return state().calls; }
ConstView Feedback::worker() const { return state().bound ? state().view(kWorkerPhase) : View{}; }
ConstView Feedback::server() const { return state().bound ? state().view(kServerPhase) : View{}; }
std::size_t Feedback::server_begin() const { return state().shape.residuals[kServerPhase].begin; }

}  // namespace terse::inline v0_1

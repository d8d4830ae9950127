// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>
#include <memory>
#include <terse/codec.hpp>

#include "codec/device_codec.hpp"
#include "codec/elements.hpp"
#include "codec/internals.hpp"
#include "codec/message.hpp"
#include "core/device.hpp"
#include "core/floating_point.hpp"
#include "core/scratch.hpp"
#include "core/thread_memory.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kWholeMessage = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kRunTarget =
    4096;  // elements worked on at a time where a codec allows it: fits a first-level cache

[[noreturn]] void refuse(const Codec& codec, ErrorCode code, const std::string& what) {
  throw Error(code, "codec " + codec.spec() + ": " + what);
}

void require_host(const Codec& codec, Memory memory) {
  if (memory != Memory::host)
    refuse(codec, ErrorCode::invalid_argument, "values, residual and message must be in one kind of memory");
}

void require_residual(const Codec& codec, const View& residual, std::size_t count, DType as,
                      Memory memory = Memory::host) {
  const bool fits = residual.dtype == residual_of(as, ResidualType::full) ||
                    residual.dtype == residual_of(as, ResidualType::bf16);
  if (residual.count != count || !fits) {
    refuse(codec, ErrorCode::invalid_argument,
           "the residual of " + std::to_string(count) + " elements of " + std::string(name(as)) +
               " must be as many of " + std::string(name(accumulator_of(as))) +
               (accumulator_of(as) == DType::f32 ? " or bf16" : ""));
  }
  if (residual.memory != memory) {
    refuse(codec, ErrorCode::invalid_argument, "values and residual must be in one kind of memory");
  }
}

// What a thread keeps to encode and decode on a device.
struct DeviceWorkspace {
  explicit DeviceWorkspace(int device) : queue(device) {}
  DeviceQueue queue;
  PinnedMemory header;
  PinnedMemory report;
};

// `message` and the elements of the views, or of those that there are, must be there and lie as a device
// reads them.
int device_of(const Codec& codec, const std::byte* message, std::initializer_list<ConstView> views) {
  if (device_codec_of(codec) == nullptr) {
    refuse(codec, ErrorCode::unsupported,
           has_cuda() ? "it has no code for device memory" : "this build of Terse has no CUDA");
  }
  const Placement place = placement_of(message);
  const auto require = [&](const void* data, std::size_t alignment, const char* what) {
    const Placement own = placement_of(data);
    if (own.kind == Placement::Kind::host || own.device != place.device) {
      refuse(
          codec, ErrorCode::invalid_argument,
          std::string(what) + " is not in the memory of the device that the message is on, as its View says");
    }
    if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0) {
      refuse(codec, ErrorCode::invalid_argument,
             std::string(what) + " must begin at a multiple of " + std::to_string(alignment) +
                 " in device memory");
    }
  };
  constexpr std::size_t kMessageAlignment = sizeof(double);
  require(message, kMessageAlignment, "the message");
  for (const ConstView& view : views) {
    if (!view.empty() && view.data != nullptr) require(view.data, size_of(view.dtype), "a tensor");
  }
  return place.device;
}

// Calls work(workspace), and waits for what it has queued, whatever happens.
template <class Work>
auto in_workspace(int device, Work&& work) {
  auto& workspace = kept_by_thread<std::unique_ptr<DeviceWorkspace>>([] {});
  if (!workspace || workspace->queue.device() != device)
    workspace = std::make_unique<DeviceWorkspace>(device);
  try {
    workspace->header.reserve(device, kHeaderBytes);
    workspace->report.reserve(device, sizeof(DeviceReport));
    *reinterpret_cast<DeviceReport*>(workspace->report.data()) = {};
    workspace->queue.follow(nullptr);
    return work(*workspace);
  } catch (...) {
    workspace.reset();  // waits
    throw;
  }
}

std::size_t encode_on_device(const Codec& codec, ConstView values, View residual, const RandomKey& key,
                             std::span<std::byte> out) {
  return in_workspace(device_of(codec, out.data(), {values, residual}), [&](DeviceWorkspace& workspace) {
    auto* report = reinterpret_cast<DeviceReport*>(workspace.report.data());
    const std::array<Fragment, 1> fragment = {Fragment{values, residual}};
    std::byte* payload = out.data() + kHeaderBytes;
    if (!values.empty()) device_codec_of(codec)->encode(workspace.queue, fragment, key, payload, report);
    workspace.queue.wait();
    const bool finite = report->non_finite == 0;
    if (!finite) device_codec_of(codec)->undo(workspace.queue, fragment, payload);
    write_header(codec, values.count, values.dtype, finite ? 0 : kNonFinite,
                 {workspace.header.data(), kHeaderBytes});
    workspace.queue.copy(out.data(), workspace.header.data(), kHeaderBytes);
    workspace.queue.wait();
    return finite ? codec.max_bytes(values.count, values.dtype) : kHeaderBytes;
  });
}

void decode_on_device(const Codec& codec, std::span<const std::byte> message, View out, Into into,
                      double factor) {
  in_workspace(device_of(codec, message.data(), {out}), [&](DeviceWorkspace& workspace) {
    // Its header says whether it is worth more than that: the rest is not written to, nor backed by memory.
    const auto room = std::make_unique_for_overwrite<std::byte[]>(message.size());
    const std::span<const std::byte> whole(room.get(), message.size());
    const auto fetch = [&](std::byte* to, std::size_t bytes) {
      workspace.queue.copy(to, message.data(), bytes);
      workspace.queue.wait();
    };
    const std::size_t beginning = std::min(message.size(), kHeaderBytes);
    fetch(workspace.header.data(), beginning);
    std::copy_n(workspace.header.data(), beginning, room.get());
    if (is_sealed(whole)) fetch(room.get(), message.size());
    const Contents contents = open_message(codec, out.count, out.dtype, whole);
    contents.require_values(codec);
    if (contents.dtype != out.dtype) {
      refuse(codec, ErrorCode::unsupported, "on a device a message is decoded into its own type");
    }
    if (contents.payload.size() != codec.max_bytes(out.count, out.dtype) - kHeaderBytes) {
      refuse(codec, ErrorCode::corrupt_data, "the message is cut short or too long");
    }
    if (out.empty()) return;
    const std::array<View, 1> to = {out};
    auto* report = reinterpret_cast<DeviceReport*>(workspace.report.data());
    device_codec_of(codec)->decode(workspace.queue, message.data() + kHeaderBytes, to, into, factor, report);
    workspace.queue.wait();
    if (report->corrupt != 0) refuse(codec, ErrorCode::corrupt_data, "a payload that it never writes");
  });
}

}  // namespace

Codec::Codec(std::string name, std::string spec, CodecTraits traits)
    : name_(std::move(name)), spec_(std::move(spec)), traits_(traits) {
  if (traits_.block == 0) refuse(*this, ErrorCode::invalid_argument, "its traits have a block of 0: use 1");
}

Codec::~Codec() = default;

std::size_t Codec::max_bytes(std::size_t count, DType dtype) const {
  const DefaultFloatingPoint mode;
  return kHeaderBytes + (count == 0 ? 0 : do_max_bytes(count, dtype));
}

std::size_t Codec::state_bytes(std::size_t count, DType dtype, std::size_t rows) const {
  return traits_.whole_tensor && count != 0 ? do_state_bytes(count, dtype, rows) : 0;
}

bool Codec::supports(Memory memory) const noexcept {
  return memory == Memory::host || device_codec_of(*this) != nullptr;
}

std::size_t Codec::encode(ConstView values, View residual, std::span<std::byte> out, DType as, double factor,
                          const EncodeContext& context) const {
  const DefaultFloatingPoint mode;
  if (!supports(as)) {
    refuse(*this, ErrorCode::unsupported, "it cannot encode " + std::string(terse::name(as)));
  }
  if (values.dtype != as && values.dtype != accumulator_of(as)) {
    refuse(*this, ErrorCode::invalid_argument,
           std::string(terse::name(values.dtype)) + " values cannot be a message of " +
               std::string(terse::name(as)));
  }
  if (out.size() < max_bytes(values.count, as)) {
    refuse(*this, ErrorCode::invalid_argument,
           "encoding " + std::to_string(values.count) + " elements may take " +
               std::to_string(max_bytes(values.count, as)) + " bytes, the output has " +
               std::to_string(out.size()));
  }
  if (context.rows != 0 && values.count % context.rows != 0) {
    refuse(*this, ErrorCode::invalid_argument,
           std::to_string(values.count) + " elements are no matrix of " + std::to_string(context.rows) +
               " rows");
  }
  const std::size_t state = state_bytes(values.count, as, context.rows);
  if (!context.state.empty() && context.state.size() != state) {
    refuse(*this, ErrorCode::invalid_argument,
           "its state for " + std::to_string(values.count) + " elements has " + std::to_string(state) +
               " bytes, not " + std::to_string(context.state.size()));
  }
  const bool feedback = residual.data != nullptr && !traits_.lossless;
  if (feedback) require_residual(*this, residual, values.count, as, values.memory);
  if (values.memory == Memory::cuda) {
    if (values.dtype != as || factor != 1.0) {
      refuse(*this, ErrorCode::unsupported, "sums in device memory are encoded by a Communicator alone");
    }
    return encode_on_device(*this, values, feedback ? residual : View{}, context.random, out);
  }

  std::optional<std::size_t> bytes = 0;
  if (!values.empty()) {
    const auto payload = out.subspan(kHeaderBytes);
    bytes = feedback || factor != 1.0
                ? do_encode_feedback(values, feedback ? residual : View{}, as, factor, context, payload)
                : do_encode(values, as, context, payload);
  }
  write_header(*this, values.count, as, bytes ? 0 : kNonFinite, out);
  return kHeaderBytes + bytes.value_or(0);
}

void Codec::decode(std::span<const std::byte> message, View out, Into into, double factor) const {
  const DefaultFloatingPoint mode;
  if (out.memory == Memory::cuda) return decode_on_device(*this, message, out, into, factor);
  open_message(*this, out.count, out.dtype, message).decode(*this, out, into, factor);
}

void Contents::decode(const Codec& codec, View out, Into into, double factor) const {
  require_host(codec, out.memory);
  require_values(codec);
  if (!out.empty()) {
    CodecAccess(codec).decode(payload, dtype, out, into, factor);
  } else if (!payload.empty()) {
    refuse(codec, ErrorCode::corrupt_data, "a message of no elements with a payload");
  }
}

void Contents::require_values(const Codec& codec) const {
  if (flags & kPoisoned) {
    refuse(codec, ErrorCode::corrupt_data, "the sender of this message received bytes that no encoder wrote");
  }
  if (flags & kNonFinite) {
    refuse(codec, ErrorCode::non_finite, "this message stands for values that were not finite");
  }
  if (!codec.supports(dtype)) {
    refuse(codec, ErrorCode::corrupt_data,
           "a message of " + std::string(terse::name(dtype)) + ", which it never writes");
  }
}

std::size_t CodecAccess::split(std::span<const std::byte> message, std::size_t count, DType dtype,
                               std::size_t first, std::size_t n, std::span<std::byte> out) const {
  const DefaultFloatingPoint mode;
  const CodecTraits& traits = codec_.traits();
  const CodecInternals* internals = codec_.do_internals();
  if (!is_splittable(codec_)) {
    refuse(codec_, ErrorCode::unsupported, "its messages are not taken apart");
  }
  const Contents contents = open_message(codec_, count, dtype, message);
  if (first > count || n > count - first || first % traits.block != 0) {
    refuse(codec_, ErrorCode::invalid_argument,
           "elements " + std::to_string(first) + " to " + std::to_string(first + n) +
               " are no part of a message of " + std::to_string(count));
  }
  if (out.size() < codec_.max_bytes(n, dtype)) {
    refuse(codec_, ErrorCode::invalid_argument,
           "a part of " + std::to_string(n) + " elements may take " +
               std::to_string(codec_.max_bytes(n, dtype)) + " bytes, the output has " +
               std::to_string(out.size()));
  }
  std::size_t bytes = 0;
  if (contents.flags == 0 && n != 0) {
    bytes = internals->split(contents.payload, contents.dtype, first, n, out.subspan(kHeaderBytes));
  }
  write_header(codec_, n, contents.dtype, contents.flags, out);
  return kHeaderBytes + bytes;
}

std::size_t CodecInternals::split(std::span<const std::byte>, DType, std::size_t, std::size_t,
                                  std::span<std::byte>) const {
  throw Error(ErrorCode::unsupported, "this codec's messages are not taken apart");
}

void Codec::undo(std::span<const std::byte> message, ConstView values, View residual) const {
  const DefaultFloatingPoint mode;
  if (residual.data == nullptr || residual.empty() || traits_.lossless) return;
  require_host(*this, values.memory);
  const Contents contents = open_message(*this, values.count, values.dtype, message);
  require_residual(*this, residual, values.count, contents.dtype);
  contents.undo(*this, values, residual);
}

void Contents::undo(const Codec& codec, ConstView values, View residual) const {
  const CodecAccess access(codec);
  if (flags != 0 || codec.traits().lossless) return;
  if (codec.traits().fixed_size && payload.size() != access.max_payload(values.count, dtype)) {
    refuse(codec, ErrorCode::corrupt_data, "the message to take back is cut short or too long");
  }
  access.undo(payload, dtype, values, residual, 1.0);
}

std::size_t Codec::do_run() const noexcept { return kWholeMessage; }

std::size_t Codec::do_state_bytes(std::size_t, DType, std::size_t) const { return 0; }

const CodecInternals* Codec::do_internals() const noexcept { return nullptr; }

std::size_t Codec::run_elements(std::size_t count) const noexcept {
  const std::size_t unit = traits_.fixed_size ? do_run() : kWholeMessage;
  return unit >= count ? count : std::max(unit, kRunTarget / unit * unit);
}

bool Codec::decode_as_received(std::span<const std::byte> payload, DType as, DType values, double factor,
                               View out) const {
  auto& memory = kept_by_thread<Scratch>([] {});
  do_decode(payload, as, out, Into::overwrite, factor);
  if (values == as && factor == 1.0) return true;  // on its way to a sum, which is kept in out's type
  const View received = memory.view(out.count, as);
  const bool finite = round_to(out, received);
  convert(received, out, Into::overwrite, 1.0);
  divide(out, factor);
  return finite;
}

void Codec::undo_run(std::span<const std::byte> payload, DType as, ConstView values, View residual,
                     double factor) const {
  auto& sum_memory = kept_by_thread<Scratch>([] {});
  auto& values_memory = kept_by_thread<Scratch>([] {});
  const DType accumulator = accumulator_of(as);
  const std::size_t run = run_elements(values.count);
  for (std::size_t begin = 0; begin < values.count; begin += run) {
    const std::size_t n = std::min(run, values.count - begin);
    const View sum = sum_memory.view(n, accumulator);
    const View x = values_memory.view(n, accumulator);
    const std::size_t bytes = traits_.fixed_size ? do_max_bytes(n, as) : payload.size();
    decode_as_received(payload.first(bytes), as, values.dtype, factor, sum);
    payload = payload.subspan(bytes);
    // (decoded + residual) - value: the sum restores what was encoded
    const View e = residual.slice(begin, n);
    add(sum, e, sum);
    convert(values.slice(begin, n), x, Into::overwrite, 1.0);
    subtract(sum, x, e);
  }
}

std::optional<std::size_t> Codec::do_encode_feedback(ConstView values, View residual, DType as, double factor,
                                                     const EncodeContext& context,
                                                     std::span<std::byte> payload) const {
  return encode_runs(values, residual, as, factor, context, payload);
}

std::optional<std::size_t> Codec::encode_runs(ConstView values, View residual, DType as, double factor,
                                              const EncodeContext& context,
                                              std::span<std::byte> payload) const {
  auto& sum_memory = kept_by_thread<Scratch>([] {});
  auto& decoded_memory = kept_by_thread<Scratch>([] {});
  const bool feedback = residual.data != nullptr;
  const DType accumulator = accumulator_of(as);
  const std::size_t run = run_elements(values.count);
  std::size_t written = 0;
  for (std::size_t begin = 0; begin < values.count; begin += run) {
    const std::size_t n = std::min(run, values.count - begin);
    const View v = sum_memory.view(n, accumulator);
    const View decoded = decoded_memory.view(n, accumulator);
    convert(values.slice(begin, n), v, Into::overwrite, 1.0);
    if (feedback) add(v, residual.slice(begin, n), v);
    const EncodeContext own = n == values.count ? context : context.at(begin);
    const auto bytes = do_encode(v, as, own, payload.subspan(written));
    if (!bytes || !decode_as_received(payload.subspan(written, *bytes), as, values.dtype, factor, decoded)) {
      if (feedback) {
        undo_run(payload.first(written), as, values.slice(0, begin), residual.slice(0, begin), factor);
      }
      return std::nullopt;
    }
    if (feedback) subtract(v, decoded, residual.slice(begin, n));
    written += *bytes;
  }
  return written;
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// One transfer on its way. Its owner keeps it in place until `done`.
struct Operation {
  bool done = false;
  std::size_t bytes = 0;  ///< when done: bytes sent, or that came
  std::size_t parts = 1;  ///< of what the transport did in parts: those not done
};

/// What the layer below reduces by itself, and of what elements.
enum class Reduction : std::uint8_t {
  // the layer below adds as it does for everyone, in the caller's floating-point mode
  sum_f32,
  sum_f64,
  // added in the default floating-point mode, whatever the caller's: f16 and bf16 in f32, then rounded
  sum_f16,
  sum_bf16,
  addends_f32,
  addends_f64,
  /// Sums stay within its range, whatever the order: what becomes of others differs from one MPI library to
  /// the
  /// next.
  sum_int8,
  // of numbers that are not negative: no floating-point mode changes their order, which is that of their bits
  max_f32,
  max_f64
};

constexpr Reduction sum_of(DType dtype) noexcept {
  return dtype == DType::f64   ? Reduction::sum_f64
         : dtype == DType::f16 ? Reduction::sum_f16
         : dtype == DType::f32 ? Reduction::sum_f32
                               : Reduction::sum_bf16;
}
/// Of f32 or f64.
constexpr Reduction max_of(DType dtype) noexcept {
  return dtype == DType::f64 ? Reduction::max_f64 : Reduction::max_f32;
}
constexpr Reduction addends_of(DType dtype) noexcept {
  return dtype == DType::f64 ? Reduction::addends_f64 : Reduction::addends_f32;
}
/// Bytes of an element.
constexpr std::size_t size_of(Reduction what) noexcept {
  switch (what) {
    case Reduction::sum_f64:
    case Reduction::addends_f64:
    case Reduction::max_f64:
      return sizeof(double);
    case Reduction::sum_f32:
    case Reduction::addends_f32:
    case Reduction::max_f32:
      return sizeof(float);
    case Reduction::sum_f16:
    case Reduction::sum_bf16:
      return sizeof(std::uint16_t);
    case Reduction::sum_int8:
      break;
  }
  return 1;
}

/// Bytes <-> ranks. Knows nothing of what the bytes mean.
///
/// Between a pair of ranks, messages under one tag arrive in the order in which they were sent. Errors of the
/// layer below are thrown as Error(communication); the transport then only refuses.
class Transport {
 public:
  enum class Wait : std::uint8_t { no, yes };

  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// The first of `channels` tags that belong to the call being started. Taken in start order, so that
  /// ranks agree; a tag comes round again only after thousands of calls.
  virtual int take_tags(int channels) = 0;

  /// Starts a transfer. The bytes stay in place and, for send, unchanged until `operation.done`. A receive
  /// accepts any message up to bytes.size().
  virtual void send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) = 0;
  virtual void receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) = 0;

  /// Completes what can be completed of all started operations; with Wait::yes, at least one if there is any.
  virtual void progress(Wait wait) = 0;

  /// A plain reduction of `count` elements over all ranks, in the order of the layer below. `in` may be
  /// `out`. Collective: all ranks enter these in the same order, and either all of them block or none.
  virtual void all_reduce(Reduction what, const void* in, void* out, std::size_t count) = 0;
  virtual void start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                                Operation& operation) = 0;
  /// The sum of views of one count and type.
  void all_reduce(ConstView in, View out) { all_reduce(sum_of(in.dtype), in.data, out.data, in.count); }
  void start_all_reduce(ConstView in, View out, Operation& operation) {
    start_all_reduce(sum_of(in.dtype), in.data, out.data, in.count, operation);
  }

  /// Nanoseconds since some moment in the past, by a clock of this rank's that never goes back.
  virtual std::uint64_t now() const noexcept = 0;

  /// Whether the layer below says that it takes pointers to device memory.
  virtual bool takes_device_memory() const noexcept { return false; }

  /// Gives up all operations on their way, for good: every later call throws Error(communication). What was
  /// to be sent or received may still be read and written until the process ends: its memory must stay.
  virtual void abandon() noexcept = 0;
  /// Whether that has happened, by abandon() or by an error of the layer below.
  virtual bool abandoned() const noexcept = 0;
};

}  // namespace terse::inline v0_1

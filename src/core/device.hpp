// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/types.hpp>
#include <utility>
#include <vector>

// CUDA devices, for all rooms: memory, and work that a device does by itself in order. Without CUDA in this
// build everything here that would need a device throws Error(unsupported). CUDA's own errors are thrown as
// out_of_memory where that is what they say, else as Error(device).
//
// What constructors and destructors do is in functions of their own, so that a table can point to them
// (core/device_table.hpp).

namespace terse::inline v0_1 {

struct DeviceTable;

/// Devices that there are; 0 without a driver.
int device_count() noexcept;

/// Where memory lies, as the driver says.
struct Placement {
  enum class Kind : std::uint8_t {
    host,     ///< also pinned memory
    device,   ///< only a device can follow the pointer
    managed,  ///< both can
  };
  Kind kind = Kind::host;
  int device = 0;  ///< of what is not the host's
};
/// Asks the driver, where the program has loaded it; does not make a context.
Placement placement_of(const void* pointer) noexcept;

/// Whether the process has a context on a device.
bool has_context(int device) noexcept;

/// Makes a device the thread's current one while it lives. The one before stays away where the process has no
/// context on it: to go back there would make one, which takes hundreds of megabytes.
class OnDevice {
 public:
  explicit OnDevice(int device) { enter(device); }
  ~OnDevice() { leave(); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  friend struct DeviceTable;
  void enter(int device);
  void leave() noexcept;
  int before_ = 0;
  bool changed_ = false;
};

/// A device's memory that is kept until more is asked for. Its contents are not kept, but the memory is, to
/// the end: what is under way may still use it, and giving memory back makes a device wait for all of its
/// work. So it grows by half at least.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() {
    if (!blocks_.empty()) release();
  }
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(blocks_, other.blocks_);
    std::swap(size_, other.size_);
    return *this;
  }

  /// At least `bytes` bytes, aligned to 256. Errors: out_of_memory.
  std::byte* reserve(int device, std::size_t bytes);
  std::byte* data() const noexcept { return blocks_.empty() ? nullptr : blocks_.back().data; }
  std::size_t size() const noexcept { return size_; }

 private:
  friend struct DeviceTable;
  void release() noexcept;
  struct Block {
    std::byte* data;
    int device;
  };
  std::vector<Block> blocks_;  // the last one is in use
  std::size_t size_ = 0;       // of that
};

/// Memory of the host that devices reach by themselves. As Buffer else; what was reserved before is over.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory() {
    if (data_ != nullptr) release();
  }
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(device_, other.device_);
    return *this;
  }

  /// At least `bytes` bytes, with this device current. Nothing that is under way may use what was given
  /// before. Errors: out_of_memory.
  std::span<std::byte> reserve(int device, std::size_t bytes);
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  friend struct DeviceTable;
  void release() noexcept;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int device_ = 0;
};

/// Work of one device that is done in the order in which it is queued, while the host goes on: a stream. For
/// one thread at a time.
class DeviceQueue {
 public:
  explicit DeviceQueue(int device) : device_(device) { open(); }
  /// Waits for what is queued.
  ~DeviceQueue() { close(); }
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  int device() const noexcept { return device_; }
  /// The cudaStream_t.
  void* stream() const noexcept { return stream_; }

  /// What is queued from now on comes after all that another stream of this device holds now; null is the
  /// default one.
  void follow(void* stream);
  /// Copies bytes; the host's side, if it has one, must be pinned and stay as it is until that is done.
  void copy(void* to, const void* from, std::size_t bytes);
  void clear(void* to, std::size_t bytes);

  using Mark = std::size_t;
  /// A point that is reached when all that was queued before it is done.
  Mark mark();
  /// Whether it is reached: a mark is asked for until it is, or has failed.
  bool reached(Mark mark);
  /// Waits until all is done.
  void wait();

  /// Device memory for what is queued next, whose use is over when anything else is queued that asks for it.
  std::byte* scratch(std::size_t bytes) { return scratch_.reserve(device_, bytes); }

 private:
  friend struct DeviceTable;
  void open();
  void close() noexcept;
  int device_;
  void* stream_ = nullptr;
  std::vector<void*> events_;  // by mark
  std::vector<Mark> free_;
  void* followed_ = nullptr;  // the event of follow()
  DeviceMemory scratch_;
};

/// A stretch of work that a profiler shows by name.
class DeviceRange {
 public:
  explicit DeviceRange(const char* name) noexcept { begin(name); }
  ~DeviceRange() { end(); }
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

 private:
  friend struct DeviceTable;
  static void begin(const char* name) noexcept;
  static void end() noexcept;
};

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What codec/device_codec.hpp is in a shared library whose CUDA lies in a module: codecs that load it when
// they are first used on a device, and not where a codec is made.
#include <functional>
#include <mutex>
#include <utility>

#include "codec/device_codec.hpp"
#include "core/device_table.hpp"

namespace terse::inline v0_1 {
namespace {

const DeviceCodecTable& table() {
  using Get = const DeviceCodecTable* (*)();
  static const DeviceCodecTable& found =
      *reinterpret_cast<Get>(device_module_symbol("terse_device_codecs"))();
  return found;
}

class LazyDeviceCodec final : public DeviceCodec {
 public:
  using Make = std::function<std::unique_ptr<const DeviceCodec>()>;
  explicit LazyDeviceCodec(Make make) : make_(std::move(make)) {}

  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, std::byte* payload,
              DeviceReport* report) const override {
    own().encode(queue, fragments, payload, report);
  }
  void undo(DeviceQueue& queue, std::span<const Fragment> fragments,
            const std::byte* payload) const override {
    own().undo(queue, fragments, payload);
  }
  void decode(DeviceQueue& queue, const std::byte* payload, std::span<const View> to, Into into,
              double factor, DeviceReport* report) const override {
    own().decode(queue, payload, to, into, factor, report);
  }
  void reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
              std::byte* payload, DeviceReport* report) const override {
    own().reduce(queue, sum, fragments, payload, report);
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    own().undo_reduce(queue, sum, fragments, payload);
  }

 private:
  const DeviceCodec& own() const {
    const std::lock_guard lock(mutex_);
    if (!own_) own_ = make_();
    return *own_;
  }

  Make make_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<const DeviceCodec> own_;
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_identity() {
  return std::make_unique<LazyDeviceCodec>([] { return table().identity(); });
}
std::unique_ptr<const DeviceCodec> make_device_cast(DType to) {
  return std::make_unique<LazyDeviceCodec>([to] { return table().cast(to); });
}
std::unique_ptr<const DeviceCodec> make_device_onebit(std::size_t block, OnebitScale scale) {
  return std::make_unique<LazyDeviceCodec>([block, scale] { return table().onebit(block, scale); });
}

void divide_on_device(DeviceQueue& queue, View values, double divisor) {
  table().divide(queue, values, divisor);
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
// What codec/device_codec.hpp is in a shared library whose CUDA lies in a module: codecs that load it when
// they are first used on a device, and not where a codec is made.
#include <mutex>
#include <string>
#include <vector>

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
  LazyDeviceCodec(std::string_view name, std::span<const std::byte> format)
      : name_(name), format_(format.begin(), format.end()) {}

  void encode(DeviceQueue& queue, std::span<const Fragment> fragments, const RandomKey& key,
              std::byte* payload, DeviceReport* report) const override {
    own().encode(queue, fragments, key, payload, report);
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
              const RandomKey& key, std::byte* payload, DeviceReport* report) const override {
    own().reduce(queue, sum, fragments, key, payload, report);
  }
  void undo_reduce(DeviceQueue& queue, const DeviceSum& sum, std::span<const Fragment> fragments,
                   const std::byte* payload) const override {
    own().undo_reduce(queue, sum, fragments, payload);
  }

 private:
  const DeviceCodec& own() const {
    const std::lock_guard lock(mutex_);
    if (!own_) own_ = table().make(name_, format_);
    return *own_;
  }

  std::string name_;
  std::vector<std::byte> format_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<const DeviceCodec> own_;
};

}  // namespace

std::unique_ptr<const DeviceCodec> make_device_codec(std::string_view name,
                                                     std::span<const std::byte> format) {
  return std::make_unique<LazyDeviceCodec>(name, format);
}

void divide_on_device(DeviceQueue& queue, View values, double divisor) {
  table().divide(queue, values, divisor);
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
//
// Every codec that has kernels, beside its host twin: bit-identical messages, residuals and values.
#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <terse/codec.hpp>
#include <vector>

#include "codec/device_codec.hpp"
#include "codec/elements.hpp"
#include "codec/message.hpp"
#include "codec/piece.hpp"
#include "device/device.hpp"
#include "support/covering.hpp"
#include "support/tensor.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

// Beside the examples of all codecs that have kernels: blocks around the kernels' units, of 2,048 and 8,192
// elements, and every format.
std::vector<std::string> make_specs() {
  std::vector<std::string> specs = {"onebit:block=8", "onebit:block=2056", "onebit:block=20000"};
  constexpr const char* kBlocks[] = {"64", "192", "512", "576", "2048", "4160", "20480"};
  std::size_t turn = 0;
  for (const char* bits : {"8", "6", "4", "2"}) {
    for (const char* range : {"minmax", "symmetric"}) {
      for (const char* rounding : {"nearest", "stochastic,seed=9"}) {
        specs.push_back(std::string("quant:bits=") + bits + ",range=" + range + ",rounding=" + rounding +
                        ",block=" + kBlocks[turn++ % std::size(kBlocks)]);
      }
    }
  }
  for (const char* preset : {"qsgd", "zeropp", "cgx"}) specs.push_back(std::string("quant:") + preset);
  for (const CodecEntry& row : codecs()) {
    for (const std::string& spec : row.examples) {
      if (make_codec(spec)->supports(Memory::cuda)) specs.push_back(spec);
    }
  }
  return specs;
}
const std::vector<std::string>& all_specs() {
  static const std::vector<std::string> specs = make_specs();
  return specs;
}

// Who encodes.
constexpr RandomKey kKey{.call = 0x1'0000'0007, .stream = 3};

enum class Kept : std::uint8_t { none, full, bf16 };

struct Case {
  std::string spec;
  DType dtype = DType::f32;
  std::vector<std::size_t> counts;  // of fragments
  Kept kept = Kept::none;
  std::size_t offset = 0;
  double factor = 1.0;
  int ranks = 1;

  std::string text() const {
    std::string all;
    for (const std::size_t n : counts) all += " " + std::to_string(n);
    return spec + " of" + (counts.size() > 6 ? " " + std::to_string(counts.size()) + " fragments" : all) +
           " " + std::string(name(dtype)) + ", residual " + std::to_string(static_cast<int>(kept)) +
           ", offset " + std::to_string(offset) + ", factor " + std::to_string(factor) + ", " +
           std::to_string(ranks) + " ranks";
  }
};

// A fragment on host and device.
struct Both {
  Tensor values;
  Tensor residual;
  DeviceBytes device_values;
  DeviceBytes device_residual;
  std::uint64_t position = 0;

  Fragment on_host(bool feedback) {
    return {std::as_const(values).view(), feedback ? residual.view() : View{}, position};
  }
  Fragment on_device(bool feedback) const {
    return {ConstView(device_values.data(), values.count(), values.dtype(), Memory::cuda),
            feedback ? View{device_residual.data(), values.count(), residual.dtype(), Memory::cuda} : View{},
            position};
  }
  ::testing::AssertionResult residuals_agree() const {
    const auto bytes = residual.bytes();
    const auto device = device_residual.get();
    if (std::equal(bytes.begin(), bytes.end(), device.begin(), device.end()))
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "residuals differ";
  }
};

class DeviceCodecs : public ::testing::Test {
 protected:
  void SetUp() override {
    TERSE_NEEDS_DEVICE();
    queue_ = std::make_unique<DeviceQueue>(0);
    report_ = reinterpret_cast<DeviceReport*>(reports_.reserve(0, sizeof(DeviceReport)).data());
    *report_ = {};
  }

  Both make(std::size_t count, const Case& c) {
    std::normal_distribution<double> normal;
    Both both;
    both.values = Tensor(count, c.dtype, c.offset);
    both.residual =
        Tensor(count, residual_of(c.dtype, c.kept == Kept::bf16 ? ResidualType::bf16 : ResidualType::full),
               c.offset);
    for (std::size_t i = 0; i < count; ++i) {
      both.values.set(i, normal(random_));
      both.residual.set(i, 0.5 * normal(random_));
    }
    if (count > 3) both.values.set(count / 2, 0.0);
    if (count > 3) both.values.set(count / 3, -0.0);
    both.device_values = on_device(std::as_const(both.values).view(), c.offset);
    both.device_residual = on_device(std::as_const(both.residual).view(), c.offset);
    return both;
  }

  std::mt19937_64 random_{7};
  std::unique_ptr<DeviceQueue> queue_;
  PinnedMemory reports_;
  DeviceReport* report_ = nullptr;
};

bool has(Kept kept, DType dtype) { return kept != Kept::bf16 || dtype != DType::f64; }

std::vector<std::vector<std::size_t>> shapes(std::size_t block) {
  std::vector<std::vector<std::size_t>> all;
  for (const std::size_t n : {std::size_t{1}, std::size_t{7}, std::size_t{65}, block - 1, block, block + 1,
                              2 * block + 13, std::size_t{4099}}) {
    all.push_back({n});
  }
  all.push_back({3, block, 1, 2 * block + 5, 0, 64});
  std::vector<std::size_t> many;
  for (std::size_t i = 0; i < 100; ++i) many.push_back(1 + i % 37);
  all.push_back(many);
  return all;
}

// Whether a case is left to the nightly run: of the many formats of quant, and under a sanitizer of all, a
// type takes every third shape, another third for each format and type.
bool is_left_out(const Codec& codec, std::size_t pair, std::size_t shape) {
  return !nightly() && (kSanitized || codec.name() == "quant") && (pair + shape) % 3 != 0;
}

TEST_F(DeviceCodecs, EncodeAndDecodeAsTheHost) {
  std::size_t turn = 0;
  std::size_t pair = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    ASSERT_NE(device_codec_of(*codec), nullptr) << spec;
    const std::size_t block = std::max<std::size_t>(8, codec->traits().block);
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      ++pair;
      std::size_t shape = 0;
      for (const auto& counts : shapes(block)) {
        if (is_left_out(*codec, pair, shape++)) continue;
        const Kept kept = static_cast<Kept>(turn % 3);
        Case c{spec, dtype, counts, has(kept, dtype) ? kept : Kept::full, turn / 2 % 2};
        ++turn;
        SCOPED_TRACE(c.text());
        const bool feedback = c.kept != Kept::none;
        std::vector<Both> parts;
        std::vector<Fragment> host;
        std::vector<Fragment> device;
        parts.reserve(counts.size());
        std::size_t total = 0;
        for (const std::size_t n : counts) {
          parts.push_back(make(n, c));
          parts.back().position = 8 * (turn % 3) + total;
          host.push_back(parts.back().on_host(feedback));
          device.push_back(parts.back().on_device(feedback));
          total += n;
        }
        const PieceCoder coder(*codec, dtype, {kKey});
        std::vector<std::byte> message(coder.max_bytes(counts));
        const std::size_t bytes = coder.encode(host, total, message);
        ASSERT_EQ(bytes, message.size());
        // where a payload lies in a slot
        const DeviceBytes slot(message.size());
        *report_ = {};
        device_codec_of(*codec)->encode(*queue_, device, kKey, slot.data() + kHeaderBytes, report_);
        queue_->wait();
        ASSERT_EQ(report_->non_finite, 0u);
        const auto got = slot.get();
        ASSERT_TRUE(
            std::equal(got.begin() + kHeaderBytes, got.end(), message.begin() + kHeaderBytes, message.end()))
            << "payloads differ";
        for (const Both& part : parts) ASSERT_TRUE(part.residuals_agree());

        // and back, by another factor
        for (const Into into : {Into::overwrite, Into::add}) {
          const double factor = turn % 2 == 0 || codec->traits().lossless ? 1.0 : 3.0;
          std::vector<View> to;
          std::vector<View> device_to;
          std::vector<Both> outs;
          outs.reserve(counts.size());
          for (const std::size_t n : counts) {
            outs.push_back(make(n, c));
            to.push_back(outs.back().values.view());
            device_to.push_back({outs.back().device_values.data(), n, dtype, Memory::cuda});
          }
          const Contents contents =
              open_message(*codec, total, dtype, std::span(message).first(bytes), std::nullopt);
          coder.decode(contents, to, into, factor);
          device_codec_of(*codec)->decode(*queue_, slot.data() + kHeaderBytes, device_to, into, factor,
                                          report_);
          queue_->wait();
          ASSERT_EQ(report_->corrupt, 0u);
          for (const Both& out : outs) {
            const auto want = out.values.bytes();
            const auto have = out.device_values.get();
            ASSERT_TRUE(std::equal(want.begin(), want.end(), have.begin(), have.end()));
          }
        }
        if (!feedback) continue;
        // taken back: as it was, to rounding, and the same as the host's
        coder.undo({.dtype = dtype, .payload = std::span(message).subspan(kHeaderBytes)}, host);
        device_codec_of(*codec)->undo(*queue_, device, slot.data() + kHeaderBytes);
        queue_->wait();
        for (const Both& part : parts) ASSERT_TRUE(part.residuals_agree()) << "after undo";
      }
    }
  }
}

TEST_F(DeviceCodecs, ReduceAsTheHost) {
  std::size_t turn = 0;
  std::size_t pair = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    const std::size_t block = std::max<std::size_t>(8, codec->traits().block);
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      ++pair;
      std::size_t shape = 0;
      for (const auto& counts : shapes(block)) {
        if (is_left_out(*codec, pair, shape++)) continue;
        const int ranks = static_cast<int>(1 + turn % 4);
        const Kept kept = static_cast<Kept>(turn % 3);
        const bool lossless = codec->traits().lossless;
        Case c{spec,     dtype,
               counts,   lossless ? Kept::none : has(kept, dtype) ? kept : Kept::full,
               turn % 2, lossless ? 1.0 : turn % 5 == 0 ? 1.0 : static_cast<double>(ranks),
               ranks};
        const double divisor = lossless && turn % 2 == 0 ? 1.0 : ranks;
        ++turn;
        SCOPED_TRACE(c.text());
        const bool feedback = c.kept != Kept::none;
        const std::size_t total = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
        const PieceCoder coder(*codec, dtype, {kKey});
        const std::size_t size = coder.max_bytes(counts);
        const std::size_t stride = (size + 63) / 64 * 64;
        std::vector<std::byte> messages(stride * static_cast<std::size_t>(ranks));
        std::vector<Contents> contents;
        for (int rank = 0; rank < ranks; ++rank) {
          std::vector<Both> parts;
          std::vector<Fragment> fragments;
          parts.reserve(counts.size());
          for (const std::size_t n : counts) {
            parts.push_back(make(n, c));
            fragments.push_back(parts.back().on_host(false));
          }
          const auto slot = std::span(messages).subspan(stride * static_cast<std::size_t>(rank), size);
          coder.encode(fragments, total, slot);
          contents.push_back(open_message(*codec, total, dtype, slot, std::nullopt));
        }
        std::vector<Both> parts;
        std::vector<Fragment> sums;
        std::vector<Fragment> device;
        std::uint64_t position = 0;
        parts.reserve(counts.size());
        for (const std::size_t n : counts) {
          parts.push_back(make(n, c));
          parts.back().position = 3 * (turn % 3) + position;
          position += n;
          sums.push_back({ConstView(nullptr, n, dtype), feedback ? parts.back().residual.view() : View{},
                          parts.back().position});
          Fragment fragment = parts.back().on_device(feedback);
          fragment.values.data = nullptr;
          device.push_back(fragment);
        }
        const std::vector<double> before = parts.front().residual.doubles();
        std::vector<std::byte> out(size);
        std::size_t reading = 0;
        coder.reduce(contents, sums, divisor, c.factor, total, out, reading);
        const DeviceBytes slots(messages);
        const DeviceBytes result(size);
        const DeviceSum sum{slots.data() + kHeaderBytes, stride, ranks, divisor, c.factor};
        *report_ = {};
        device_codec_of(*codec)->reduce(*queue_, sum, device, kKey, result.data() + kHeaderBytes, report_);
        queue_->wait();
        ASSERT_EQ(report_->corrupt, 0u);
        ASSERT_EQ(report_->non_finite, 0u);
        const auto got = result.get();
        ASSERT_TRUE(std::equal(got.begin() + kHeaderBytes, got.end(), out.begin() + kHeaderBytes, out.end()))
            << "payloads differ";
        for (const Both& part : parts) ASSERT_TRUE(part.residuals_agree());
        if (!feedback) continue;
        device_codec_of(*codec)->undo_reduce(*queue_, sum, device, result.data() + kHeaderBytes);
        queue_->wait();
        Tensor after(parts.front().residual.count(), parts.front().residual.dtype(), c.offset);
        parts.front().device_residual.get(after.view().data);
        for (std::size_t i = 0; i < after.count(); ++i) {
          ASSERT_NEAR(after[i], before[i],
                      c.kept == Kept::bf16  ? 0.05
                      : dtype == DType::f64 ? 1e-14
                                            : 1e-5)
              << i;
        }
      }
    }
  }
}

// Values that are not finite are reported; the other blocks are taken back, and theirs are left alone.
TEST_F(DeviceCodecs, ReportsWhatIsNotFinite) {
  constexpr double kBad[] = {std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()};
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (codec->traits().lossless) continue;
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const double bad : kBad) {
        for (const bool feedback : {true, false}) {
          Case c{spec, dtype, {5003}, feedback ? Kept::full : Kept::none, 1};
          SCOPED_TRACE(c.text() + ", " + std::to_string(bad));
          Both part = make(5003, c);
          part.values.set(2711, bad);
          part.device_values = on_device(std::as_const(part.values).view(), c.offset);
          const Tensor before = part.residual;
          const std::size_t bytes = codec->max_bytes(5003, dtype);
          const DeviceBytes slot(bytes);
          const std::vector<Fragment> fragments{part.on_device(feedback)};
          *report_ = {};
          device_codec_of(*codec)->encode(*queue_, fragments, kKey, slot.data() + kHeaderBytes, report_);
          queue_->wait();
          ASSERT_NE(report_->non_finite, 0u);
          device_codec_of(*codec)->undo(*queue_, fragments, slot.data() + kHeaderBytes);
          queue_->wait();
          Tensor after(5003, before.dtype(), c.offset);
          part.device_residual.get(after.view().data);
          for (std::size_t i = 0; i < 5003; ++i) {
            ASSERT_NEAR(after[i], before[i], dtype == DType::f64 ? 1e-14 : 1e-5) << i;
          }
        }
      }
    }
  }
}

// Sums that are finite, and would not be once receivers have multiplied them, are reported; residuals are as
// before, to rounding, wherever they were changed.
TEST_F(DeviceCodecs, ReportsWhatReceiversCannotHold) {
  constexpr std::size_t kCount = 5003;
  constexpr int kRanks = 2;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (codec->traits().lossless) continue;
    if (spec == "onebit:scale=rms") continue;  // which cannot square such an element
    // one element is large; a mean is so after a factor that makes up for its block
    const double factor = codec->name() == "onebit" ? 0x1p20 : 4;
    std::size_t flagged = 0;
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      SCOPED_TRACE(spec + " " + std::string(name(dtype)));
      Case c{spec, dtype, {kCount}, Kept::full};
      const PieceCoder coder(*codec, dtype, {kKey});
      const std::size_t size = codec->max_bytes(kCount, dtype);
      const std::size_t stride = (size + 63) / 64 * 64;
      std::vector<std::byte> messages(stride * kRanks);
      std::vector<Contents> contents;
      const double largest = spec == "cast:f16" ? 65504.0 : largest_finite(dtype);
      for (int rank = 0; rank < kRanks; ++rank) {
        Both part = make(kCount, c);
        part.values.set(2711, -0.3 * largest);
        const auto slot = std::span(messages).subspan(stride * static_cast<std::size_t>(rank), size);
        const std::vector<Fragment> fragments{part.on_host(false)};
        coder.encode(fragments, kCount, slot);
        contents.push_back(open_message(*codec, kCount, dtype, slot, std::nullopt));
      }
      Both part = make(kCount, c);
      const Tensor before = part.residual;
      const std::vector<Fragment> sums{{ConstView(nullptr, kCount, dtype), part.residual.view()}};
      std::vector<Fragment> device{part.on_device(true)};
      device[0].values.data = nullptr;
      std::vector<std::byte> out(size);
      std::size_t reading = 0;
      const bool holds = coder.reduce(contents, sums, kRanks, factor, kCount, out, reading) != kHeaderBytes;
      const DeviceBytes slots(messages);
      const DeviceBytes result(size);
      const DeviceSum sum{slots.data() + kHeaderBytes, stride, kRanks, kRanks, factor};
      *report_ = {};
      device_codec_of(*codec)->reduce(*queue_, sum, device, kKey, result.data() + kHeaderBytes, report_);
      queue_->wait();
      ASSERT_EQ(report_->corrupt, 0u);
      ASSERT_EQ(report_->non_finite == 0, holds);
      if (holds) continue;
      ++flagged;
      device_codec_of(*codec)->undo_reduce(*queue_, sum, device, result.data() + kHeaderBytes);
      queue_->wait();
      Tensor after(kCount, before.dtype(), c.offset);
      part.device_residual.get(after.view().data);
      for (std::size_t i = 0; i < kCount; ++i) {
        // rounding is that of what was encoded: beside the large element, of its size
        const bool beside = i / codec->traits().block == 2711 / codec->traits().block;
        ASSERT_NEAR(after[i], before[i], (beside ? largest : 10) * (dtype == DType::f64 ? 1e-15 : 1e-6)) << i;
      }
    }
    // which is sent as f16, and held as f32
    if (spec != "cast:f16") {
      EXPECT_GT(flagged, 0u) << spec
                             << ": no mean was beyond the range: give this codec a larger factor above";
    }
  }
}

// Payloads with a few bytes changed: what the host refuses is reported, what it takes is decoded as it does,
// and nothing is written beside the outputs.
TEST_F(DeviceCodecs, RefuseCorruptPayloadsAsTheHost) {
  constexpr std::size_t kCount = 8197;  // with padding
  std::size_t refused = 0;
  std::size_t turn = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (codec->traits().lossless) continue;
    const std::size_t refused_before = refused;
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      if (++turn % 3 != 0 && codec->name() == "quant") continue;  // each type for some of its many formats
      SCOPED_TRACE(spec + " " + std::string(name(dtype)));
      Case c{spec, dtype, {kCount}};
      const Both part = make(kCount, c);
      std::vector<std::byte> message(codec->max_bytes(kCount, dtype));
      codec->encode(std::as_const(part.values).view(), {}, message);
      const auto try_with = [&](std::vector<std::byte> bytes, const std::string& what) {
        SCOPED_TRACE(what);
        Both host = make(kCount, c);
        const View to = host.values.view();
        const std::vector<View> device_to{{host.device_values.data(), kCount, dtype, Memory::cuda}};
        bool taken = true;
        try {
          open_message(*codec, kCount, dtype, bytes, std::nullopt).decode(*codec, to, Into::overwrite, 1.0);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::corrupt_data);
          taken = false;
          ++refused;
        }
        const DeviceBytes slot(bytes);
        *report_ = {};
        device_codec_of(*codec)->decode(*queue_, slot.data() + kHeaderBytes, device_to, Into::overwrite, 1.0,
                                        report_);
        queue_->wait();
        EXPECT_EQ(report_->corrupt, taken ? 0u : 1u);
        EXPECT_TRUE(host.device_values.guards_intact());
        if (taken) {
          const auto want = host.values.bytes();
          const auto have = host.device_values.get();
          EXPECT_TRUE(std::equal(want.begin(), want.end(), have.begin(), have.end()));
          return;
        }
        const std::size_t stride = (bytes.size() + 63) / 64 * 64;
        std::vector<std::byte> three(3 * stride);
        std::copy(message.begin(), message.end(), three.begin());
        std::copy(bytes.begin(), bytes.end(), three.begin() + static_cast<std::ptrdiff_t>(stride));
        std::copy(message.begin(), message.end(), three.begin() + static_cast<std::ptrdiff_t>(2 * stride));
        const DeviceBytes slots(three);
        const DeviceBytes result(bytes.size());
        const std::vector<Fragment> fragments{{ConstView(nullptr, kCount, dtype, Memory::cuda), View{}}};
        *report_ = {};
        device_codec_of(*codec)->reduce(*queue_, {slots.data() + kHeaderBytes, stride, 3, 3.0, 1.0},
                                        fragments, {}, result.data() + kHeaderBytes, report_);
        queue_->wait();
        EXPECT_EQ(report_->corrupt, 2u) << "reduce";
        EXPECT_TRUE(result.guards_intact());
      };
      const auto changed = [&](std::size_t from, std::size_t bytes, std::byte to) {
        std::vector<std::byte> other = message;
        for (std::size_t i = from; i < from + bytes; ++i) other[i] = to;
        try_with(other, std::to_string(bytes) + " bytes from " + std::to_string(from) + " are " +
                            std::to_string(std::to_integer<int>(to)));
      };
      // the first block's head: a negative number, one that is not finite, another middle; and its codes
      const std::size_t wide = size_of(accumulator_of(dtype));
      for (const std::size_t at : {size_of(dtype) - 1, wide - 1, wide, wide + 1}) {
        changed(kHeaderBytes + at, 1, std::byte{0xff});
      }
      changed(kHeaderBytes + wide - 2, 2, std::byte{0x7f});
      changed(kHeaderBytes, 8, std::byte{0x7f});
      changed(message.size() - 1, 1, std::byte{0x80});  // of the padding, the last bits
      changed(message.size() - 1, 1, std::byte{0xff});
      changed(message.size() / 2, 1, std::byte{0xff});
    }
    // any 16 bits are a number that a cast may have written, for all that a decoder looks at
    if (codec->name() != "cast") {
      EXPECT_GT(refused, refused_before) << spec << ": none of these is refused";
    }
  }
}

// The public way: the same messages, and the same refusals.
TEST_F(DeviceCodecs, EncodeAndDecodeOfACodec) {
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    EXPECT_TRUE(codec->supports(Memory::cuda));
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{5003}}) {
        Case c{spec, dtype, {count}, Kept::full, 1};
        SCOPED_TRACE(c.text());
        Both part = make(count, c);
        std::vector<std::byte> message(codec->max_bytes(count, dtype));
        const DeviceBytes slot(message.size());
        const std::span<std::byte> on_device(slot.data(), slot.size());
        const Fragment device = part.on_device(true);
        const bool lossy = !codec->traits().lossless;
        codec->encode(std::as_const(part.values).view(), part.residual.view(), message, dtype, 1.0, {kKey});
        EXPECT_EQ(codec->encode(device.values, device.residual, on_device, dtype, 1.0, {kKey}),
                  message.size());
        EXPECT_EQ(slot.get(), message);
        EXPECT_TRUE(part.residuals_agree());
        for (const Into into : {Into::overwrite, Into::stream, Into::add}) {
          codec->decode(message, part.values.view(), into);
          codec->decode(on_device, {part.device_values.data(), count, dtype, Memory::cuda}, into);
          const auto have = part.device_values.get();
          EXPECT_TRUE(std::equal(have.begin(), have.end(), part.values.bytes().begin()));
        }
        if (count < 2 || !lossy) continue;
        const View out{part.device_values.data(), count, dtype, Memory::cuda};
        EXPECT_THROW(codec->decode(on_device.first(slot.size() - 1), out), Error);
        EXPECT_THROW(codec->decode(on_device, out.slice(0, count - 1)), Error);
        EXPECT_THROW(codec->encode(device.values, part.residual.view(), on_device), Error);
        EXPECT_THROW(codec->encode(device.values, device.residual, message), Error)
            << "a message on the host";
        View said = part.values.view();
        said.memory = Memory::cuda;
        EXPECT_THROW(codec->encode(said, device.residual, on_device), Error) << "values on the host";
        part.values.set(1, std::numeric_limits<double>::infinity());
        part.device_values = terse::test::on_device(std::as_const(part.values).view(), c.offset);
        EXPECT_EQ(codec->encode(part.on_device(true).values, device.residual, on_device), kHeaderBytes);
        EXPECT_EQ(codec->encode(std::as_const(part.values).view(), {}, message), kHeaderBytes);
        const auto header = slot.get();
        EXPECT_TRUE(std::equal(header.begin(), header.begin() + kHeaderBytes, message.begin()));
        EXPECT_THROW(codec->decode(on_device.first(kHeaderBytes), out), Error);
      }
    }
  }
  EXPECT_FALSE(make_codec("onebit:deepspeed")->supports(Memory::cuda));
}

TEST_F(DeviceCodecs, DivideAsTheHost) {
  for (const DType dtype : kAllDTypes) {
    for (const double divisor : {1.0, 2.0, 3.0, 7.0, 8.0}) {
      Case c{"", dtype, {}, Kept::none, 1};
      Both part = make(1003, c);
      divide_on_device(*queue_, {part.device_values.data(), 1003, dtype, Memory::cuda}, divisor);
      queue_->wait();
      divide(part.values.view(), divisor);
      const auto got = part.device_values.get();
      EXPECT_TRUE(std::equal(got.begin(), got.end(), part.values.bytes().begin()))
          << name(dtype) << " by " << divisor;
    }
  }
}

}  // namespace
}  // namespace terse::test

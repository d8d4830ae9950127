// SPDX-License-Identifier: Apache-2.0
//
// A codec of your own: copy this file and change what a message holds.
//   mpirun -np 4 custom_codec [SPEC]          SPEC: int8 (default), int8:block=64, or any other codec
//
// This one keeps 8 bits of each element. Error feedback, the exchange, agreement between ranks and the
// handling of NaN come from the library: a codec says how a run of elements becomes bytes, and how bytes
// become elements again.

#include <mpi.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <system_error>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

namespace {

constexpr float kGreatestCode = 127.0f;
// Beyond this, a code times its scale may not be a finite float any more.
constexpr float kGreatestValue = std::numeric_limits<float>::max() / 2.0f;

/// Payload, block after block: a float, the block's greatest magnitude / 127; then for each element a signed
/// byte, element / scale rounded to the nearest. The last block may be short.
class Int8Codec final : public terse::Codec {
 public:
  // |v - decode(encode(v))| <= max|v| / 254 for each element, so |error|_2 <= sqrt(block) / 254 |v|_2. With
  // blocks of up to kGreatestBlock that is less than |v|_2: contractive, so error feedback is sound.
  static constexpr std::size_t kGreatestBlock = 16384;

  explicit Int8Codec(std::size_t block)
      : Codec("int8", "int8:block=" + std::to_string(block),
              {.contractive = true, .block = block, .error_bound = std::nullopt}),
        block_(block) {}

 private:
  bool do_supports(terse::DType dtype) const noexcept override { return dtype == terse::DType::f32; }

  std::size_t do_max_bytes(std::size_t count, terse::DType) const override {
    return count + (count + block_ - 1) / block_ * sizeof(float);
  }

  std::optional<std::size_t> do_encode(terse::ConstView values, terse::DType, const terse::EncodeContext&,
                                       std::span<std::byte> payload) const override {
    // An f32 tensor's accumulator is f32 too, so that values are floats always.
    std::span<const float> rest = values.as<float>();
    std::byte* out = payload.data();
    for (; !rest.empty(); rest = rest.subspan(std::min(block_, rest.size()))) {
      const std::span<const float> block = rest.first(std::min(block_, rest.size()));
      float greatest = 0.0f;
      for (const float v : block) {
        if (!(std::abs(v) <= kGreatestValue)) return std::nullopt;  // NaN too
        greatest = std::max(greatest, std::abs(v));
      }
      const float scale = greatest / kGreatestCode;
      std::memcpy(out, &scale, sizeof scale);
      out += sizeof scale;
      for (const float v : block) {
        // Rounded by nearbyint to the nearest. The clamp is for a scale so small that it was rounded itself.
        const float code = scale > 0.0f ? std::nearbyint(v / scale) : 0.0f;
        *out++ =
            static_cast<std::byte>(static_cast<std::int8_t>(std::clamp(code, -kGreatestCode, kGreatestCode)));
      }
    }
    return static_cast<std::size_t>(out - payload.data());
  }

  void do_decode(std::span<const std::byte> payload, terse::DType dtype, terse::View out, terse::Into into,
                 double factor) const override {
    // The bytes come from elsewhere: check them before anything is read or written.
    if (payload.size() != do_max_bytes(out.count, dtype)) {
      throw terse::Error(terse::ErrorCode::corrupt_data,
                         "codec " + spec() + ": a payload of " + std::to_string(payload.size()) +
                             " bytes for " + std::to_string(out.count) + " elements, which take " +
                             std::to_string(do_max_bytes(out.count, dtype)));
    }
    std::span<float> rest = out.as<float>();
    const std::byte* in = payload.data();
    for (; !rest.empty(); rest = rest.subspan(std::min(block_, rest.size()))) {
      float scale = 0.0f;
      std::memcpy(&scale, in, sizeof scale);
      in += sizeof scale;
      if (!(scale >= 0.0f && scale <= kGreatestValue / kGreatestCode)) {
        throw terse::Error(terse::ErrorCode::corrupt_data,
                           "codec " + spec() + ": a scale that no encoder wrote");
      }
      const auto times = static_cast<float>(factor);
      for (float& element : rest.first(std::min(block_, rest.size()))) {
        // First the value that the encoder's residual was taken from, then the factor.
        const float value = static_cast<float>(static_cast<std::int8_t>(*in++)) * scale;
        element = into == terse::Into::add ? element + value * times : value * times;
      }
    }
  }

  /// Blocks do not know of each other: the payload of two runs of blocks is one behind the other. So the
  /// library's error feedback works on a few thousand elements at a time, which stay in the cache.
  std::size_t do_run() const noexcept override { return block_; }

  std::size_t block_;
};

/// The row of the codec table. All ranks need the same rows.
terse::CodecEntry int8_entry() {
  return {.name = "int8",
          .summary = "8 bits an element, scaled block by block",
          .options = {{.name = "block", .default_value = "256", .help = "elements that share a scale"}},
          .examples = {"int8", "int8:block=64"},
          .make = [](const terse::CodecArguments& arguments) -> std::shared_ptr<const terse::Codec> {
            const std::string& text = arguments.at("block");
            std::size_t block = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), block);
            if (error != std::errc() || end != text.data() + text.size() || block < 1 ||
                block > Int8Codec::kGreatestBlock) {
              throw terse::Error(terse::ErrorCode::invalid_argument,
                                 "codec int8: block=" + text + " must be a whole number from 1 to " +
                                     std::to_string(Int8Codec::kGreatestBlock));
            }
            return std::make_shared<Int8Codec>(block);
          }};
}

/// |a - b|_2 / |b|_2.
double relative_error(std::span<const double> a, std::span<const double> b) {
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

/// Averages one vector again and again: with feedback, the mean of the results comes closer to the exact
/// average. Errors: terse::Error, on all ranks alike.
int run(const char* spec) {
  constexpr std::size_t kCount = 100'003;
  constexpr int kCalls = 20;
  terse::register_codec(int8_entry());
  const std::shared_ptr<const terse::Codec> codec = terse::make_codec(spec);
  terse::Communicator world(MPI_COMM_WORLD);
  // Feedback adds up what a codec leaves out: sound only where that is less than it is given.
  const bool with_feedback = codec->traits().contractive && !codec->traits().lossless;
  terse::Feedback residual;

  std::vector<float> values(kCount);
  std::mt19937_64 random(static_cast<std::uint64_t>(world.rank()));
  std::normal_distribution<float> normal;
  for (float& v : values) v = normal(random);
  std::vector<double> exact(values.begin(), values.end());
  MPI_Allreduce(MPI_IN_PLACE, exact.data(), static_cast<int>(kCount), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  for (double& v : exact) v /= world.size();

  std::vector<float> result(kCount);
  std::vector<double> mean(kCount);
  double first_error = 0.0;
  terse::Outcome outcome;
  for (int call = 1; call <= kCalls; ++call) {
    outcome = world.allreduce(
        {terse::view(std::as_const(values)), terse::view(result), with_feedback ? &residual : nullptr},
        terse::Op::average, {.policy = {.codec = codec, .algorithm = "two_phase", .min_bytes = 0}});
    for (std::size_t i = 0; i < kCount; ++i) mean[i] += static_cast<double>(result[i]) / kCalls;
    if (call == 1) first_error = relative_error(std::vector<double>(result.begin(), result.end()), exact);
  }
  const double mean_error = relative_error(mean, exact);

  if (world.rank() == 0) {
    std::cout << codec->spec() << ": " << outcome.bytes_sent << " bytes sent for " << kCount * sizeof(float)
              << ", relative error of one call " << first_error << ", of the mean of " << kCalls << " calls "
              << mean_error << std::endl;
  }
  // What feedback is for. Without it both errors are the same but for rounding, hence the hair.
  constexpr double kHair = 1e-6;
  return mean_error <= first_error * (1.0 + kHair) + kHair ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  int code = 1;
  try {
    code = run(argc > 1 ? argv[1] : "int8");
  } catch (const terse::Error& error) {
    const bool alike = error.code() != terse::ErrorCode::communication;  // on all ranks: one speaks for them
    if (!alike || rank == 0) std::cerr << "custom_codec: " << error.what() << std::endl;
    if (!alike) MPI_Abort(MPI_COMM_WORLD, 1);
  } catch (const std::exception& error) {  // on this rank only: the others wait for it
    std::cerr << "custom_codec: rank " << rank << ": " << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return code;
}

// SPDX-License-Identifier: Apache-2.0
#include "device_codec.hpp"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <span>
#include <string>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

#include "device_memory.hpp"
#include "environment.hpp"
#include "report.hpp"
#include "statistics.hpp"
#include "tensors.hpp"

namespace terse::bench {
namespace {

constexpr std::size_t kWarmUp = 3;
constexpr std::size_t kMostMade = std::size_t{16} << 20;  // elements; longer tensors repeat them

/// Values like a gradient, made on the host.
DeviceTensor gradient_on_device(std::size_t count, DType dtype) {
  const Tensor made(std::min(count, kMostMade), dtype);
  fill_gradient(made.view(), 0);
  DeviceTensor tensor(count, dtype);
  for (std::size_t begin = 0; begin < count; begin += kMostMade) {
    const std::size_t n = std::min(kMostMade, count - begin);
    copy(tensor.view().slice(begin, n), made.view().slice(0, n));
  }
  return tensor;
}

/// A codec's work on one tensor in device memory, which is one message.
class DeviceWork {
 public:
  DeviceWork(const NamedCodec& named, DType dtype, ResidualType residual, std::size_t bytes)
      : codec_(*named.codec),
        feedback_(named.takes_feedback()),
        values_(gradient_on_device(bytes / size_of(dtype), dtype)),
        residual_(feedback_ ? count() : 0, residual_of(dtype, residual)),
        out_(count(), dtype),
        message_((codec_.max_bytes(count(), dtype) + size_of(DType::f64) - 1) / size_of(DType::f64),
                 DType::f64) {}

  std::size_t count() const { return values_.view().count; }
  bool feedback() const { return feedback_; }
  std::size_t message_bytes() const { return message_bytes_; }

  // Each has ended when it returns.
  void encode() {
    message_bytes_ =
        codec_.encode(values_.view(), feedback_ ? residual_.view() : View{}, room(message_.view().bytes()));
  }
  void decode() const { codec_.decode(room(message_bytes_), out_.view(), Into::overwrite); }
  void decode_add() const { codec_.decode(room(message_bytes_), out_.view(), Into::add); }
  void copy_values() const { copy(out_.view(), values_.view()); }

  // Bytes that must come from memory and go there.
  std::size_t encode_traffic() const {
    return values_.view().bytes() + 2 * residual_.view().bytes() + message_bytes_;
  }
  std::size_t decode_add_traffic() const { return 2 * out_.view().bytes() + message_bytes_; }
  std::size_t copy_traffic() const { return 2 * values_.view().bytes(); }

 private:
  std::span<std::byte> room(std::size_t bytes) const {
    return {static_cast<std::byte*>(message_.view().data), bytes};
  }

  const Codec& codec_;
  bool feedback_;
  DeviceTensor values_;
  DeviceTensor residual_;
  DeviceTensor out_;
  DeviceTensor message_;
  std::size_t message_bytes_ = 0;
};

/// Seconds of whole calls, one for each repetition.
struct Seconds {
  std::vector<double> copy;
  std::vector<double> encode;
  std::vector<double> decode;
  std::vector<double> decode_add;
};

/// GB/s of what moves `bytes` in each of these times.
std::vector<double> rates(std::size_t bytes, const std::vector<double>& seconds) {
  std::vector<double> result;
  result.reserve(seconds.size());
  for (const double s : seconds) result.push_back(static_cast<double>(bytes) * 1e-9 / s);
  return result;
}

class DeviceCodecs {
 public:
  DeviceCodecs(const Session& session, const CommonArguments& arguments, ResidualType residual,
               std::size_t iterations)
      : session_(session),
        arguments_(arguments),
        residual_(residual),
        iterations_(iterations),
        table_(columns()) {}

  int run() {
    std::cout << "terse-bench codec: GB/s, " << name(arguments_.dtype)
              << (residual_ == ResidualType::full ? "" : ", residuals in bf16") << ", on " << session_.device
              << ", whole calls, a tensor a message" << std::endl;
    table_.print_heading();
    for (const NamedCodec& codec : arguments_.codecs) {
      for (const std::size_t bytes : arguments_.sizes) measure(codec, bytes);
    }
    return report();
  }

 private:
  std::vector<Column> columns() const {
    std::size_t longest = 0;
    for (const NamedCodec& codec : arguments_.codecs) longest = std::max(longest, codec.spec.size());
    return {{"codec", longest, Column::Align::left},
            {"bytes", 7},
            {"encode", 13},
            {"decode", 13},
            {"decode+add", 13},
            {"copy", 13},
            {"encode/copy", 5},
            {"add/copy", 5}};
  }

  void measure(const NamedCodec& named, std::size_t bytes) {
    DeviceWork work = agreed(session_, [&] { return DeviceWork(named, arguments_.dtype, residual_, bytes); });
    const std::string shown_bytes = format_bytes(static_cast<double>(bytes));
    const Seconds seconds = sample(work, named.spec + ", " + shown_bytes + ": ");

    const auto encode = rates(bytes, seconds.encode);
    const auto decode = rates(bytes, seconds.decode);
    const auto decode_add = rates(bytes, seconds.decode_add);
    const auto copies = rates(work.copy_traffic(), seconds.copy);
    const double copy_rate = median(copies);
    const double traffic_ratio = median(rates(work.encode_traffic(), seconds.encode)) / copy_rate;
    const double decode_add_traffic_ratio =
        median(rates(work.decode_add_traffic(), seconds.decode_add)) / copy_rate;

    std::vector<std::string> medians = {named.spec, shown_bytes};
    std::vector<std::string> spreads = {"", ""};
    Json extremes = Json::object();
    for (const auto& [key, samples] : {std::pair{"encode", &encode}, std::pair{"decode", &decode},
                                       std::pair{"decode_add", &decode_add}, std::pair{"copy", &copies}}) {
      medians.push_back(format("%.1f", median(*samples)));
      spreads.push_back(format("%.1f", smallest(*samples)) + "-" + format("%.1f", largest(*samples)));
      extremes[key] = {{"min", smallest(*samples)}, {"max", largest(*samples)}};
    }
    medians.push_back(format("%.3f", traffic_ratio));
    medians.push_back(format("%.3f", decode_add_traffic_ratio));
    spreads.resize(medians.size());
    table_.print_row(medians);
    table_.print_row(spreads);

    rows_.push_back({{"suite", "codec"},
                     {"codec", named.spec},
                     {"dtype", name(arguments_.dtype)},
                     {"count", work.count()},
                     {"bytes", bytes},
                     {"message_bytes", work.message_bytes()},
                     {"iterations", iterations_},
                     {"feedback", work.feedback()},
                     {"residual", work.feedback() ? Json(name(residual_)) : Json()},
                     {"encode_gb_s", median(encode)},
                     {"decode_gb_s", median(decode)},
                     {"decode_add_gb_s", median(decode_add)},
                     {"copy_gb_s", copy_rate},
                     {"traffic_ratio", traffic_ratio},
                     {"decode_add_traffic_ratio", decode_add_traffic_ratio},
                     {"spread_gb_s", extremes}});
    if (!work.feedback() && !named.codec->traits().lossless) {
      note(named.spec + " encoded without feedback, which is not sound with it (it is not contractive).");
    }
  }

  Seconds sample(DeviceWork& work, const std::string& label) const {
    const auto time = [](const auto& work_once) {
      const auto begin = std::chrono::steady_clock::now();
      work_once();
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    Progress progress(Progress::Use::on_terminal);
    Seconds seconds;
    for (std::size_t i = 0; i < kWarmUp + iterations_; ++i) {
      progress.show(label + "repetition " + std::to_string(i + 1) + " of " +
                    std::to_string(kWarmUp + iterations_));
      if (i == kWarmUp) seconds = {};
      seconds.copy.push_back(time([&] { work.copy_values(); }));
      seconds.encode.push_back(time([&] { work.encode(); }));
      seconds.decode.push_back(time([&] { work.decode(); }));
      seconds.decode_add.push_back(time([&] { work.decode_add(); }));
    }
    return seconds;
  }

  /// Adds a sentence below the table, once.
  void note(const std::string& sentence) {
    if (std::find(notes_.begin(), notes_.end(), sentence) == notes_.end()) notes_.push_back(sentence);
  }

  int report() {
    if (!is_optimized()) note("terse-bench was built without optimisation.");
    for (const std::string& note : notes_) print_wrapped("", note);
    if (arguments_.json.empty()) return 0;
    Json environment = describe_environment(session_, ranks_per_host(session_));
    Json specs = Json::object();
    for (const NamedCodec& named : arguments_.codecs) specs[named.spec] = named.codec->spec();
    environment["codecs"] = specs;
    environment["notes"] = notes_;
    try {
      write_json(arguments_.json, environment, rows_);
    } catch (const std::exception& error) {
      std::cerr << "terse-bench: " << error.what() << std::endl;
      return 1;
    }
    return 0;
  }

  Session session_;
  CommonArguments arguments_;
  ResidualType residual_;
  std::size_t iterations_;
  Table table_;
  std::vector<std::string> notes_;
  Json rows_ = Json::array();
};

}  // namespace

int measure_codecs_on_device(const Session& session, const CommonArguments& arguments, ResidualType residual,
                             std::size_t iterations) {
  return DeviceCodecs(session, arguments, residual, iterations).run();
}

}  // namespace terse::bench

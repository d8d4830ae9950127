// SPDX-License-Identifier: Apache-2.0
//
// codec: what encoding and decoding take on one core, beside what memory can give.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "arguments.hpp"
#include "device_codec.hpp"
#include "environment.hpp"
#include "report.hpp"
#include "statistics.hpp"
#include "suite.hpp"
#include "tensors.hpp"
#include "triad.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kPieceBytes = "1M";
constexpr std::string_view kIterations = "31";
constexpr std::size_t kTriadCaches = 4;   // an array of the triad is so many last-level caches long
constexpr std::size_t kTensorCaches = 2;  // what encoding walks over should be, too

constexpr std::string_view kNotes =
    R"(One core walks over the tensor in pieces, as a collective does; each piece is a message. Encoding
is with error feedback where the codec is contractive (it reads values and residuals and writes
residuals), decode overwrites a tensor, decode+add adds to sums in the accumulator's type (f64 for
f64, else f32). A triad a = b + s * c, with plain and with streaming stores, runs in turn with
them. Figures are medians, below them the least and the most. Values are normal, or those of
--input: a file of elements of --dtype as they lie in memory and nothing else, such as a gradient
that train_charlm --dump-gradients wrote. It is taken as a whole, or with --bytes cut or repeated.

  encode, decode, decode+add   1e9 bytes of elements a second
  triad                        1e9 bytes of memory traffic a second, the faster kernel, 12 bytes an element
  encode/triad                 memory traffic of encoding over triad's: a value read and, with
                               feedback, a residual read and written (12 bytes an f32 element, 8
                               with --residual bf16)
  add/triad                    memory traffic of decode+add over triad's: a sum read and written (8)
  error                        relative L2 of what one encoding without residuals leaves out

With --device cuda a tensor in device memory is one message, made and read there, and decode+add
adds to a tensor of the same type. What is timed is the whole call, which waits for the device and
reads or writes the message's header. A copy of the tensor to another one on the device takes the
triad's place.

  copy                         1e9 bytes of memory traffic a second: each byte is read and written
  encode/copy                  memory traffic of encoding over copy's: a value read, a residual read and
                               written, the message written
  add/copy                     memory traffic of decode+add over copy's: the message and an element read,
                               the element written
)";

struct Arguments {
  CommonArguments common;
  std::size_t piece_bytes = 0;
  std::size_t iterations = 0;
  ResidualType residual = ResidualType::full;
  std::string input;               ///< a path or nothing
  std::optional<Tensor> elements;  ///< what it holds
};

po::options_description suite_options() {
  po::options_description options("Options", 100);
  add_common_options(options);
  auto add = options.add_options();
  const auto text = [](const char* name, std::string_view otherwise) {
    return po::value<std::string>()->value_name(name)->default_value(std::string(otherwise));
  };
  add("piece-bytes", text("SIZE", kPieceBytes), "bytes of the elements of a message");
  add("iterations", text("N", kIterations), "repetitions, at least 11");
  add_residual_option(options);
  add("input", po::value<std::string>()->value_name("FILE"),
      "values to encode, raw elements of --dtype; --bytes is all of them if not given");
  return options;
}

Arguments parse(const po::variables_map& values) {
  constexpr std::size_t kFewest = 11;
  Arguments arguments;
  arguments.input = value_or(values, "input", "");
  const bool sized = values.count("bytes") + values.count("sizes") != 0;
  arguments.common = common_arguments(values, sized || values.count("input") == 0 ? Sizes::list : Sizes::own);
  arguments.piece_bytes = parse_bytes("--piece-bytes", values["piece-bytes"].as<std::string>());
  arguments.iterations = parse_count("--iterations", values["iterations"].as<std::string>(), kFewest);
  arguments.residual = residual_argument(values, arguments.common.dtype);
  if (memory_argument(values) == Memory::cuda && !values["piece-bytes"].defaulted()) {
    throw tools::UsageError("--piece-bytes: with --device cuda a tensor is one message");
  }
  if (values.count("input") == 0) return arguments;
  if (memory_argument(values) == Memory::cuda) {
    throw tools::UsageError("--input: with --device cuda values are made, not read");
  }
  try {
    arguments.elements = read_elements(arguments.input, arguments.common.dtype);
  } catch (const std::runtime_error& error) {
    throw tools::UsageError(std::string("--input: ") + error.what());
  }
  if (!sized) arguments.common.sizes = {arguments.elements->view().bytes()};
  return arguments;
}

/// A codec's work on one tensor. The messages of all pieces are kept, one behind the other.
class Work {
 public:
  /// `elements` are the values, again and again; where there are none, they are normal.
  Work(const NamedCodec& named, DType dtype, ResidualType residual, std::size_t bytes,
       std::size_t piece_bytes, const std::optional<Tensor>& elements)
      : codec_(*named.codec),
        dtype_(dtype),
        feedback_(named.takes_feedback()),
        values_(bytes / size_of(dtype), dtype),
        residual_(feedback_ ? count() : 0, residual_of(dtype, residual)),
        decoded_(count(), dtype),
        sums_(count(), accumulator_of(dtype)) {
    if (elements) {
      fill_repeated(values_.view(), elements->view());
    } else {
      fill_gradient(values_.view(), 0);
    }
    const std::size_t block = codec_.traits().block;
    const std::size_t piece = std::max(piece_bytes / size_of(dtype) / block, std::size_t{1}) * block;
    std::size_t offset = 0;
    for (std::size_t begin = 0; begin < count(); begin += piece) {
      const std::size_t n = std::min(piece, count() - begin);
      pieces_.push_back({begin, n, offset, codec_.max_bytes(n, dtype), 0});
      offset += pieces_.back().room;
    }
    messages_ = Tensor((offset + size_of(DType::f64) - 1) / size_of(DType::f64), DType::f64);
  }

  std::size_t count() const { return values_.view().count; }
  bool feedback() const { return feedback_; }
  /// Bytes that encoding walks over, messages aside.
  std::size_t footprint() const { return values_.view().bytes() + residual_.view().bytes(); }

  void encode() { encode_with(feedback_ ? residual_.view() : View{}); }
  void decode() const { decode_into(decoded_.view(), Into::overwrite); }
  void decode_add() const { decode_into(sums_.view(), Into::add); }

  /// What an encoding without residuals leaves out, as a relative L2 norm.
  double error() {
    encode_with({});
    decode();
    double norm2 = 0;
    double error2 = 0;
    with_type(dtype_, [&]<class T>(std::type_identity<T>) {
      const auto values = values_.view().as<T>();
      const auto decoded = decoded_.view().as<T>();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double value = to_double(values[i]);
        const double left = value - to_double(decoded[i]);
        norm2 += value * value;
        error2 += left * left;
      }
    });
    return error2 == 0 ? 0 : std::sqrt(error2 / norm2);
  }

  // Memory traffic of an element, messages aside.
  double encode_traffic() const {
    return static_cast<double>(size_of(dtype_) + (feedback_ ? 2 * size_of(residual_.view().dtype) : 0));
  }
  double decode_add_traffic() const { return 2.0 * static_cast<double>(size_of(accumulator_of(dtype_))); }

 private:
  struct Piece {
    std::size_t begin;
    std::size_t count;
    std::size_t offset;  ///< of its message
    std::size_t room;
    std::size_t bytes;
  };

  void encode_with(View residual) {
    for (Piece& piece : pieces_) {
      const ConstView values = values_.view().slice(piece.begin, piece.count);
      const View left = residual.empty() ? View{} : residual.slice(piece.begin, piece.count);
      piece.bytes = codec_.encode(values, left, room(piece), dtype_, 1.0, {.random = {.position = piece.begin}});
    }
  }
  std::span<std::byte> room(const Piece& piece) const {
    return {static_cast<std::byte*>(messages_.view().data) + piece.offset, piece.room};
  }
  void decode_into(View out, Into into) const {
    for (const Piece& piece : pieces_) {
      codec_.decode(room(piece).first(piece.bytes), out.slice(piece.begin, piece.count), into);
    }
  }

  const Codec& codec_;
  DType dtype_;
  bool feedback_;
  Tensor values_;
  Tensor residual_;
  Tensor decoded_;
  Tensor sums_;
  Tensor messages_;
  std::vector<Piece> pieces_;
};

/// GB/s, one for each repetition.
struct Rates {
  std::vector<double> encode;
  std::vector<double> decode;
  std::vector<double> decode_add;
  std::vector<std::vector<double>> triad;  ///< for each kernel

  /// Those of the faster kernel.
  const std::vector<double>& best_triad() const {
    return *std::max_element(triad.begin(), triad.end(),
                             [](const auto& a, const auto& b) { return median(a) < median(b); });
  }
};

class CodecSuite {
 public:
  explicit CodecSuite(const Session& session, Arguments arguments)
      : session_(session),
        arguments_(std::move(arguments)),
        cache_bytes_(last_level_cache_bytes()),
        kernels_(triad_kernels()),
        table_(columns()) {}

  int run() {
    const Triad triad = agreed(session_, [&] { return Triad(kTriadCaches * cache_bytes_); });
    std::cout << "terse-bench codec: GB/s, " << name(arguments_.common.dtype)
              << (arguments_.residual == ResidualType::full ? "" : ", residuals in bf16")
              << (arguments_.input.empty() ? "" : ", values of " + arguments_.input)
              << ", one core, pieces of " << format_bytes(static_cast<double>(arguments_.piece_bytes))
              << "; last-level cache " << format_bytes(static_cast<double>(cache_bytes_)) << ", triad arrays "
              << format_bytes(static_cast<double>(triad.array_bytes())) << std::endl;
    table_.print_heading();
    for (const NamedCodec& codec : arguments_.common.codecs) {
      for (const std::size_t bytes : arguments_.common.sizes) measure(triad, codec, bytes);
    }
    return report();
  }

 private:
  std::vector<Column> columns() const {
    std::size_t longest = 0;
    for (const NamedCodec& codec : arguments_.common.codecs) longest = std::max(longest, codec.spec.size());
    return {{"codec", longest, Column::Align::left},
            {"bytes", 7},
            {"encode", 9},
            {"decode", 9},
            {"decode+add", 9},
            {"triad", 9},
            {"encode/triad", 5},
            {"add/triad", 5},
            {"error", 6}};
  }

  void measure(const Triad& triad, const NamedCodec& named, std::size_t bytes) {
    Work work = agreed(session_, [&] {
      return Work(named, arguments_.common.dtype, arguments_.residual, bytes, arguments_.piece_bytes,
                  arguments_.elements);
    });
    const double error = work.error();
    const std::string label = named.spec + ", " + format_bytes(static_cast<double>(bytes)) + ": ";
    const Rates rates = sample(triad, work, static_cast<double>(bytes), label);

    const double triad_rate = median(rates.best_triad());
    const double elements = static_cast<double>(size_of(arguments_.common.dtype)) * triad_rate;
    const double traffic_ratio = median(rates.encode) * work.encode_traffic() / elements;
    const double decode_add_traffic_ratio = median(rates.decode_add) * work.decode_add_traffic() / elements;
    const auto middle = [](const std::vector<double>& samples) { return format("%.2f", median(samples)); };
    table_.print_row({named.spec, format_bytes(static_cast<double>(bytes)), middle(rates.encode),
                      middle(rates.decode), middle(rates.decode_add), middle(rates.best_triad()),
                      format("%.3f", traffic_ratio), format("%.3f", decode_add_traffic_ratio),
                      format_error(error)});
    table_.print_row({"", "", spread(rates.encode), spread(rates.decode), spread(rates.decode_add),
                      spread(rates.best_triad()), "", "", ""});

    Json kernels = Json::object();
    for (std::size_t i = 0; i < kernels_.size(); ++i) {
      kernels[std::string(kernels_[i].name)] = median(rates.triad[i]);
    }
    const auto extremes = [](const std::vector<double>& samples) {
      return Json{{"min", smallest(samples)}, {"max", largest(samples)}};
    };
    rows_.push_back({{"suite", "codec"},
                     {"codec", named.spec},
                     {"dtype", name(arguments_.common.dtype)},
                     {"count", work.count()},
                     {"bytes", bytes},
                     {"piece_bytes", arguments_.piece_bytes},
                     {"iterations", arguments_.iterations},
                     {"input", arguments_.input.empty() ? Json() : Json(arguments_.input)},
                     {"feedback", work.feedback()},
                     {"residual", work.feedback() ? Json(name(arguments_.residual)) : Json()},
                     {"encode_gb_s", median(rates.encode)},
                     {"decode_gb_s", median(rates.decode)},
                     {"decode_add_gb_s", median(rates.decode_add)},
                     {"triad_gb_s", triad_rate},
                     {"traffic_ratio", traffic_ratio},
                     {"decode_add_traffic_ratio", decode_add_traffic_ratio},
                     {"rel_error", error},
                     {"triad_kernels_gb_s", kernels},
                     {"spread_gb_s",
                      {{"encode", extremes(rates.encode)},
                       {"decode", extremes(rates.decode)},
                       {"decode_add", extremes(rates.decode_add)},
                       {"triad", extremes(rates.best_triad())}}}});
    if (work.footprint() < kTensorCaches * cache_bytes_) {
      note("Where values and residuals have less than " +
           format_bytes(static_cast<double>(kTensorCaches * cache_bytes_)) + " together (" +
           std::to_string(kTensorCaches) +
           " last-level caches), part of the traffic may not have reached memory.");
    }
    if (!work.feedback() && !named.codec->traits().lossless) {
      note(named.spec + " encoded without feedback, which is not sound with it (it is not contractive).");
    }
  }

  /// Adds a sentence below the table, once.
  void note(const std::string& sentence) {
    if (std::find(notes_.begin(), notes_.end(), sentence) == notes_.end()) notes_.push_back(sentence);
  }

  Rates sample(const Triad& triad, Work& work, double bytes, const std::string& label) const {
    const auto rate = [&](const auto& work_once) {
      const auto begin = std::chrono::steady_clock::now();
      work_once();
      return bytes * 1e-9 / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    constexpr std::size_t kWarmUp = 2;
    Progress progress(Progress::Use::on_terminal);
    Rates rates;
    rates.triad.resize(kernels_.size());
    for (std::size_t i = 0; i < kWarmUp + arguments_.iterations; ++i) {
      progress.show(label + "repetition " + std::to_string(i + 1) + " of " +
                    std::to_string(kWarmUp + arguments_.iterations));
      if (i == kWarmUp) {
        rates = {};
        rates.triad.resize(kernels_.size());
      }
      for (std::size_t k = 0; k < kernels_.size(); ++k) rates.triad[k].push_back(triad.run(kernels_[k]));
      rates.encode.push_back(rate([&] { work.encode(); }));
      rates.decode.push_back(rate([&] { work.decode(); }));
      rates.decode_add.push_back(rate([&] { work.decode_add(); }));
    }
    return rates;
  }

  static std::string spread(const std::vector<double>& samples) {
    return format("%.1f", smallest(samples)) + "-" + format("%.1f", largest(samples));
  }

  int report() {
    if (allowed_cores() > 1) {
      note("This process may move between " + std::to_string(allowed_cores()) +
           " cores; 'taskset -c 0' keeps it on one.");
    }
    if (!is_optimized()) note("terse-bench was built without optimisation.");
    for (const std::string& note : notes_) print_wrapped("", note);
    if (arguments_.common.json.empty()) return 0;
    Json environment = describe_environment(session_, ranks_per_host(session_));
    environment["last_level_cache_bytes"] = cache_bytes_;
    environment["triad_array_bytes"] = kTriadCaches * cache_bytes_;
    Json specs = Json::object();
    for (const NamedCodec& named : arguments_.common.codecs) specs[named.spec] = named.codec->spec();
    environment["codecs"] = specs;
    environment["notes"] = notes_;
    try {
      write_json(arguments_.common.json, environment, rows_);
    } catch (const std::exception& error) {
      std::cerr << "terse-bench: " << error.what() << std::endl;
      return 1;
    }
    return 0;
  }

  Session session_;
  Arguments arguments_;
  std::size_t cache_bytes_;
  std::vector<TriadKernel> kernels_;
  Table table_;
  std::vector<std::string> notes_;
  Json rows_ = Json::array();
};

int run(const Session& session, const po::variables_map& values) {
  Arguments arguments = agreed(session, [&] { return parse(values); });
  require_writable(session, "--json", arguments.common.json);
  if (session.on_device()) {
    return measure_codecs_on_device(session, arguments.common, arguments.residual, arguments.iterations);
  }
  return CodecSuite(session, std::move(arguments)).run();
}

}  // namespace

const Suite kCodecSuite = {
    .name = "codec",
    .summary =
        "encoding and decoding on one core beside a triad, or on a device beside a copy: no mpirun needed",
    .usage = "terse-bench codec --codec SPEC... --bytes SIZE [options]",
    .notes = kNotes,
    .ranks = Suite::Ranks::one,
    .tensors = Suite::Tensors::anywhere,
    .options = suite_options,
    .run = run,
};

}  // namespace terse::bench

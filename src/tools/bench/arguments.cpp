// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "../command_line.hpp"

namespace terse::bench {
namespace {

namespace po = boost::program_options;
using tools::UsageError;

/// "segment-bytes" of "segment_bytes".
std::string dashed(std::string_view option) {
  std::string result(option);
  std::replace(result.begin(), result.end(), '_', '-');
  return result;
}

std::vector<NamedCodec> named_codecs(const po::variables_map& values) {
  std::vector<NamedCodec> result;
  if (values.count("codec") != 0) {
    for (const std::string& spec : values["codec"].as<std::vector<std::string>>()) {
      result.push_back({spec, make_codec(spec)});
    }
  } else if (const CodecChoice choice = options_from_environment().policy.codec; choice.chosen()) {
    result.push_back({choice.spec(), choice.codec() ? choice.codec() : make_codec(choice.spec())});
    if (result.back().spec.empty()) result.back().spec = result.back().codec->spec();
  } else {
    throw UsageError("--codec is missing: use one or several of " +
                     tools::list_names(codecs(), [](const CodecEntry& entry) { return entry.name; }) +
                     " (details: terse codecs)");
  }
  return result;
}

std::vector<std::size_t> listed_sizes(const po::variables_map& values, DType dtype) {
  std::vector<std::size_t> sizes;
  for (const std::string option : {"bytes", "sizes"}) {
    if (values.count(option) != 0) sizes = parse_sizes("--" + option, values[option].as<std::string>());
  }
  if (sizes.empty()) {
    throw UsageError("the tensor's size is missing: give --bytes, such as 64M, or --sizes, such as 4K:256M");
  }
  for (const std::size_t bytes : sizes) {
    if (bytes % size_of(dtype) != 0) {
      throw UsageError(std::to_string(bytes) + " bytes are no whole number of " + std::string(name(dtype)) +
                       " elements, which have " + std::to_string(size_of(dtype)) + " each");
    }
  }
  return sizes;
}

template <class Number>
bool parse_whole(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

void add_common_options(po::options_description& options, const SizeHelp& help) {
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("help,h", "this text");
  add("codec", po::value<std::vector<std::string>>()->multitoken()->composing()->value_name("SPEC..."),
      "codecs, as 'terse codecs' shows them; default: what TERSE_CODEC says");
  add("bytes", text("SIZE"), help.bytes);
  add("sizes", text("SIZES"), help.sizes);
  add("dtype", text("TYPE")->default_value("f32"), "f32, f64, f16 or bf16");
  add("device", text("KIND")->default_value("host"),
      "where the tensors are: host, or cuda (suites allreduce and codec), where each rank takes a device");
  add("json", text("FILE"), "write the rows and where they were measured as JSON");
}

CommonArguments common_arguments(const po::variables_map& values, Sizes sizes) {
  CommonArguments arguments;
  arguments.dtype = dtype_from(values["dtype"].as<std::string>());
  if (values.count("bytes") != 0 && values.count("sizes") != 0) {
    throw UsageError("--bytes and --sizes both say how long the tensors are: give one");
  }
  if (sizes == Sizes::list) arguments.sizes = listed_sizes(values, arguments.dtype);
  arguments.codecs = named_codecs(values);
  for (const NamedCodec& named : arguments.codecs) {
    if (!named.codec->supports(arguments.dtype)) {
      throw UsageError("codec " + named.spec + " does not encode " + std::string(name(arguments.dtype)) +
                       ": see 'terse codecs' for what it does");
    }
  }
  if (memory_argument(values) == Memory::cuda) {
    for (const NamedCodec& named : arguments.codecs) {
      if (named.codec->supports(Memory::cuda)) continue;
      throw UsageError("--device cuda: codec " + named.spec + " has no code for device memory");
    }
  }
  arguments.json = value_or(values, "json", "");
  return arguments;
}

Memory memory_argument(const po::variables_map& values) {
  const auto& text = values["device"].as<std::string>();
  if (text == "host") return Memory::host;
  if (text == "cuda") return Memory::cuda;
  throw UsageError("--device: '" + text + "' is neither host nor cuda");
}

void add_residual_option(po::options_description& options) {
  options.add_options()("residual", po::value<std::string>()->value_name("TYPE"),
                        "how residuals are kept: full, as sums are, or bf16; default full");
}

ResidualType residual_argument(const po::variables_map& values, DType dtype) {
  Policy policy = options_from_environment().policy;
  if (values.count("residual") != 0) set_option(policy, "residual", values["residual"].as<std::string>());
  const ResidualType type = policy.residual.value_or(ResidualType::full);
  if (type != residual_type_for(dtype, type)) {
    throw UsageError("--residual: bf16 is not for " + std::string(name(dtype)) + " tensors: use full");
  }
  return type;
}

void add_library_options(po::options_description& description) {
  for (const OptionInfo& option : options()) {
    const std::string name = dashed(option.name);
    if (description.find_nothrow(name, false) != nullptr) continue;
    std::string help(option.help);
    if (!option.default_value.empty()) help += "; default " + std::string(option.default_value);
    description.add_options()(name.c_str(), po::value<std::string>()->value_name("VALUE"), help.c_str());
  }
}

CommunicatorOptions library_arguments(const po::variables_map& values) {
  CommunicatorOptions result;
  for (const OptionInfo& option : options()) {
    if (option.name == "codec") continue;  // there may be several
    const std::string name = dashed(option.name);
    if (values.count(name) != 0) set_option(result, option.name, values[name].as<std::string>());
  }
  return result;
}

std::string library_default(std::string_view option) {
  for (const OptionInfo& row : options()) {
    if (row.name == option) return std::string(row.default_value);
  }
  return "";
}

std::size_t parse_bytes(const std::string& option, std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  std::string_view digits = text;
  for (const std::string_view ending : {"iB", "B"}) {
    if (digits.ends_with(ending)) {
      digits.remove_suffix(ending.size());
      break;
    }
  }
  unsigned shift = 0;
  if (!digits.empty()) {
    const auto letter = static_cast<char>(std::toupper(static_cast<unsigned char>(digits.back())));
    if (const auto unit = kUnits.find(letter); unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      digits.remove_suffix(1);
    }
  }
  std::size_t number = 0;
  if (!parse_whole(digits, number) || number == 0) {
    throw UsageError(
        option + ": '" + std::string(text) +
        "' is no size: use a whole number of bytes above 0, with K, M, G or T for powers of 1024");
  }
  // no tensor has more bytes than a signed offset counts
  if (number > (static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) >> shift)) {
    throw UsageError(option + ": '" + std::string(text) + "' is more than memory can have");
  }
  return number << shift;
}

std::vector<std::size_t> parse_sizes(const std::string& option, std::string_view text) {
  std::vector<std::size_t> sizes;
  while (true) {
    const auto comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    if (const auto colon = item.find(':'); colon != std::string_view::npos) {
      const std::size_t first = parse_bytes(option, item.substr(0, colon));
      const std::size_t last = parse_bytes(option, item.substr(colon + 1));
      if (first > last) {
        throw UsageError(option + ": '" + std::string(item) +
                         "' is an empty range: the smaller size comes first");
      }
      for (std::size_t bytes = first; bytes <= last; bytes *= 2) {
        sizes.push_back(bytes);
        if (bytes > last / 2) break;
      }
    } else {
      sizes.push_back(parse_bytes(option, item));
    }
    if (comma == std::string_view::npos) break;
    text = text.substr(comma + 1);
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

Op parse_op(const std::string& text) {
  for (const Op op : {Op::sum, Op::average}) {
    if (text == name(op)) return op;
  }
  throw UsageError("--op: '" + text + "' is neither sum nor average");
}

std::size_t parse_count(const std::string& option, const std::string& text, std::size_t low) {
  constexpr std::size_t kMost = 1'000'000;
  std::size_t number = 0;
  if (!parse_whole(text, number) || number < low || number > kMost) {
    throw UsageError(option + ": '" + text + "' is not a whole number from " + std::to_string(low) + " to " +
                     std::to_string(kMost));
  }
  return number;
}

double parse_seconds(const std::string& option, const std::string& text) {
  double seconds = 0;
  try {
    std::size_t used = 0;
    seconds = std::stod(text, &used);
    if (used != text.size()) seconds = 0;
  } catch (const std::exception&) {
    seconds = 0;
  }
  if (!std::isfinite(seconds) || seconds <= 0) {
    throw UsageError(option + ": '" + text + "' is no time: use a number of seconds above 0");
  }
  return seconds;
}

std::string value_or(const po::variables_map& values, const std::string& option,
                     const std::string& otherwise) {
  return values.count(option) == 0 ? otherwise : values[option].as<std::string>();
}

}  // namespace terse::bench

// SPDX-License-Identifier: Apache-2.0
//
// terse: what this build of the library has and how it is set.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <terse/terse.hpp>
#include <vector>

#include "command_line.hpp"
#include "interpose/settings.hpp"
#include "output.hpp"
#include "run.hpp"

namespace terse::tools {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr std::array kDTypes = {DType::f32, DType::f64, DType::f16, DType::bf16};
constexpr std::size_t kTypicalCount = std::size_t{1} << 24;  // long enough for headers not to show

// --- what is known of a codec ---

/// A codec by its name alone or, where that is not all that it needs to know, as examples of the table give
/// it.
std::vector<std::shared_ptr<const Codec>> default_instances(const CodecEntry& entry) {
  const auto& examples = entry.examples;
  if (std::find(examples.begin(), examples.end(), entry.name) != examples.end())
    return {make_codec(entry.name)};
  std::vector<std::shared_ptr<const Codec>> made;
  for (const std::string& spec : entry.examples) made.push_back(make_codec(spec));
  return made;
}

std::optional<double> bits_per_element(const Codec& codec, DType dtype) {
  if (!codec.supports(dtype)) return std::nullopt;
  const std::size_t block = codec.traits().block;
  const std::size_t count = (kTypicalCount + block - 1) / block * block;
  return 8.0 * static_cast<double>(codec.max_bytes(count, dtype)) / static_cast<double>(count);
}

std::vector<std::string> supported_dtypes(const Codec& codec) {
  std::vector<std::string> names;
  for (const DType dtype : kDTypes) {
    if (codec.supports(dtype)) names.emplace_back(name(dtype));
  }
  return names;
}

std::string describe(const Codec& codec) {
  const CodecTraits& traits = codec.traits();
  std::vector<std::string> words;
  if (traits.lossless) words.emplace_back("lossless");
  words.emplace_back(traits.fixed_size ? "fixed size" : "variable size");
  if (traits.summable) words.emplace_back("summable");
  if (traits.unbiased) words.emplace_back("unbiased");
  if (traits.contractive) words.emplace_back("contractive (feedback is sound)");
  if (traits.error_bound)
    words.push_back("relative error of an element <= " + format("%.3g", *traits.error_bound));
  if (traits.sparse) words.emplace_back("sparse");
  if (traits.whole_tensor) words.emplace_back("whole tensors only");
  words.push_back("block " + std::to_string(traits.block));
  if (codec.supports(Memory::cuda)) words.emplace_back("also in device memory");
  return list_names(words, [](const std::string& word) { return word; });
}

Json to_json(const Codec& codec) {
  const CodecTraits& traits = codec.traits();
  const auto bits = bits_per_element(codec, DType::f32);
  return {{"spec", codec.spec()},
          {"dtypes", supported_dtypes(codec)},
          {"device_memory", codec.supports(Memory::cuda)},
          {"bits_per_f32", bits ? Json(*bits) : Json()},
          {"traits",
           {{"lossless", traits.lossless},
            {"fixed_size", traits.fixed_size},
            {"summable", traits.summable},
            {"unbiased", traits.unbiased},
            {"contractive", traits.contractive},
            {"sparse", traits.sparse},
            {"whole_tensor", traits.whole_tensor},
            {"block", traits.block},
            {"error_bound", traits.error_bound ? Json(*traits.error_bound) : Json()}}}};
}

Json to_json(const CodecEntry& entry) {
  Json options = Json::array();
  for (const CodecOption& option : entry.options) {
    options.push_back({{"name", option.name},
                       {"default", option.default_value.empty() ? Json() : Json(option.default_value)},
                       {"positional", option.positional},
                       {"help", option.help}});
  }
  Json instances = Json::array();
  for (const auto& codec : default_instances(entry)) instances.push_back(to_json(*codec));
  return {{"name", entry.name},
          {"summary", entry.summary},
          {"options", options},
          {"examples", entry.examples},
          {"instances", instances}};
}

// --- output ---

std::string padded(std::string_view text, std::size_t width) {
  std::string result(text);
  result.resize(std::max(width, result.size()), ' ');
  return result;
}

void print_codec(const CodecEntry& entry) {
  print_wrapped(padded(entry.name, 10) + "  ", entry.summary);
  for (const CodecOption& option : entry.options) {
    const std::string usage = option.default_value.empty()
                                  ? option.positional ? "[" + option.name + "=]VALUE" : option.name + "=VALUE"
                                  : option.name + "=" + option.default_value;
    print_wrapped("    " + padded(usage, 14) + "  ", option.help);
  }
  for (const auto& codec : default_instances(entry)) {
    const auto bits = bits_per_element(*codec, DType::f32);
    const char* most = codec->traits().fixed_size ? "" : "at most ";
    print_wrapped("    ",
                  codec->spec() + ": " +
                      (bits ? most + format("%.3f", *bits) + " bits an f32 element; " : std::string()) +
                      describe(*codec) + "; for " +
                      list_names(supported_dtypes(*codec), [](const std::string& dtype) { return dtype; }));
  }
  if (!entry.examples.empty()) {
    print_wrapped("    e.g. ", list_names(entry.examples, [](const std::string& spec) { return spec; }));
  }
}

// --- subcommands ---

int codecs_command(const po::variables_map& values) {
  if (values.count("json") != 0) {
    Json rows = Json::array();
    for (const CodecEntry& entry : codecs()) rows.push_back(to_json(entry));
    std::cout << Json{{"version", 1}, {"codecs", rows}}.dump(2) << '\n';
    return 0;
  }
  std::cout << "A spec is NAME or NAME:OPTION=VALUE,... Options are shown with their defaults.\n";
  for (const CodecEntry& entry : codecs()) {
    std::cout << '\n';
    print_codec(entry);
  }
  return 0;
}

int info_command(const po::variables_map&) {
  std::cout << "terse " << version() << '\n' << mpi_library() << '\n';
  std::cout << (has_cuda() ? "CUDA: buffers in device memory are served"
                           : "no CUDA: buffers in device memory are refused")
            << "\n\nOptions\n";
  std::string refused;
  for (const OptionInfo& option : options()) {
    const std::string variable = interpose::variable_of(option.name);
    std::cout << "  " << option.name << '\n';
    print_wrapped("      ", option.help);
    std::cout << "      default " << (option.default_value.empty() ? "(none)" : option.default_value) << "; "
              << variable;
    if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != '\0') {
      std::cout << " = " << value << " is in force";
      try {
        CommunicatorOptions ignored;
        set_option(ignored, option.name, value);
      } catch (const Error& error) {
        std::cout << " and is refused";
        refused += "terse: " + variable + ": " + error.what() + '\n';
      }
      std::cout << '\n';
    } else {
      std::cout << " is not set\n";
    }
  }
  std::cout << "\nAlgorithms\n";
  for (const AlgorithmInfo& algorithm : algorithms()) {
    print_wrapped("  " + padded(algorithm.name, 12) + "  ", algorithm.summary);
  }
  std::cout << "\nCodecs (more: terse codecs)\n";
  for (const CodecEntry& entry : codecs()) print_wrapped("  " + padded(entry.name, 12) + "  ", entry.summary);
  if (refused.empty()) return 0;
  std::cout.flush();
  std::cerr << refused;
  return 1;
}

using Words = std::vector<std::string>;

struct Subcommand {
  std::string_view name;
  std::string_view usage;
  std::string_view summary;
  int (*run)(const Subcommand& self, const Words& arguments);
};

// A command with options of its own, and help from those.
template <int (*command)(const po::variables_map&)>
int with_options(const Subcommand& self, const Words& arguments) {
  po::options_description description("Options");
  description.add_options()("help,h", "this text");
  if (self.usage == "[--json]") description.add_options()("json", "as JSON");
  const po::variables_map values =
      parse_command_line("terse " + std::string(self.name), description, arguments);
  if (values.count("help") != 0) {
    std::cout << "terse " << self.name << ": " << self.summary << "\n\n" << description;
    return 0;
  }
  return command(values);
}

constexpr std::array kSubcommands = {
    Subcommand{"codecs", "[--json]", "the codecs: options, traits, element types, bits an element",
               with_options<codecs_command>},
    Subcommand{"info", "", "version, MPI library, options and what the environment sets, algorithms, codecs",
               with_options<info_command>},
    Subcommand{"run", "...", "runs an MPI program with its MPI_Allreduce compressed: see terse run --help",
               [](const Subcommand&, const Words& arguments) { return run_command(arguments); }},
};

void print_help() {
  std::cout << "terse " << version() << ": compressed collectives on MPI\n\n";
  for (const Subcommand& subcommand : kSubcommands) {
    print_wrapped("  terse " + padded(subcommand.name, 8) + padded(subcommand.usage, 10), subcommand.summary);
  }
  std::cout << "  terse --help\n  terse --version\n";
}

int run(const std::vector<std::string>& arguments) {
  const std::string names =
      list_names(kSubcommands, [](const Subcommand& subcommand) { return std::string(subcommand.name); });
  if (arguments.empty()) throw UsageError("a subcommand is missing: " + names + ", or --help");
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h") {
    print_help();
    return 0;
  }
  if (first == "--version") {
    std::cout << "terse " << version() << '\n';
    return 0;
  }
  const auto subcommand = std::find_if(kSubcommands.begin(), kSubcommands.end(),
                                       [&](const Subcommand& candidate) { return candidate.name == first; });
  if (subcommand == kSubcommands.end()) {
    throw UsageError((first.starts_with('-') ? "there is no option '" : "there is no subcommand '") + first +
                     "': use " + names + ", --help or --version");
  }
  return subcommand->run(*subcommand, {arguments.begin() + 1, arguments.end()});
}

}  // namespace
}  // namespace terse::tools

int main(int argc, char** argv) {
  try {
    return terse::tools::run({argv + 1, argv + argc});
  } catch (const terse::tools::UsageError& error) {
    std::cerr << "terse: " << error.what() << '\n';
    return terse::tools::kUsageExit;
  } catch (const std::exception& error) {
    std::cerr << "terse: " << error.what() << '\n';
    return 1;
  }
}

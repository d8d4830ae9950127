// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/program_options.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <terse/codec.hpp>
#include <terse/communicator.hpp>
#include <terse/types.hpp>
#include <vector>

namespace terse::bench {

/// A codec, as asked for ("onebit") and made.
struct NamedCodec {
  std::string spec;
  std::shared_ptr<const Codec> codec;

  /// Feedback adds up what a codec leaves out. That is sound where a codec leaves out less than it is given
  /// (contractive); a codec that encodes tensors whole has an algorithm of its own, which has feedback all
  /// the same. It is pointless where nothing is left out.
  bool takes_feedback() const noexcept {
    const CodecTraits& traits = codec->traits();
    return (traits.contractive || traits.whole_tensor) && !traits.lossless;
  }
};

/// What --bytes and --sizes mean to a suite, as its help says it.
struct SizeHelp {
  const char* bytes = "bytes of the tensor: 64M, 4K, 1000";
  const char* sizes = "several: 4K:256M is powers of two from 4K to 256M, 4K,1M,3M a list";
};

/// Declares what every suite has: --help, --codec, --bytes, --sizes, --dtype, --device, --json.
void add_common_options(boost::program_options::options_description& options, const SizeHelp& help = {});

/// What those options say.
struct CommonArguments {
  std::vector<NamedCodec> codecs;
  std::vector<std::size_t> sizes;  ///< bytes, ascending
  DType dtype = DType::f32;
  std::string json;  ///< a path or nothing
};
/// Whether --sizes is a list of sizes to measure, which common_arguments reads, or the suite's own affair.
enum class Sizes : std::uint8_t { list, own };
/// Errors: tools::UsageError, terse::Error(invalid_argument).
CommonArguments common_arguments(const boost::program_options::variables_map& values,
                                 Sizes sizes = Sizes::list);

/// Where --device says that tensors are. Errors: tools::UsageError.
Memory memory_argument(const boost::program_options::variables_map& values);

/// Declares --residual.
void add_residual_option(boost::program_options::options_description& options);
/// What it says, or the environment. Errors: tools::UsageError for a dtype that does not take it,
/// terse::Error(invalid_argument).
ResidualType residual_argument(const boost::program_options::variables_map& values, DType dtype);

/// Declares --x for each row x of the library's option table but those that `options` has already.
void add_library_options(boost::program_options::options_description& options);
/// What is given of the library's options, --codec aside. Errors: terse::Error(invalid_argument).
CommunicatorOptions library_arguments(const boost::program_options::variables_map& values);
/// The default that the library's table names for an option.
std::string library_default(std::string_view option);

/// A count of bytes: a whole number, with K, M, G or T ("64M", "64MiB") for powers of 1024. Errors:
/// tools::UsageError.
std::size_t parse_bytes(const std::string& option, std::string_view text);
/// Sizes: a list of bytes ("4K,1M") and of ranges in powers of two ("4K:256M"). Ascending, each once.
std::vector<std::size_t> parse_sizes(const std::string& option, std::string_view text);
/// "sum" or "average". Errors: tools::UsageError.
Op parse_op(const std::string& text);
/// A whole number of at least `low`, or a number above 0. Errors: tools::UsageError.
std::size_t parse_count(const std::string& option, const std::string& text, std::size_t low);
double parse_seconds(const std::string& option, const std::string& text);

/// The value of an option, or `otherwise`.
std::string value_or(const boost::program_options::variables_map& values, const std::string& option,
                     const std::string& otherwise);

}  // namespace terse::bench

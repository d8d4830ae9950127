// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/program_options.hpp>
#include <cstdint>
#include <string_view>

#include "session.hpp"

namespace terse::bench {

/// Something that can be measured: a row of the table in bench_main.cpp and a file of its own.
struct Suite {
  enum class Ranks : std::uint8_t { one, any };          ///< one: works without MPI
  enum class Tensors : std::uint8_t { host, anywhere };  ///< anywhere: serves --device cuda, too

  std::string_view name;
  std::string_view summary;
  std::string_view usage;  ///< how it is called
  std::string_view notes;  ///< what its figures mean, below the options in its help
  Ranks ranks;
  Tensors tensors = Tensors::host;
  boost::program_options::options_description (*options)();
  /// Measures and reports; returns the exit code, on every rank alike. Collective.
  /// Errors: UsageError and terse::Error, on every rank alike.
  int (*run)(const Session&, const boost::program_options::variables_map&);
};

extern const Suite kAllreduceSuite;
extern const Suite kOverlapSuite;
extern const Suite kPersistentSuite;
extern const Suite kFusedSuite;
extern const Suite kCodecSuite;

}  // namespace terse::bench

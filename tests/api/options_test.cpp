// SPDX-License-Identifier: Apache-2.0
//
// The option table: every row can be set, and what makes no sense is refused with a sentence.
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <terse/communicator.hpp>
#include <vector>

#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

/// What an option is after it was set, as text.
const std::vector<std::pair<std::string, std::function<std::string(const CommunicatorOptions&)>>>& readers() {
  using Options = CommunicatorOptions;
  static const std::vector<std::pair<std::string, std::function<std::string(const Options&)>>> list = {
      {"codec",
       [](const Options& o) {
         const CodecChoice& codec = o.policy.codec;
         return codec.codec() ? codec.codec()->spec() : codec.spec();
       }},
      {"algorithm", [](const Options& o) { return o.policy.algorithm; }},
      {"min_bytes",
       [](const Options& o) {
         const auto& bytes = o.policy.min_bytes;
         return !bytes ? "" : *bytes == kAutoBytes ? "auto" : std::to_string(*bytes);
       }},
      {"segment_bytes",
       [](const Options& o) {
         const auto& bytes = o.policy.segment_bytes;
         return !bytes ? "" : *bytes == kAutoSegment ? "auto" : std::to_string(*bytes);
       }},
      {"check",
       [](const Options& o) {
         return std::to_string(static_cast<int>(o.policy.check.value_or(Check::call)));
       }},
      {"threads", [](const Options& o) { return std::to_string(o.threads.value_or(0)); }},
      {"progress",
       [](const Options& o) {
         return std::to_string(static_cast<int>(o.progress.value_or(Progress::calls)));
       }},
      {"residual",
       [](const Options& o) { return std::string(o.policy.residual ? name(*o.policy.residual) : ""); }},
      {"cuda_aware",
       [](const Options& o) {
         return std::to_string(static_cast<int>(o.cuda_aware.value_or(CudaAware::automatic)));
       }},
  };
  return list;
}

std::string read(const CommunicatorOptions& options, const std::string& name) {
  for (const auto& [row, reader] : readers()) {
    if (row == name) return reader(options);
  }
  ADD_FAILURE() << "the option " << name << " is new: add it to this test";
  return {};
}

TEST(Options, EveryRowCanBeSetAndHasADefaultAndHelp) {
  std::set<std::string> names;
  for (const OptionInfo& row : options()) {
    const std::string name(row.name);
    SCOPED_TRACE(name);
    EXPECT_TRUE(names.insert(name).second);
    EXPECT_FALSE(row.help.empty());
    EXPECT_FALSE(row.default_value.empty());
    CommunicatorOptions set;
    set_option(set, row.name, row.default_value);
    read(set, name);
  }
  for (const auto& [name, reader] : readers()) EXPECT_TRUE(names.contains(name)) << name << " is gone";
}

TEST(Options, ValuesAreTakenAsTheyAreMeant) {
  struct Row {
    const char* name;
    const char* text;
    std::string value;
  };
  const std::string onebit = make_codec("onebit:block=64")->spec();
  for (const Row& row : std::vector<Row>{{"codec", "onebit:block=64", onebit},
                                         {"codec", "cast:to=f16", "cast:f16"},
                                         {"algorithm", "auto", "auto"},
                                         {"algorithm", "exact", "exact"},
                                         {"algorithm", "two_phase", "two_phase"},
                                         {"min_bytes", "auto", "auto"},
                                         {"min_bytes", "0", "0"},
                                         {"min_bytes", "123", "123"},
                                         {"min_bytes", "64K", "65536"},
                                         {"min_bytes", "3M", "3145728"},
                                         {"min_bytes", "2G", "2147483648"},
                                         {"min_bytes", "1T", "1099511627776"},
                                         {"min_bytes", "64B", "64"},
                                         {"min_bytes", "64kB", "65536"},
                                         {"min_bytes", "64KiB", "65536"},
                                         {"segment_bytes", "auto", "auto"},
                                         {"segment_bytes", "1", "1"},
                                         {"segment_bytes", "8M", "8388608"},
                                         {"check", "call", "0"},
                                         {"check", "all", "1"},
                                         {"check", "payload", "2"},
                                         {"threads", "1", "1"},
                                         {"threads", "1024", "1024"},
                                         {"progress", "calls", "0"},
                                         {"progress", "thread", "1"},
                                         {"residual", "full", "full"},
                                         {"residual", "bf16", "bf16"},
                                         {"cuda_aware", "auto", "0"},
                                         {"cuda_aware", "on", "1"},
                                         {"cuda_aware", "off", "2"}}) {
    CommunicatorOptions options;
    set_option(options, row.name, row.text);
    EXPECT_EQ(read(options, row.name), row.value) << row.name << "=" << row.text;
    const std::string text = get_option(options, row.name);
    if (text.empty()) {
      EXPECT_EQ(row.value, "auto") << row.name << "=" << row.text;
      continue;
    }
    CommunicatorOptions again;
    set_option(again, row.name, text);
    EXPECT_EQ(read(again, row.name), row.value) << row.name << "=" << text;
  }
}

TEST(Options, WhatIsNotSetHasNoText) {
  for (const OptionInfo& row : options())
    EXPECT_EQ(get_option(CommunicatorOptions{}, row.name), "") << row.name;
  const Policy named{.codec = "onebit:block=64"};
  EXPECT_EQ(get_option(named, "codec"), "onebit:block=64") << "a codec that is not made yet";
  EXPECT_TRUE(is_error(error_of([] { static_cast<void>(get_option(CommunicatorOptions{}, "codek")); }),
                       "invalid_argument", {"codek", "segment_bytes"}));
}

/// Options of a policy are set alike in a policy and in a Communicator's options; the rest are the
/// Communicator's, and a policy refuses them by name.
TEST(Options, APolicyHasThoseOfACall) {
  std::set<std::string> of_communicators;
  for (const OptionInfo& row : options()) {
    SCOPED_TRACE(row.name);
    Policy policy;
    const auto error = error_of([&] { set_option(policy, row.name, row.default_value); });
    if (row.of_policy) {
      EXPECT_EQ(error, "");
      CommunicatorOptions whole;
      set_option(whole, row.name, row.default_value);
      EXPECT_EQ(get_option(policy, row.name), get_option(whole, row.name));
      EXPECT_EQ(get_option(whole.policy, row.name), get_option(whole, row.name));
      EXPECT_NE(get_option(policy, row.name), "");
      continue;
    }
    of_communicators.insert(std::string(row.name));
    EXPECT_TRUE(is_error(error, "invalid_argument", {std::string(row.name), "Communicator"}));
    EXPECT_TRUE(is_error(error_of([&] { static_cast<void>(get_option(policy, row.name)); }),
                         "invalid_argument", {std::string(row.name), "Communicator"}));
  }
  EXPECT_EQ(of_communicators, (std::set<std::string>{"threads", "progress", "cuda_aware"}));
  Policy policy;
  EXPECT_TRUE(is_error(error_of([&] { set_option(policy, "codek", "onebit"); }), "invalid_argument",
                       {"unknown option", "codek"}));
  EXPECT_TRUE(is_error(error_of([&] { set_option(policy, "min_bytes", "many"); }), "invalid_argument",
                       {"min_bytes", "many"}));
  EXPECT_FALSE(policy.min_bytes || policy.codec.chosen()) << "what is refused changes nothing";
}

TEST(Options, WhatMakesNoSenseIsRefusedByName) {
  struct Row {
    const char* name;
    const char* text;
    std::vector<std::string> parts;
  };
  for (const Row& row :
       std::vector<Row>{{"codec", "", {"onebit"}},
                        {"codec", "twobit", {"twobit", "onebit", "identity"}},
                        {"codec", "onebit:block=1", {"block"}},
                        {"algorithm", "", {"two_phase", "exact"}},
                        {"algorithm", "ring-of-fire", {"ring-of-fire", "two_phase", "exact", "auto"}},
                        {"min_bytes", "", {"min_bytes"}},
                        {"min_bytes", "many", {"min_bytes", "many"}},
                        {"min_bytes", "-1", {"min_bytes", "-1"}},
                        {"min_bytes", "+1", {"min_bytes"}},
                        {"min_bytes", "1.5M", {"min_bytes", "1.5M"}},
                        {"min_bytes", "1 K", {"min_bytes"}},
                        {"min_bytes", "K", {"min_bytes"}},
                        {"min_bytes", "1P", {"min_bytes", "1P"}},
                        {"min_bytes", "1Kb", {"min_bytes", "1Kb"}},
                        {"min_bytes", "1iB", {"min_bytes", "1iB"}},
                        {"min_bytes", "99999999T", {"min_bytes"}},
                        {"min_bytes", "1KK", {"min_bytes"}},
                        {"min_bytes", "99999999999G", {"min_bytes"}},
                        {"min_bytes", "99999999999999999999", {"min_bytes"}},
                        {"segment_bytes", "0", {"segment_bytes", "auto"}},
                        {"segment_bytes", "many", {"segment_bytes", "many"}},
                        {"threads", "0", {"threads", "1 to 1024"}},
                        {"threads", "1025", {"threads", "1025"}},
                        {"threads", "2x", {"threads", "2x"}},
                        {"threads", "-1", {"threads"}},
                        {"threads", "", {"threads"}},
                        {"progress", "", {"progress", "calls", "thread"}},
                        {"progress", "threads", {"progress", "threads", "calls or thread"}},
                        {"residual", "f16", {"residual", "f16", "full or bf16"}},
                        {"cuda_aware", "yes", {"cuda_aware", "yes", "auto, on or off"}},
                        {"check", "", {"check", "call", "all", "payload"}},
                        {"check", "none", {"check", "none", "call", "all", "payload"}},
                        {"chunk", "1", {"chunk", "codec", "segment_bytes"}},
                        {"", "1", {"codec", "segment_bytes"}},
                        {"CODEC", "onebit", {"CODEC", "codec"}}}) {
    CommunicatorOptions options;
    const auto error = error_of([&] { set_option(options, row.name, row.text); });
    EXPECT_TRUE(is_error(error, "invalid_argument", row.parts)) << row.name << "=" << row.text;
  }
}

TEST(Options, TheEnvironmentSetsEveryRow) {
  for (const OptionInfo& row : options()) {
    std::string variable = "TERSE_" + std::string(row.name);
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    SCOPED_TRACE(variable);
    const std::string name(row.name);
    const std::string text = name == "codec"        ? "cast:f16"
                             : name == "algorithm"  ? "two_phase"
                             : name == "check"      ? "all"
                             : name == "progress"   ? "thread"
                             : name == "threads"    ? "7"
                             : name == "residual"   ? "bf16"
                             : name == "cuda_aware" ? "off"
                                                    : "12345";
    CommunicatorOptions want;
    set_option(want, row.name, text);
    setenv(variable.c_str(), text.c_str(), 1);
    EXPECT_EQ(read(options_from_environment(), name), read(want, name));
    setenv(variable.c_str(), "makes no sense", 1);
    EXPECT_TRUE(is_error(error_of([] { options_from_environment(); }), "invalid_argument", {variable}));
    setenv(variable.c_str(), "", 1);
    EXPECT_EQ(error_of([] { options_from_environment(); }), "") << "set to nothing is not set";
    unsetenv(variable.c_str());
  }
  const CommunicatorOptions none = options_from_environment();
  const Policy& policy = none.policy;
  EXPECT_FALSE(policy.codec.chosen());
  EXPECT_TRUE(policy.algorithm.empty());
  EXPECT_FALSE(policy.min_bytes || policy.segment_bytes || policy.check || policy.residual);
  EXPECT_FALSE(none.threads || none.progress || none.cuda_aware || none.failure);
}

TEST(Options, AlgorithmsAreListed) {
  std::set<std::string> names;
  for (const AlgorithmInfo& row : algorithms()) {
    EXPECT_FALSE(row.summary.empty());
    EXPECT_TRUE(names.insert(std::string(row.name)).second);
    Policy policy;
    set_option(policy, "algorithm", row.name);
  }
  EXPECT_TRUE(names.contains("exact") && names.contains("two_phase"));
}

TEST(Options, OutcomesHaveNames) {
  EXPECT_EQ(name(Outcome::Result::compressed), "compressed");
  EXPECT_EQ(name(Outcome::Result::exact), "exact");
  EXPECT_EQ(name(Outcome::Reason::none), "none");
  EXPECT_EQ(name(Outcome::Reason::asked), "asked");
  EXPECT_EQ(name(Outcome::Reason::small), "small");
  EXPECT_EQ(name(Outcome::Reason::slower), "slower");
  EXPECT_EQ(name(Outcome::Reason::non_finite), "non_finite");
}

TEST(CodecChoice, TakesSpecsAndCodecs) {
  EXPECT_FALSE(CodecChoice().chosen());
  EXPECT_FALSE(CodecChoice("").chosen());
  EXPECT_TRUE(CodecChoice("onebit").chosen());
  EXPECT_EQ(CodecChoice(std::string_view("onebit")).spec(), "onebit");
  const auto codec = make_codec("onebit");
  EXPECT_EQ(CodecChoice(codec).codec(), codec);
  EXPECT_TRUE(CodecChoice(codec).chosen());
}

}  // namespace
}  // namespace terse::test

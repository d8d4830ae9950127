// SPDX-License-Identifier: Apache-2.0
#include "interpose/settings.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <cstdlib>
#include <locale>
#include <string>
#include <terse/codec.hpp>
#include <terse/error.hpp>
#include <vector>

namespace terse::interpose {
namespace {

std::string refusal_of(const std::string& text) {
  try {
    parse_rules(text, "FILE");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "none";
}

TEST(Settings, ARuleHasWhatItsSectionSays) {
  const auto rules = parse_rules(
      "# comment\n\n[first]\r\n  codec = onebit:block=64  # why\ndatatype=f64\nbytes = 64K:1M\ncomm_size=4\n"
      "comm_name = the "
      "workers\nafter=7\nfeedback=off\nkey=sequence:12\nsample=0\nmin_bytes=1\n[second]\ncodec=identity\n",
      "FILE");
  ASSERT_EQ(rules.size(), 2u);
  const Rule& rule = rules[0];
  EXPECT_EQ(rule.name, "first");
  EXPECT_EQ(get_option(rule.policy, "codec"), "onebit:block=64,scale=l1");
  EXPECT_FALSE(rule.serves(DType::f32));
  EXPECT_TRUE(rule.serves(DType::f64));
  EXPECT_FALSE(rule.serves(DType::f16));
  EXPECT_EQ(rule.bytes.least, 64u << 10);
  EXPECT_EQ(rule.bytes.most, 1u << 20);
  EXPECT_EQ(rule.comm_size.least, 4u);
  EXPECT_EQ(rule.comm_size.most, 4u);
  EXPECT_EQ(rule.comm_name, "the workers");
  EXPECT_EQ(rule.after, 7u);
  EXPECT_FALSE(rule.feedback);
  EXPECT_EQ(rule.key, Key::sequence);
  EXPECT_EQ(rule.period, 12u);
  EXPECT_EQ(rule.sample, 0u);
  EXPECT_EQ(threshold(rule), 64u << 10);
  EXPECT_EQ(threshold(rules[1]), 64u << 10);
  EXPECT_FALSE(rules[1].feedback) << "a lossless codec has nothing to feed back";
  EXPECT_EQ(rules[1].policy.algorithm, "auto");
}

TEST(Settings, ResidualsOfF32MayBeInBf16) {
  const auto rules = parse_rules(
      "[half]\ncodec=onebit\nresidual=bf16\n[full]\ncodec=onebit\nresidual=full\n[default]\ncodec=onebit\n",
      "FILE");
  EXPECT_EQ(rules[0].residual_for(DType::f32), ResidualType::bf16);
  EXPECT_EQ(rules[0].residual_for(DType::f64), ResidualType::full);
  EXPECT_TRUE(rules[0].serves(DType::f64));
  EXPECT_EQ(rules[1].residual_for(DType::f32), ResidualType::full);
  EXPECT_EQ(rules[2].residual_for(DType::f32), ResidualType::full);
}

TEST(Settings, WithTrialsOnlyTheSmallestAreNoRules) {
  EXPECT_EQ(threshold(parse_rules("[a]\ncodec=onebit\nmin_bytes=auto\n", "FILE")[0]), kAlwaysExact);
}

TEST(Settings, ARuleMayPassItsCallsOn) {
  const auto rules = parse_rules("[exact]\ncodec=none\ndatatype=f64\n[rest]\ncodec=onebit\n", "FILE");
  EXPECT_TRUE(rules[0].passes);
  EXPECT_TRUE(rules[0].serves(DType::f64));
  EXPECT_GT(threshold(rules[0]), std::uint64_t{1} << 62);
  EXPECT_FALSE(rules[1].passes);
}

TEST(Settings, ARuleServesWhatItsCodecEncodes) {
  const auto rules = parse_rules("[one]\ncodec=onebit:deepspeed\n", "FILE");
  EXPECT_TRUE(rules[0].serves(DType::f32));
  EXPECT_FALSE(rules[0].serves(DType::f64));
}

/// What to do is said in the words of the place where the rule was written.
TEST(Settings, FeedbackNeedsAContraction) {
  const std::string quant = "codec=quant:bits=2,rounding=stochastic\n";
  const std::string sentence = refusal_of("[field]\nfeedback=on\n" + quant);
  EXPECT_EQ(
      sentence.find("FILE:1: rule field adds what a call leaves out to the tensor's next one, which codec "
                    "quant:"),
      0u)
      << sentence;
  EXPECT_NE(
      sentence.find("does not allow: it is no contraction, so that residuals may grow without bound. Turn "
                    "that off, by feedback = off in its section, or choose a codec that is one"),
      std::string::npos)
      << sentence;
  EXPECT_EQ(refusal_of("[field]\nfeedback=off\n" + quant), "none");
  EXPECT_EQ(refusal_of("[field]\nalgorithm=exact\n" + quant), "none") << "leaves nothing out";
  EXPECT_EQ(refusal_of("[field]\ncodec=onebit:deepspeed\n"), "none") << "does as others do";
  // every codec of the table that is refused is so in these words, and taken without feedback
  std::size_t refused = 0;
  for (const CodecEntry& row : codecs()) {
    for (const auto& example : row.examples) {
      const std::string section = "[r]\ncodec=" + std::string(example) + "\n";
      const std::string said = refusal_of(section);
      if (said == "none") continue;
      ++refused;
      EXPECT_NE(said.find("feedback = off in its section"), std::string::npos) << said;
      EXPECT_EQ(refusal_of(section + "feedback = off\n"), "none") << example;
    }
  }
  EXPECT_GT(refused, 0u);
}

TEST(Settings, IntervalsAreOpenWhereNothingIsSaid) {
  const auto bytes = [](const std::string& text) {
    return parse_rules("[r]\ncodec=onebit\nbytes=" + text + "\n", "FILE")[0].bytes;
  };
  EXPECT_FALSE(bytes("4K:").contains(4095));
  EXPECT_TRUE(bytes("4K:").contains(4096));
  EXPECT_TRUE(bytes("4K:").contains(std::uint64_t{1} << 62));
  EXPECT_TRUE(bytes(":4K").contains(0));
  EXPECT_FALSE(bytes(":4K").contains(4097));
  EXPECT_TRUE(bytes("100").contains(100));
  EXPECT_FALSE(bytes("100").contains(101));
}

TEST(Settings, MistakesAreNamedWithTheirLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"codec=onebit\n", "FILE:1: 'codec=onebit' stands before the first [rule]"},
      {"[]\n", "FILE:1: '[]' is no [name] of a rule"},
      {"[a\n", "FILE:1: '[a' is no [name] of a rule"},
      {"[a]\ncodec=onebit\n[a]\n", "FILE:3: there is a rule [a] already"},
      {"[a]\n\n# nothing\nbytes=1K:\n", "FILE:1: rule a names no codec"},
      {"[a]\ncodec onebit\n", "FILE:2: 'codec onebit' is no name=value"},
      {"[a]\ncodec=twobit\n", "FILE:2: unknown codec 'twobit'"},
      {"[a]\ncodec=onebit\ncodec=onebit\n", "FILE:3: codec is set twice in one rule"},
      {"[a]\ncolour=red\n", "FILE:2: a rule has no setting 'colour': the settings are codec, algorithm, "},
      {"[a]\nreport=off\n", "FILE:2: a rule has no setting 'report'"},
      {"[a]\nalgorithm=three_phase\n", "FILE:2: unknown algorithm 'three_phase'"},
      {"[a]\nbytes=1M:1K\n", "FILE:2: bytes=1M:1K makes no sense: the first number is the larger one"},
      {"[a]\nbytes=:\n", "FILE:2: bytes=: makes no sense"},
      {"[a]\nbytes=auto\n", "FILE:2: bytes=auto makes no sense: use bytes such as"},
      {"[a]\ncomm_size=-3\n", "FILE:2: comm_size=-3 makes no sense: use ranks FROM:TO"},
      {"[a]\nafter=soon\n", "FILE:2: after=soon makes no sense: use a number of calls"},
      {"[a]\nfeedback=maybe\n", "FILE:2: feedback=maybe makes no sense: use on or off"},
      {"[a]\nresidual=f16\n", "FILE:2: residual=f16 makes no sense: use full or bf16"},
      {"[a]\ncodec=onebit\ndatatype=f64\nresidual=bf16\n",
       "FILE:1: rule a has residual=bf16, which f64 tensors do not take, and serves no others"},
      {"[a]\nkey=sequence:0\n", "FILE:2: key=sequence:0 makes no sense"},
      {"[a]\nkey=sequence:\n", "FILE:2: key=sequence: makes no sense"},
      {"[a]\ndatatype=f16\n", "FILE:2: datatype=f16 makes no sense: use any, f32"},
      {"[a]\nsample=x\n", "FILE:2: sample=x makes no sense"},
      {"[a]\nsample=3\n", "FILE:2: sample=3 makes no sense: use a number of calls, at least 4, or 0"},
  };
  for (const auto& [text, sentence] : cases) {
    EXPECT_EQ(refusal_of(text).substr(0, sentence.size()), sentence) << text;
  }
}

/// Variables of the environment for as long as it lives.
class Variables {
 public:
  explicit Variables(std::vector<std::pair<std::string, std::string>> set) : set_(std::move(set)) {
    for (const auto& [name, value] : set_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (const auto& [name, value] : set_) unsetenv(name.c_str());
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  std::vector<std::pair<std::string, std::string>> set_;
};

TEST(Settings, WithoutACodecThereIsNoRule) {
  EXPECT_TRUE(read_settings().rules.empty());
  const Variables set({{"TERSE_MIN_BYTES", "1"}, {"TERSE_CODEC", ""}});
  EXPECT_TRUE(read_settings().rules.empty());
}

TEST(Settings, TheEnvironmentIsARule) {
  const Variables set({{"TERSE_CODEC", "cast:bf16"},
                       {"TERSE_KEY", "site"},
                       {"TERSE_FEEDBACK_MB", "3"},
                       {"TERSE_REPORT", "off"},
                       {"TERSE_MIN_BYTES", "64K"}});
  const Settings settings = read_settings();
  ASSERT_EQ(settings.rules.size(), 1u);
  EXPECT_EQ(settings.rules[0].name, "TERSE_CODEC");
  EXPECT_EQ(settings.rules[0].key, Key::site);
  EXPECT_EQ(threshold(settings.rules[0]), 64u << 10);
  EXPECT_EQ(settings.feedback_bytes, std::size_t{3} << 20);
  EXPECT_EQ(settings.report, "off");
}

TEST(Settings, FeedbackOfTheEnvironmentSRule) {
  const Variables set({{"TERSE_CODEC", "quant:bits=2,rounding=stochastic"}, {"TERSE_REPORT", "off"}});
  try {
    read_settings();
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("--feedback off of `terse run` or TERSE_FEEDBACK=off"),
              std::string::npos)
        << error.what();
  }
  const Variables without({{"TERSE_FEEDBACK", "off"}, {"TERSE_KEY", "site"}});
  EXPECT_EQ(read_settings().rules.size(), 1u);
}

/// Numbers are read as they are written in the documents, whatever the program has made its locale, and in
/// its floating-point mode.
TEST(Settings, LocalesAndRoundingHaveNoPart) {
  class Commas : public std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const auto described = [] {
    Settings settings;
    settings.rules =
        parse_rules("[a]\ncodec=topk:ratio=0.0125\nbytes=12345:1234567\nafter=1000\nmin_bytes=64K\n", "FILE");
    return describe(settings);
  };
  const std::string want = described();
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Commas));
  EXPECT_EQ(described(), want);
  std::locale::global(before);
  const int mode = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  std::feclearexcept(FE_ALL_EXCEPT);
  const std::string downward = described();
  const int raised = std::fetestexcept(FE_ALL_EXCEPT);
  std::fesetround(mode);
  EXPECT_EQ(raised, 0);
  EXPECT_EQ(downward, want);
  EXPECT_EQ(variable_of("min_bytes"), "TERSE_MIN_BYTES");
}

TEST(Settings, DescriptionsTellRulesApart) {
  const auto described = [](const std::string& line) {
    Settings settings;
    settings.rules = parse_rules("[r]\ncodec=onebit\n" + line + "\n", "FILE");
    return describe(settings);
  };
  const std::vector<std::string> lines = {"",
                                          "datatype=f32",
                                          "bytes=1K:",
                                          "comm_size=2",
                                          "comm_name=x",
                                          "after=1",
                                          "feedback=off",
                                          "residual=bf16",
                                          "key=site",
                                          "key=sequence:2",
                                          "key=sequence:3",
                                          "sample=9",
                                          "min_bytes=1",
                                          "algorithm=two_phase",
                                          "check=payload",
                                          "segment_bytes=1M"};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_NE(described(lines[i]), described(lines[j])) << lines[i] << " " << lines[j];
  }
}

TEST(Settings, EverySettingIsExplained) {
  for (const SettingInfo& info : setting_infos()) EXPECT_GT(info.help.size(), 10u) << info.name;
}

}  // namespace
}  // namespace terse::interpose

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <terse/codec.hpp>
#include <thread>
#include <vector>

#include "support/codec_reference.hpp"

namespace terse::test {
namespace {

void expect_refused(const std::string& spec, const std::vector<const char*>& named) {
  SCOPED_TRACE("'" + spec + "'");
  try {
    make_codec(spec);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    const std::string what = error.what();
    for (const char* part : named)
      EXPECT_NE(what.find(part), std::string::npos) << part << " not in: " << what;
  }
}

TEST(CodecTable, RowsAreComplete) {
  std::set<std::string> names;
  for (const CodecEntry& row : codecs()) {
    SCOPED_TRACE(row.name);
    EXPECT_TRUE(names.insert(row.name).second) << "twice";
    EXPECT_FALSE(row.summary.empty());
    EXPECT_FALSE(row.examples.empty());
    for (const CodecOption& option : row.options) {
      EXPECT_FALSE(option.name.empty());
      EXPECT_FALSE(option.help.empty());
    }
    for (const std::string& example : row.examples) {
      const auto codec = make_codec(example);
      EXPECT_EQ(codec->name(), row.name);
      EXPECT_GE(codec->traits().block, 1u);
      EXPECT_TRUE(std::any_of(std::begin(kAllDTypes), std::end(kAllDTypes),
                              [&](DType t) { return codec->supports(t); }));
    }
  }
  for (const char* name : {"identity", "cast", "onebit", "topk", "threshold", "randomk"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(CodecSpec, CanonicalSpecIsAFixedPoint) {
  for (const std::string& spec : all_specs()) {
    const std::string canonical = make_codec(spec)->spec();
    EXPECT_EQ(make_codec(canonical)->spec(), canonical) << spec;
  }
}

/// Specs that mean the same codec have one canonical spec, others do not.
TEST(CodecSpec, EqualCodecsHaveEqualSpecs) {
  const std::vector<std::vector<std::string>> groups = {
      {"onebit", "onebit:scale=l1", make_codec("onebit")->spec()},
      {"onebit:block=64", "onebit:scale=l1,block=64", "onebit:block=64,scale=l1", "onebit:block=064"},
      {"onebit:block=64,scale=rms", "onebit:scale=rms,block=64"},
      {"onebit:block=128"},
      {"cast:f16", "cast:to=f16"},
      {"cast:bf16", "cast:to=bf16"},
      {"identity"},
      {"topk", "topk:ratio=0.01", "topk:ratio=1e-2", "topk:block=all", "topk:block=all,ratio=0.010"},
      {"topk:block=64", "topk:ratio=0.01,block=064"},
      {"topk:ratio=0.5"},
      {"threshold", "threshold:ratio=0.010,reuse=032"},
      {"threshold:reuse=1"},
      {"topk+onebit:block=64", "topk:ratio=0.01+onebit:scale=l1,block=64"},
      {"quant:qsgd", "quant:bits=4,block=512,rounding=stochastic,range=symmetric", "quant:block=512,qsgd"},
      {"quant:qsgd,bits=8", "quant:bits=8,block=512,rounding=stochastic,range=symmetric"},
      {"quant:qsgd,seed=1"},
      {"quant:zeropp", "quant:bits=4,range=symmetric"},
      {"quant:cgx", "quant:bits=4,block=512"},
      {"quant", "quant:none", "quant:bits=8"},
      {"ternary:threshold=0.50", "ternary:threshold=5e-1"},
      {"topk:ratio=0.01+quant:bits=8", "topk+quant"},
      {"randomk", "randomk:ratio=1e-2,block=01024", "randomk:seed=00"},
      {"randomk:seed=1"},
      {"sum8", "sum8:block=02048"},
      {"sum4"},
      {"randomk:ratio=0.5"},
      {"hadamard+onebit", "hadamard:block=02048,seed=0+onebit:scale=l1"},
      {"hadamard:seed=1+onebit"},
      {"topk+hadamard:block=64+onebit:block=64", "topk:ratio=1e-2+hadamard:seed=0,block=64+onebit:block=64"},
  };
  std::set<std::string> all;
  for (const auto& group : groups) {
    std::set<std::string> specs;
    for (const std::string& spec : group) specs.insert(make_codec(spec)->spec());
    EXPECT_EQ(specs.size(), 1u) << group[0];
    all.insert(*specs.begin());
  }
  EXPECT_EQ(all.size(), groups.size());
}

TEST(CodecSpec, BadSpecsAreRefusedByName) {
  struct Row {
    const char* spec;
    std::vector<const char*> named;  ///< what is wrong, and what is allowed
  };
  const std::vector<Row> rows = {
      {"", {"identity", "cast", "onebit"}},
      {"one-bit", {"one-bit", "identity", "cast", "onebit"}},
      {"Onebit", {"Onebit", "onebit"}},
      {" onebit", {"onebit", "identity"}},
      {"onebit ", {"onebit", "identity"}},
      {":block=64", {"identity", "onebit"}},
      {"onebit:", {"onebit", "block", "scale"}},
      {"onebit:blocks=64", {"blocks", "block", "scale"}},
      {"onebit:64", {"64", "blocks", "deepspeed"}},
      {"onebit:deepspeed,block=64", {"deepspeed", "block"}},
      {"onebit:deepspeed,scale=rms", {"deepspeed", "scale"}},
      {"onebit:deepspeed,deepspeed", {"twice"}},
      {"onebit:block", {"block", "deepspeed"}},
      {"onebit:block=", {"block"}},
      {"onebit:block=0", {"block", "0", "8"}},
      {"onebit:block=7", {"block", "7", "8"}},
      {"onebit:block=12", {"block", "12", "8"}},
      {"onebit:block=-8", {"block", "-8"}},
      {"onebit:block=+8", {"block", "+8"}},
      {"onebit:block=64x", {"block", "64x"}},
      {"onebit:block= 64", {"block"}},
      {"onebit:block=6.4e1", {"block", "6.4e1"}},
      {"onebit:block=18446744073709551616", {"block", "18446744073709551616"}},
      {"onebit:block=18446744073709551608", {"block"}},
      {"onebit:block=64,block=64", {"block", "twice"}},
      {"onebit:block=64,", {"block", "scale"}},
      {"onebit:block=64,,scale=l1", {"block", "scale"}},
      {"onebit:scale=l2", {"scale", "l2", "l1", "rms"}},
      {"onebit:scale=L1", {"scale", "L1", "l1", "rms"}},
      {"cast", {"to", "f16", "bf16"}},
      {"cast:f8", {"f8", "f16", "bf16"}},
      {"cast:f32", {"f32", "f16", "bf16"}},
      {"cast:to=", {"to"}},
      {"cast:f16,to=f16", {"to", "twice"}},
      {"cast:f16,bf16", {"to", "twice"}},
      {"identity:x=1", {"x", "identity"}},
      {"identity:", {"identity"}},
      {"topk:ratio=0", {"ratio", "0", "1"}},
      {"randomk:ratio=0", {"randomk", "ratio", "0", "1"}},
      {"randomk:block=1", {"block", "1", "2", "65536"}},
      {"randomk:block=65537", {"block", "65537", "65536"}},
      {"randomk:seed=4294967296", {"seed", "4294967296"}},
      {"randomk+quant", {"randomk", "does not go in front"}},
      {"sum8:block=100", {"sum8", "block=100", "64"}},
      {"sum4+sum8", {"sum4", "does not go in front"}},
      {"topk+randomk", {"topk", "randomk", "sparse"}},
      {"topk:ratio=1.1", {"ratio", "1.1"}},
      {"topk:ratio=nan", {"ratio", "nan"}},
      {"topk:0.1", {"0.1", "ratio", "block"}},
      {"topk:block=1", {"block", "1", "2"}},
      {"topk+topk", {"topk", "sparse"}},
      {"topk+onebit:deepspeed", {"onebit:deepspeed", "whole"}},
      {"onebit+topk", {"onebit", "in front"}},
      {"topk+", {"unknown", "topk"}},
      {"threshold:ratio=-1", {"threshold", "ratio", "-1"}},
      {"quant:bits=5", {"bits=5", "8 or 6 or 4 or 2"}},
      {"quant:block=96", {"block=96", "64"}},
      {"quant:block=131072", {"block=131072", "65536"}},
      {"quant:seed=3", {"seed=3", "stochastic"}},
      {"quant:rounding=stochastic,seed=4294967296", {"seed=4294967296"}},
      {"quant:sgd", {"preset=sgd", "qsgd", "zeropp", "cgx"}},
      {"quant:qsgd,cgx", {"preset", "twice"}},
      {"quant+topk", {"quant", "in front"}},
      {"ternary:threshold=1", {"threshold=1", "0.99"}},
      {"ternary:seed=1", {"seed", "rounding=nearest"}},
      {"ternary:rounding=stochastic,threshold=0.5", {"threshold", "rounding=stochastic"}},
      {"natural:block=0", {"block=0", "64"}},
      {"threshold+topk:block=64", {"threshold", "topk", "sparse"}},
      {"hadamard", {"hadamard", "nothing by itself"}},
      {"hadamard:block=8+onebit", {"block=8", "16", "65536"}},
      {"hadamard:block=48+onebit", {"block=48", "power of two"}},
      {"hadamard:seed=-1+onebit", {"seed=-1"}},
      {"hadamard+identity", {"hadamard", "identity", "leaves nothing out"}},
      {"hadamard+topk:block=64", {"hadamard", "topk", "largest elements"}},
      {"hadamard+threshold", {"hadamard", "threshold", "largest elements"}},
      {"hadamard+onebit:deepspeed", {"hadamard", "onebit:deepspeed", "as a whole"}},
      {"hadamard+hadamard+onebit", {"hadamard", "twice"}},
      {"hadamard:block=64+onebit:block=24", {"24", "64", "multiple"}},
      {"onebit+hadamard", {"hadamard", "nothing by itself"}},
  };
  for (const auto& [spec, named] : rows) expect_refused(spec, named);
}

/// Codecs that need a library: what is wrong with their specs; without it, which library, and how to get it.
TEST(CodecSpec, OfALibraryThatMayBeMissing) {
  struct Row {
    const char* spec;
    std::vector<const char*> named;
  };
  const std::vector<Row> lossless = {{"lossless:level=0", {"level", "1", "19"}},
                                     {"lossless:level=20", {"level", "1", "19"}},
                                     {"lossless:3", {"3", "level"}},
                                     {"identity+lossless", {"identity", "write lossless"}},
                                     {"lossless+lossless", {"lossless", "second"}},
                                     {"cast:f16+lossless+lossless", {"second"}},
                                     {"onebit:deepspeed+lossless", {"onebit:deepspeed", "taken apart"}},
                                     {"lossless+onebit", {"lossless", "behind"}},
                                     {"cast:f16+lossless+onebit", {"lossless", "behind"}},
                                     {"hadamard+lossless", {"hadamard", "nothing by itself"}},
                                     {"onebit+cast:f16", {"onebit", "in front of"}}};
  const std::vector<Row> zfp = {{"zfp", {"give rate or accuracy"}},
                                {"zfp:rate=8,accuracy=0.1", {"give rate or accuracy", "not both"}},
                                {"zfp:8", {"8", "rate", "accuracy"}},
                                {"zfp:rate=3.75", {"rate=3.75", "4 to 32"}},
                                {"zfp:rate=33", {"rate=33", "32"}},
                                {"zfp:rate=8.1", {"rate=8.1", "0.25"}},
                                {"zfp:rate=nan", {"rate=nan", "32"}},
                                {"zfp:accuracy=0", {"accuracy=0", "1e-29"}},
                                {"zfp:accuracy=-1", {"accuracy=-1"}},
                                {"zfp:accuracy=inf", {"accuracy=inf", "1e+30"}},
                                {"zfp:accuracy=1e-30", {"accuracy=1e-30", "1e-29"}},
                                {"hadamard+zfp:accuracy=0.1", {"hadamard", "zfp", "vary in size"}}};
  if (has_row("lossless")) {
    for (const auto& [spec, named] : lossless) expect_refused(spec, named);
    EXPECT_EQ(make_codec("lossless")->spec(), "lossless:level=1");
    EXPECT_EQ(make_codec("hadamard+onebit+lossless")->spec(),
              "hadamard:block=2048,seed=0+onebit:block=2048,scale=l1+lossless:level=1");
    EXPECT_EQ(make_codec("lossless:level=03")->spec(), "lossless:level=3");
    EXPECT_EQ(make_codec("onebit:block=64+lossless")->spec(), "onebit:block=64,scale=l1+lossless:level=1");
  } else {
    for (const char* spec : {"lossless", "lossless:level=3", "cast:bf16+lossless"})
      expect_refused(spec, {"lossless", "zstd", "libzstd-dev", "TERSE_ZSTD"});
  }
  if (has_row("zfp")) {
    for (const auto& [spec, named] : zfp) expect_refused(spec, named);
    EXPECT_EQ(make_codec("zfp:rate=8.0")->spec(), "zfp:rate=8");
    EXPECT_EQ(make_codec("zfp:rate=5.25")->spec(), "zfp:rate=5.25");
    EXPECT_EQ(make_codec("zfp:rate=4")->spec(), "zfp:rate=4");
    // the power of two that zfp cuts at
    EXPECT_EQ(make_codec("zfp:accuracy=0.3")->spec(), "zfp:accuracy=0.25");
    EXPECT_EQ(make_codec("zfp:accuracy=0.25")->spec(), "zfp:accuracy=0.25");
  } else {
    expect_refused("zfp:rate=8", {"zfp", "libzfp-dev", "TERSE_ZFP"});
  }
}

class Nothing final : public Codec {
 public:
  explicit Nothing(const std::string& name) : Codec(name, name, {}) {}

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t, DType) const override { return 0; }
  std::optional<std::size_t> do_encode(ConstView, DType, const EncodeContext&,
                                       std::span<std::byte>) const override {
    return 0;
  }
  void do_decode(std::span<const std::byte>, DType, View, Into, double) const override {}
};

CodecEntry nothing(const std::string& name) {
  return {.name = name,
          .summary = "for a test",
          .options = {{"level", "1", "of nothing"}},
          .examples = {},
          .make = [name](const CodecArguments&) { return std::make_shared<Nothing>(name); }};
}

TEST(RegisterCodec, AddsARowThatSpecsFind) {
  const std::size_t rows = codecs().size();
  register_codec(nothing("test-nothing"));
  ASSERT_EQ(codecs().size(), rows + 1);
  EXPECT_EQ(codecs().back().name, "test-nothing");
  EXPECT_EQ(make_codec("test-nothing:level=2")->name(), "test-nothing");
  EXPECT_THROW(make_codec("test-nothing:depth=2"), Error);
}

TEST(RegisterCodec, RefusesWhatCannotBe) {
  const auto code_of = [](CodecEntry entry) {
    try {
      register_codec(std::move(entry));
    } catch (const Error& error) {
      return std::string(name(error.code()));
    }
    return std::string("accepted");
  };
  for (const char* bad : {"onebit", "identity", "", "a:b", "a,b", "a=b", "a b"}) {
    EXPECT_EQ(code_of(nothing(bad)), "invalid_argument") << "'" << bad << "'";
  }
  CodecEntry no_function = nothing("test-no-function");
  no_function.make = nullptr;
  EXPECT_EQ(code_of(no_function), "invalid_argument");
  EXPECT_THROW(make_codec("test-no-function"), Error);
}

TEST(RegisterCodec, ThreadsMayRegisterAndMakeAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 20; ++i) {
        const std::string name = "test-thread-" + std::to_string(t) + "-" + std::to_string(i);
        register_codec(nothing(name));
        EXPECT_EQ(make_codec(name)->name(), name);
        EXPECT_EQ(make_codec("onebit:block=64")->traits().block, 64u);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
//
// The golden vectors, met by the serial model and by the collective itself: the average and both residuals,
// three steps from zero. Only the first step starts from a common state, so an error grows.
#include "support/golden.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/rig.hpp"
#include "support/serial_model.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

void expect_golden(const std::vector<double>& got, const std::vector<double>& want, const char* what,
                   double factor = 1) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(near_golden(got[i] / factor, want[i]))
        << what << " " << i << ": " << got[i] << " for " << want[i];
  }
}

void expect_signs(const std::vector<double>& got, const std::vector<double>& want) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(std::signbit(got[i]), std::signbit(want[i])) << "sign of element " << i;
  }
}

std::vector<Golden> all_files() {
  auto files = load_golden("l1-block");
  for (Golden& g : load_golden("rms-padded")) files.push_back(std::move(g));
  return files;
}

TEST(Golden, FilesAreThereAndWhole) {
  const auto files = all_files();
  ASSERT_EQ(files.size(), 12u);
  for (const Golden& g : files) {
    SCOPED_TRACE(g.name);
    ASSERT_EQ(g.steps.size(), 3u);
    ASSERT_EQ(g.chunks.size(), static_cast<std::size_t>(g.ranks));
    for (const auto& step : g.steps) {
      ASSERT_EQ(step.average.size(), g.count);
      ASSERT_EQ(step.inputs.size(), g.chunks.size());
      for (const auto& input : step.inputs) {
        ASSERT_EQ(input.size(), g.count);
        for (const double x : input) ASSERT_EQ(x, static_cast<double>(static_cast<float>(x)));
      }
    }
  }
}

TEST(Golden, SerialModel) {
  for (const Golden& g : all_files()) {
    SCOPED_TRACE(g.name);
    SerialModel::Options options{.block = g.block};
    if (g.padded()) options = {.scale = SerialModel::Scale::rms, .padded = true};
    SerialModel model(g.ranks, g.count, options);
    ASSERT_EQ(model.chunks().size(), g.chunks.size());
    for (std::size_t r = 0; r < g.chunks.size(); ++r) {
      ASSERT_EQ(model.chunks()[r].begin, g.chunks[r].first);
      ASSERT_EQ(model.chunks()[r].end, g.chunks[r].second);
    }
    for (const auto& step : g.steps) {
      model.step(step.inputs);
      expect_golden(model.result(), step.average, "average");
      expect_signs(model.result(), step.average);
      for (std::size_t r = 0; r < g.chunks.size(); ++r) {
        expect_golden(model.worker_scales()[r], step.worker_scales[r], "worker scale");
        expect_golden(model.server_scales()[r], step.server_scales[r], "server scale");
        expect_golden(model.worker()[r], step.worker_residuals[r], "worker residual");
        expect_golden(model.server()[r], step.server_residuals[r], "server residual");
      }
    }
  }
}

TEST(Golden, CollectiveOnThreads) {
  for (const Golden& g : all_files()) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      if (!make_codec(g.codec())->supports(dtype)) continue;
      for (const Op op : {Op::average, Op::sum}) {
        for (const Style style : kAllStyles) {
          const std::size_t segment_bytes = style == Style::blocking ? std::size_t{4} << 20 : 1;
          Rig rig({.ranks = g.ranks,
                   .count = g.count,
                   .dtype = dtype,
                   .op = op,
                   .codec = g.codec(),
                   .algorithm = g.algorithm(),
                   .in_place = op == Op::sum,
                   .segment_bytes = segment_bytes,
                   .style = style});
          SCOPED_TRACE(g.name + ": " + text_of(rig.setting()));
          for (const auto& step : g.steps) {
            const auto result = rig.call(step.inputs);
            for (std::size_t r = 0; r < g.chunks.size(); ++r) {
              ASSERT_EQ(result.errors[r], "");
              const auto out = result.out[r].doubles();
              expect_golden(out, step.average, "average", op == Op::sum ? g.ranks : 1);
              expect_signs(out, step.average);
              expect_golden(rig.workers()[r], step.worker_residuals[r], "worker residual");
              expect_golden(rig.servers()[r], step.server_residuals[r], "server residual");
              ASSERT_EQ(rig.feedback(static_cast<int>(r)).server_begin(), g.chunks[r].first);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test

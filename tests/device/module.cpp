// SPDX-License-Identifier: Apache-2.0
//
// The module that calls CUDA: it can be loaded, its tables are there, and what is not there is named. With or
// without a device.
#include <gtest/gtest.h>

#include <string>
#include <terse/error.hpp>

#include "core/device_table.hpp"

namespace terse::test {
namespace {

TEST(DeviceModule, IsLoadedWithAllThatItNeeds) {
  EXPECT_TRUE(has_cuda());
  EXPECT_GE(device_count(), 0);
  EXPECT_NE(device_module_symbol("terse_device_table"), nullptr);
  EXPECT_NE(device_module_symbol("terse_device_codecs"), nullptr);
}

TEST(DeviceModule, OfAnotherVersionIsNamed) {
  try {
    device_module_symbol("terse_device_novelty");
    FAIL() << "there is no such function";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("it has no terse_device_novelty"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace terse::test

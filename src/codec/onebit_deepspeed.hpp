// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>
#include <terse/codec.hpp>

namespace terse::inline v0_1 {

inline constexpr std::string_view kDeepspeedSpec = "onebit:deepspeed";

std::shared_ptr<const Codec> make_onebit_deepspeed();

}  // namespace terse::inline v0_1

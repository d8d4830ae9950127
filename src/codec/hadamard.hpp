// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/codec.hpp>

namespace terse::inline v0_1 {

CodecEntry hadamard_entry();

}  // namespace terse::inline v0_1

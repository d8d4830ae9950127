// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/codec.hpp>

namespace terse::inline v0_1 {

/// Where this build has zstd (TERSE_HAS_ZSTD).
CodecEntry lossless_entry();

}  // namespace terse::inline v0_1

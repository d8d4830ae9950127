// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/codec.hpp>

namespace terse::inline v0_1 {

/// Where this build has libzfp (TERSE_HAS_ZFP).
CodecEntry zfp_entry();

}  // namespace terse::inline v0_1

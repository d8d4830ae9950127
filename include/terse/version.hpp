// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/export.h>

// The version of these headers. The inline namespace `v0_1` and the SONAME follow the minor version
// until 1.0.
#define TERSE_VERSION_MAJOR 0
#define TERSE_VERSION_MINOR 1
#define TERSE_VERSION_PATCH 0

namespace terse::inline v0_1 {

/// The version of the library that is running, such as "0.1.0".
TERSE_API const char* version() noexcept;

}  // namespace terse::inline v0_1

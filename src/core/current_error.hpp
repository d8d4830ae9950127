// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <terse/error.hpp>

namespace terse::inline v0_1 {

/// In a catch block: what is being handled, as an Error whose sentence begins with `context`. So whatever
/// user code throws on one rank can be told to the others.
Error current_error(const std::string& context = "");

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace terse::tools {

/// terse run [--SETTING VALUE...] [--dry-run] [--] PROGRAM [ARGUMENT...]: becomes the program, with the
/// drop-in preloaded and the settings in its environment. Returns only an exit code of its own: 0 for
/// --dry-run and --help, 127 where there is no such program, 126 where it cannot be started so.
/// Errors: UsageError.
int run_command(const std::vector<std::string>& arguments);

}  // namespace terse::tools

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

namespace terse::test {

/// The calling thread, as dump_stack() wants it.
pid_t this_thread();

/// Prepares this process for dump_stack(): takes SIGURG, which by default does nothing. May be called again.
void prepare_stack_dumps();

/// The stack of another thread of this process, function by function, a line each that begins with `who`; or
/// a line that says why there is none. For watchdogs: the thread is interrupted for a moment and goes on.
std::string dump_stack(const std::string& who, pid_t thread);

/// The same of all threads but the calling one.
std::string dump_all_stacks(const std::string& who);

}  // namespace terse::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <terse/types.hpp>

#include "arguments.hpp"
#include "session.hpp"

namespace terse::bench {

/// The suite `codec` on the session's device: what encoding and decoding take there, beside a copy of as many
/// bytes. Measures and reports; returns the exit code. Errors: UsageError, std::runtime_error.
int measure_codecs_on_device(const Session& session, const CommonArguments& arguments, ResidualType residual,
                             std::size_t iterations);

}  // namespace terse::bench

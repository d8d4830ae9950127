// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/terse.h>

#include <span>
#include <terse/communicator.hpp>

#include "c_api/arguments.hpp"

namespace terse::c_api {

Terse_Outcome in_c(const Outcome& outcome);
/// Of a call that MPI made.
Terse_Outcome outcome_of_passed(std::span<const Tensor> tensors);

}  // namespace terse::c_api

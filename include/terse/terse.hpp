// SPDX-License-Identifier: Apache-2.0
#pragma once

// All of Terse's C++ interface.
#include <terse/codec.hpp>
#include <terse/communicator.hpp>
#include <terse/error.hpp>
#include <terse/feedback.hpp>
#include <terse/gradient_buckets.hpp>
#include <terse/options.hpp>
#include <terse/tensor.hpp>
#include <terse/types.hpp>
#include <terse/version.hpp>

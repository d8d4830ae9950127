// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/terse.h>

#include <terse/feedback.hpp>

/// What a Terse_Feedback points to.
struct Terse_Feedback_s {
  terse::Feedback feedback;
};

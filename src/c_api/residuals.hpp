// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <terse/terse.h>

#include <cstddef>
#include <terse/feedback.hpp>

/// What a Terse_Feedback points to.
struct Terse_Feedback_s {
  terse::Feedback feedback;
};

namespace terse::c_api {

/// As Terse_Feedback_save, _load and _load_all.
void save(const Feedback& feedback, void* buffer, std::size_t* size);
void load(Feedback& feedback, const void* saved, std::size_t size);
void load_all(Feedback& feedback, const void* const saves[], const std::size_t sizes[], int ranks);

}  // namespace terse::c_api

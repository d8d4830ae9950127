// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace charlm {

/// The largest difference between Model's backward pass and central finite differences, for all parameters of
/// a small model in double precision, relative to the largest slope.
double gradient_error();

}  // namespace charlm

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <terse/options.hpp>

namespace terse::inline v0_1 {

/// What is not set in `first` is taken from `second`.
CommunicatorOptions overlay(const CommunicatorOptions& first, const CommunicatorOptions& second);

/// The table's defaults.
const CommunicatorOptions& default_options();

/// Bytes from text: a whole number with an optional K, M, G or T (powers of 1024; KiB and KB mean the same).
/// Errors: invalid_argument.
std::size_t parse_bytes(std::string_view option, std::string_view text);

}  // namespace terse::inline v0_1

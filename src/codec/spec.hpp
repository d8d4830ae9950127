// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <terse/codec.hpp>
#include <vector>

namespace terse::inline v0_1 {

// Specs: NAME or NAME:OPTION=VALUE,OPTION=VALUE. Every function throws Error(invalid_argument) with a
// sentence that names the codec, the option, and what is allowed.

/// "A+B+C" is A, B and C; a + that no letter follows is part of a number.
std::vector<std::string_view> spec_parts(std::string_view spec);
/// The name in front of the colon.
std::string_view spec_name(std::string_view spec);
/// The options behind it, checked against the entry's, defaults filled in.
CodecArguments parse_arguments(const CodecEntry& entry, std::string_view spec);
/// The one way to write these arguments: options in the table's order, positional ones without their name and
/// only where they differ from the default.
std::string canonical_spec(const CodecEntry& entry, const CodecArguments& arguments);

/// The shortest text that is this number again.
std::string number_text(double value);

/// An option's value as a whole number in [low, high].
std::size_t count_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                           std::size_t low, std::size_t high);
/// An option's value as a number above `low` and not above `high`.
double number_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                       double low, double high);
/// The index of an option's value in `choices`.
std::size_t choice_argument(const CodecEntry& entry, const CodecArguments& arguments, std::string_view option,
                            std::initializer_list<std::string_view> choices);

}  // namespace terse::inline v0_1

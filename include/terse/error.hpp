// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <terse/version.hpp>

namespace terse::inline v0_1 {

enum class ErrorCode : std::uint8_t {
  invalid_argument,  ///< a value that no call could accept: unknown codec, null buffer, ...
  unsupported,       ///< a sound request that this build, codec or algorithm cannot serve
  mismatch,          ///< ranks called with different arguments
  corrupt_data,      ///< bytes that no encoder wrote
  non_finite,        ///< a message that carries a flag because its values were not finite
  out_of_memory,
  communication,  ///< the message passing library reported an error; the Communicator only refuses from then
                  ///< on
  invalid_state,  ///< a call at the wrong time: before MPI_Init, a Feedback in use, a Communicator freed
  device,         ///< CUDA reported an error
};

/// "invalid_argument", ...
TERSE_API std::string_view name(ErrorCode code) noexcept;

class Error;
/// In a catch block: what is being handled, as an Error whose sentence begins with `context`. So whatever is
/// thrown on one rank can be told to the others (CallOptions::failure).
TERSE_API Error current_error(const std::string& context = "");

/// The only exception that Terse throws. what() is a sentence that says what is wrong, where, and what to do.
class TERSE_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace terse::inline v0_1

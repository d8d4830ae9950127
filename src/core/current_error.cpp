// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <new>
#include <terse/error.hpp>

namespace terse::inline v0_1 {

Error current_error(const std::string& context) {
  const std::string begin = context.empty() ? "" : context + ": ";
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), begin + error.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorCode::out_of_memory, begin + "no memory"};
  } catch (const std::exception& error) {
    return {ErrorCode::invalid_state, begin + error.what()};
  } catch (...) {
    return {ErrorCode::invalid_state, begin + "an exception that is no std::exception"};
  }
}

}  // namespace terse::inline v0_1

// SPDX-License-Identifier: Apache-2.0
#include "c_api/residuals.hpp"

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <terse/error.hpp>
#include <vector>

#include "c_api/raise.hpp"

namespace terse::c_api {
namespace {

Error wrong(const std::string& what) { return {ErrorCode::invalid_argument, what}; }

std::span<const std::byte> bytes_of(const void* save, std::size_t size) {
  if (save == nullptr && size != 0)
    throw wrong("the save is a null pointer for " + std::to_string(size) + " bytes");
  return {static_cast<const std::byte*>(save), size};
}

}  // namespace

void save(const Feedback& feedback, void* buffer, std::size_t* size) {
  if (size == nullptr) throw wrong("there is nowhere to put the size: the pointer is null");
  const std::vector<std::byte> saved = feedback.save();
  const std::size_t room = buffer == nullptr ? 0 : *size;
  *size = saved.size();
  if (buffer == nullptr || saved.empty()) return;
  if (room < saved.size()) {
    throw wrong("the save has " + std::to_string(saved.size()) + " bytes and the buffer " +
                std::to_string(room) + ": ask for the size first, with a null buffer");
  }
  std::memcpy(buffer, saved.data(), saved.size());
}

void load(Feedback& feedback, const void* saved, std::size_t size) { feedback.load(bytes_of(saved, size)); }

void load_all(Feedback& feedback, const void* const saves[], const std::size_t sizes[], int ranks) {
  if (ranks < 1)
    throw wrong("there are saves of " + std::to_string(ranks) + " ranks: pass those of all, in rank order");
  if (saves == nullptr || sizes == nullptr)
    throw wrong("the list of saves or of their sizes is a null pointer");
  std::vector<std::vector<std::byte>> all;
  for (std::size_t r = 0; r < static_cast<std::size_t>(ranks); ++r) {
    const auto one = bytes_of(saves[r], sizes[r]);
    all.emplace_back(one.begin(), one.end());
  }
  feedback.load(all);
}

}  // namespace terse::c_api

using namespace terse::c_api;

namespace {

terse::Feedback& feedback_of(Terse_Feedback handle) {
  if (handle == TERSE_FEEDBACK_NULL) {
    throw wrong("the feedback is TERSE_FEEDBACK_NULL: make one with Terse_Feedback_create");
  }
  return handle->feedback;
}

template <class F>
int local(const char* where, F&& work) {
  return run(where, MPI_COMM_NULL, [&] {
    work();
    return MPI_SUCCESS;
  });
}

int create(const char* where, terse::ResidualType type, Terse_Feedback* feedback) {
  return local(where, [&] {
    if (feedback == nullptr) throw wrong("there is nowhere to put the handle: the pointer is null");
    *feedback = new Terse_Feedback_s{terse::Feedback(type)};
  });
}

}  // namespace

int Terse_Feedback_create(Terse_Feedback* feedback) {
  return create("Terse_Feedback_create", terse::ResidualType::full, feedback);
}

int Terse_Feedback_create_bf16(Terse_Feedback* feedback) {
  return create("Terse_Feedback_create_bf16", terse::ResidualType::bf16, feedback);
}

int Terse_Feedback_free(Terse_Feedback* feedback) {
  return local("Terse_Feedback_free", [&] {
    if (feedback == nullptr) throw wrong("the pointer to the handle is null");
    delete *feedback;
    *feedback = TERSE_FEEDBACK_NULL;
  });
}

int Terse_Feedback_reset(Terse_Feedback feedback) {
  return local("Terse_Feedback_reset", [&] { feedback_of(feedback).reset(); });
}

int Terse_Feedback_save(Terse_Feedback feedback, void* buffer, size_t* size) {
  return local("Terse_Feedback_save", [&] { save(feedback_of(feedback), buffer, size); });
}

int Terse_Feedback_load(Terse_Feedback feedback, const void* save, size_t size) {
  return local("Terse_Feedback_load", [&] { load(feedback_of(feedback), save, size); });
}

int Terse_Feedback_load_all(Terse_Feedback feedback, const void* const saves[], const size_t sizes[],
                            int ranks) {
  return local("Terse_Feedback_load_all", [&] { load_all(feedback_of(feedback), saves, sizes, ranks); });
}

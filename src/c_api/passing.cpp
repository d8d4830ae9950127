// SPDX-License-Identifier: Apache-2.0
#include "c_api/passing.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include "c_api/handles.hpp"

namespace terse::c_api {
namespace {

// Calls reduce(from, to, count) until one throws. A count that int does not hold goes in parts: a reduction
// is one of each element.
template <class Reduce>
void in_parts(const Arguments& call, Reduce&& reduce) {
  constexpr MPI_Count kPart = MPI_Count{1} << 30;
  for (const Tensor& tensor : call.tensors) {
    if (tensor.count <= std::numeric_limits<int>::max()) {
      // MPI refuses what is negative
      reduce(tensor.sendbuf, tensor.recvbuf, static_cast<int>(std::max<MPI_Count>(tensor.count, -1)));
      continue;
    }
    MPI_Aint low = 0;
    MPI_Aint extent = 0;
    check([&] { return MPI_Type_get_extent(call.datatype, &low, &extent); });
    for (MPI_Count at = 0; at < tensor.count; at += kPart) {
      const auto offset = static_cast<std::ptrdiff_t>(at) * extent;
      const void* from =
          tensor.sendbuf == MPI_IN_PLACE ? MPI_IN_PLACE : static_cast<const char*>(tensor.sendbuf) + offset;
      reduce(from, static_cast<char*>(tensor.recvbuf) + offset,
             static_cast<int>(std::min(kPart, tensor.count - at)));
    }
  }
}

}  // namespace

void pass_on(const Arguments& call) {
  in_parts(call, [&](const void* from, void* to, int count) {
    check([&] { return MPI_Allreduce(from, to, count, call.datatype, call.op, call.comm); });
  });
}

// Keeps the first failure.
template <class Call>
bool Passed::succeeds(Call&& call) {
  try {
    check(std::forward<Call>(call));
    return true;
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
    return false;
  }
}

void Passed::begin(const Arguments& call) {
  try {
    in_parts(call, [&](const void* from, void* to, int count) {
      parts_.reserve(parts_.size() + 1);
      MPI_Request part = MPI_REQUEST_NULL;
      check([&] { return MPI_Iallreduce(from, to, count, call.datatype, call.op, call.comm, &part); });
      parts_.push_back(part);
    });
  } catch (...) {
    failure_ = std::current_exception();
  }
  if (failure_) wait();  // MPI has no way to give up a collective
}

bool Passed::is_over() {
  bool over = true;
  for (MPI_Request& part : parts_) {
    int done = 0;
    if (succeeds([&] { return MPI_Test(&part, &done, MPI_STATUS_IGNORE); })) {
      over = over && done;
    } else {
      part = MPI_REQUEST_NULL;
    }
  }
  return over;
}

void Passed::wait() {
  for (MPI_Request& part : parts_) {
    succeeds([&] { return MPI_Wait(&part, MPI_STATUS_IGNORE); });
  }
  parts_.clear();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace terse::c_api

// SPDX-License-Identifier: Apache-2.0
#include "c_api/passing.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include "c_api/handles.hpp"

namespace terse::c_api {
namespace {

// Calls reduce(from, to, count) until one fails. A count that int does not hold goes in parts: a reduction is
// one of each element.
template <class Reduce>
void in_parts(const Arguments& call, Reduce&& reduce) {
  constexpr MPI_Count kPart = MPI_Count{1} << 30;
  for (const Tensor& tensor : call.tensors) {
    if (tensor.count <= std::numeric_limits<int>::max()) {
      // MPI refuses what is negative
      check(reduce(tensor.sendbuf, tensor.recvbuf, static_cast<int>(std::max<MPI_Count>(tensor.count, -1))));
      continue;
    }
    MPI_Aint low = 0;
    MPI_Aint extent = 0;
    check(MPI_Type_get_extent(call.datatype, &low, &extent));
    for (MPI_Count at = 0; at < tensor.count; at += kPart) {
      const auto offset = static_cast<std::ptrdiff_t>(at) * extent;
      const void* from =
          tensor.sendbuf == MPI_IN_PLACE ? MPI_IN_PLACE : static_cast<const char*>(tensor.sendbuf) + offset;
      check(reduce(from, static_cast<char*>(tensor.recvbuf) + offset,
                   static_cast<int>(std::min(kPart, tensor.count - at))));
    }
  }
}

}  // namespace

void pass_on(const Arguments& call) {
  in_parts(call, [&](const void* from, void* to, int count) {
    return MPI_Allreduce(from, to, count, call.datatype, call.op, call.comm);
  });
}

void Passed::begin(const Arguments& call) {
  try {
    in_parts(call, [&](const void* from, void* to, int count) {
      parts_.reserve(parts_.size() + 1);
      MPI_Request part = MPI_REQUEST_NULL;
      const int code = MPI_Iallreduce(from, to, count, call.datatype, call.op, call.comm, &part);
      if (code == MPI_SUCCESS) parts_.push_back(part);
      return code;
    });
  } catch (const MpiFailure& failure) {
    code_ = failure.code;
    wait();  // MPI has no way to give up a collective
  }
}

bool Passed::is_over() noexcept {
  bool over = true;
  for (MPI_Request& part : parts_) {
    int done = 0;
    const int code = MPI_Test(&part, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
      if (code_ == MPI_SUCCESS) code_ = code;
      part = MPI_REQUEST_NULL;
    } else {
      over = over && done;
    }
  }
  return over;
}

void Passed::wait() {
  for (MPI_Request& part : parts_) {
    const int code = MPI_Wait(&part, MPI_STATUS_IGNORE);
    if (code_ == MPI_SUCCESS) code_ = code;
  }
  parts_.clear();
  check(std::exchange(code_, MPI_SUCCESS));
}

}  // namespace terse::c_api

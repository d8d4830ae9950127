// SPDX-License-Identifier: Apache-2.0
//
// Terse_Allreduce and its variants: which calls are Terse's, and what they are in C++.
#include <mpi.h>
#include <terse/terse.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <terse/communicator.hpp>
#include <vector>

#include "c_api/handles.hpp"
#include "c_api/raise.hpp"
#include "c_api/residuals.hpp"
#include "c_api/state.hpp"

namespace terse::c_api {
namespace {

struct Arguments {
  const void* sendbuf;
  void* recvbuf;
  MPI_Count count;
  MPI_Datatype datatype;
  MPI_Op op;
  MPI_Comm comm;
};

std::optional<DType> dtype_of(MPI_Datatype type, const Handles& own) {
  if (type == MPI_FLOAT) return DType::f32;
  if (type == MPI_DOUBLE) return DType::f64;
  if (type == own.float16) return DType::f16;
  if (type == own.bfloat16) return DType::bf16;
  return std::nullopt;
}

std::optional<Op> op_of(MPI_Op op, const Handles& own) {
  if (op == MPI_SUM) return Op::sum;
  if (op == own.average) return Op::average;
  return std::nullopt;
}

std::string name_of(MPI_Datatype type) {
  if (type == MPI_DATATYPE_NULL) return "MPI_DATATYPE_NULL";
  char name[MPI_MAX_OBJECT_NAME] = {};
  int length = 0;
  MPI_Type_get_name(type, name, &length);
  return length == 0 ? "a derived type" : std::string(name, static_cast<std::size_t>(length));
}

// MPI_Allreduce. A count that int does not hold goes in parts: a reduction is one of each element.
int pass_on(const Arguments& call) {
  if (call.count <= std::numeric_limits<int>::max()) {
    const auto count = static_cast<int>(std::max<MPI_Count>(call.count, -1));  // MPI refuses what is negative
    return MPI_Allreduce(call.sendbuf, call.recvbuf, count, call.datatype, call.op, call.comm);
  }
#if MPI_VERSION >= 4
  return MPI_Allreduce_c(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
#else
  constexpr MPI_Count kPart = MPI_Count{1} << 30;
  MPI_Aint low = 0;
  MPI_Aint extent = 0;
  check(MPI_Type_get_extent(call.datatype, &low, &extent));
  for (MPI_Count at = 0; at < call.count; at += kPart) {
    const auto offset = static_cast<std::ptrdiff_t>(at) * extent;
    const void* from =
        call.sendbuf == MPI_IN_PLACE ? MPI_IN_PLACE : static_cast<const char*>(call.sendbuf) + offset;
    check(MPI_Allreduce(from, static_cast<char*>(call.recvbuf) + offset,
                        static_cast<int>(std::min(kPart, call.count - at)), call.datatype, call.op,
                        call.comm));
  }
  return MPI_SUCCESS;
#endif
}

// What Terse has that MPI lacks, for something else.
std::optional<Error> misuse(const Arguments& call, std::optional<DType> dtype, std::optional<Op> op,
                            bool inter) {
  const bool half = dtype && size_of(*dtype) == 2;
  const auto unsupported = [](const std::string& what) { return Error(ErrorCode::unsupported, what); };
  if (half && !op) {
    return unsupported(
        "elements of " + name_of(call.datatype) +
        " have MPI_SUM and Terse_Op_average() only: convert them to MPI_FLOAT for other operations");
  }
  if (!dtype && op == Op::average) {
    return unsupported(
        "Terse_Op_average() is for MPI_FLOAT, MPI_DOUBLE, Terse_Type_float16() and "
        "Terse_Type_bfloat16(); this call has " +
        name_of(call.datatype));
  }
  if (inter && (half || op == Op::average)) {
    return unsupported(
        "Terse's types and operation do not serve intercommunicators: merge it first "
        "(MPI_Intercomm_merge)");
  }
  return std::nullopt;
}

// What MPI's way to pass buffers allows and Terse does not see by itself.
std::optional<Error> wrong_argument(const Arguments& call) {
  if (call.count < 0) {
    return Error(ErrorCode::invalid_argument,
                 "the count is " + std::to_string(call.count) + ": use 0 or more");
  }
  if (call.recvbuf == MPI_IN_PLACE) {
    return Error(ErrorCode::invalid_argument,
                 "recvbuf is MPI_IN_PLACE: pass that as sendbuf, the data as recvbuf");
  }
  return std::nullopt;
}

// A text of the algorithm table that ends with a zero.
const char* lasting_name(std::string_view algorithm) {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> made;
    for (const AlgorithmInfo& row : algorithms()) made.emplace_back(row.name);
    return made;
  }();
  const auto name = std::find(names.begin(), names.end(), algorithm);
  return name == names.end() ? "" : name->c_str();
}

static_assert(static_cast<int>(TERSE_RESULT_COMPRESSED) == 1 + static_cast<int>(Outcome::Result::compressed));
static_assert(static_cast<int>(TERSE_RESULT_EXACT) == 1 + static_cast<int>(Outcome::Result::exact));
static_assert(static_cast<int>(TERSE_REASON_NONE) == static_cast<int>(Outcome::Reason::none));
static_assert(static_cast<int>(TERSE_REASON_ASKED) == static_cast<int>(Outcome::Reason::asked));
static_assert(static_cast<int>(TERSE_REASON_SMALL) == static_cast<int>(Outcome::Reason::small));
static_assert(static_cast<int>(TERSE_REASON_SLOWER) == static_cast<int>(Outcome::Reason::slower));
static_assert(static_cast<int>(TERSE_REASON_NON_FINITE) == static_cast<int>(Outcome::Reason::non_finite));

Terse_Outcome in_c(const Outcome& outcome) {
  return {static_cast<Terse_Result>(1 + static_cast<int>(outcome.result)),
          static_cast<Terse_Reason>(outcome.reason), lasting_name(outcome.algorithm), outcome.bytes_sent,
          outcome.exact_count};
}

int allreduce(const char* where, const Arguments& call, Terse_Feedback feedback) {
  return run(where, call.comm, [&] {
    const Handles& own = handles();
    if (call.comm == MPI_COMM_NULL) return pass_on(call);  // MPI refuses it
    State& state = state_of(call.comm);
    state.outcome = kNoOutcome;
    const auto dtype = dtype_of(call.datatype, own);
    const auto op = op_of(call.op, own);
    std::optional<Error> failure = misuse(call, dtype, op, state.inter);
    if (!failure && (!dtype || !op || state.inter)) {
      const int code = pass_on(call);
      if (code == MPI_SUCCESS) {
        state.outcome = {TERSE_RESULT_EXACT, TERSE_REASON_PASSED_ON, "", 0,
                         static_cast<std::uint64_t>(call.count)};
      }
      return code;
    }
    if (state.inter) throw *failure;
    // Where this rank alone is wrong, the others hear of it in their call.
    if (!failure) failure = wrong_argument(call);
    // A negative count says nothing of the size by which the others choose whether to listen. So where an
    // error ends the program, it does so at once.
    if (failure && call.count < 0 && errors_are_fatal(call.comm)) throw *failure;
    const std::size_t count =
        call.count < 0 ? std::numeric_limits<std::size_t>::max() / 16 : static_cast<std::size_t>(call.count);
    const DType as = dtype.value_or(DType::f32);
    const View out{call.recvbuf, count, as};
    const ConstView in = call.sendbuf == MPI_IN_PLACE ? ConstView(out) : ConstView(call.sendbuf, count, as);
    if (!state.communicator) state.make_communicator(call.comm, state.options);
    state.outcome = in_c(state.communicator->allreduce(
        in, out, {.op = op, .feedback = feedback ? &feedback->feedback : nullptr, .failure = failure}));
    return MPI_SUCCESS;
  });
}

}  // namespace
}  // namespace terse::c_api

using terse::c_api::allreduce;

int Terse_Allreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                    MPI_Comm comm) {
  return allreduce("Terse_Allreduce", {sendbuf, recvbuf, count, datatype, op, comm}, TERSE_FEEDBACK_NULL);
}

int Terse_Allreduce_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype, MPI_Op op,
                      MPI_Comm comm) {
  return allreduce("Terse_Allreduce_c", {sendbuf, recvbuf, count, datatype, op, comm}, TERSE_FEEDBACK_NULL);
}

int Terse_Allreduce_feedback(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                             MPI_Comm comm, Terse_Feedback feedback) {
  return allreduce("Terse_Allreduce_feedback", {sendbuf, recvbuf, count, datatype, op, comm}, feedback);
}

int Terse_Allreduce_feedback_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                               MPI_Op op, MPI_Comm comm, Terse_Feedback feedback) {
  return allreduce("Terse_Allreduce_feedback_c", {sendbuf, recvbuf, count, datatype, op, comm}, feedback);
}

int Terse_Get_outcome_sized(MPI_Comm comm, Terse_Outcome* outcome, size_t size) {
  using namespace terse::c_api;
  return run("Terse_Get_outcome", comm, [&] {
    if (outcome == nullptr) {
      throw terse::Error(terse::ErrorCode::invalid_argument,
                         "there is nowhere to put the outcome: the pointer is null");
    }
    const Terse_Outcome& known = state_of(comm).outcome;
    std::memset(outcome, 0, size);
    std::memcpy(outcome, &known, std::min(size, sizeof known));
    return MPI_SUCCESS;
  });
}

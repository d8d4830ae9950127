// SPDX-License-Identifier: Apache-2.0
#include "c_api/arguments.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <string>

#include "c_api/handles.hpp"
#include "c_api/raise.hpp"
#include "c_api/residuals.hpp"

namespace terse::c_api {
namespace {

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

// Without MPI_Type_get_name, which calls the program's error handler for what is no type, before the other
// ranks have been told of it.
std::string name_of(MPI_Datatype type, const Handles& own) {
  struct Named {
    MPI_Datatype type;
    const char* name;
  };
  const Named known[] = {
#define TERSE_NAMED(type) {type, #type}
      TERSE_NAMED(MPI_DATATYPE_NULL),
      TERSE_NAMED(MPI_FLOAT),
      TERSE_NAMED(MPI_DOUBLE),
      TERSE_NAMED(MPI_LONG_DOUBLE),
      TERSE_NAMED(MPI_CHAR),
      TERSE_NAMED(MPI_SIGNED_CHAR),
      TERSE_NAMED(MPI_UNSIGNED_CHAR),
      TERSE_NAMED(MPI_WCHAR),
      TERSE_NAMED(MPI_SHORT),
      TERSE_NAMED(MPI_UNSIGNED_SHORT),
      TERSE_NAMED(MPI_INT),
      TERSE_NAMED(MPI_UNSIGNED),
      TERSE_NAMED(MPI_LONG),
      TERSE_NAMED(MPI_UNSIGNED_LONG),
      TERSE_NAMED(MPI_LONG_LONG),
      TERSE_NAMED(MPI_UNSIGNED_LONG_LONG),
      TERSE_NAMED(MPI_INT8_T),
      TERSE_NAMED(MPI_UINT8_T),
      TERSE_NAMED(MPI_INT16_T),
      TERSE_NAMED(MPI_UINT16_T),
      TERSE_NAMED(MPI_INT32_T),
      TERSE_NAMED(MPI_UINT32_T),
      TERSE_NAMED(MPI_INT64_T),
      TERSE_NAMED(MPI_UINT64_T),
      TERSE_NAMED(MPI_AINT),
      TERSE_NAMED(MPI_COUNT),
      TERSE_NAMED(MPI_OFFSET),
      TERSE_NAMED(MPI_BYTE),
      TERSE_NAMED(MPI_PACKED),
      TERSE_NAMED(MPI_C_BOOL),
      TERSE_NAMED(MPI_C_FLOAT_COMPLEX),
      TERSE_NAMED(MPI_C_DOUBLE_COMPLEX),
      TERSE_NAMED(MPI_C_LONG_DOUBLE_COMPLEX),
#undef TERSE_NAMED
      {own.float16, "Terse_Type_float16"},
      {own.bfloat16, "Terse_Type_bfloat16"},
  };
  const auto* found =
      std::find_if(std::begin(known), std::end(known), [&](const Named& one) { return one.type == type; });
  return found == std::end(known) ? "another type" : found->name;
}

// What Terse has that MPI lacks, for something else.
std::optional<Error> misuse(const Arguments& call, std::optional<DType> dtype, std::optional<Op> op,
                            bool inter, const Handles& own) {
  const bool half = dtype && size_of(*dtype) == 2;
  const auto unsupported = [](const std::string& what) { return Error(ErrorCode::unsupported, what); };
  if (half && !op) {
    return unsupported(
        "elements of " + name_of(call.datatype, own) +
        " have MPI_SUM and Terse_Op_average() only: convert them to MPI_FLOAT for other operations");
  }
  if (!dtype && op == Op::average) {
    return unsupported(
        "Terse_Op_average() is for MPI_FLOAT, MPI_DOUBLE, Terse_Type_float16() and "
        "Terse_Type_bfloat16(); this call has " +
        name_of(call.datatype, own));
  }
  if (inter && (half || op == Op::average)) {
    return unsupported(
        "Terse's types and operation do not serve intercommunicators: merge it first "
        "(MPI_Intercomm_merge)");
  }
  return std::nullopt;
}

// What MPI's way to pass buffers allows and Terse does not see by itself.
std::optional<Error> wrong_argument(std::span<const Tensor> tensors) {
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::string which = tensors.size() == 1 ? "" : "tensor " + std::to_string(t) + ": ";
    if (tensors[t].count < 0) {
      return Error(ErrorCode::invalid_argument,
                   which + "the count is " + std::to_string(tensors[t].count) + ": use 0 or more");
    }
    if (tensors[t].recvbuf == MPI_IN_PLACE) {
      return Error(ErrorCode::invalid_argument,
                   which + "recvbuf is MPI_IN_PLACE: pass that as sendbuf, the data as recvbuf");
    }
    if (tensors[t].count > 0 && tensors[t].sendbuf == tensors[t].recvbuf && tensors[t].recvbuf != nullptr) {
      return Error(ErrorCode::invalid_argument,
                   which +
                       "sendbuf and recvbuf are the same buffer: pass MPI_IN_PLACE as sendbuf where the data "
                       "in recvbuf are to be reduced in place");
    }
  }
  return std::nullopt;
}

}  // namespace

Lists read_lists(int tensors, const void* const sendbufs[], void* const recvbufs[], const MPI_Count counts[],
                 const Terse_Feedback feedbacks[]) {
  const auto broken = [](const std::string& what) {
    return Lists{{{nullptr, nullptr, -1}}, Error(ErrorCode::invalid_argument, what)};
  };
  if (tensors < 0) return broken("there are " + std::to_string(tensors) + " tensors: use 0 or more");
  if (tensors > 0 && (sendbufs == nullptr || recvbufs == nullptr || counts == nullptr)) {
    return broken("the list of sendbufs, recvbufs or counts is a null pointer for " +
                  std::to_string(tensors) + " tensors");
  }
  Lists lists;
  for (int t = 0; t < tensors; ++t) {
    lists.tensors.push_back(
        {sendbufs[t], recvbufs[t], counts[t], feedbacks == nullptr ? TERSE_FEEDBACK_NULL : feedbacks[t]});
  }
  return lists;
}

Meaning meaning_of(const Arguments& call, const State& state) {
  const Handles& own = handles();
  const auto dtype = dtype_of(call.datatype, own);
  const auto op = op_of(call.op, own);
  Meaning meaning{.options = call.options};
  std::optional<Error>& failure = meaning.options.failure = misuse(call, dtype, op, state.inter, own);
  meaning.passes_on = !failure && (!dtype || !op || state.inter);
  if (!failure) failure = call.options.failure;
  if (failure && (meaning.passes_on || state.inter)) throw *failure;
  if (meaning.passes_on) return meaning;
  if (!failure) failure = wrong_argument(call.tensors);
  const bool has_size =
      std::all_of(call.tensors.begin(), call.tensors.end(), [](const Tensor& t) { return t.count >= 0; });
  // Without a size nothing says whether the others, who choose by theirs, will listen. So where an error ends
  // the program, it does so at once.
  if (failure && !has_size && errors_are_fatal(call.comm)) throw *failure;
  meaning.op = op.value_or(Op::sum);
  if (meaning.options.stream == nullptr) meaning.options.stream = state.stream;
  const DType as = dtype.value_or(DType::f32);
  if (!has_size) {
    meaning.tensors.emplace_back(View{nullptr, std::numeric_limits<std::size_t>::max() / 16, as});
    return meaning;
  }
  meaning.tensors.reserve(call.tensors.size());
  for (const Tensor& tensor : call.tensors) {
    const auto count = static_cast<std::size_t>(tensor.count);
    const View out{tensor.recvbuf, count, as};
    meaning.tensors.emplace_back(
        tensor.sendbuf == MPI_IN_PLACE ? ConstView(out) : ConstView(tensor.sendbuf, count, as), out,
        tensor.feedback == TERSE_FEEDBACK_NULL ? nullptr : &tensor.feedback->feedback);
  }
  return meaning;
}

}  // namespace terse::c_api

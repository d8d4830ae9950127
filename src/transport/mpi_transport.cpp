// SPDX-License-Identifier: Apache-2.0
#include "transport/mpi_transport.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <terse/error.hpp>
#include <type_traits>
#include <utility>

#include "core/assert.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

// The one place that knows that MPI 3.1 counts in int.
constexpr std::size_t kMaxCount = std::size_t{1} << 30;
// Transfers under way at once, before memory for more is taken.
constexpr std::size_t kUsual = 256;

// `bytes` bytes as one element of a type, for messages that int cannot count.
MPI_Datatype large_type(std::size_t bytes) {
  const auto whole = static_cast<int>(bytes / kMaxCount);
  const auto rest = static_cast<int>(bytes % kMaxCount);
  MPI_Datatype unit = MPI_DATATYPE_NULL;
  MPI_Datatype most = MPI_DATATYPE_NULL;
  MPI_Datatype type = MPI_DATATYPE_NULL;
  MPI_Type_contiguous(static_cast<int>(kMaxCount), MPI_BYTE, &unit);
  MPI_Type_contiguous(whole, unit, &most);
  const int lengths[2] = {1, rest};
  const MPI_Aint offsets[2] = {0, static_cast<MPI_Aint>(whole) * static_cast<MPI_Aint>(kMaxCount)};
  const MPI_Datatype parts[2] = {most, MPI_BYTE};
  MPI_Type_create_struct(2, lengths, offsets, parts, &type);
  MPI_Type_commit(&type);
  MPI_Type_free(&most);
  MPI_Type_free(&unit);
  return type;
}

// Sums of 16-bit elements, which MPI 3.1 has no type for: an element is added in f32 and rounded. And sums of
// elements that MPI does add, but in the floating-point mode of whoever makes progress.
template <class T>
void add_elements(void* in, void* inout, int* count, MPI_Datatype*) {
  using Wide = std::conditional_t<sizeof(T) == 2, float, T>;
  const DefaultFloatingPoint mode;
  const auto* a = static_cast<const T*>(in);
  auto* b = static_cast<T*>(inout);
  for (int i = 0; i < *count; ++i) b[i] = static_cast<T>(static_cast<Wide>(a[i]) + static_cast<Wide>(b[i]));
}

}  // namespace

// Not MPI_Wtime, which some libraries take from a clock that is set from outside.
std::uint64_t MpiTransport::now() const noexcept {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

bool MpiTransport::mpi_is_up() noexcept {
  int up = 0;
  int down = 0;
  MPI_Initialized(&up);
  MPI_Finalized(&down);
  return up && !down;
}

bool MpiTransport::serves_threads() noexcept {
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  return provided == MPI_THREAD_MULTIPLE;
}

MpiTransport::MpiTransport(MPI_Comm comm) {
  if (!mpi_is_up()) {
    throw Error(ErrorCode::invalid_state,
                "a Communicator was made before MPI_Init or after MPI_Finalize: make it in between");
  }
  if (comm == MPI_COMM_NULL) {
    throw Error(
        ErrorCode::invalid_argument,
        "a Communicator cannot be made of MPI_COMM_NULL: only ranks that belong to a communicator use it");
  }
  int inter = 0;
  check(MPI_Comm_test_inter(comm, &inter), "MPI_Comm_test_inter");
  if (inter) {
    throw Error(
        ErrorCode::invalid_argument,
        "a Communicator cannot be made of an intercommunicator: merge it first (MPI_Intercomm_merge)");
  }
  // MPI_Comm_dup would copy the program's attributes, by the program's functions. MPI_Comm_create_group sends
  // messages that a receive of the program's from any rank with any tag may take.
  struct Ranks {
    ~Ranks() {
      if (group != MPI_GROUP_NULL) MPI_Group_free(&group);
    }
    MPI_Group group = MPI_GROUP_NULL;
  } ranks;  // given back even where an error handler of the program throws
  check(MPI_Comm_group(comm, &ranks.group), "MPI_Comm_group");
  check(MPI_Comm_create(comm, ranks.group, &comm_), "MPI_Comm_create");
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  name_after(comm);
  check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  void* limit = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(comm_, MPI_TAG_UB, &limit, &found), "MPI_Comm_get_attr");
  if (found) tag_limit_ = *static_cast<int*>(limit);
  requests_.reserve(kUsual);
  pending_.reserve(kUsual);
  finished_.reserve(kUsual);
  statuses_.reserve(kUsual);
}

// For debuggers, and for the drop-in, which leaves the library's own communicators alone.
void MpiTransport::name_after(MPI_Comm original) {
  char name[MPI_MAX_OBJECT_NAME] = {};
  int length = 0;
  check(MPI_Comm_get_name(original, name, &length), "MPI_Comm_get_name");
  check(MPI_Comm_set_name(comm_, ("Terse: " + std::string(name)).substr(0, MPI_MAX_OBJECT_NAME - 1).c_str()),
        "MPI_Comm_set_name");
}

MpiTransport::~MpiTransport() { abandon(); }

void MpiTransport::free() {
  if (comm_ == MPI_COMM_NULL) return;
  TERSE_ASSERT(requests_.empty(), "a communicator is freed while operations are on their way",
               requests_.size());
  for (MPI_Op& op : own_sums_) {
    if (op != MPI_OP_NULL) MPI_Op_free(&op);
  }
  MPI_Comm_free(&comm_);
}

void MpiTransport::leave() noexcept { comm_ = MPI_COMM_NULL; }

void MpiTransport::check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  abandon();
  throw Error(ErrorCode::communication, std::string(what) + " failed on rank " + std::to_string(rank_) +
                                            ": " + text + ". This Communicator cannot be used any more.");
}

void MpiTransport::require_usable() const {
  if (abandoned_) {
    throw Error(ErrorCode::communication,
                "this Communicator is not usable any more: an earlier call on it failed half way");
  }
}

int MpiTransport::take_tags(int channels) {
  require_usable();
  TERSE_ASSERT(channels > 0 && channels <= tag_limit_, "a call asks for more tags than MPI has", channels,
               tag_limit_);
  if (next_tag_ > tag_limit_ - channels) next_tag_ = 0;
  return std::exchange(next_tag_, next_tag_ + channels);
}

// Both ends of a transfer are of a schedule, so these would be its faults.
void MpiTransport::require_transfer(const void* data, std::size_t bytes, int peer, int tag) const {
  TERSE_ASSERT(!freed(), "a transfer begins after its communicator was freed", peer, tag);
  TERSE_ASSERT(peer >= 0 && peer < size_, "a transfer names a rank that its communicator does not have", peer,
               size_);
  TERSE_ASSERT(tag >= 0 && tag <= tag_limit_, "a transfer has a tag that MPI does not allow", tag,
               tag_limit_);
  TERSE_ASSERT(data != nullptr || bytes == 0, "a transfer has no memory", bytes, peer, tag);
}

void MpiTransport::add(MPI_Request request, Pending pending) {
  *pending.operation = {};
  requests_.push_back(request);
  pending_.push_back(pending);
}

void MpiTransport::send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) {
  require_usable();
  require_transfer(bytes.data(), bytes.size(), to, tag);
  const bool large = bytes.size() > kMaxCount;
  MPI_Datatype type = large ? large_type(bytes.size()) : MPI_BYTE;
  const int count = large ? 1 : static_cast<int>(bytes.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Isend(bytes.data(), count, type, to, tag, comm_, &request), "MPI_Isend");
  if (large) MPI_Type_free(&type);
  add(request, {.operation = &operation});
  operation.bytes = bytes.size();
}

void MpiTransport::receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) {
  require_usable();
  require_transfer(bytes.data(), bytes.size(), from, tag);
  const bool large = bytes.size() > kMaxCount;
  MPI_Datatype type = large ? large_type(bytes.size()) : MPI_BYTE;
  const int count = large ? 1 : static_cast<int>(bytes.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Irecv(bytes.data(), count, type, from, tag, comm_, &request), "MPI_Irecv");
  add(request, {.operation = &operation, .received = type});
}

void MpiTransport::progress(Wait wait) {
  require_usable();
  if (requests_.empty()) return;
  if (!mpi_is_up())
    throw Error(ErrorCode::communication, "MPI_Finalize was called while a call was under way");
  const auto pending = static_cast<int>(requests_.size());
  finished_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int code = wait == Wait::yes
                       ? MPI_Waitsome(pending, requests_.data(), &count, finished_.data(), statuses_.data())
                       : MPI_Testsome(pending, requests_.data(), &count, finished_.data(), statuses_.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (int i = 0; i < count; ++i) {
      const int error = statuses_[static_cast<std::size_t>(i)].MPI_ERROR;
      if (error != MPI_ERR_PENDING) check(error, "a transfer");
    }
  }
  check(code, "MPI_Waitsome");
  if (count == MPI_UNDEFINED || count == 0) return;
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(finished_[static_cast<std::size_t>(i)]);
    Pending& ended = pending_[at];
    if (ended.received != MPI_DATATYPE_NULL) {
      MPI_Count bytes = 0;
      check(MPI_Get_elements_x(&statuses_[static_cast<std::size_t>(i)], ended.received, &bytes),
            "MPI_Get_elements_x");
      ended.operation->bytes = bytes < 0 ? 0 : static_cast<std::size_t>(bytes);
      if (ended.received != MPI_BYTE) MPI_Type_free(&ended.received);
    }
    TERSE_ASSERT(ended.operation->parts != 0, "an operation ends more often than it began", at,
                 requests_.size());
    ended.operation->done = --ended.operation->parts == 0;
    ended.operation = nullptr;
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (!pending_[i].operation) continue;
    requests_[kept] = requests_[i];
    pending_[kept] = pending_[i];
    ++kept;
  }
  requests_.resize(kept);
  pending_.resize(kept);
}

template <class T>
MPI_Op MpiTransport::own_sum(std::size_t which) {
  MPI_Op& op = own_sums_[which];
  if (op == MPI_OP_NULL) check(MPI_Op_create(add_elements<T>, 1, &op), "MPI_Op_create");
  return op;
}

template <class Reduce>
void MpiTransport::reduce_in_parts(Reduction what, const void* in, void* out, std::size_t count,
                                   Reduce&& reduce) {
  require_usable();
  TERSE_ASSERT(!freed(), "a reduction begins after its communicator was freed", what, count);
  TERSE_ASSERT((in != nullptr && out != nullptr) || count == 0, "a reduction has no memory", what, count);
  MPI_Datatype type = MPI_FLOAT;
  MPI_Op op = MPI_SUM;
  switch (what) {
    case Reduction::sum_f32:
      break;
    case Reduction::sum_f64:
      type = MPI_DOUBLE;
      break;
    case Reduction::sum_f16:
      type = MPI_UINT16_T;
      op = own_sum<float16>(0);
      break;
    case Reduction::sum_bf16:
      type = MPI_UINT16_T;
      op = own_sum<bfloat16>(1);
      break;
    case Reduction::addends_f32:
      op = own_sum<float>(2);
      break;
    case Reduction::addends_f64:
      type = MPI_DOUBLE;
      op = own_sum<double>(3);
      break;
    case Reduction::sum_int8:
      type = MPI_INT8_T;
      break;
    case Reduction::max_f32:
      type = MPI_INT32_T;
      op = MPI_MAX;
      break;
    case Reduction::max_f64:
      type = MPI_INT64_T;
      op = MPI_MAX;
      break;
  }
  std::size_t at = 0;
  do {
    const std::size_t n = std::min(kMaxCount, count - at);
    const auto* from = static_cast<const std::byte*>(in) + at * size_of(what);
    auto* to = static_cast<std::byte*>(out) + at * size_of(what);
    reduce(from == to ? MPI_IN_PLACE : from, to, static_cast<int>(n), type, op);
    at += n;
  } while (at < count);
}

void MpiTransport::all_reduce(Reduction what, const void* in, void* out, std::size_t count) {
  reduce_in_parts(what, in, out, count, [&](const void* from, void* to, int n, MPI_Datatype type, MPI_Op op) {
    check(MPI_Allreduce(from, to, n, type, op, comm_), "MPI_Allreduce");
  });
}

void MpiTransport::start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                                    Operation& operation) {
  std::size_t parts = 0;
  reduce_in_parts(what, in, out, count, [&](const void* from, void* to, int n, MPI_Datatype type, MPI_Op op) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallreduce(from, to, n, type, op, comm_, &request), "MPI_Iallreduce");
    add(request, {.operation = &operation, .reduction = true});
    ++parts;
  });
  operation.parts = parts;
}

// The MPI that is loaded says it, which need not be the one that this was compiled with.
bool MpiTransport::takes_device_memory() const noexcept {
  using Query = int (*)();
  static const auto query = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support"));
  return query != nullptr && query() != 0;
}

void MpiTransport::abandon() noexcept {
  abandoned_ = true;
  const bool up = mpi_is_up();
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    Pending& left = pending_[i];
    // MPI has no way to give up a collective: its request is left to the end of the process
    if (!up || requests_[i] == MPI_REQUEST_NULL || left.reduction) continue;
    if (left.received != MPI_DATATYPE_NULL) {
      MPI_Cancel(&requests_[i]);
      if (left.received != MPI_BYTE) MPI_Type_free(&left.received);
    }
    MPI_Request_free(&requests_[i]);
  }
  requests_.clear();
  pending_.clear();
}

}  // namespace terse::inline v0_1

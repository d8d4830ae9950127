// SPDX-License-Identifier: Apache-2.0
//
// Nonblocking and persistent calls.
#include "c_api/request.hpp"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "c_api/handles.hpp"
#include "c_api/info.hpp"
#include "c_api/outcome.hpp"
#include "c_api/raise.hpp"

using namespace terse::c_api;

namespace {

terse::Error wrong(const std::string& what) { return {terse::ErrorCode::invalid_argument, what}; }
terse::Error untimely(const std::string& what) { return {terse::ErrorCode::invalid_state, what}; }
terse::Error no_room() { return wrong("there is nowhere to put the request: the pointer is null"); }

}  // namespace

Terse_Request_s::Terse_Request_s(State& state, const Arguments& call) : state_(state.shared_from_this()) {
  const Meaning meaning = meaning_of(call, state);
  passes_on_ = meaning.passes_on;
  if (passes_on_) {
    passed_outcome_ = outcome_of_passed(call.tensors);
    passed_.begin(call);
  } else {
    terse::Communicator& communicator = state.usable_communicator();
    make_room();
    request_ = communicator.iallreduce(meaning.tensors, meaning.op, meaning.options);
    state.under_way.push_back(this);
  }
  active_ = true;
}

Terse_Request_s::Terse_Request_s(State& state, const Arguments& call, const terse::CallOptions& options)
    : state_(state.shared_from_this()),
      persistent_(new Persistent{call.tensors[0], call.datatype, call.op, options}) {
  persistent_->options.failure.reset();
  persistent_->tensor.feedback = &persistent_->residuals;
  Arguments own = arguments();
  own.options.failure = call.options.failure;
  Meaning meaning = meaning_of(own, state);
  passes_on_ = meaning.passes_on;
  if (passes_on_) {
    passed_outcome_ = outcome_of_passed(own.tensors);
  } else {
    make_plan(std::move(meaning));
  }
}

Terse_Request_s::~Terse_Request_s() { unlist(); }

Arguments Terse_Request_s::arguments() const {
  return {
      {&persistent_->tensor, 1}, persistent_->datatype, persistent_->op, state_->comm, persistent_->options};
}

void Terse_Request_s::make_plan(Meaning meaning) {
  terse::Communicator& communicator = state_->usable_communicator();
  if (!persistent_->plan) {
    persistent_->residuals.feedback = terse::Feedback(terse::residual_type_for(
        meaning.tensors[0].in.dtype,
        meaning.options.policy.residual.value_or(*communicator.options().policy.residual)));
  }
  persistent_->plan.emplace(communicator.allreduce_init(meaning.tensors, meaning.op, meaning.options));
  persistent_->planned_on = state_->communicators_made;
}

// So that nothing fails here once the call has begun.
void Terse_Request_s::make_room() {
  auto& listed = state_->under_way;
  if (listed.size() == listed.capacity()) listed.reserve(2 * listed.size() + 1);
}

void Terse_Request_s::unlist() noexcept { std::erase(state_->under_way, this); }

void Terse_Request_s::start() {
  if (!persistent()) {
    throw wrong("the request is of a nonblocking call: only those of Terse_Allreduce_init are started");
  }
  if (active_) throw untimely("the request has a call under way: wait for it before the next");
  if (state_->comm == MPI_COMM_NULL) throw untimely("the communicator of the request was freed");
  if (passes_on_) {
    passed_.begin(arguments());
  } else {
    // the communicator may have other options since
    if (persistent_->planned_on != state_->communicators_made) make_plan(meaning_of(arguments(), *state_));
    make_room();
    persistent_->plan->start();
    state_->under_way.push_back(this);
  }
  active_ = true;
}

bool Terse_Request_s::is_over() {
  if (!active_) return true;
  if (passes_on_) {
    state_->progress();
    return passed_.is_over();
  }
  return persistent() ? persistent_->plan->test() : request_.test();
}

void Terse_Request_s::wait() {
  if (passes_on_ && !state_->under_way.empty()) {
    while (!is_over()) std::this_thread::yield();  // others may wait for progress with the rest
  }
  state_->outcome = kNoOutcome;
  active_ = false;
  unlist();
  if (passes_on_) {
    passed_.wait();
    state_->outcome = passed_outcome_;
  } else {
    state_->outcome = in_c(persistent() ? persistent_->plan->wait() : request_.wait());
  }
}

terse::Feedback& Terse_Request_s::residuals() {
  if (!persistent()) {
    throw wrong("the request is of a nonblocking call: its residuals are in the Terse_Feedback that it had");
  }
  if (active_) throw untimely("the request has a call under way, which changes its residuals: wait for it");
  return persistent_->residuals.feedback;
}

namespace {

// Whose error handler is called.
MPI_Comm comm_of(const Terse_Request* request) noexcept {
  return request == nullptr || *request == TERSE_REQUEST_NULL ? MPI_COMM_NULL : (*request)->comm();
}

Terse_Request& at(Terse_Request* request) {
  if (request == nullptr) throw wrong("the pointer to the request is null");
  return *request;
}

// Ends what is under way, and a nonblocking request with it, whatever comes of it.
void end(Terse_Request& request) {
  if (request->persistent()) return request->wait();
  const std::unique_ptr<Terse_Request_s> ended(std::exchange(request, TERSE_REQUEST_NULL));
  ended->wait();
}

bool is_active(Terse_Request request) { return request != TERSE_REQUEST_NULL && request->active(); }

// Forgets the outcome of the last call where the next one does not even begin.
template <class F>
auto beginning(State& state, F&& begin) {
  const Terse_Outcome before = std::exchange(state.outcome, kNoOutcome);
  auto begun = std::forward<F>(begin)();
  state.outcome = before;
  return begun;
}

// `found_by_mpi`: what read_options has returned.
int iallreduce(const Arguments& call, Terse_Request* request,
               const std::exception_ptr& found_by_mpi = nullptr) {
  handles();
  if (call.comm == MPI_COMM_NULL && !call.tensors.empty()) {
    Passed{}.begin(call);  // MPI refuses it
    return MPI_SUCCESS;
  }
  if (request == nullptr && errors_are_fatal(call.comm)) throw no_room();
  State& state = state_of(call.comm);
  auto made = beginning(state, [&] { return std::make_unique<Terse_Request_s>(state, call); });
  // The others make this call: it is made to its end here where its error is to be told now, be it that there
  // is no request to tell it later, or that MPI has called the error handler already.
  if (request == nullptr || found_by_mpi) {
    made->wait();
    throw no_room();
  }
  *request = made.release();
  return MPI_SUCCESS;
}

int iallreduce_one(const char* where, const Tensor& tensor, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                   Terse_Request* request) {
  return run(where, comm, [&] { return iallreduce({{&tensor, 1}, datatype, op, comm}, request); });
}

int allreduce_init(const char* where, const Tensor& tensor, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                   MPI_Info info, Terse_Request* request) {
  return run(where, comm, [&] {
    State& state = state_of(comm);
    terse::CallOptions options;
    const std::exception_ptr found_by_mpi = read_info(info, options);
    if (request == nullptr && !options.failure) options.failure = no_room();
    telling_others(found_by_mpi, [&] {
      auto made = std::make_unique<Terse_Request_s>(
          state, Arguments{{&tensor, 1}, datatype, op, comm, options}, options);
      *request = made.release();
    });
    return MPI_SUCCESS;
  });
}

// Calls work(residuals).
template <class F>
int with_residuals(const char* where, Terse_Request request, F&& work) {
  return run(where, comm_of(&request), [&] {
    if (request == TERSE_REQUEST_NULL) throw wrong("the request is TERSE_REQUEST_NULL: it has no residuals");
    work(request->residuals());
    return MPI_SUCCESS;
  });
}

}  // namespace

int Terse_Iallreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                     MPI_Comm comm, Terse_Request* request) {
  return iallreduce_one("Terse_Iallreduce", {sendbuf, recvbuf, count}, datatype, op, comm, request);
}

int Terse_Iallreduce_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype, MPI_Op op,
                       MPI_Comm comm, Terse_Request* request) {
  return iallreduce_one("Terse_Iallreduce_c", {sendbuf, recvbuf, count}, datatype, op, comm, request);
}

int Terse_Iallreduce_with(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                          MPI_Op op, MPI_Comm comm, const Terse_Options* options, Terse_Request* request) {
  return run("Terse_Iallreduce_with", comm, [&] {
    handles();
    Tensor tensor{sendbuf, recvbuf, count};
    terse::CallOptions own;
    const std::exception_ptr found_by_mpi = read_options(options, own, &tensor.feedback);
    return telling_others(found_by_mpi, [&] {
      return iallreduce({{&tensor, 1}, datatype, op, comm, own}, request, found_by_mpi);
    });
  });
}

int Terse_Iallreduce_fused(int tensors, const void* const sendbufs[], void* const recvbufs[],
                           const MPI_Count counts[], MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                           const Terse_Feedback feedbacks[], const Terse_Options* options,
                           Terse_Request* request) {
  return run("Terse_Iallreduce_fused", comm, [&] {
    handles();
    const Lists lists = read_lists(tensors, sendbufs, recvbufs, counts, feedbacks);
    terse::CallOptions own;
    const std::exception_ptr found_by_mpi = read_options(options, own, nullptr);
    if (lists.failure) own.failure = lists.failure;
    return telling_others(found_by_mpi, [&] {
      return iallreduce({lists.tensors, datatype, op, comm, own}, request, found_by_mpi);
    });
  });
}

int Terse_Allreduce_init(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                         MPI_Comm comm, MPI_Info info, Terse_Request* request) {
  return allreduce_init("Terse_Allreduce_init", {sendbuf, recvbuf, count}, datatype, op, comm, info, request);
}

int Terse_Allreduce_init_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                           MPI_Op op, MPI_Comm comm, MPI_Info info, Terse_Request* request) {
  return allreduce_init("Terse_Allreduce_init_c", {sendbuf, recvbuf, count}, datatype, op, comm, info,
                        request);
}

int Terse_Start(Terse_Request* request) {
  return run("Terse_Start", comm_of(request), [&] {
    handles();
    const Terse_Request started = at(request);
    if (started == TERSE_REQUEST_NULL) {
      throw wrong("the request is TERSE_REQUEST_NULL: make one with Terse_Allreduce_init");
    }
    started->start();
    return MPI_SUCCESS;
  });
}

int Terse_Test(Terse_Request* request, int* flag) {
  return run("Terse_Test", comm_of(request), [&] {
    handles();
    if (flag == nullptr) throw wrong("there is nowhere to put the flag: the pointer is null");
    Terse_Request& tested = at(request);
    const bool active = is_active(tested);
    *flag = !active || tested->is_over();
    if (active && *flag) end(tested);
    return MPI_SUCCESS;
  });
}

int Terse_Wait(Terse_Request* request) {
  return run("Terse_Wait", comm_of(request), [&] {
    handles();
    Terse_Request& awaited = at(request);
    if (is_active(awaited)) end(awaited);
    return MPI_SUCCESS;
  });
}

int Terse_Waitall(int count, Terse_Request requests[]) {
  std::exception_ptr first;
  MPI_Comm whose = MPI_COMM_NULL;
  const int code = run("Terse_Waitall", MPI_COMM_NULL, [&] {
    handles();
    if (count < 0) throw wrong("there are " + std::to_string(count) + " requests: use 0 or more");
    if (count > 0 && requests == nullptr) {
      throw wrong("the list of requests is a null pointer for " + std::to_string(count));
    }
    const std::span<Terse_Request> all(requests, static_cast<std::size_t>(count));
    // Those of one communicator make no progress with another's, and other ranks may have another order.
    const auto over = [](Terse_Request request) { return !is_active(request) || request->is_over(); };
    while (std::count_if(all.begin(), all.end(), over) != count) std::this_thread::yield();
    for (Terse_Request& request : all) {
      const MPI_Comm comm = comm_of(&request);
      try {
        if (is_active(request)) end(request);
      } catch (...) {
        if (first) continue;
        first = std::current_exception();
        whose = comm;
      }
    }
    return MPI_SUCCESS;
  });
  if (!first) return code;
  return run("Terse_Waitall", whose, [&]() -> int { std::rethrow_exception(first); });
}

int Terse_Request_free(Terse_Request* request) {
  return run("Terse_Request_free", comm_of(request), [&] {
    const std::unique_ptr<Terse_Request_s> freed(std::exchange(at(request), TERSE_REQUEST_NULL));
    if (!is_active(freed.get())) return MPI_SUCCESS;
    handles();
    freed->wait();
    return MPI_SUCCESS;
  });
}

int Terse_Request_save(Terse_Request request, void* buffer, size_t* size) {
  return with_residuals("Terse_Request_save", request,
                        [&](const terse::Feedback& residuals) { save(residuals, buffer, size); });
}

int Terse_Request_load(Terse_Request request, const void* saved, size_t size) {
  return with_residuals("Terse_Request_load", request,
                        [&](terse::Feedback& residuals) { load(residuals, saved, size); });
}

int Terse_Request_load_all(Terse_Request request, const void* const saves[], const size_t sizes[],
                           int ranks) {
  return with_residuals("Terse_Request_load_all", request,
                        [&](terse::Feedback& residuals) { load_all(residuals, saves, sizes, ranks); });
}

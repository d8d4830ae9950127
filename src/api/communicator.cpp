// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <terse/communicator.hpp>
#include <utility>
#include <vector>

#include "api/decide.hpp"
#include "api/options.hpp"
#include "api/tuning.hpp"
#include "codec/feedback_state.hpp"
#include "collective/algorithms.hpp"
#include "collective/allreduce.hpp"
#include "collective/engine.hpp"
#include "core/device.hpp"
#include "transport/mpi_transport.hpp"

namespace terse::inline v0_1 {
namespace {

bool overlap(ConstView in, View out) {
  const std::less<const void*> before;
  const auto* in_end = static_cast<const std::byte*>(in.data) + in.bytes();
  const auto* out_end = static_cast<const std::byte*>(out.data) + out.bytes();
  return in.data != out.data && before(in.data, out_end) && before(out.data, in_end);
}

// where() says which tensor of which call, once there is a fault.
std::optional<Error> find_fault(const CallTensor& tensor, auto&& where) {
  const ConstView in = tensor.in;
  const View out = tensor.out;
  const auto fault = [&](ErrorCode code, const std::string& what) {
    return Error(code, where() + ": " + what);
  };
  if (in.count != out.count || in.dtype != out.dtype) {
    return fault(ErrorCode::invalid_argument, "the input has " + std::to_string(in.count) + " elements of " +
                                                  std::string(name(in.dtype)) + ", the output " +
                                                  std::to_string(out.count) + " of " +
                                                  std::string(name(out.dtype)) + "; they must be alike");
  }
  if (in.count != 0 && (in.data == nullptr || out.data == nullptr)) {
    return fault(ErrorCode::invalid_argument, std::string(in.data == nullptr ? "input" : "output") +
                                                  " is a null pointer for " + std::to_string(in.count) +
                                                  " elements");
  }
  if (in.count > std::numeric_limits<std::size_t>::max() / 16) {
    return fault(ErrorCode::invalid_argument,
                 std::to_string(in.count) +
                     " elements are more than memory can hold: was a negative count converted?");
  }
  if (tensor.rows != 0 && in.count % tensor.rows != 0) {
    return fault(ErrorCode::invalid_argument, std::to_string(in.count) + " elements are no matrix of " +
                                                  std::to_string(tensor.rows) +
                                                  " rows of equal length: pass the tensor's rows, or 0");
  }
  if (overlap(in, out)) {
    return fault(ErrorCode::invalid_argument,
                 "input and output overlap in part: pass one buffer in place, or two that are disjoint");
  }
  return std::nullopt;
}

// In whose memory all of a call's tensors are: sets their views and Call::device. Managed memory
// follows the call's other buffers; if all are managed, the call runs on their device. Errors:
// invalid_argument, unsupported.
void place(Call& call, std::span<CallTensor> list, std::string_view style) {
  struct Found {
    const char* what = nullptr;
    std::size_t tensor = 0;
    Placement placement{};
  };
  Found host;
  Found device;
  Found managed;
  Found misaligned;  // at an address that a device cannot read an element from
  const bool several = !call.tensors.empty();
  const auto text = [&](const Found& found) {
    return std::string(found.what) + (several ? " of tensor " + std::to_string(found.tensor) : std::string());
  };
  const auto refuse = [&](ErrorCode code, const std::string& why) {
    throw Error(code, std::string(style) + ": " + why);
  };
  const auto look = [&](const char* what, std::size_t tensor, ConstView view) {
    if (view.empty() || view.data == nullptr) return;
    const Found found{what, tensor, placement_of(view.data)};
    if (reinterpret_cast<std::uintptr_t>(view.data) % size_of(view.dtype) != 0) misaligned = found;
    if (found.placement.kind == Placement::Kind::host) {
      if (view.memory == Memory::cuda && has_cuda()) {
        refuse(ErrorCode::invalid_argument,
               text(found) +
                   " is said to be in device memory, and the CUDA driver knows of no such memory there");
      }
      if (view.memory == Memory::cuda) device = found;
      if (view.memory == Memory::host) host = found;
    } else if (found.placement.kind == Placement::Kind::managed) {
      managed = found;
    } else {
      if (device.what != nullptr && device.placement.device != found.placement.device) {
        refuse(ErrorCode::unsupported, text(found) + " is in the memory of device " +
                                           std::to_string(found.placement.device) + ", " + text(device) +
                                           " in that of device " + std::to_string(device.placement.device) +
                                           ": a rank's tensors of one call must be on one device");
      }
      device = found;
    }
  };
  if (!several) {
    look("the input", 0, call.in);
    look("the output", 0, call.out);
  }
  for (std::size_t t = 0; t < list.size(); ++t) {
    look("the input", t, list[t].in);
    look("the output", t, list[t].out);
  }
  if (device.what == nullptr && managed.what != nullptr && host.what == nullptr && has_cuda())
    device = managed;
  if (device.what != nullptr && !has_cuda()) {
    refuse(ErrorCode::unsupported,
           text(device) +
               " is in device memory, and this build of Terse has no CUDA: build it with "
               "TERSE_CUDA=ON, or copy the tensor to host memory first");
  }
  if (device.what != nullptr && host.what != nullptr) {
    refuse(ErrorCode::unsupported,
           text(device) + " is in device memory, " + text(host) +
               " in the host's: a rank's buffers of one call must be in one kind of memory");
  }
  if (device.what != nullptr && misaligned.what != nullptr) {
    refuse(ErrorCode::unsupported,
           text(misaligned) +
               " is in device memory at an address that is no multiple of the size of its elements: a device "
               "cannot read it");
  }
  call.device = device.what == nullptr ? -1 : device.placement.device;
  const Memory memory = device.what == nullptr ? Memory::host : Memory::cuda;
  call.in.memory = call.out.memory = memory;
  for (CallTensor& tensor : list) tensor.in.memory = tensor.out.memory = memory;
}

std::optional<Error> find_fault(const Call& call, std::string_view style) {
  const auto the_call = [&] { return std::string(style); };
  if (call.tensors.empty()) return find_fault({call.in, call.out, nullptr, call.rows}, the_call);
  for (std::size_t t = 0; t < call.tensors.size(); ++t) {
    const auto which = [&] { return the_call() + ", tensor " + std::to_string(t); };
    if (auto fault = find_fault(call.tensors[t], which)) return fault;
    if (call.tensors[t].in.dtype != call.dtype()) {
      return Error(ErrorCode::invalid_argument,
                   which() + ": it holds " + std::string(name(call.tensors[t].in.dtype)) +
                       " where the first one holds " + std::string(name(call.dtype())) +
                       ": make one call for each type");
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view name(Outcome::Result result) noexcept {
  return result == Outcome::Result::compressed ? "compressed" : "exact";
}

std::string_view name(Outcome::Reason reason) noexcept {
  constexpr std::array<std::string_view, 5> kNames = {"none", "asked", "small", "slower", "non_finite"};
  return kNames[static_cast<std::size_t>(reason)];
}

namespace {

const std::vector<AlgorithmInfo>& algorithm_infos() {
  static const auto& infos = *[] {
    auto* made = new std::vector<AlgorithmInfo>;  // never destroyed, for calls while the process exits
    for (const Algorithm& row : algorithm_table()) made->push_back({row.name, row.summary});
    return made;
  }();
  return infos;
}

}  // namespace

std::span<const AlgorithmInfo> algorithms() noexcept { return algorithm_infos(); }

/// What a Communicator is; its requests keep it.
struct CommunicatorState : std::enable_shared_from_this<CommunicatorState> {
  CommunicatorState(MPI_Comm comm, const CommunicatorOptions& given) : transport(comm) {
    std::optional<Error> failure;
    ErrorReports::Fields fields;
    try {
      if (given.failure) throw *given.failure;
      options = overlay(overlay(given, options_from_environment()), default_options());
      Policy& policy = options.policy;
      if (!policy.codec.codec()) policy.codec = make_codec(policy.codec.spec());
      if (policy.algorithm != "auto") find_algorithm(policy.algorithm);
      set_option(options, "threads", get_option(options, "threads"));  // a number that makes sense?
      if (*options.progress == terse::Progress::thread && !MpiTransport::serves_threads()) {
        throw Error(ErrorCode::unsupported,
                    "progress=thread needs MPI_THREAD_MULTIPLE, and MPI was not initialised with it: ask "
                    "MPI_Init_thread for it");
      }
      fields = {{"call", "making a Communicator"},
                {"algorithm", policy.algorithm},
                {"min_bytes", get_option(policy, "min_bytes")},
                {"codec", policy.codec.codec()->spec()},
                {"segment_bytes", get_option(policy, "segment_bytes")},
                {"check", get_option(policy, "check")}};
      engine.emplace(transport, Engine::Options{.threads = *options.threads,
                                                .progress = *options.progress == terse::Progress::thread
                                                                ? Engine::Progress::thread
                                                                : Engine::Progress::calls});
    } catch (...) {
      failure = current_error();
    }
    try {
      require_agreement(transport, fields, failure);
    } catch (...) {
      engine.reset();
      if (!transport.abandoned()) transport.free();  // on all ranks
      throw;
    }
  }
  CommunicatorState(const CommunicatorState&) = delete;
  CommunicatorState& operator=(const CommunicatorState&) = delete;

  MpiTransport transport;
  CommunicatorOptions options;
  std::optional<Engine> engine;
  std::optional<Error> broken;  // a call failed half way: every later one tells the others so
  Tuning tuning;
  std::map<std::string, std::shared_ptr<const Codec>, std::less<>> codecs_by_spec;
  std::vector<CallTensor> list;  // of a fused call while it begins: what Call::tensors points to
  CallTerms terms;               // of a call while it begins: what Call::terms points to

  const std::shared_ptr<const Codec>& codec_of(const CodecChoice& choice) {
    if (choice.codec()) return choice.codec();
    const auto known = codecs_by_spec.find(choice.spec());
    if (known != codecs_by_spec.end()) return known->second;
    return codecs_by_spec.emplace(choice.spec(), make_codec(choice.spec())).first->second;
  }

  void note_broken(const Error& error) {
    if (broken) return;
    broken = Error(ErrorCode::communication,
                   "this Communicator is not usable any more: an earlier call on it failed half way: " +
                       std::string(error.what()));
  }

  /// Gathers the facts of a call of these arguments, decides, and makes the call what was decided. Its terms
  /// last until the next one. Collective where a trial is needed.
  Decision choose(const CallOptions& given, Call& call, std::string_view style);
  Outcome complete(Outcome outcome, const CallResult& result, std::size_t bytes, std::size_t count) const;
  Outcome allreduce(const CallOptions& given, Call call);
  /// `style`: what the caller calls it, which all ranks must call alike.
  Request begin(const CallOptions& given, Call call, std::string_view style);
  Outcome conclude(Request& request);
  Call call_of(const Tensors& tensors, Op op, Feedback* feedback = nullptr);
};

Decision CommunicatorState::choose(const CallOptions& given, Call& call, std::string_view style) {
  const Policy& policy = given.policy;
  const Policy& own = options.policy;
  std::optional<Error> option_failure = given.failure ? given.failure : call.failure;
  std::optional<Error> buffer_failure;
  const auto note = [](std::optional<Error>& failure, auto&& make) {
    try {
      make();
    } catch (...) {
      if (!failure) failure = current_error();
    }
  };
  note(option_failure, [&] { call.codec = codec_of(policy.codec.chosen() ? policy.codec : own.codec); });
  Facts facts{.algorithm = policy.algorithm.empty() ? own.algorithm : policy.algorithm,
              .min_bytes = policy.min_bytes.value_or(*own.min_bytes),
              .segment_bytes = policy.segment_bytes.value_or(*own.segment_bytes),
              .check = policy.check.value_or(*own.check),
              .cuda_aware = *options.cuda_aware,
              .codec = call.codec.get(),
              .count = call.count(),
              .dtype = call.dtype(),
              .list = call.tensors.size() > 1,
              .ranks = transport.size()};
  const auto look_at = [&](const Feedback* feedback, std::size_t count) {
    if (!feedback) return;
    note(buffer_failure, [&] {
      const FeedbackState& state = state_of(*feedback);  // moved from?
      facts.feedback = true;
      facts.bf16_residuals = facts.bf16_residuals || state.residual_type == ResidualType::bf16;
      if (!call.codec) return;
      facts.past = past_of_both(facts.past, past_of(state, count, facts.dtype, *call.codec, facts.ranks));
    });
  };
  look_at(call.feedback, call.in.count);
  for (const CallTensor& tensor : call.tensors) look_at(tensor.feedback, tensor.in.count);
  if (!buffer_failure) buffer_failure = find_fault(call, style);
  note(buffer_failure,
       [&] { place(call, call.tensors.empty() ? std::span<CallTensor>() : std::span(list), style); });
  facts.option_failure = option_failure ? &*option_failure : nullptr;
  facts.buffer_failure = buffer_failure ? &*buffer_failure : nullptr;
  facts.broken = broken ? &*broken : nullptr;
  facts.on_device = call.device >= 0;
  facts.takes_device_memory = transport.takes_device_memory();

  call.stream = given.stream;
  Decision decision;
  const auto take = [&] {
    decision = decide(facts);
    call.algorithm = decision.algorithm;
    call.segment_bytes = decision.segment_bytes;
    call.checksum = decision.checksum;
    call.direct = decision.direct;
    call.agree = decision.agree;
    call.declines = decision.declines;
    call.failure = decision.failure;
    call.terms = terms.compose(style, facts, decision, given.tensor);
  };
  take();
  if (decision.asks_for_trial) {
    facts.pays = tuning.compression_pays(*engine, call);
    take();
  }
  return decision;
}

Outcome CommunicatorState::complete(Outcome outcome, const CallResult& result, std::size_t bytes,
                                    std::size_t count) const {
  outcome.bytes_sent = result.bytes_sent;
  outcome.exact_count = result.exact_count;
  if (result.exact_count != 0) outcome.reason = Outcome::Reason::non_finite;
  if (!find_algorithm(outcome.algorithm).compresses) {
    const auto ranks = static_cast<std::size_t>(transport.size());
    outcome.bytes_sent = 2 * (ranks - 1) * bytes / ranks;
  }
  if (outcome.result == Outcome::Result::exact) outcome.exact_count = count;
  return outcome;
}

Request CommunicatorState::begin(const CallOptions& given, Call call, std::string_view style) {
  Request request;
  try {
    const Decision decision = choose(given, call, style);
    request.outcome_ = {.result = decision.result,
                        .reason = decision.reason,
                        .algorithm = decision.algorithm->name,
                        .exact_count = call.count()};
    request.refuses_ = decision.refuses_afterwards;
  } catch (...) {
    if (transport.abandoned()) note_broken(current_error());
    throw;
  }
  request.bytes_ = call.bytes();
  request.agreed_ = call.agree && transport.size() > 1;
  // a reduction that blocks in MPI may wait for ranks that wait for this one in an earlier call
  if (call.blocks && call.algorithm->reduces) engine->drain();
  request.execution_ = &engine->start(call);
  request.communicator_ = shared_from_this();
  return request;
}

// Ends a request whose call is over.
Outcome CommunicatorState::conclude(Request& request) {
  const std::shared_ptr<CommunicatorState> self = std::move(request.communicator_);
  Execution& execution = *std::exchange(request.execution_, nullptr);
  try {
    const CallResult result = engine->finish(execution);
    if (request.refuses_) throw *broken;
    return complete(request.outcome_, result, request.bytes_, request.outcome_.exact_count);
  } catch (const AgreedError& error) {
    if (error.code() == ErrorCode::corrupt_data) note_broken(error);
    throw;
  } catch (...) {
    if (transport.abandoned() || request.agreed_) note_broken(current_error());
    throw;
  }
}

Outcome CommunicatorState::allreduce(const CallOptions& given, Call call) {
  call.blocks = true;
  Request request = begin(given, call, "allreduce");
  return conclude(request);
}

// The call of one tensor, or of a list: of none, an empty tensor. `feedback` is the call's own. What is wrong
// with the two becomes the call's failure.
Call CommunicatorState::call_of(const Tensors& tensors, Op op, Feedback* feedback) {
  const std::span<const Tensor> given = tensors.list();
  Call call{.op = op};
  if (given.size() == 1) {
    call.in = given[0].in;
    call.out = given[0].out;
    call.feedback = given[0].feedback;
    call.rows = given[0].rows;
  } else {
    list.clear();
    for (const Tensor& tensor : given) list.push_back({tensor.in, tensor.out, tensor.feedback, tensor.rows});
    call.tensors = list;
  }
  if (feedback == nullptr) return call;
  if (tensors.is_list()) {
    call.failure = Error(ErrorCode::invalid_argument,
                         "the options have a feedback, which is one tensor's, and this call has a list: each "
                         "tensor of a list names its own");
  } else if (call.feedback != nullptr && call.feedback != feedback) {
    call.failure = Error(ErrorCode::invalid_argument,
                         "the tensor has a feedback, and the options have another one: name it once");
  } else {
    call.feedback = feedback;
  }
  return call;
}

namespace {

CommunicatorState& alive(const std::shared_ptr<CommunicatorState>& state) {
  if (!state || !state->engine || state->transport.freed()) {
    throw Error(ErrorCode::invalid_state, "this Communicator was freed or moved from: make a new one");
  }
  if (!MpiTransport::mpi_is_up()) {
    throw Error(ErrorCode::invalid_state, "a Communicator was used after MPI_Finalize: free() it before");
  }
  return *state;
}

}  // namespace

Communicator::Communicator(MPI_Comm comm, const CommunicatorOptions& options)
    : state_(std::make_shared<CommunicatorState>(comm, options)) {}

Communicator::Communicator(Communicator&& other) noexcept = default;

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  Communicator old(std::move(*this));
  state_ = std::move(other.state_);
  return *this;
}

Communicator::~Communicator() {
  if (state_ && MpiTransport::mpi_is_up() && std::uncaught_exceptions() == 0) free();
}

void Communicator::free() {
  if (!state_) return;
  if (MpiTransport::mpi_is_up()) {
    state_->engine->drain();
    if (state_->broken || state_->transport.abandoned()) {
      state_->transport.leave();
    } else {
      state_->transport.free();
    }
  }
  state_.reset();
}

int Communicator::rank() const { return alive(state_).transport.rank(); }
int Communicator::size() const { return alive(state_).transport.size(); }
const CommunicatorOptions& Communicator::options() const { return alive(state_).options; }
std::size_t Communicator::scratch_bytes() const { return alive(state_).engine->scratch_bytes(); }

Outcome Communicator::allreduce(const Tensors& tensors, Op op, const CallOptions& options) {
  CommunicatorState& state = alive(state_);
  return state.allreduce(options, state.call_of(tensors, op, options.feedback));
}

Request Communicator::iallreduce(const Tensors& tensors, Op op, const CallOptions& options) {
  CommunicatorState& state = alive(state_);
  return state.begin(options, state.call_of(tensors, op, options.feedback), "iallreduce");
}

Request::Request() noexcept = default;

Request::Request(Request&& other) noexcept { *this = std::move(other); }

Request& Request::operator=(Request&& other) noexcept {
  std::swap(communicator_, other.communicator_);
  std::swap(execution_, other.execution_);
  std::swap(outcome_, other.outcome_);
  std::swap(bytes_, other.bytes_);
  std::swap(agreed_, other.agreed_);
  std::swap(refuses_, other.refuses_);
  return *this;
}

Request::~Request() {
  if (!communicator_) return;
  try {
    if (!MpiTransport::mpi_is_up() || std::uncaught_exceptions() != 0) {
      // its buffers may be gone in a moment, and nobody is to wait for others now
      if (communicator_->engine->give_up(*execution_)) {
        communicator_->note_broken(Error(ErrorCode::communication, "a Request was left before its end"));
        return;
      }
    }
    wait();
  } catch (...) {
    // nobody is left to hear of it but the next call, which a broken Communicator tells
  }
}

bool Request::test() { return !communicator_ || communicator_->engine->test(*execution_); }

Outcome Request::wait() {
  if (!communicator_) {
    throw Error(ErrorCode::invalid_state, "this Request is none: there is nothing to wait for");
  }
  return communicator_->conclude(*this);
}

struct Plan::Impl {
  std::shared_ptr<CommunicatorState> communicator;
  Op op = Op::sum;
  CallOptions options;
  std::vector<Tensor> tensors;
  std::vector<std::unique_ptr<Feedback>> own;  // residuals of tensors that came without
  Request request;
};

Plan::Plan(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;

Plan Communicator::allreduce_init(const Tensors& tensors, Op op, const CallOptions& options) {
  CommunicatorState& state = alive(state_);
  state.engine->drain();  // ranks that have yet to come here may wait for this one in an earlier call
  Call call = state.call_of(tensors, op, options.feedback);
  const std::optional<Error> failure = call.failure;
  auto plan = std::make_unique<Plan::Impl>();
  plan->communicator = state_;
  plan->op = op;
  plan->options = options;
  plan->options.failure.reset();
  plan->options.feedback = nullptr;  // its tensors have their residuals from here on
  plan->tensors.assign(tensors.list().begin(), tensors.list().end());
  if (!tensors.is_list()) plan->tensors[0].feedback = call.feedback;
  const ResidualType residual = options.policy.residual.value_or(*state.options.policy.residual);
  for (Tensor& tensor : plan->tensors) {
    if (tensor.feedback) continue;
    plan->own.push_back(std::make_unique<Feedback>(residual_type_for(tensor.in.dtype, residual)));
    tensor.feedback = plan->own.back().get();
  }
  call = state.call_of(plan->tensors, op);
  call.failure = failure;
  state.choose(options, call, "allreduce_init");
  call.agree = true;
  if (state.broken) call.failure = state.broken;
  require_agreement(state.transport, call);
  return Plan(std::move(plan));
}

namespace {

template <class Impl>
Impl& there(const std::unique_ptr<Impl>& plan) {
  if (!plan) throw Error(ErrorCode::invalid_state, "this Plan was moved from: make a new one");
  return *plan;
}

}  // namespace

void Plan::start() {
  Impl& plan = there(impl_);
  if (plan.request.active()) {
    throw Error(ErrorCode::invalid_state, "this Plan has a call under way: wait for it before the next");
  }
  CommunicatorState& state = alive(plan.communicator);
  plan.request = state.begin(plan.options, state.call_of(plan.tensors, plan.op), "plan");
}

bool Plan::test() { return there(impl_).request.test(); }

Outcome Plan::wait() { return there(impl_).request.wait(); }

Feedback& Plan::feedback(std::size_t tensor) {
  Impl& plan = there(impl_);
  if (tensor >= plan.tensors.size()) {
    throw Error(ErrorCode::invalid_argument, "this Plan has " + std::to_string(plan.tensors.size()) +
                                                 " tensors: there is no tensor " + std::to_string(tensor));
  }
  return *plan.tensors[tensor].feedback;
}

}  // namespace terse::inline v0_1

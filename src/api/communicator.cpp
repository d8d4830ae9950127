// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <terse/communicator.hpp>
#include <utility>
#include <vector>

#include "api/options.hpp"
#include "api/tuning.hpp"
#include "codec/feedback_state.hpp"
#include "collective/algorithms.hpp"
#include "collective/allreduce.hpp"
#include "transport/mpi_transport.hpp"

namespace terse::inline v0_1 {
namespace {

bool overlap(ConstView in, View out) {
  const std::less<const void*> before;
  const auto* in_end = static_cast<const std::byte*>(in.data) + in.bytes();
  const auto* out_end = static_cast<const std::byte*>(out.data) + out.bytes();
  return in.data != out.data && before(in.data, out_end) && before(out.data, in_end);
}

std::optional<Error> find_fault(ConstView in, View out) {
  const auto fault = [](ErrorCode code, const std::string& what) {
    return Error(code, "allreduce: " + what);
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
  if (in.memory != Memory::host || out.memory != Memory::host) {
    return fault(ErrorCode::unsupported,
                 "this build of Terse has no CUDA support: copy the tensor to host memory first");
  }
  if (overlap(in, out)) {
    return fault(ErrorCode::invalid_argument,
                 "input and output overlap in part: pass one buffer in place, or two that are disjoint");
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

std::span<const AlgorithmInfo> algorithms() noexcept {
  static const std::vector<AlgorithmInfo> infos = [] {
    std::vector<AlgorithmInfo> made;
    for (const Algorithm& row : algorithm_table()) made.push_back({row.name, row.summary});
    return made;
  }();
  return infos;
}

struct Communicator::Impl {
  Impl(MPI_Comm comm, const AllreduceOptions& given) : transport(comm) {
    std::optional<Error> failure;
    Agreement::Fields fields;
    try {
      if (given.failure) throw *given.failure;
      defaults = overlay(overlay(given, options_from_environment()), default_options());
      if (!defaults.codec.codec()) defaults.codec = make_codec(defaults.codec.spec());
      if (defaults.algorithm != "auto") find_algorithm(defaults.algorithm);
      fields = terms_of(defaults);
      fields.emplace_back("call", "making a Communicator");
      fields.emplace_back("codec", defaults.codec.codec()->spec());
      fields.emplace_back("op", name(*defaults.op));
      fields.emplace_back("segment_bytes", std::to_string(*defaults.segment_bytes));
      fields.emplace_back("check", get_option(defaults, "check"));
    } catch (...) {
      failure = current_error();
    }
    try {
      Agreement(transport, fields, failure).require();
    } catch (...) {
      if (!transport.abandoned()) transport.free();  // on all ranks
      throw;
    }
  }
  ~Impl() {
    if (transport.abandoned()) workspace.leak();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  MpiTransport transport;
  AllreduceOptions defaults;
  Workspace workspace;
  std::optional<Error> broken;  // a call failed half way: every later one tells the others so
  Tuning tuning;
  std::map<std::string, std::shared_ptr<const Codec>, std::less<>> codecs_by_spec;

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

  // What a choice of the algorithm rests on, beside the tensor and the codec.
  static Agreement::Fields terms_of(const AllreduceOptions& options) {
    return {{"algorithm", options.algorithm}, {"min_bytes", get_option(options, "min_bytes")}};
  }

  // Whether `auto` compresses: as it did with this Feedback before, or else where a trial says that it pays.
  // Says why in the call's terms, since that too must be the same on all ranks.
  bool compression_pays(Call& call) {
    const auto because = [&](bool pays, const char* why) {
      call.terms.emplace_back("auto", std::string(pays ? "compresses" : "takes plain MPI") + why);
      return pays;
    };
    if (call.feedback) {
      const FeedbackState& held = call.feedback->state();
      if (held.calls != 0) return because(true, " as before");
      if (held.declined && held.shape.ranks == static_cast<std::uint32_t>(transport.size()) &&
          held.shape.count == call.in.count && held.shape.dtype == call.in.dtype &&
          held.shape.codec == call.codec->spec()) {
        return because(false, " as before");
      }
    }
    if (transport.size() == 1) return false;
    return because(tuning.compression_pays(transport, call, workspace), " after a trial");
  }

  Outcome allreduce(ConstView in, View out, const AllreduceOptions& given);
  Outcome allreduce(const AllreduceOptions& options, Call& call);
};

Outcome Communicator::Impl::allreduce(ConstView in, View out, const AllreduceOptions& given) {
  const AllreduceOptions options = overlay(given, defaults);
  Call call{.in = in,
            .out = out,
            .terms = terms_of(options),
            .op = *options.op,
            .feedback = options.feedback,
            .segment_bytes = *options.segment_bytes,
            .tensor = options.tensor,
            .checksum = *options.check == Check::payload,
            .failure = options.failure};
  try {
    return allreduce(options, call);
  } catch (const AgreedError& error) {
    if (error.code() == ErrorCode::corrupt_data) note_broken(error);
    throw;
  } catch (...) {
    if (transport.abandoned() || (call.agree && transport.size() > 1)) note_broken(current_error());
    throw;
  }
}

Outcome Communicator::Impl::allreduce(const AllreduceOptions& options, Call& call) {
  const Algorithm& exact = find_algorithm("exact");
  const bool automatic = options.algorithm == "auto";
  call.algorithm = &find_algorithm("two_phase");  // where it is not known what was asked for
  const auto note = [&](auto&& make) {
    try {
      make();
    } catch (...) {
      if (!call.failure) call.failure = current_error();
    }
  };
  note([&] { call.codec = codec_of(options.codec); });
  if (!automatic) {
    note([&] { call.algorithm = &find_algorithm(options.algorithm); });
  } else if (call.codec) {
    call.algorithm = &algorithm_for(*call.codec);
  }
  if (*options.segment_bytes == 0) {
    note([] { throw Error(ErrorCode::invalid_argument, "segment_bytes is 0: use at least 1, such as 4M"); });
  }
  if (call.feedback) note([&] { static_cast<void>(call.feedback->state()); });  // moved from?
  if (!call.failure) call.failure = find_fault(call.in, call.out);
  if (!call.failure) note([&] { check_pair(transport, call); });

  // What follows depends only on what all ranks have in common: the tensor, the options, earlier calls.
  Outcome outcome{.result = Outcome::Result::compressed};
  const auto be_exact = [&](Outcome::Reason reason) {
    outcome = {.result = Outcome::Result::exact, .reason = reason};
    call.algorithm = &exact;
  };
  const bool plain = call.algorithm == &exact;
  const bool lossless = call.codec && call.codec->traits().lossless;
  const bool trials = *options.min_bytes == kAutoBytes;
  const bool small = call.in.bytes() < (!trials ? *options.min_bytes : automatic || plain ? kAlwaysExact : 0);
  if (plain || (automatic && lossless)) {
    be_exact(Outcome::Reason::asked);
  } else if (small) {
    be_exact(Outcome::Reason::small);
  } else if (automatic && trials && !call.failure && !broken && !compression_pays(call)) {
    be_exact(Outcome::Reason::slower);
  } else if (lossless) {
    outcome = {.result = Outcome::Result::exact, .reason = Outcome::Reason::asked};
  }
  // Another rank may be about to compress, by mistake: exact calls are agreed upon too, unless they are
  // small.
  call.agree = !small || *options.check != Check::call;

  // An earlier call failed, perhaps here alone. Where there is an agreement, all ranks hear of that; where
  // there is none they would wait for this one, so it takes part and refuses afterwards.
  if (broken && call.agree) call.failure = broken;
  const CallResult result = terse::allreduce(transport, call, workspace);
  if (broken) throw *broken;
  outcome.algorithm = call.algorithm->name;
  outcome.bytes_sent = result.bytes_sent;
  outcome.exact_count = result.exact_count;
  if (result.exact_count != 0) outcome.reason = Outcome::Reason::non_finite;
  if (call.algorithm == &exact) {
    const auto ranks = static_cast<std::size_t>(transport.size());
    outcome.bytes_sent = 2 * (ranks - 1) * call.in.bytes() / ranks;
  }
  if (outcome.result == Outcome::Result::exact) outcome.exact_count = call.in.count;
  if (outcome.reason == Outcome::Reason::slower && call.feedback) decline(transport, call);
  return outcome;
}

Communicator::Communicator(MPI_Comm comm, const AllreduceOptions& defaults)
    : impl_(std::make_unique<Impl>(comm, defaults)) {}

Communicator::Communicator(Communicator&& other) noexcept = default;

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  Communicator old(std::move(*this));
  impl_ = std::move(other.impl_);
  return *this;
}

Communicator::~Communicator() {
  if (impl_ && MpiTransport::mpi_is_up() && std::uncaught_exceptions() == 0) free();
}

void Communicator::free() {
  if (impl_ && MpiTransport::mpi_is_up()) impl_->transport.free();
  impl_.reset();
}

namespace {

template <class Impl>
Impl& alive(const std::unique_ptr<Impl>& impl) {
  if (!impl) {
    throw Error(ErrorCode::invalid_state, "this Communicator was freed or moved from: make a new one");
  }
  if (!MpiTransport::mpi_is_up()) {
    throw Error(ErrorCode::invalid_state, "a Communicator was used after MPI_Finalize: free() it before");
  }
  return *impl;
}

}  // namespace

int Communicator::rank() const { return alive(impl_).transport.rank(); }
int Communicator::size() const { return alive(impl_).transport.size(); }
const AllreduceOptions& Communicator::defaults() const { return alive(impl_).defaults; }

Outcome Communicator::allreduce(ConstView in, View out, const AllreduceOptions& options) {
  return alive(impl_).allreduce(in, out, options);
}

Outcome Communicator::allreduce(View data, const AllreduceOptions& options) {
  return alive(impl_).allreduce(data, data, options);
}

}  // namespace terse::inline v0_1

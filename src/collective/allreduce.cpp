// SPDX-License-Identifier: Apache-2.0
#include "collective/allreduce.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "codec/feedback_state.hpp"
#include "codec/message.hpp"
#include "collective/agreement.hpp"
#include "core/bytes.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// While a call uses a Feedback, no other may.
class Lease {
 public:
  Lease() = default;
  ~Lease() {
    if (state_) std::atomic_ref(state_->in_use).store(false);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// Errors: invalid_state where another call uses it.
  void take(FeedbackState& state) {
    if (std::atomic_ref(state.in_use).exchange(true)) {
      throw Error(ErrorCode::invalid_state,
                  "this Feedback is in use by another call: each tensor needs one of its own");
    }
    state_ = &state;
  }

 private:
  FeedbackState* state_ = nullptr;
};

// Everything of a call that may fail on one rank alone, done before anything is told to the others.
struct Prepared {
  ConstView in;  // the call's, or padded copies in the workspace
  View out;
  Lease lease;
  Feedback* feedback = nullptr;         // in use by this call
  std::optional<FeedbackState> before;  // what that Feedback was, if it had no residuals
  std::optional<Runner> runner;
};

Problem problem_of(const Transport& transport, const Call& call, const Codec& codec) {
  return {.rank = transport.rank(),
          .ranks = transport.size(),
          .count = padded_count(*call.algorithm, call.in.count, transport.size()),
          .dtype = call.in.dtype,
          .op = call.op,
          .codec = &codec,
          .feedback = call.feedback != nullptr && call.algorithm->compresses && !codec.traits().lossless,
          .segment_bytes = call.segment_bytes,
          .trailer_bytes = kTrailerBytes};
}

FeedbackShape shape_of(const Transport& transport, const Call& call, std::size_t worker_count, Range own) {
  return {.count = call.in.count,
          .dtype = call.in.dtype,
          .codec = call.codec->spec(),
          .algorithm = std::string(call.algorithm->name),
          .rank = static_cast<std::uint32_t>(transport.rank()),
          .ranks = static_cast<std::uint32_t>(transport.size()),
          .worker_count = worker_count,
          .server_begin = own.offset,
          .server_count = own.count};
}

// The call's tensor with zeros behind it, as the algorithm wants it.
void pad(const Call& call, std::size_t count, Workspace& workspace, Prepared& made) {
  const std::size_t bytes = count * size_of(call.in.dtype);
  const auto in = workspace.padded_in.reserve(bytes);
  const auto out = workspace.padded_out.reserve(bytes);
  std::memcpy(in.data(), call.in.data, call.in.bytes());
  std::fill(in.begin() + static_cast<std::ptrdiff_t>(call.in.bytes()), in.end(), std::byte{0});
  made.in = {in.data(), count, call.in.dtype};
  made.out = {out.data(), count, call.in.dtype};
}

void prepare(Transport& transport, const Call& call, int tag, Workspace& workspace, Prepared& made) {
  check_pair(transport, call);
  const Problem problem = problem_of(transport, call, *call.codec);
  made.in = call.in;
  made.out = call.out;
  if (problem.count != call.in.count) pad(call, problem.count, workspace, made);
  Binding binding = {.in = made.in,
                     .out = made.out,
                     .codec = call.codec.get(),
                     .factor = call.op == Op::sum && !call.codec->traits().lossless ? transport.size() : 1.0,
                     .checksum = call.checksum};
  if (problem.feedback) {
    const Range own = call.algorithm->chunks(problem)[static_cast<std::size_t>(transport.rank())];
    FeedbackState& state = call.feedback->state();
    made.lease.take(state);
    if (!state.bound && state.owed.empty()) made.before = state;
    state.bind(shape_of(transport, call, problem.count, own));
    made.feedback = call.feedback;
    binding.worker = state.worker_view();
    binding.server = state.server_view();
    binding.chunk_begin = own.offset;
  }
  // for what ranks may have to tell each other at the end, where no rank may run out of memory alone
  workspace.messages.reserve(Agreement::part_bytes(transport.size()));
  made.runner.emplace(workspace.schedule_for(*call.algorithm, problem), binding, transport, tag, workspace);
}

Agreement::Fields describe(const Call& call) {
  Agreement::Fields fields = {{"call", "allreduce"},
                              {"count", std::to_string(call.in.count)},
                              {"dtype", std::string(name(call.in.dtype))},
                              {"op", std::string(name(call.op))},
                              {"codec", call.codec->spec()},
                              {"segment_bytes", std::to_string(call.segment_bytes)},
                              {"feedback", call.feedback ? call.feedback->state().summary() : "none"},
                              {"checksums", call.checksum ? "on" : "off"}};
  if (call.terms.empty()) fields.emplace_back("algorithm", call.algorithm->name);
  if (!call.tensor.empty()) fields.emplace_back("tensor", call.tensor);
  fields.insert(fields.end(), call.terms.begin(), call.terms.end());
  return fields;
}

// What a failure is, as an Error.
template <class F>
std::optional<Error> failure_of(F&& work) {
  try {
    work();
    return std::nullopt;
  } catch (...) {
    return current_error();
  }
}

// The flagged pieces of one segment, or of several, become segments of their own, in tensor order: the k-th
// flagged piece of each owner goes into segment k.
std::vector<std::vector<Piece>> regroup(std::vector<Piece> flagged, int ranks) {
  std::sort(flagged.begin(), flagged.end(),
            [](const Piece& a, const Piece& b) { return a.range.offset < b.range.offset; });
  std::vector<std::size_t> next(static_cast<std::size_t>(ranks));
  std::vector<std::vector<Piece>> segments;
  for (const Piece& piece : flagged) {
    const std::size_t k = next[static_cast<std::size_t>(piece.owner)]++;
    if (k == segments.size()) segments.emplace_back();
    segments[k].push_back(piece);
  }
  return segments;
}

// The flagged pieces once more, exactly: the same schedule with `identity`.
struct Again {
  std::optional<Schedule> schedule;
  std::optional<Runner> runner;
};

void prepare_again(Transport& transport, const Call& call, const Prepared& first, int tag,
                   Workspace& workspace, Again& made) {
  static const std::shared_ptr<const Codec> identity = make_codec("identity");
  const Problem problem = problem_of(transport, call, *identity);
  made.schedule = call.algorithm->build_pieces(problem, regroup(first.runner->flagged(), transport.size()));
  made.runner.emplace(
      *made.schedule,
      Binding{.in = first.in, .out = first.out, .codec = identity.get(), .checksum = call.checksum},
      transport, tag + kTagsOfAPass, workspace);
}

struct Parted {
  std::size_t bytes_sent = 0;
  std::optional<Error> unheard;  // what keeps this rank from knowing that all goes well; the others go on
};

// The end of a schedule, where all throw what any has found. With checksums, any rank may have found
// something, so all meet. Without them ranks meet only where all have reason to: an owner has told all of
// something that went wrong, or of pieces to send again. A rank that has failed by itself, and may have
// missed just that, leaves word for those who meet.
Parted require_sound(Transport& transport, const Call& call, const Runner& runner,
                     const std::optional<Error>& failure, int first_tag, Workspace& workspace) {
  const bool all_know = runner.told() || !runner.flagged().empty();
  if (!call.checksum && !all_know && !failure) return {};
  std::vector<std::uint64_t> again;
  for (const Piece& piece : runner.flagged()) again.push_back(piece.range.offset);
  std::sort(again.begin(), again.end());
  Agreement agreement(
      transport,
      {{"pieces_to_send_again",
        std::to_string(again.size()) + " (" + std::to_string(hash(std::as_bytes(std::span(again)))) + ")"}},
      failure);
  if (call.checksum || transport.size() == 1) {
    agreement.require();
    return {};
  }
  const auto memory = workspace.messages.reserve(Agreement::part_bytes(transport.size()));
  if (all_know) {
    auto unheard = agreement.tell_and_hear(first_tag + kLastWord, memory);
    if (unheard && runner.told()) throw *unheard;  // all have something to throw
    return {agreement.bytes_sent(), unheard};
  }
  agreement.tell(first_tag + kLastWord, memory);
  throw *failure;
}

CallResult run(Transport& transport, const Call& call, Prepared& made, Agreement* agreement, int tag,
               Workspace& workspace) {
  Runner& runner = *made.runner;
  if (!agreement) runner.open_gate();
  while (!runner.done() || runner.gated()) {
    if (runner.gated() && agreement->done()) {
      if (!agreement->reached()) {
        runner.roll_back();
        agreement->explain();
      }
      runner.open_gate();
    } else if (runner.done()) {  // nothing to do here, yet others may think otherwise
      transport.progress(Transport::Wait::yes);
    } else {
      runner.advance(Transport::Wait::yes);
    }
  }
  // What may fail on one rank alone comes before the ranks meet.
  Again again;
  std::optional<Error> failure = runner.failure();
  if (!failure && !runner.flagged().empty()) {
    failure = failure_of([&] { prepare_again(transport, call, made, tag, workspace, again); });
  }
  const Parted parted = require_sound(transport, call, runner, failure, tag, workspace);

  CallResult result{.bytes_sent = runner.bytes_sent() + parted.bytes_sent};
  if (again.runner) {
    for (const auto& [owner, range] : runner.flagged()) {
      result.exact_count += std::min(range.end(), call.in.count) - std::min(range.offset, call.in.count);
    }
    if (parted.unheard) again.runner->spoil(*parted.unheard);
    again.runner->open_gate();
    while (!again.runner->done()) again.runner->advance(Transport::Wait::yes);
    require_sound(transport, call, *again.runner, again.runner->failure(), tag + kTagsOfAPass, workspace);
    result.bytes_sent += again.runner->bytes_sent();
  }
  if (made.out.count != call.out.count) std::memcpy(call.out.data, made.out.data, call.out.bytes());
  return result;
}

}  // namespace

void check_pair(const Transport& transport, const Call& call) {
  check_pair(*call.algorithm, problem_of(transport, call, *call.codec));
}

void decline(const Transport& transport, const Call& call) {
  FeedbackState& state = call.feedback->state();
  if (state.bound || !state.owed.empty()) return;
  state.shape = shape_of(transport, call, 0, {});
  state.declined = true;
}

void require_agreement(Transport& transport, const Call& call) {
  transport.take_tags(kTagsOfACall);  // as the call itself, to which other ranks may have gone
  Agreement(transport, call.failure ? Agreement::Fields{} : describe(call), call.failure).require();
}

CallResult allreduce(Transport& transport, const Call& call, Workspace& workspace) {
  const int tag = transport.take_tags(kTagsOfACall);
  Prepared made;
  std::optional<Error> failure = call.failure;
  if (!failure) failure = failure_of([&] { prepare(transport, call, tag, workspace, made); });
  try {
    CallResult result;
    if (!call.agree || transport.size() == 1) {
      if (failure) throw *failure;
      result = run(transport, call, made, nullptr, tag, workspace);
    } else {
      Agreement agreement(transport, failure ? Agreement::Fields{} : describe(call), failure);
      if (failure) agreement.require();
      agreement.start();
      result = run(transport, call, made, &agreement, tag, workspace);
    }
    if (made.feedback) ++made.feedback->state().calls;
    return result;
  } catch (...) {
    // if nothing was sent, nothing is owed yet, and it stays free for any tensor
    const bool sent = made.runner && !made.runner->gated();
    if (made.feedback && made.before && !sent) made.feedback->state() = std::move(*made.before);
    throw;
  }
}

}  // namespace terse::inline v0_1

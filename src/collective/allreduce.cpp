// SPDX-License-Identifier: Apache-2.0
#include "collective/allreduce.hpp"

#include <algorithm>
#include <array>
#include <new>
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
  explicit Lease(Feedback* feedback) : state_(feedback ? &feedback->state() : nullptr) {
    if (state_) state_->in_use = true;
  }
  ~Lease() {
    if (state_) state_->in_use = false;
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  FeedbackState* state_;
};

// Everything of a call that may fail on one rank alone, done before anything is told to the others.
struct Prepared {
  Feedback* feedback = nullptr;  // in use by this call
  bool fresh = false;            // that Feedback was empty before
  std::optional<Runner> runner;
};

Problem problem_of(const Transport& transport, const Call& call, const Codec& codec) {
  return {.rank = transport.rank(),
          .ranks = transport.size(),
          .count = call.in.count,
          .dtype = call.in.dtype,
          .op = call.op,
          .codec = &codec,
          .feedback = call.feedback != nullptr && call.algorithm->compresses && !codec.traits().lossless,
          .segment_bytes = call.segment_bytes,
          .trailer_bytes = call.checksum ? kTrailerBytes : 0};
}

void prepare(Transport& transport, const Call& call, int tag, Workspace& workspace, Prepared& made) {
  const Problem problem = problem_of(transport, call, *call.codec);
  if (call.algorithm->check) call.algorithm->check(problem);
  Binding binding = {.in = call.in,
                     .out = call.out,
                     .codec = call.codec.get(),
                     .factor = call.op == Op::sum && !call.codec->traits().lossless ? transport.size() : 1.0,
                     .checksum = call.checksum};
  if (problem.feedback) {
    const Range own = call.algorithm->chunks(problem)[static_cast<std::size_t>(transport.rank())];
    FeedbackState& state = call.feedback->state();
    made.fresh = !state.bound && state.owed.empty();
    state.bind({.count = call.in.count,
                .dtype = call.in.dtype,
                .codec = call.codec->spec(),
                .algorithm = std::string(call.algorithm->name),
                .rank = static_cast<std::uint32_t>(transport.rank()),
                .ranks = static_cast<std::uint32_t>(transport.size()),
                .server_begin = own.offset,
                .server_count = own.count});
    made.feedback = call.feedback;
    binding.worker = state.worker_view();
    binding.server = state.server_view();
    binding.chunk_begin = own.offset;
  }
  made.runner.emplace(workspace.schedule_for(*call.algorithm, problem), binding, transport, tag, workspace);
}

Agreement::Fields describe(const Call& call) {
  Agreement::Fields fields = {{"count", std::to_string(call.in.count)},
                              {"dtype", std::string(name(call.in.dtype))},
                              {"op", std::string(name(call.op))},
                              {"codec", call.codec->spec()},
                              {"algorithm", std::string(call.algorithm->name)},
                              {"segment_bytes", std::to_string(call.segment_bytes)},
                              {"feedback", "none"},
                              {"checksums", call.checksum ? "on" : "off"}};
  if (call.feedback) fields[6].second = "after " + std::to_string(call.feedback->calls()) + " calls";
  return fields;
}

// The end of a schedule. Where ranks may have come to different ends, they meet, and all throw what any has
// found.
void require_sound(Transport& transport, const Call& call, const Runner& runner) {
  if (!call.checksum && !runner.must_meet()) {
    if (runner.failure()) throw *runner.failure();
    return;
  }
  std::vector<std::uint64_t> again;
  for (const Piece& piece : runner.flagged()) again.push_back(piece.range.offset);
  std::sort(again.begin(), again.end());
  Agreement end(transport,
                {{"pieces_to_send_again", std::to_string(again.size()) + " (" +
                                              std::to_string(hash(std::as_bytes(std::span(again)))) + ")"}},
                runner.failure());
  if (transport.size() == 1) {
    if (runner.failure()) throw *runner.failure();
    return;
  }
  end.start();
  while (!end.done()) transport.progress(Transport::Wait::yes);
  if (!end.reached()) end.explain();
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

// Sends pieces again, exactly: the same schedule with `identity`. Returns the bytes sent.
std::size_t send_exactly(Transport& transport, const Call& call, int tag, const std::vector<Piece>& flagged,
                         Workspace& workspace) {
  static const std::shared_ptr<const Codec> identity = make_codec("identity");
  const Problem problem = problem_of(transport, call, *identity);
  const Schedule schedule = call.algorithm->build_pieces(problem, regroup(flagged, transport.size()));
  Runner runner(schedule,
                {.in = call.in, .out = call.out, .codec = identity.get(), .checksum = call.checksum},
                transport, tag, workspace);
  runner.open_gate();
  while (!runner.done()) runner.advance(Transport::Wait::yes);
  require_sound(transport, call, runner);
  return runner.bytes_sent();
}

CallResult run(Transport& transport, const Call& call, Runner& runner, Agreement* agreement, int tag,
               Workspace& workspace) {
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
  require_sound(transport, call, runner);

  CallResult result{.bytes_sent = runner.bytes_sent()};
  if (!runner.flagged().empty()) {
    for (const Piece& piece : runner.flagged()) result.exact_count += piece.range.count;
    result.bytes_sent += send_exactly(transport, call, tag, runner.flagged(), workspace);
  }
  return result;
}

}  // namespace

void require_agreement(Transport& transport, const Call& call, const std::string& purpose) {
  Agreement::Fields fields;
  if (!call.failure) {
    fields = describe(call);
    fields.emplace_back("purpose", purpose);
  }
  Agreement agreement(transport, fields, call.failure);
  agreement.start();
  while (!agreement.done()) transport.progress(Transport::Wait::yes);
  if (!agreement.reached()) agreement.explain();
}

CallResult allreduce(Transport& transport, const Call& call, Workspace& workspace) {
  const int tag = transport.take_tags(Schedule::kChannels);
  std::optional<Error> failure = call.failure;
  Prepared made;
  if (!failure) {
    try {
      prepare(transport, call, tag, workspace, made);
    } catch (const Error& error) {
      failure = error;
    } catch (const std::bad_alloc&) {
      failure = Error(ErrorCode::out_of_memory, "no memory for the schedule of this call");
    }
  }
  const Lease lease(made.feedback);
  try {
    CallResult result;
    if (!call.agree || transport.size() == 1) {
      if (failure) throw *failure;
      result = run(transport, call, *made.runner, nullptr, tag, workspace);
    } else {
      Agreement agreement(transport, failure ? Agreement::Fields{} : describe(call), failure);
      agreement.start();
      if (failure) {
        while (!agreement.done()) transport.progress(Transport::Wait::yes);
        agreement.explain();
      }
      result = run(transport, call, *made.runner, &agreement, tag, workspace);
    }
    if (made.feedback) ++made.feedback->state().calls;
    return result;
  } catch (...) {
    if (made.feedback && made.fresh)
      made.feedback->reset();  // nothing is owed yet, so it stays free for any tensor
    throw;
  }
}

}  // namespace terse::inline v0_1

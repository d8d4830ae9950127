// SPDX-License-Identifier: Apache-2.0
#include "collective/allreduce.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "codec/elements.hpp"
#include "codec/internals.hpp"
#include "codec/message.hpp"
#include "core/floating_point.hpp"
#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// A number as text, without memory of its own.
class Digits {
 public:
  explicit Digits(std::uint64_t value)
      : end_(std::to_chars(text_.data(), text_.data() + text_.size(), value).ptr) {}
  operator std::string_view() const { return {text_.data(), static_cast<std::size_t>(end_ - text_.data())}; }

 private:
  std::array<char, 20> text_;
  char* end_;
};

void visit_feedback(const Feedback* feedback, auto&& value) {
  if (!feedback) return value("none");
  const FeedbackState& state = state_of(*feedback);
  if (state.declined) {
    value("with plain MPI chosen by auto");
  } else {
    value("after ");
    value(Digits(state.calls));
    value(" calls");
  }
  if (state.residual_type != ResidualType::full) {
    value(", residuals in ");
    value(name(state.residual_type));
  }
}

// What ranks must have in common: calls name(...) and then value(...), each once or more, for each. For its
// hash and for its text, and without memory of its own.
void visit_terms(const Call& call, std::size_t segment_bytes, auto&& name, auto&& value) {
  const auto field = [&](std::string_view n, std::string_view v) {
    name(n);
    value(v);
  };
  for (const Term& term : call.terms) field(term.name, term.value);
  if (call.terms.empty()) field("algorithm", call.algorithm->name);
  field("count", Digits(call.count()));
  field("dtype", terse::name(call.dtype()));
  field("op", terse::name(call.op));
  field("codec", call.codec->spec());
  field("segment_bytes", Digits(segment_bytes));
  field("checksums", call.checksum ? "on" : "off");
  if (call.rows != 0) field("rows", Digits(call.rows));
  if (call.tensors.empty()) {
    name("feedback");
    visit_feedback(call.feedback, value);
    return;
  }
  field("tensors", Digits(call.tensors.size()));
  for (const CallTensor& tensor : call.tensors) {
    name("tensor ");
    name(Digits(static_cast<std::size_t>(&tensor - call.tensors.data())));
    value(Digits(tensor.in.count));
    value(" elements");
    if (tensor.rows != 0) {
      value(" in ");
      value(Digits(tensor.rows));
      value(" rows");
    }
    value(", feedback ");
    visit_feedback(tensor.feedback, value);
  }
}

std::uint64_t digest_of(const Call& call, std::size_t segment_bytes) {
  std::uint64_t digest = 0;
  const auto add = [&](std::string_view text) { digest = hash(std::as_bytes(std::span(text)), digest); };
  visit_terms(call, segment_bytes, add, add);
  return digest;
}

ErrorReports::Fields fields_of(const Call& call, std::size_t segment_bytes) {
  ErrorReports::Fields fields;
  bool named = false;
  visit_terms(
      call, segment_bytes,
      [&](std::string_view name) {
        if (!std::exchange(named, true)) fields.emplace_back();
        fields.back().first += name;
      },
      [&](std::string_view value) {
        named = false;
        fields.back().second += value;
      });
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

bool keeps_residuals(const Call& call, const Feedback* feedback, const Codec& codec) {
  return feedback && call.algorithm->compresses && !codec.traits().lossless;
}

std::span<const CallTensor> tensors_of(const Call& call, CallTensor& single) {
  single = {call.in, call.out, call.feedback, call.rows};
  return call.tensors.empty() ? std::span<const CallTensor>(&single, 1) : call.tensors;
}

FeedbackShapeView shape_of(const Transport& transport, const Call& call, std::size_t count,
                           const std::array<ResidualShape, kMostPhases>& residuals) {
  return {.count = count,
          .dtype = call.dtype(),
          .codec = call.codec->spec(),
          .algorithm = call.algorithm->name,
          .rank = static_cast<std::uint32_t>(transport.rank()),
          .ranks = static_cast<std::uint32_t>(transport.size()),
          .residuals = residuals,
          .owns = call.algorithm->chunks != nullptr};
}

// What EncodeContext::limit is for: where nobody owns a sum, nobody encodes it again and finds that it is
// infinite. An average is rounded to the tensor's type only after its division. The last factor is for
// roundings, of which those to bf16 are the largest.
double limit_for_sums(const Call& call, int ranks) {
  constexpr double kRoundings = 1 - 0x1p-7;
  if (!call.algorithm->compresses || call.algorithm->chunks != nullptr) {
    return std::numeric_limits<double>::infinity();
  }
  const DType summed = call.op == Op::sum ? call.dtype() : accumulator_of(call.dtype());
  return kRoundings * largest_finite(summed) / ranks;
}

// Bytes of elements in a segment, where all ranks' tensors are in such memory: as was asked for, or the
// model's.
std::size_t segment_bytes_of(const Call& call, int ranks, Memory memory) {
  if (call.segment_bytes) return *call.segment_bytes;
  return model_segment_bytes(*call.codec, call.count(), call.dtype(), ranks, memory);
}

// What the codec keeps for a tensor, whose rows matter only where it keeps something.
CodecState codec_state_of(const Codec& codec, DType dtype, const CallTensor& tensor) {
  const std::size_t bytes = codec.state_bytes(tensor.in.count, dtype, tensor.rows);
  return {.bytes = bytes, .rows = bytes == 0 ? 0 : tensor.rows};
}

Range overlap_of(const Range& tensor, const Range& chunk) {
  const std::size_t begin = std::clamp(chunk.offset, tensor.offset, tensor.end());
  const std::size_t end = std::clamp(chunk.end(), begin, std::max(begin, tensor.end()));
  return {begin - tensor.offset, end - begin};
}

}  // namespace

std::size_t Call::count() const noexcept {
  if (tensors.empty()) return in.count;
  std::size_t total = 0;
  for (const CallTensor& one : tensors) total += one.in.count;
  return total;
}

void require_agreement(Transport& transport, const Call& call) {
  const int tag =
      transport.take_tags(kTagsOfACall);  // as the call itself, to which other ranks may have gone
  std::optional<Error> failure = call.failure;
  std::size_t segment_bytes = 0;
  if (!failure) {
    failure = failure_of([&] { segment_bytes = segment_bytes_of(call, transport.size(), Memory::host); });
  }
  require_agreement(transport, failure ? 0 : digest_of(call, segment_bytes),
                    failure ? ErrorReports::Fields{} : fields_of(call, segment_bytes), failure,
                    tag + kBeginning);
}

Execution::Execution(Transport& transport, ScheduleCache& schedules, ThreadPool* pool)
    : transport_(transport),
      schedules_(schedules),
      runner_(transport, messages_, pool),
      agreement_(transport),
      reports_(transport) {
  reports_memory_.reserve(ErrorReports::bytes(transport.size()));
}

Execution::~Execution() { release_feedbacks(); }

std::size_t Execution::scratch_bytes() const noexcept {
  const std::size_t on_device =
      side_ ? side_->messages.size() + side_->on_host.size() + side_->reports.size() + side_->tensors.size()
            : 0;
  return messages_.size() + flat_.size() + reports_memory_.size() + on_device;
}

void Execution::start(const Call& call, std::uint64_t number) noexcept {
  try {
    call_ = call;
    number_ = number;
    keep_terms(call.terms);
    CallTensor single;
    const auto tensors = tensors_of(call, single);
    tensors_.assign(tensors.begin(), tensors.end());
    if (!call.tensors.empty()) call_.tensors = tensors_;
    result_ = {};
    error_ = {};
    arrival_.reset();
    sent_ = false;
    flagged_.clear();
    tag_ = transport_.take_tags(kTagsOfACall);
    failure_ = call_.failure;
    if (!failure_) failure_ = failure_of([&] { prepare(); });
    agreed_ = !call_.agree || transport_.size() == 1;
    if (!agreed_) {
      const auto fit = call_.device < 0 ? Agreement::Stand::host_tensor : Agreement::Stand::well;
      agreement_.start(failure_ ? 0 : digest_of(call_, segment_bytes_),
                       failure_ ? Agreement::Stand::failed : fit, tag_ + kBeginning);
      phase_ = failure_ ? Phase::refusing : Phase::running;
    } else if (failure_) {
      throw *failure_;
    } else {
      runner_.open_gate();
      phase_ = Phase::running;
    }
  } catch (...) {
    fail(std::current_exception());
  }
}

void Execution::keep_terms(std::span<const Term> terms) {
  std::size_t length = 0;
  for (const Term& term : terms) length += term.name.size() + term.value.size();
  term_text_.clear();
  term_text_.reserve(length);  // so that nothing moves below
  terms_.clear();
  const auto keep = [&](std::string_view text) {
    const std::size_t at = term_text_.size();
    term_text_.append(text);
    return std::string_view(term_text_).substr(at);
  };
  for (const Term& term : terms) {
    const std::string_view name = keep(term.name);
    terms_.push_back({name, keep(term.value)});
  }
  call_.terms = terms_;
}

Problem Execution::problem_of(const Codec& codec) const {
  return {
      .rank = transport_.rank(),
      .ranks = transport_.size(),
      .count = layout_.back().end(),
      .tensors = layout_.size() > 1 ? std::span<const Range>(layout_) : std::span<const Range>(),
      .rows = rows_,
      .dtype = call_.dtype(),
      .op = call_.op,
      .codec = &codec,
      .feedback = std::any_of(tensors_.begin(), tensors_.end(),
                              [&](const CallTensor& t) { return keeps_residuals(call_, t.feedback, codec); }),
      .segment_bytes = segment_bytes_,
      .trailer_bytes = kTrailerBytes};
}

// Everything that may fail on one rank alone, done before anything is told to the others.
void Execution::prepare() {
  const DefaultFloatingPoint mode;  // sizes of messages and pieces are computed with fractions
  segment_bytes_ = segment_bytes_of(call_, transport_.size(), Memory::host);
  const bool compresses = call_.algorithm->compresses;
  const bool on_device = call_.device >= 0;
  layout_.clear();
  bound_.clear();
  rows_.clear();
  bool has_rows = false;
  fallback_schedule_.reset();
  if (on_device) side().queue.follow(call_.stream);
  if (!compresses && (tensors_.size() > 1 || (on_device && !takes_device_memory()))) {
    pad(call_.count());  // one reduction of all
  } else if (const std::size_t padded =
                 padded_count(*call_.algorithm, tensors_[0].in.count, transport_.size());
             padded != tensors_[0].in.count) {
    pad(padded);
  } else {
    for (const CallTensor& tensor : tensors_) {
      append(layout_, tensor.in.count, call_.codec->traits().block);
      bound_.push_back({.in = tensor.in, .out = tensor.out, .rows = tensor.rows});
      has_rows = has_rows || tensor.rows != 0;
      rows_.push_back(tensor.rows);
    }
  }
  if (!has_rows || rounds_of(*call_.codec) == nullptr) rows_.clear();  // schedules depend on rounds' alone
  const Problem problem = problem_of(*call_.codec);
  auto schedule = schedules_.schedule_for(*call_.algorithm, problem);
  if (problem.feedback) {
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
      if (!keeps_residuals(call_, tensors_[t].feedback, *call_.codec)) continue;
      FeedbackState& state = state_of(*tensors_[t].feedback);
      if (std::atomic_ref(state.in_use).exchange(true)) {
        throw Error(ErrorCode::invalid_state,
                    "this Feedback is in use by another call: each tensor needs one of its own");
      }
      leases_.push_back({&state, !state.bound && state.owed.empty(),
                         state.declined ? std::optional(state.shape) : std::nullopt});
      std::array<ResidualShape, kMostPhases> residuals{};
      for (std::size_t phase = 0; phase < schedule->residuals().size(); ++phase) {
        const Range own = overlap_of(layout_[t], schedule->residuals()[phase]);
        residuals[phase] = {own.offset, own.count};
      }
      state.bind(shape_of(transport_, call_, tensors_[t].in.count, residuals),
                 codec_state_of(*call_.codec, call_.dtype(), tensors_[t]),
                 on_device ? &side_->queue : nullptr);
      for (std::size_t phase = 0; phase < schedule->residuals().size(); ++phase) {
        bound_[t].residuals[phase] = {state.view(phase), residuals[phase].begin};
      }
      bound_[t].state = state.copy_state();
    }
  }
  begin(schedule);
  if (on_device && compresses && !call_.segment_bytes && (call_.agree || transport_.size() == 1)) {
    Problem longer = problem;
    longer.segment_bytes = segment_bytes_of(call_, transport_.size(), Memory::cuda);
    // nothing that is needed from here on is more than the two have asked for
    begin(schedules_.schedule_for(*call_.algorithm, longer));
    if (transport_.size() > 1) fallback_schedule_ = std::move(schedule);
  }
  // what goes to MPI as it is must be there; kernels wait by themselves
  if (on_device && !compresses) arrival_ = side_->queue.mark();
}

void Execution::begin(std::shared_ptr<const Schedule> schedule) {
  const bool compresses = call_.algorithm->compresses;
  runner_.begin(std::move(schedule),
                {.layout = layout_,
                 .tensors = bound_,
                 .codecs = {call_.codec.get()},
                 .dtype = call_.dtype(),
                 .call = number_,
                 .limit = limit_for_sums(call_, transport_.size()),
                 .checksum = call_.checksum,
                 .blocks = call_.blocks,
                 .device = call_.device >= 0 && (compresses || takes_device_memory()) ? side_.get() : nullptr,
                 .direct = call_.direct},
                tag_);
}

// Whether an exact reduction is done where the tensors are. Sums of 16-bit elements are the transport's own
// affair, which the host computes; and MPI libraries that take device memory need not do so in nonblocking
// collectives.
bool Execution::takes_device_memory() const {
  return call_.direct && call_.blocks && tensors_.size() == 1 && size_of(call_.dtype()) != sizeof(float16);
}

DeviceSide& Execution::side() {
  if (!side_ || side_->queue.device() != call_.device) side_ = std::make_unique<DeviceSide>(call_.device);
  return *side_;
}

// The tensors one behind the other, with zeros behind them, as one tensor of `count` elements; on the host,
// once they have arrived there.
void Execution::pad(std::size_t count) {
  const DType dtype = call_.dtype();
  const std::size_t bytes = count * size_of(dtype);
  const bool on_device = call_.device >= 0;
  const auto memory = on_device ? side_->tensors.reserve(call_.device, bytes) : flat_.reserve(bytes);
  std::size_t at = 0;
  for (const CallTensor& tensor : tensors_) {
    if (on_device) {
      side_->queue.copy(memory.data() + at, tensor.in.data, tensor.in.bytes());
    } else if (tensor.in.bytes() != 0) {
      std::memcpy(memory.data() + at, tensor.in.data, tensor.in.bytes());
    }
    at += tensor.in.bytes();
  }
  std::fill(memory.begin() + static_cast<std::ptrdiff_t>(at), memory.end(), std::byte{0});
  append(layout_, count, 1);
  const View all{memory.data(), count, dtype};
  bound_.push_back({.in = all, .out = all});
}

void Execution::unpad() {
  if (bound_[0].out.data == tensors_[0].out.data) return;
  const auto* from = static_cast<const std::byte*>(bound_[0].out.data);
  for (const CallTensor& tensor : tensors_) {
    if (call_.device >= 0) {
      side_->queue.copy(tensor.out.data, from, tensor.out.bytes());
    } else if (tensor.out.bytes() != 0) {
      std::memcpy(tensor.out.data, from, tensor.out.bytes());
    }
    from += tensor.out.bytes();
  }
  if (call_.device >= 0) side_->queue.wait();
}

void Execution::release_feedbacks() noexcept {
  for (const Lease& lease : leases_) std::atomic_ref(lease.state->in_use).store(false);
  leases_.clear();
}

bool Execution::advance(Runner::Collectives collectives) noexcept {
  try {
    switch (phase_) {
      case Phase::done:
        return false;
      case Phase::refusing:
        agreement_.advance();
        if (agreement_.done()) explain(tag_ + kBeginning + 1);
        return false;
      case Phase::running:
        if (!agreed_) {
          agreement_.advance();
          if (agreement_.done()) {
            if (!agreement_.reached()) {
              runner_.roll_back();
              explain(tag_ + kBeginning + 1);
              return false;
            }
            agreed_ = true;
            result_.bytes_sent += agreement_.bytes_sent();
            if (fallback_schedule_ && agreement_.any_host_tensor()) begin(std::move(fallback_schedule_));
            runner_.open_gate();
          } else if (fallback_schedule_) {
            return false;
          }
        }
        if (arrival_) {
          if (!side_->queue.reached(*arrival_)) return false;
          arrival_.reset();
        }
        [[fallthrough]];
      case Phase::again: {
        const bool computed = runner_.advance(collectives);
        if (runner_.done() && !runner_.gated()) end_pass();
        return computed;
      }
      case Phase::closing:
      case Phase::closing_again:
        agreement_.advance();
        if (agreement_.done()) end_closing();
        return false;
      case Phase::explaining:
        if (reports_.done()) throw AgreedError(reports_.verdict().agreed());
        return false;
      case Phase::reporting:
      case Phase::reporting_again:
        if (reports_.done()) end_reporting();
        return false;
    }
  } catch (...) {
    fail(std::current_exception());
  }
  return false;
}

void Execution::explain(int tag) {
  const bool of_the_call = tag == tag_ + kBeginning + 1;
  phase_ = Phase::explaining;
  reports_.start(failure_      ? ErrorReports::Fields{}
                 : of_the_call ? fields_of(call_, segment_bytes_)
                               : fields_of_pass(),
                 failure_, tag, reports_memory_.reserve(ErrorReports::bytes(transport_.size())),
                 ErrorReports::Hears::yes);
}

// Of the pieces to send again, which are in tensor order.
std::uint64_t Execution::digest_of_pass() const {
  std::uint64_t digest = flagged_.size();
  for (const Piece& piece : flagged_) {
    const std::array<std::uint64_t, 1> offset = {piece.range.offset};
    digest = hash(std::as_bytes(std::span(offset)), digest);
  }
  return digest;
}

ErrorReports::Fields Execution::fields_of_pass() const {
  return {{"pieces_to_send_again",
           std::to_string(flagged_.size()) + " (" + std::to_string(digest_of_pass()) + ")"}};
}

// The end of a schedule, where all throw what any has found. With checksums, any rank may have found
// something, so all agree once more. Without them ranks do so only where all have reason to: an owner has
// told all of something that went wrong, or of pieces to resend. A rank that has failed by itself, and may
// have missed just that, sends its error report to those that agree.
void Execution::end_pass() {
  const bool first = phase_ == Phase::running;
  sent_ = true;
  result_.bytes_sent += runner_.bytes_sent();
  flagged_ = runner_.flagged();
  std::sort(flagged_.begin(), flagged_.end(),
            [](const Piece& a, const Piece& b) { return a.range.offset < b.range.offset; });
  remote_failure_ = runner_.remote_failure();
  failure_ = runner_.failure();
  // what may fail on one rank alone comes before the ranks meet
  if (first && !failure_ && !flagged_.empty()) failure_ = failure_of([&] { prepare_again(); });
  all_know_ = remote_failure_ || !flagged_.empty();
  if (!call_.checksum && !all_know_ && !failure_) return after_pass(first);
  if (transport_.size() == 1) {
    if (failure_) throw AgreedError(*failure_);
    return after_pass(first);
  }
  if (call_.checksum) {
    phase_ = first ? Phase::closing : Phase::closing_again;
    agreement_.start(failure_ ? 0 : digest_of_pass(),
                     failure_ ? Agreement::Stand::failed : Agreement::Stand::well,
                     tag_ + kClosing + (first ? 0 : 2));
    return;
  }
  phase_ = first ? Phase::reporting : Phase::reporting_again;
  reports_.start(failure_ ? ErrorReports::Fields{} : fields_of_pass(), failure_,
                 tag_ + kErrorReports + (first ? 0 : kTagsOfAPass),
                 reports_memory_.reserve(ErrorReports::bytes(transport_.size())),
                 all_know_ ? ErrorReports::Hears::yes : ErrorReports::Hears::no);
}

void Execution::end_closing() {
  const bool first = phase_ == Phase::closing;
  result_.bytes_sent += agreement_.bytes_sent();
  if (agreement_.reached()) return after_pass(first);
  explain(tag_ + kClosing + (first ? 1 : 3));
}

void Execution::end_reporting() {
  const bool first = phase_ == Phase::reporting;
  result_.bytes_sent += reports_.bytes_sent();
  if (!all_know_) throw *failure_;
  const ErrorReports::Verdict verdict = reports_.verdict();
  if (verdict.error) throw *verdict.error;
  if (verdict.unheard && remote_failure_) throw *verdict.unheard;  // all have something to throw
  if (verdict.unheard) {
    // what keeps this rank from knowing that all goes well; the others go on
    if (!first) throw *verdict.unheard;
    runner_.poison(*verdict.unheard);
  }
  after_pass(first);
}

void Execution::after_pass(bool first) {
  if (!first || flagged_.empty()) return succeed();
  for (const Piece& piece : flagged_) {
    for_each_fragment(layout_, piece.range, [&](std::size_t t, const Range& own) {
      const std::size_t count = layout_.size() == 1 ? call_.count() : layout_[t].count;  // without padding
      result_.exact_count += std::min(own.end(), count) - std::min(own.offset, count);
    });
  }
  runner_.open_gate();
  phase_ = Phase::again;
}

// The flagged pieces once more, exactly: the same schedule with `identity`.
void Execution::prepare_again() {
  const DefaultFloatingPoint mode;
  // never destroyed, for calls while the process exits
  static const auto& identity = *new std::shared_ptr<const Codec>(make_codec("identity"));
  for (BoundTensor& tensor : bound_) tensor.residuals = {};
  runner_.begin(std::make_shared<const Schedule>(call_.algorithm->build_pieces(
                    problem_of(*identity), regroup(flagged_, transport_.size()))),
                {.layout = layout_,
                 .tensors = bound_,
                 .codecs = {identity.get()},
                 .dtype = call_.dtype(),
                 .checksum = call_.checksum,
                 .device = call_.device >= 0 ? side_.get() : nullptr,
                 .direct = call_.direct},
                tag_ + kTagsOfAPass);
}

void Execution::decline() {
  const auto holds = [](const CallTensor& tensor) {
    return tensor.feedback && (state_of(*tensor.feedback).bound || !state_of(*tensor.feedback).owed.empty());
  };
  if (std::any_of(tensors_.begin(), tensors_.end(), holds)) return;
  for (const CallTensor& tensor : tensors_) {
    if (!tensor.feedback) continue;
    FeedbackState& state = state_of(*tensor.feedback);
    if (!state.declined) state.shape = owned(shape_of(transport_, call_, tensor.in.count, {}));
    state.declined = true;
  }
}

void Execution::succeed() {
  unpad();
  if (call_.declines) decline();
  for (const Lease& lease : leases_) {
    ++lease.state->calls;
    lease.state->keep_state();
  }
  release_feedbacks();
  phase_ = Phase::done;
}

void Execution::fail(std::exception_ptr error) noexcept {
  error_ = std::move(error);
  runner_.settle();
  if (runner_.has_transfers()) transport_.abandon();  // they may still read and write this call's memory
  if (side_) {
    try {
      side_->queue.wait();  // the tensors are the caller's again
      if (arrival_) side_->queue.reached(*arrival_);
    } catch (...) {
      // the device has failed: nothing is under way there
    }
    arrival_.reset();
  }
  // if nothing was sent, nothing is owed yet, and a Feedback stays free for any tensor
  const bool sent = sent_ || (phase_ == Phase::running && !runner_.gated());
  for (const Lease& lease : leases_) {
    if (!lease.fresh || sent) continue;
    lease.state->unbind();
    lease.state->declined = lease.declined.has_value();
    if (lease.declined) lease.state->shape = *lease.declined;
  }
  release_feedbacks();
  phase_ = Phase::done;
}

CallResult Execution::finish() {
  call_.codec.reset();
  if (error_) std::rethrow_exception(std::exchange(error_, {}));
  return result_;
}

}  // namespace terse::inline v0_1

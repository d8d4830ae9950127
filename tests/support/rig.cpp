// SPDX-License-Identifier: Apache-2.0
#include "support/rig.hpp"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"

namespace terse::test {
namespace {

std::size_t index_of(int rank) { return static_cast<std::size_t>(rank); }

// The residuals where this test can read them.
Feedback on_host(const Feedback& held) {
  Feedback copy(held.residual_type());
  copy.load(held.save());
  return copy;
}

// Whether signs of sums are a matter of rounding: where each value's sign counts alone, it is what it is.
bool sums_signs(const Rig& rig) { return first_name(*rig.codec()) == "onebit" && rig.owns(); }

}  // namespace

std::string text_of(const Setting& s) {
  return s.codec + " by " + s.algorithm + " on " + std::to_string(s.ranks) + " ranks, " +
         std::to_string(s.count) + " " + std::string(name(s.dtype)) + ", " + std::string(name(s.op)) +
         (s.feedback ? ", feedback " + std::string(name(s.residual)) : "") +
         (s.in_place ? ", in place" : "") + (s.checksum ? ", checksum" : "") + ", " +
         std::string(name(s.style)) +
         (s.models_segments ? ", the model's segments" : ", segments of " + std::to_string(s.segment_bytes));
}

std::string_view name(Style style) noexcept {
  constexpr std::array<std::string_view, std::size(kAllStyles)> kNames = {
      "blocking", "nonblocking", "in a list", "by three threads", "with a progress thread"};
  return kNames[static_cast<std::size_t>(style)];
}

CallResult make_call(Style style, Transport& transport, Call call) {
  const CallTensor only{call.in, call.out, call.feedback};
  Engine::Options options;
  switch (style) {
    case Style::blocking:
      break;
    case Style::list:
      call.tensors = {&only, 1};
      call.in = call.out = {};
      call.feedback = nullptr;
      break;
    case Style::threads:
      options.threads = 3;
      break;
    case Style::nonblocking:
      break;
    case Style::progress_thread:
      options.progress = Engine::Progress::thread;
      break;
  }
  Engine engine(transport, options);
  if (style != Style::nonblocking && style != Style::progress_thread) return engine.run(call);
  Execution& execution = engine.start(call);
  for (int i = 0; i < 20 && !engine.test(execution); ++i) std::this_thread::yield();
  return engine.finish(execution);
}

bool Rig::Result::failed() const {
  return std::any_of(errors.begin(), errors.end(), [](const std::string& e) { return !e.empty(); });
}

Rig::Rig(const Setting& setting) : setting_(setting), codec_(make_codec(setting.codec)) {
  for (int r = 0; r < setting.ranks; ++r) feedbacks_.emplace_back(setting.residual);
}

Problem Rig::problem(int rank) const {
  Problem problem;
  problem.rank = rank;
  problem.ranks = setting_.ranks;
  problem.count = padded_count(algorithm(), setting_.count, setting_.ranks);
  problem.dtype = setting_.dtype;
  problem.op = setting_.op;
  problem.codec = codec_.get();
  problem.feedback = setting_.feedback && !codec_->traits().lossless;
  problem.segment_bytes = setting_.segment_bytes;
  return problem;
}

Pairing Rig::pairing(int rank) const {
  return {.algorithm = algorithm(),
          .codec = *codec_,
          .dtype = setting_.dtype,
          .ranks = setting_.ranks,
          .feedback = setting_.feedback,
          .bf16_residuals =
              setting_.feedback && feedbacks_[index_of(rank)].residual_type() == ResidualType::bf16};
}

Rig::Result Rig::empty_result() const {
  const std::size_t ranks = index_of(setting_.ranks);
  return {std::vector<Tensor>(ranks), std::vector<CallResult>(ranks), std::vector<std::string>(ranks),
          std::vector<std::size_t>(ranks)};
}

void Rig::call_on(Transport& transport, const Matrix& inputs, Result& result, const Change& change) {
  const std::size_t rank = index_of(transport.rank());
  Tensor in(inputs[rank], setting_.dtype, setting_.offset);
  const Tensor before = in;
  Tensor& out = result.out[rank];
  out = setting_.in_place ? Tensor() : Tensor(setting_.count, setting_.dtype, setting_.offset);
  for (std::size_t i = 0; i < out.count(); ++i) out.set(i, -77.0);  // not zero: what is not written shows
  Call call;
  call.in = std::as_const(in).view();
  call.out = setting_.in_place ? in.view() : out.view();
  call.codec = codec_;
  call.algorithm = &algorithm();
  call.op = setting_.op;
  call.feedback = setting_.feedback ? &feedbacks_[rank] : nullptr;
  call.segment_bytes =
      setting_.models_segments ? std::optional<std::size_t>() : std::optional(setting_.segment_bytes);
  call.checksum = setting_.checksum;
  try {
    check_pair(pairing(transport.rank()));
  } catch (const Error& error) {
    call.failure = error;
  }
  if (change) change(transport.rank(), call);
  try {
    const auto bring_back = place ? place(transport.rank(), call) : std::function<void()>();
    result.calls[rank] = make_call(setting_.style, transport, call);
    if (bring_back) bring_back();
  } catch (...) {
    result.errors[rank] = sentence_of(std::current_exception());
  }
  if (setting_.in_place) {
    out = std::move(in);
  } else if (!in.same_bits(before)) {
    result.errors[rank] += " [the input was changed]";
  }
  if (!out.guards_intact()) result.errors[rank] += " [written beside the output]";
}

void Rig::call_on(ThreadTransport& transport, const Matrix& inputs, Result& result, const Change& change) {
  // what is sent in a plain MPI_Allreduce is not the call's
  const auto sent = [&] {
    return transport.bytes_sent() + (algorithm().compresses ? transport.bytes_reduced() : 0);
  };
  const std::size_t before = sent();
  call_on(static_cast<Transport&>(transport), inputs, result, change);
  result.wire[index_of(transport.rank())] = sent() - before;
}

Rig::Result Rig::call(const Matrix& inputs, const ThreadOptions& options, const Change& change) {
  Result result = empty_result();
  const auto left = try_ranks(
      setting_.ranks, [&](ThreadTransport& t) { call_on(t, inputs, result, change); }, options);
  for (std::size_t r = 0; r < left.size(); ++r) result.errors[r] += sentence_of(left[r]);
  return result;
}

Rig::Matrix Rig::workers() const {
  Matrix residuals;
  for (const Feedback& held : feedbacks_) {
    const Feedback f = on_host(held);
    residuals.push_back(f.worker().empty() ? std::vector<double>(problem(0).count) : doubles_of(f.worker()));
  }
  return residuals;
}

Rig::Matrix Rig::servers() const {
  Matrix residuals;
  const auto owned = chunks();
  for (std::size_t r = 0; r < feedbacks_.size(); ++r) {
    const Feedback f = on_host(feedbacks_[r]);
    const ConstView server = f.server();
    residuals.push_back(server.empty() ? std::vector<double>(owned[r].count) : doubles_of(server));
  }
  return residuals;
}

std::vector<Range> Rig::chunks() const {
  std::vector<Range> chunks;
  if (algorithm().chunks) chunks = algorithm().chunks(problem(0));
  chunks.resize(index_of(setting_.ranks));
  return chunks;
}

std::vector<Range> Rig::pieces() const {
  std::vector<Range> pieces;
  const Schedule schedule = algorithm().build(problem(0));
  for (const Step& step : schedule.steps()) {
    if (step.out.space == Space::output) pieces.push_back(step.out.elements);
  }
  std::sort(pieces.begin(), pieces.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  return pieces;
}

std::string refusal(const Setting& setting) {
  const Rig rig(setting);
  try {
    check_pair(rig.pairing(0));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::unsupported) return error.what();
    throw;
  }
  return {};
}

SerialModel model_of(const Rig& rig) {
  const Setting& s = rig.setting();
  SerialModel::Options options;
  options.block = rig.codec()->traits().block;
  options.padded = rig.codec()->traits().whole_tensor;
  options.scale = rig.codec()->spec().find("scale=rms") == std::string::npos && !options.padded
                      ? SerialModel::Scale::l1
                      : SerialModel::Scale::rms;
  options.feedback = s.feedback;
  options.average = s.op == Op::average;
  options.round = [dtype = s.dtype](double v) { return round_to(v, dtype); };
  SerialModel model(s.ranks, s.count, options);
  const std::vector<Range> chunks = rig.owns() ? rig.chunks() : std::vector<Range>();
  for (std::size_t r = 0; r < chunks.size(); ++r) {
    const SerialModel::Chunk known = model.chunks()[r];
    if (chunks[r].count == 0 && known.begin == known.end) continue;
    if (chunks[r].offset == known.begin && chunks[r].end() == known.end) continue;
    throw std::logic_error("tests/support/serial_model.cpp: ranks own other chunks with algorithm " +
                           s.algorithm + " than the model deals out: tell it who owns what");
  }
  if (s.feedback) {
    model.worker() = rig.workers();
    model.server() = rig.servers();
  }
  return model;
}

double residual_roundoff(const Setting& setting) {
  const DType kept = residual_of(setting.dtype, setting.residual);
  return kept == accumulator_of(setting.dtype) ? 0 : 1.01 * unit_roundoff(kept);
}

double tolerance_of(DType dtype) {
  // f32 and f64: sums of up to a few thousand terms in 64 lanes. 16-bit types: a scale may round the other
  // way.
  return dtype == DType::f64 ? 64 * unit_roundoff(dtype)
                             : 2.1 * unit_roundoff(dtype) + 32 * unit_roundoff(DType::f32);
}

Rig::Matrix normal_inputs(const Rig& rig, std::uint64_t seed) {
  const Setting& s = rig.setting();
  Rig::Matrix inputs;
  for (int r = 0; r < s.ranks; ++r) inputs.push_back(normal_values(s.count, s.dtype, seed, r));
  if (sums_signs(rig)) {
    const double margin = s.dtype == DType::f64 ? 1e-9 : s.dtype == DType::f32 ? 1e-4 : 0.03;
    model_of(rig).keep_clear(inputs, margin, [dtype = s.dtype](double v) { return round_to(v, dtype); });
  }
  return inputs;
}

Rig::Matrix exact_inputs(const Setting& s, std::uint64_t seed) {
  Rig::Matrix inputs;
  for (int r = 0; r < s.ranks; ++r) inputs.push_back(exact_values(s.count, s.dtype, seed, r));
  return inputs;
}

}  // namespace terse::test

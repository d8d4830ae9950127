// SPDX-License-Identifier: Apache-2.0
#include "call_bench.hpp"

#include <algorithm>
#include <iostream>
#include <utility>

#include "../command_line.hpp"
#include "environment.hpp"
#include "statistics.hpp"

namespace terse::bench {
CallBench::CallBench(const Session& session, std::string_view suite, CallArguments& arguments,
                     const BaselineChoice& baseline)
    : session_(session),
      suite_(suite),
      arguments_(arguments),
      baseline_text_(baseline.text),
      baseline_is_best_(baseline.is_best),
      layout_(ranks_per_host(session)),
      plain_(session, baseline),
      progress_(session.is_root() ? Progress::Use::on_terminal : Progress::Use::off) {
  arguments.sampling.shaped = layout_.size() > 1;
}

Column CallBench::codec_column() const {
  std::size_t longest = 0;
  for (const NamedCodec& codec : arguments_.common.codecs) longest = std::max(longest, codec.spec.size());
  return {"codec", longest, Column::Align::left};
}

Column CallBench::baseline_column() const {
  std::size_t longest = 0;
  for (const auto& entry : plain()) longest = std::max(longest, entry.algorithm.name.size());
  return {"MPI by", longest, Column::Align::left};
}

std::string CallBench::describe() const {
  const CommunicatorOptions& options = arguments_.options;
  std::string text = std::string(name(arguments_.common.dtype)) + ", " + std::string(name(arguments_.op)) +
                     ", algorithm " + options.policy.algorithm;
  if (!arguments_.feedback) {
    text += ", no feedback";
  } else if (arguments_.residual != ResidualType::full) {
    text.append(", residuals in ").append(name(arguments_.residual));
  }
  for (const std::string option : {"threads", "progress"}) {
    if (const std::string value = get_option(options, option); !value.empty()) {
      text.append(", ").append(option).append(" ").append(value);
    }
  }
  return text + ", " + counted(static_cast<std::size_t>(session_.size), "rank") + " on " +
         counted(layout_.size(), "host") + (session_.on_device() ? ", on " + session_.device : "") +
         describe_choice();
}

std::string CallBench::describe_choice() const {
  std::string names = baseline_text_;
  if (!baseline_is_best_) {
    names = tools::list_names(plain(), [](const auto& entry) { return entry.algorithm.name; });
  }
  return names == "default" ? "" : ", baseline " + names;
}

void CallBench::print_title(const std::string& more) const {
  if (session_.is_root()) std::cout << "terse-bench " << suite_ << ": " << describe() << more << std::endl;
}

std::string CallBench::label(const std::string& codec, std::size_t bytes) {
  return codec + ", " + format_bytes(static_cast<double>(bytes)) + ": ";
}

std::function<void(std::size_t, std::size_t)> CallBench::show_samples(const std::string& label) {
  return [this, label](std::size_t done, std::size_t of) {
    progress_.show(label + "sample " + std::to_string(done + 1) + " of " + std::to_string(of));
  };
}

ChosenBaseline CallBench::choose(const std::function<void()>& call,
                                 const std::function<void(MPI_Comm)>& plain_call, const std::string& label) {
  const auto& entries = plain();
  if (!has_choice()) return {.name = entries.front().algorithm.name, .comm = entries.front().comm};
  std::vector<std::function<void()>> calls{call};
  for (const auto& entry : entries) calls.emplace_back([&, comm = entry.comm] { plain_call(comm); });
  const auto trial = sample_in_turn(session_, arguments_.sampling.trial(), calls,
                                    show_samples(label + "choosing the baseline, "));
  ChosenBaseline chosen;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    chosen.candidates.push_back({entries[i].algorithm.name, median(trial[i + 1].us)});
  }
  const auto least =
      std::min_element(chosen.candidates.begin(), chosen.candidates.end(),
                       [](const Candidate& a, const Candidate& b) { return a.median_us < b.median_us; });
  chosen.name = least->name;
  chosen.comm = entries[static_cast<std::size_t>(least - chosen.candidates.begin())].comm;
  return chosen;
}

Json CallBench::row(const std::string& codec, const Outcome& outcome, std::size_t count,
                    std::size_t bytes) const {
  const auto& codecs = arguments_.common.codecs;
  const auto named =
      std::find_if(codecs.begin(), codecs.end(), [&](const NamedCodec& one) { return one.spec == codec; });
  const bool residual = arguments_.feedback && named != codecs.end() && named->takes_feedback();
  return {{"suite", suite_},
          {"codec", codec},
          {"algorithm", outcome.algorithm},
          {"dtype", name(arguments_.common.dtype)},
          {"residual", residual ? Json(name(arguments_.residual)) : Json()},
          {"count", count},
          {"bytes", bytes},
          {"ranks", session_.size},
          {"hosts", layout_.size()},
          {"reason", name(outcome.reason)}};
}

std::vector<std::string> CallBench::notes(const std::vector<Outcome::Reason>& reasons) const {
  std::vector<std::string> notes;
  if (session_.on_device() || size_of(arguments_.common.dtype) < 4) {
    notes.push_back("MPI is " + describe_plain() + ".");
  }
  if (!plain_.shortfall().empty()) notes.push_back(plain_.shortfall());
  for (const NamedCodec& named : arguments_.common.codecs) {
    if (arguments_.feedback && !named.takes_feedback() && !named.codec->traits().lossless) {
      notes.push_back(named.spec +
                      " ran without feedback, which is not sound with it (it is not contractive).");
    }
  }
  if (session_.size == 1) notes.emplace_back("One rank has nothing to send.");
  const auto met = [&](Outcome::Reason reason) {
    return std::find(reasons.begin(), reasons.end(), reason) != reasons.end();
  };
  if (met(Outcome::Reason::slower)) {
    notes.emplace_back("slower: a trial said that compression takes longer than plain MPI, which took it.");
  }
  if (met(Outcome::Reason::small)) {
    notes.emplace_back("small: the tensor is below min_bytes, so that plain MPI took it.");
  }
  if (!is_optimized()) notes.emplace_back("terse-bench was built without optimisation.");
  return notes;
}

std::string CallBench::describe_plain() const {
  return describe_baseline(arguments_.common.dtype) +
         (session_.on_device() ? ", with a copy to pinned memory of the host before it and one back" : "");
}

Json CallBench::environment(const std::vector<std::string>& notes) const {
  Json result = describe_environment(session_, layout_);
  result["baseline"] = describe_plain();
  result["op"] = name(arguments_.op);
  result["feedback"] = arguments_.feedback;
  Json specs = Json::object();
  for (const NamedCodec& named : arguments_.common.codecs) specs[named.spec] = named.codec->spec();
  result["codecs"] = specs;
  result["notes"] = notes;
  return result;
}

int CallBench::finish(const Report& report) const {
  int status = 0;
  if (session_.is_root()) {
    for (const std::string& note : report.notes) print_wrapped("", note);
    const auto try_to = [&](const auto& write) {
      try {
        write();
      } catch (const std::exception& error) {
        std::cerr << "terse-bench: " << error.what() << std::endl;
        status = 1;
      }
    };
    if (!arguments_.common.json.empty()) {
      try_to([&] { write_json(arguments_.common.json, environment(report.notes), report.rows); });
    }
    if (report.also) try_to(report.also);
    if (!report.difference.empty()) {
      std::cerr << "terse-bench: " << report.difference << std::endl;
      status = 1;
    }
  }
  MPI_Bcast(&status, 1, MPI_INT, 0, session_.comm);
  return status;
}

CallMemory allocate_call_memory(const Session& session, const CommonArguments& arguments) {
  return agreed(session, [&]() -> CallMemory {
    const std::size_t count = arguments.sizes.back() / size_of(arguments.dtype);
    Tensor in(count, arguments.dtype);
    Tensor out(count, arguments.dtype);
    fill_gradient(in.view(), session.rank);
    Baseline baseline(in.view(), out.view());
    return {std::move(in), std::move(out), Tensor(count, arguments.dtype), std::move(baseline)};
  });
}

bool same_bits(const Session& session, const Way& one, const Way& other) {
  constexpr int kCalls = 3;  // residuals must be the same, too
  bool same = true;
  for (int i = 0; i < kCalls; ++i) {
    const bool compressed = one.call().result == Outcome::Result::compressed;
    const bool both = other.call().result == Outcome::Result::compressed && compressed;
    const std::uint64_t hash = hash_of(one.out);
    const std::uint64_t other_hash = hash_of(other.out);
    same = same_on_all_ranks(session, hash) && same;
    same = same_on_all_ranks(session, other_hash) && same;
    if (both) same = hash == other_hash && same;
  }
  return max_over_ranks(session, same ? 0 : 1) == 0;
}

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string bits_cell(bool same) { return same ? "same" : "DIFFER"; }

std::string reason_cell(Outcome::Reason reason) {
  return reason == Outcome::Reason::none ? "" : std::string(name(reason));
}

Json candidates_to_json(const ChosenBaseline& chosen, double median_us) {
  Json result = Json::array();
  for (const Candidate& candidate : chosen.candidates) {
    result.push_back({{"name", candidate.name}, {"median_us", candidate.median_us}});
  }
  if (result.empty()) result.push_back({{"name", chosen.name}, {"median_us", median_us}});
  return result;
}

}  // namespace terse::bench

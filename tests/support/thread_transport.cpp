// SPDX-License-Identifier: Apache-2.0
#include "support/thread_transport.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <terse/error.hpp>
#include <thread>
#include <utility>

#include "core/floating_point.hpp"

namespace terse::test {
namespace {

using std::to_string;
constexpr int kTags = 1 << 15;

Error communication(const std::string& sentence) { return {ErrorCode::communication, sentence}; }

std::size_t index_of(int rank) { return static_cast<std::size_t>(rank); }

/// All ranks' elements, one rank behind the other, reduced in rank order, with one rounding at the end.
template <class T, class Accumulator, class Combine>
void reduce_parts(const std::vector<std::byte>& parts, int ranks, void* out, std::size_t count,
                  Combine&& combine) {
  std::vector<T> values(parts.size() / sizeof(T));
  if (!parts.empty()) std::memcpy(values.data(), parts.data(), parts.size());
  for (std::size_t i = 0; i < count; ++i) {
    auto all = static_cast<Accumulator>(values[i]);
    for (int r = 1; r < ranks; ++r) {
      all = combine(all, static_cast<Accumulator>(values[index_of(r) * count + i]));
    }
    const auto rounded = static_cast<T>(all);
    std::memcpy(static_cast<std::byte*>(out) + i * sizeof(T), &rounded, sizeof(T));
  }
}

void reduce_parts(Reduction what, const std::vector<std::byte>& parts, int ranks, void* out,
                  std::size_t count) {
  const auto sum = [](auto a, auto b) { return static_cast<decltype(a)>(a + b); };
  const auto max = [](auto a, auto b) { return std::max(a, b); };
  switch (what) {
    case Reduction::sum_f32:
      return reduce_parts<float, float>(parts, ranks, out, count, sum);
    case Reduction::sum_f64:
      return reduce_parts<double, double>(parts, ranks, out, count, sum);
    case Reduction::addends_f32: {
      const DefaultFloatingPoint mode;
      return reduce_parts<float, float>(parts, ranks, out, count, sum);
    }
    case Reduction::addends_f64: {
      const DefaultFloatingPoint mode;
      return reduce_parts<double, double>(parts, ranks, out, count, sum);
    }
    case Reduction::sum_f16:
      return reduce_parts<float16, float>(parts, ranks, out, count, sum);
    case Reduction::sum_bf16:
      return reduce_parts<bfloat16, float>(parts, ranks, out, count, sum);
    case Reduction::sum_int8:
      return reduce_parts<std::int8_t, int>(parts, ranks, out, count, [](int a, int b) {
        if (a + b != static_cast<std::int8_t>(a + b)) throw communication("a sum of int8 beyond its range");
        return a + b;
      });
    case Reduction::max_f32:
      return reduce_parts<float, float>(parts, ranks, out, count, max);
    case Reduction::max_f64:
      return reduce_parts<double, double>(parts, ranks, out, count, max);
  }
}

const char* name_of(Reduction what, bool blocks) {
  switch (what) {
    case Reduction::sum_int8:
      return blocks ? "all_reduce of bytes," : "start_all_reduce of bytes,";
    case Reduction::max_f32:
    case Reduction::max_f64:
      return blocks ? "all_reduce by max" : "start_all_reduce by max";
    default:
      return blocks ? "all_reduce" : "start_all_reduce";
  }
}

}  // namespace

// --- a rank
// ---------------------------------------------------------------------------------------------------

ThreadTransport::ThreadTransport(ThreadWorld& world, int rank, std::uint64_t seed)
    : world_(world), rank_(rank), random_(seed * 1000003 + static_cast<std::uint64_t>(rank)) {}

int ThreadTransport::size() const { return world_.ranks(); }

std::uint64_t ThreadTransport::now() const noexcept {
  if (world_.options_.clock) return world_.options_.clock(rank_);
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

void ThreadTransport::check_usable() const {
  if (abandoned_) throw communication("the transport was abandoned");
  if (!world_.broken_.empty()) throw communication(world_.broken_);
}

int ThreadTransport::take_tags(int channels) {
  const Lock lock(world_.mutex_);
  check_usable();
  if (next_tag_ + channels > kTags) next_tag_ = 0;
  return std::exchange(next_tag_, next_tag_ + channels);
}

void ThreadTransport::send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) {
  const Lock lock(world_.mutex_);
  check_usable();
  if (to < 0 || to >= size() || tag < 0 || tag >= kTags) throw communication("send: no such rank or tag");
  operation = {};
  bytes_sent_ += bytes.size();
  ++messages_sent_;
  ++world_.activity_;
  sends_.push_back({bytes, {bytes.begin(), bytes.end()}, to, tag, false, &operation});
  if (random_() % 2 == 0) deliver(sends_.back());
}

void ThreadTransport::receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) {
  const Lock lock(world_.mutex_);
  check_usable();
  if (from < 0 || from >= size() || tag < 0 || tag >= kTags) {
    throw communication("receive: no such rank or tag");
  }
  operation = {};
  std::fill(bytes.begin(), bytes.end(), std::byte{0xEE});  // nobody may look at it before it is done
  receives_.push_back({bytes, from, tag, &operation});
}

void ThreadTransport::start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                                       Operation& operation) {
  const Lock lock(world_.mutex_);
  check_usable();
  operation = {};
  note_reduced(count * size_of(what));
  const std::size_t index = world_.join(rank_, next_collective_++, name_of(what, false),
                                        {static_cast<const std::byte*>(in), count * size_of(what)});
  reductions_.push_back({what, out, count, index, &operation});
}

/// Messages of one pair and tag keep their order: what was sent before goes first.
void ThreadTransport::deliver(Send& send) {
  if (send.delivered) return;
  for (Send& earlier : sends_) {
    if (&earlier == &send) break;
    if (!earlier.delivered && earlier.to == send.to && earlier.tag == send.tag) deliver(earlier);
  }
  std::vector<std::byte> bytes = send.copy;
  auto visible = ThreadWorld::Clock::time_point::min();
  if (const int most = world_.options_.max_delay_us; most > 0) {
    visible = ThreadWorld::Clock::now() +
              std::chrono::microseconds(random_() % (static_cast<std::uint64_t>(most) + 1));
  }
  world_.boxes_[{rank_, send.to, send.tag}].push_back({std::move(bytes), visible});
  send.delivered = true;
  ++world_.activity_;
  world_.wake(send.to);
}

void ThreadTransport::deliver_all() {
  for (Send& send : sends_) deliver(send);
}

bool ThreadTransport::complete_some(bool at_least_one, std::chrono::steady_clock::time_point& next) {
  enum class Kind : std::uint8_t { send, receive, reduction };
  std::vector<std::pair<Kind, std::size_t>> candidates;
  for (std::size_t i = 0; i < sends_.size(); ++i) candidates.emplace_back(Kind::send, i);
  std::map<std::pair<int, int>, std::size_t> taken;  // receives of one source and tag match in order
  const auto now = ThreadWorld::Clock::now();
  for (std::size_t i = 0; i < receives_.size(); ++i) {
    const auto box = world_.boxes_.find({receives_[i].from, rank_, receives_[i].tag});
    if (box == world_.boxes_.end()) continue;
    std::size_t& place = taken[{receives_[i].from, receives_[i].tag}];
    if (place < box->second.size()) {
      const auto visible = box->second[place].visible;
      if (visible <= now) {
        candidates.emplace_back(Kind::receive, i);
      } else {
        next = std::min(next, visible);
        place = box->second.size();  // none overtakes it
      }
    }
    ++place;
  }
  for (std::size_t i = 0; i < reductions_.size(); ++i) {
    if (world_.complete(reductions_[i].collective)) candidates.emplace_back(Kind::reduction, i);
  }
  if (candidates.empty()) return false;

  std::shuffle(candidates.begin(), candidates.end(), random_);
  const std::size_t least = at_least_one ? 1 : 0;
  candidates.resize(least + random_() % (candidates.size() - least + 1));
  // A receive takes the oldest message, so those before it of its source and tag come with it.
  std::vector<bool> sent(sends_.size()), received(receives_.size()), reduced(reductions_.size());
  for (const auto& [kind, i] : candidates) {
    if (kind == Kind::send) sent[i] = true;
    if (kind == Kind::reduction) reduced[i] = true;
    if (kind != Kind::receive) continue;
    for (std::size_t k = 0; k <= i; ++k) {
      if (receives_[k].from == receives_[i].from && receives_[k].tag == receives_[i].tag) received[k] = true;
    }
  }
  for (std::size_t i = 0; i < sends_.size(); ++i) {
    if (!sent[i]) continue;
    deliver(sends_[i]);
    if (!std::equal(sends_[i].copy.begin(), sends_[i].copy.end(), sends_[i].bytes.begin())) {
      world_.break_with("rank " + to_string(rank_) + " changed the bytes of a message to rank " +
                        to_string(sends_[i].to) + " before it was sent");
      check_usable();
    }
    *sends_[i].operation = {true, sends_[i].bytes.size()};
  }
  for (std::size_t i = 0; i < receives_.size(); ++i) {
    if (!received[i]) continue;
    const Receive& receive = receives_[i];
    const auto box = world_.boxes_.find({receive.from, rank_, receive.tag});
    const std::vector<std::byte> bytes = std::move(box->second.front().bytes);
    box->second.pop_front();
    if (box->second.empty()) world_.boxes_.erase(box);
    if (bytes.size() > receive.bytes.size()) {
      world_.break_with("a message of " + to_string(bytes.size()) + " bytes from rank " +
                        to_string(receive.from) + " does not fit the " + to_string(receive.bytes.size()) +
                        " that rank " + to_string(rank_) + " receives");
      check_usable();
    }
    std::copy(bytes.begin(), bytes.end(), receive.bytes.begin());
    *receive.operation = {true, bytes.size()};
  }
  for (std::size_t i = 0; i < reductions_.size(); ++i) {
    if (!reduced[i]) continue;
    const Started& started = reductions_[i];
    reduce_parts(started.what, take_parts(started.collective), size(), started.out, started.count);
    *started.operation = {true, started.count * size_of(started.what)};
  }
  const auto drop = [](auto& list, const std::vector<bool>& done) {
    std::size_t i = 0;
    std::erase_if(list, [&](const auto&) { return done[i++]; });
  };
  drop(sends_, sent);
  drop(receives_, received);
  drop(reductions_, reduced);
  if (!candidates.empty()) ++world_.activity_;
  return !candidates.empty();
}

void ThreadTransport::progress(Wait wait) {
  Lock lock(world_.mutex_);
  if (wait == Wait::yes) world_.ranks_[index_of(rank_)].inside = "waits";
  while (true) {
    check_usable();
    if (sends_.empty() && receives_.empty() && reductions_.empty()) break;
    auto next = ThreadWorld::Clock::time_point::max();
    if (complete_some(wait == Wait::yes, next) || wait == Wait::no) break;
    world_.block(lock, rank_, next);
  }
  world_.ranks_[index_of(rank_)].inside = nullptr;
}

std::vector<std::byte> ThreadTransport::collective(const char* kind, std::span<const std::byte> mine) {
  Lock lock(world_.mutex_);
  check_usable();
  const std::size_t index = world_.join(rank_, next_collective_++, kind, mine);
  deliver_all();  // a blocking call makes progress
  world_.ranks_[index_of(rank_)].inside = kind;
  while (!world_.complete(index)) {
    check_usable();
    world_.block(lock, rank_, ThreadWorld::Clock::time_point::max());
  }
  world_.ranks_[index_of(rank_)].inside = nullptr;
  return take_parts(index);
}

std::vector<std::byte> ThreadTransport::take_parts(std::size_t index) {
  std::vector<std::byte> all;
  for (const auto& part : world_.collectives_[index].parts) all.insert(all.end(), part.begin(), part.end());
  world_.leave(index);
  return all;
}

void ThreadTransport::all_reduce(Reduction what, const void* in, void* out, std::size_t count) {
  const auto parts =
      collective(name_of(what, true), {static_cast<const std::byte*>(in), count * size_of(what)});
  reduce_parts(what, parts, size(), out, count);
  note_reduced(count * size_of(what));
}

void ThreadTransport::note_reduced(std::size_t bytes) {
  bytes_reduced_ += 2 * (index_of(size()) - 1) * bytes / index_of(size());
}

void ThreadTransport::abandon() noexcept {
  const Lock lock(world_.mutex_);
  abandoned_ = true;
  sends_.clear();
  receives_.clear();
  reductions_.clear();
}

std::size_t ThreadTransport::in_flight() const {
  const Lock lock(world_.mutex_);
  return sends_.size() + receives_.size() + reductions_.size();
}

std::string ThreadTransport::waits_for() const {
  std::string text;
  for (const Send& s : sends_) text += ", a send to " + to_string(s.to) + " under tag " + to_string(s.tag);
  for (const Receive& r : receives_) {
    text += ", a receive from " + to_string(r.from) + " under tag " + to_string(r.tag) + " (" +
            to_string(r.bytes.size()) + " bytes)";
  }
  for (const Started& r : reductions_) text += ", collective " + to_string(r.collective) + " (a reduction)";
  return text.empty() ? "nothing started" : text.substr(2);
}

// --- the world
// ------------------------------------------------------------------------------------------------

ThreadWorld::ThreadWorld(int ranks, ThreadOptions options) : options_(std::move(options)) {
  for (int r = 0; r < ranks; ++r) {
    ranks_.emplace_back();
    transports_.emplace_back(*this, r, options_.seed);
  }
}

std::size_t ThreadWorld::join(int rank, std::size_t index, const char* kind,
                              std::span<const std::byte> mine) {
  if (index == collectives_.size()) {
    collectives_.push_back({kind, mine.size(), 0, 0, std::vector<std::vector<std::byte>>(ranks_.size())});
  }
  Collective& collective = collectives_[index];
  if (collective.kind != kind || collective.bytes != mine.size()) {
    break_with("rank " + to_string(rank) + " enters collective " + to_string(index) + " as " + kind + " of " +
               to_string(mine.size()) + " bytes, another rank as " + collective.kind + " of " +
               to_string(collective.bytes));
    throw communication(broken_);
  }
  collective.parts[index_of(rank)].assign(mine.begin(), mine.end());
  ++activity_;
  if (++collective.arrived == ranks()) {
    for (int r = 0; r < ranks(); ++r) wake(r);
  }
  return index;
}

void ThreadWorld::leave(std::size_t index) {
  if (++collectives_[index].left == ranks()) collectives_[index].parts = {};
}

void ThreadWorld::wake(int rank) {
  ranks_[index_of(rank)].blocked = false;
  ranks_[index_of(rank)].changed.notify_one();
}

void ThreadWorld::block(Lock& lock, int rank, Clock::time_point next) {
  Rank& self = ranks_[index_of(rank)];
  if (next != Clock::time_point::max()) {
    self.changed.wait_until(lock, next);
    return;
  }
  self.blocked = true;
  find_deadlock();
  self.changed.wait(lock, [&] { return !self.blocked; });
}

void ThreadWorld::break_with(const std::string& why) {
  if (broken_.empty()) broken_ = why;
  for (int r = 0; r < ranks(); ++r) wake(r);
}

void ThreadWorld::find_deadlock() {
  const bool stuck =
      std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.blocked || r.ended; });
  if (stuck && ended_ < ranks() && broken_.empty()) break_with("deadlock: " + picture());
}

std::string ThreadWorld::picture() const {
  std::string text;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    text += (r == 0 ? "rank " : "; rank ") + to_string(r) + " ";
    if (ranks_[r].ended) {
      text += "has ended";
    } else {
      text += ranks_[r].inside ? ranks_[r].inside : "computes or polls";
      text += " with " + transports_[r].waits_for();
    }
  }
  return text;
}

std::string ThreadWorld::stacks() const {
  std::string text;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    if (!ranks_[r].ended) text += dump_stack("[rank " + to_string(r) + "]", ranks_[r].thread);
  }
  return text;
}

void ThreadWorld::watch() {
  Lock lock(mutex_);
  std::uint64_t seen = activity_;
  auto since = Clock::now();
  int warnings = 0;
  while (ended_ < ranks()) {
    all_ended_.wait_for(lock, std::chrono::milliseconds(200));
    if (seen != activity_) {
      seen = activity_;
      since = Clock::now();
    } else if (Clock::now() - since > std::chrono::duration<double>(options_.patience_s)) {
      const std::string sentence = "no progress for " + to_string(options_.patience_s) + " s: " + picture();
      std::fprintf(stderr, "%s\n%s", sentence.c_str(), stacks().c_str());
      if (++warnings == 2) std::abort();
      break_with(sentence);
      since = Clock::now();
    }
  }
}

std::vector<std::exception_ptr> ThreadWorld::run(const std::function<void(ThreadTransport&)>& body) {
  prepare_stack_dumps();
  std::vector<std::exception_ptr> errors(ranks_.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    threads.emplace_back([&, r] {
      {
        const Lock lock(mutex_);
        ranks_[r].thread = this_thread();
      }
      try {
        body(transports_[r]);
      } catch (...) {
        errors[r] = std::current_exception();
      }
      const Lock lock(mutex_);
      ranks_[r].ended = true;
      ++ended_;
      ++activity_;
      find_deadlock();
      all_ended_.notify_all();
    });
  }
  watch();
  for (auto& thread : threads) thread.join();

  if (std::all_of(errors.begin(), errors.end(), [](const auto& e) { return e == nullptr; })) {
    std::string left;
    for (const auto& [key, messages] : boxes_) {
      left += "; " + to_string(messages.size()) + " message(s) from rank " + to_string(std::get<0>(key)) +
              " that rank " + to_string(std::get<1>(key)) + " never received";
    }
    for (const auto& transport : transports_) {
      if (transport.in_flight() > 0) {
        left += "; rank " + to_string(transport.rank()) + " ended with " + transport.waits_for();
      }
    }
    if (!left.empty()) errors[0] = std::make_exception_ptr(std::logic_error("left over: " + left.substr(2)));
  }
  return errors;
}

std::vector<std::exception_ptr> try_ranks(int ranks, const std::function<void(ThreadTransport&)>& body,
                                          const ThreadOptions& options) {
  return ThreadWorld(ranks, options).run(body);
}

void run_ranks(int ranks, const std::function<void(ThreadTransport&)>& body, const ThreadOptions& options) {
  for (const auto& error : try_ranks(ranks, body, options)) {
    if (error) std::rethrow_exception(error);
  }
}

std::string sentence_of(const std::exception_ptr& error) {
  if (!error) return {};
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return std::string(name(e.code())) + ": " + e.what();
  } catch (const std::exception& e) {
    return e.what();
  }
}

}  // namespace terse::test

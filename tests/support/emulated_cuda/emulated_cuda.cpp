// SPDX-License-Identifier: Apache-2.0
#include "emulated_cuda.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

uint3 threadIdx{};
uint3 blockIdx{};
dim3 blockDim;
dim3 gridDim;

namespace terse::test::emulated_cuda {
namespace {

[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char* format, ...) {
  std::fflush(stdout);
  std::fputs("emulated CUDA: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::fflush(stderr);
  std::abort();
}

std::size_t page_size() {
  static const std::size_t size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::string name_of(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) != 0 && info.dli_sname != nullptr) {
    int status = 0;
    char* plain = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    std::string name = status == 0 ? plain : info.dli_sname;
    std::free(plain);
    return name;
  }
  char text[32];
  std::snprintf(text, sizeof text, "at %p", function);
  return text;
}

// Fibers: a stack each, on which one thread of a block runs until it has to wait.

#if defined(__x86_64__)

struct Context {
  void* stack_pointer = nullptr;
};

extern "C" __attribute__((visibility("hidden"))) void terse_emulated_cuda_switch(void** save, void* load);
// What a call must preserve goes to the old stack and comes from the new one. The control words of the
// floating-point units stay: no kernel changes them.
__asm__(
    ".pushsection .text\n"
    ".globl terse_emulated_cuda_switch\n"
    ".hidden terse_emulated_cuda_switch\n"
    ".type terse_emulated_cuda_switch,@function\n"
    "terse_emulated_cuda_switch:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size terse_emulated_cuda_switch,.-terse_emulated_cuda_switch\n"
    ".popsection\n");

void prepare(Context& context, std::byte* stack, std::size_t bytes, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + bytes);
  top[-1] = nullptr;  // Where `entry` would return to: it does not.
  top[-2] = reinterpret_cast<void*>(entry);
  std::fill(top - 8, top - 2, nullptr);
  context.stack_pointer = top - 8;
}

void switch_context(Context& from, Context& to) {
  terse_emulated_cuda_switch(&from.stack_pointer, to.stack_pointer);
}

#else

using Context = ucontext_t;

void prepare(Context& context, std::byte* stack, std::size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }

#endif

struct Fiber {
  Context context{};
  std::byte* stack = nullptr;
  void* sanitizer = nullptr;  // ASan's fake stack or TSan's fiber.
};

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif

using detail::Collective;

struct Warp {
  // Bits of lanes. A lane is in exactly one of them, or running.
  unsigned ready = 0;
  unsigned exited = 0;
  unsigned waiting = 0;  // For a collective of the warp.
  unsigned at_barrier = 0;
};

struct Thread {
  uint3 index{};
  unsigned number = 0;
  Fiber* fiber = nullptr;
  Collective kind{};
  unsigned mask = 0;
  unsigned argument = 0;
  int width = warpSize;
  std::uint64_t value = 0;
  std::uint64_t result = 0;
};

void fiber_main();

// Runs the blocks of a kernel in turn. There is one, used under the lock.
class Engine {
 public:
  void run(const std::function<void()>& thread, const void* name, dim3 grid, dim3 block, bool descending);
  std::uint64_t wait(Collective kind, unsigned mask, std::uint64_t value, unsigned argument, int width);
  /// What a fiber does first, and then again and again: one thread, and back to the scheduler.
  void begin_fiber();
  void run_thread();

 private:
  void run_block();
  void run_warp(unsigned number);
  void resolve(unsigned number);
  void finish(unsigned number, unsigned group);
  void resume(Thread& thread);
  void leave(Fiber& fiber);
  Fiber* take_fiber();
  Thread& lane(unsigned warp, unsigned lane_number) { return threads_[warp * 32 + lane_number]; }
  [[noreturn]] void give_up(const char* why);

  const std::function<void()>* body_ = nullptr;
  const void* name_ = nullptr;
  bool descending_ = false;
  unsigned live_ = 0;
  Thread* running_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;

  Context scheduler_{};
  std::vector<std::unique_ptr<Fiber>> fibers_;
  // Fibers between two threads. The last one given back is the first one taken: its stack is warm.
  std::vector<Fiber*> idle_;
  [[maybe_unused]] void* scheduler_sanitizer_ = nullptr;
  [[maybe_unused]] const void* scheduler_stack_ = nullptr;
  [[maybe_unused]] std::size_t scheduler_stack_bytes_ = 0;
};

Engine& engine() {
  static Engine& instance = *new Engine;  // Static objects may still need it at exit.
  return instance;
}

// Fibers outlive launches and move between host threads, so nothing here may keep a thread-local address.
void fiber_main() {
  engine().begin_fiber();
  while (true) engine().run_thread();
}

Fiber* Engine::take_fiber() {
  if (idle_.empty()) {
    auto fiber = std::make_unique<Fiber>();
    void* memory = mmap(nullptr, page_size() + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) die("no memory for the stack of a thread");
    mprotect(memory, page_size(), PROT_NONE);  // An overflow is a crash.
    fiber->stack = static_cast<std::byte*>(memory) + page_size();
    prepare(fiber->context, fiber->stack, kStackBytes, fiber_main);
#if defined(__SANITIZE_THREAD__)
    fiber->sanitizer = __tsan_create_fiber(0);
#endif
    idle_.push_back(fiber.get());
    fibers_.push_back(std::move(fiber));
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

void Engine::resume(Thread& thread) {
  if (thread.fiber == nullptr) thread.fiber = take_fiber();
  Fiber& fiber = *thread.fiber;
  running_ = &thread;
  threadIdx = thread.index;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack, kStackBytes);
#elif defined(__SANITIZE_THREAD__)
  scheduler_sanitizer_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.sanitizer, 0);
#endif
  switch_context(scheduler_, fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// `fiber` is the one that calls.
void Engine::leave(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.sanitizer, scheduler_stack_, scheduler_stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler_sanitizer_, 0);
#endif
  switch_context(fiber.context, scheduler_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.sanitizer, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

void Engine::begin_fiber() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

void Engine::run_thread() {
  try {
    (*body_)();
  } catch (const std::exception& error) {
    die("kernel %s threw an exception: %s", name_of(name_).c_str(), error.what());
  } catch (...) {
    die("kernel %s threw an exception", name_of(name_).c_str());
  }
  Thread& thread = *running_;
  Fiber& fiber = *thread.fiber;
  thread.fiber = nullptr;
  idle_.push_back(&fiber);
  warps_[thread.number / 32].exited |= 1u << thread.number % 32;
  --live_;
  leave(fiber);
}

std::uint64_t Engine::wait(Collective kind, unsigned mask, std::uint64_t value, unsigned argument,
                           int width) {
  if (running_ == nullptr) die("a collective was called outside of a kernel");
  Thread& thread = *running_;
  thread.kind = kind;
  thread.mask = mask;
  thread.value = value;
  thread.argument = argument;
  thread.width = width;
  Warp& warp = warps_[thread.number / 32];
  const unsigned bit = 1u << thread.number % 32;
  if (kind == Collective::kBlockBarrier) {
    warp.at_barrier |= bit;
  } else {
    warp.waiting |= bit;
    if (kind != Collective::kActiveMask && (mask & bit) == 0) {
      give_up("a thread called a collective with a mask that lacks its own lane");
    }
    if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
      give_up("a shuffle's width is not a power of two up to 32");
    }
  }
  leave(*thread.fiber);
  return thread.result;
}

void Engine::run(const std::function<void()>& thread, const void* name, dim3 grid, dim3 block,
                 bool descending) {
  body_ = &thread;
  name_ = name;
  descending_ = descending;
  blockDim = block;
  gridDim = grid;
  const unsigned count = block.x * block.y * block.z;
  threads_.assign(count, Thread{});
  for (unsigned i = 0; i < count; ++i) {
    threads_[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    threads_[i].number = i;
  }
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t number = descending ? blocks - 1 - i : i;
    blockIdx.x = static_cast<unsigned>(number % grid.x);
    blockIdx.y = static_cast<unsigned>(number / grid.x % grid.y);
    blockIdx.z = static_cast<unsigned>(number / grid.x / grid.y);
    run_block();
  }
  running_ = nullptr;
  body_ = nullptr;
}

void Engine::run_block() {
  const auto count = static_cast<unsigned>(threads_.size());
  live_ = count;
  warps_.assign((count + 31) / 32, Warp{.ready = ~0u});
  if (count % 32 != 0) {
    warps_.back().ready = (1u << count % 32) - 1;
    warps_.back().exited = ~warps_.back().ready;
  }
  const auto warps = static_cast<unsigned>(warps_.size());
  while (true) {
    for (unsigned i = 0; i < warps; ++i) run_warp(descending_ ? warps - 1 - i : i);
    if (live_ == 0) return;
    unsigned arrived = 0;
    for (const Warp& warp : warps_) arrived += static_cast<unsigned>(std::popcount(warp.at_barrier));
    if (arrived != live_) give_up("deadlock: no thread of the block can go on");
    for (Warp& warp : warps_) warp.ready |= std::exchange(warp.at_barrier, 0u);
  }
}

void Engine::run_warp(unsigned number) {
  Warp& warp = warps_[number];
  while (warp.ready != 0) {
    unsigned lanes = std::exchange(warp.ready, 0u);
    while (lanes != 0) {
      const auto next =
          static_cast<unsigned>(descending_ ? 31 - std::countl_zero(lanes) : std::countr_zero(lanes));
      lanes &= ~(1u << next);
      resume(lane(number, next));
    }
    resolve(number);
  }
}

void Engine::resolve(unsigned number) {
  Warp& warp = warps_[number];
  bool any = false;
  unsigned active = 0;
  for (unsigned left = warp.waiting; left != 0;) {
    const auto first = static_cast<unsigned>(std::countr_zero(left));
    const Thread& caller = lane(number, first);
    left &= ~(1u << first);
    if (caller.kind == Collective::kActiveMask) {
      active |= 1u << first;
      continue;
    }
    const unsigned group = caller.mask & ~warp.exited;
    bool complete = (group & ~warp.waiting) == 0;
    for (unsigned others = group & warp.waiting; others != 0; others &= others - 1) {
      const Thread& other = lane(number, static_cast<unsigned>(std::countr_zero(others)));
      if (other.kind == caller.kind && other.mask == caller.mask) continue;
      // Each waits for the other, with different things in mind. Otherwise the other one may go on first.
      if ((other.mask >> first & 1) != 0) give_up("lanes of a warp take part in different collectives");
      complete = false;
    }
    if (!complete) continue;
    finish(number, group);
    left &= ~group;
    warp.waiting &= ~group;
    warp.ready |= group;
    any = true;
  }
  if (!any && active != 0) {  // Whoever could come has come.
    for (unsigned left = active; left != 0; left &= left - 1) {
      lane(number, static_cast<unsigned>(std::countr_zero(left))).result = active;
    }
    warp.waiting &= ~active;
    warp.ready |= active;
  }
}

void Engine::finish(unsigned number, unsigned group) {
  unsigned votes = 0;
  for (unsigned left = group; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    if (lane(number, i).value != 0) votes |= 1u << i;
  }
  for (unsigned left = group; left != 0; left &= left - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(left));
    Thread& thread = lane(number, i);
    const auto width = static_cast<unsigned>(thread.width);
    const unsigned segment = i & ~(width - 1);
    unsigned source = i;
    switch (thread.kind) {
      case Collective::kBallot:
        thread.result = votes;
        continue;
      case Collective::kAny:
        thread.result = votes != 0;
        continue;
      case Collective::kAll:
        thread.result = votes == group;
        continue;
      case Collective::kShuffle:
        source = segment + (thread.argument & (width - 1));
        break;
      case Collective::kShuffleXor:
        // Lanes of lower segments may be read, those of higher ones not.
        source = i ^ (thread.argument & 31);
        if (source >= segment + width) source = i;
        break;
      case Collective::kShuffleDown:
        if (thread.argument < segment + width - i) source = i + thread.argument;
        break;
      case Collective::kShuffleUp:
        if (thread.argument <= i - segment) source = i - thread.argument;
        break;
      default:
        continue;
    }
    thread.result = ((group >> source & 1) != 0 ? lane(number, source) : thread).value;
  }
}

void Engine::give_up(const char* why) {
  constexpr char kLetters[] = {'B', 'w', 'b', 'y', 'a', 's', 'x', 'd', 'u', 'm'};
  std::string picture;
  for (unsigned w = 0; w < warps_.size(); ++w) {
    const Warp& warp = warps_[w];
    std::string lanes;
    std::set<unsigned> masks;
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned bit = 1u << i;
      if ((warp.exited & bit) != 0) {
        lanes += '-';
      } else if (((warp.waiting | warp.at_barrier) & bit) != 0) {
        lanes += kLetters[static_cast<unsigned>(lane(w, i).kind)];
        if ((warp.waiting & bit) != 0) masks.insert(lane(w, i).mask);
      } else {
        lanes += '.';
      }
    }
    char text[32];
    std::snprintf(text, sizeof text, "\n  warp %2u  ", w);
    picture += text + lanes;
    for (const unsigned mask : masks) {
      std::snprintf(text, sizeof text, "  mask %08x", mask);
      picture += text;
    }
  }
  die("%s\n  kernel %s, block (%u, %u, %u), lane 0 on the left%s\n  - exited  . can run  B __syncthreads  "
      "w __syncwarp  b ballot  y any  a all  s shfl  x shfl_xor  d shfl_down  u shfl_up  m activemask",
      why, name_of(name_).c_str(), blockIdx.x, blockIdx.y, blockIdx.z, picture.c_str());
}

// Memory.

constexpr int kDevices = 2;
constexpr std::size_t kDeviceMemory = std::size_t{4} << 30;
constexpr std::size_t kAlignment = 256;
constexpr std::byte kGuard{0xa5};
constexpr std::size_t kQuarantine = 256;

struct Allocation {
  cudaMemoryType type{};
  int device = 0;
  std::uint64_t number = 0;
  std::byte* mapping = nullptr;  // With an inaccessible page on either side.
  std::size_t mapping_bytes = 0;
  std::byte* begin = nullptr;
  std::size_t bytes = 0;

  std::byte* end() const { return begin + bytes; }
  std::byte* inner() const { return mapping + page_size(); }
  std::size_t inner_bytes() const { return mapping_bytes - 2 * page_size(); }
  std::byte* inner_end() const { return inner() + inner_bytes(); }
  bool holds(const void* pointer) const { return pointer >= begin && pointer < end(); }

  std::string name() const {
    const char* kind = type == cudaMemoryTypeDevice ? "device"
                       : type == cudaMemoryTypeHost ? "pinned"
                                                    : "managed";
    char text[128];
    std::snprintf(text, sizeof text, "%s allocation #%llu of %zu bytes at %p (device %d)", kind,
                  static_cast<unsigned long long>(number), bytes, static_cast<void*>(begin), device);
    return text;
  }
};

// Streams.

struct Operation {
  std::function<void()> run;
  std::vector<std::shared_ptr<Operation>> after;
  CUstream_st* stream = nullptr;
  bool done = false;
  std::chrono::steady_clock::time_point when{};
};
using OperationPointer = std::shared_ptr<Operation>;

}  // namespace
}  // namespace terse::test::emulated_cuda

struct CUstream_st {
  int device = 0;
  bool blocking = true;
  std::uint64_t ticks = 0;
  std::deque<std::shared_ptr<terse::test::emulated_cuda::Operation>> queue;
};

struct CUevent_st {
  int device = 0;
  bool timed = true;
  std::shared_ptr<terse::test::emulated_cuda::Operation> record;
};

namespace terse::test::emulated_cuda {
namespace {

thread_local int current_device = 0;
thread_local bool in_kernel = false;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t told(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// One or several rows of bytes.
struct Copy {
  std::byte* to = nullptr;
  std::size_t to_pitch = 0;
  const std::byte* from = nullptr;
  std::size_t from_pitch = 0;
  std::size_t width = 0;
  std::size_t height = 1;

  std::size_t to_bytes() const { return (height - 1) * to_pitch + width; }
  std::size_t from_bytes() const { return (height - 1) * from_pitch + width; }
};

void run_rows(const Copy& copy) {
  for (std::size_t row = 0; row < copy.height; ++row) {
    std::memmove(copy.to + row * copy.to_pitch, copy.from + row * copy.from_pitch, copy.width);
  }
}

// All there is; its functions are called under the lock.
class Runtime {
 public:
  std::mutex mutex;
  Statistics counts;
  unsigned lag = 1;
  bool host_may_touch = false;
  bool descending = false;
  unsigned malloc_to_fail = 0;
  unsigned launch_to_fail = 0;

  cudaError_t allocate(void** pointer, std::size_t bytes, cudaMemoryType type);
  cudaError_t release(void* pointer, bool pinned);
  Allocation* find(const void* pointer);
  /// The allocation that holds the range, or null for the host's ordinary memory. A range that is neither
  /// ends the program.
  Allocation* range(const void* pointer, std::size_t bytes, const char* what);
  void check_guards(Allocation& allocation);
  void check_all();
  void let_host_touch(bool may);

  std::size_t used() const { return used_[static_cast<std::size_t>(current_device)]; }

  CUstream_st* create_stream(bool blocking);
  cudaError_t destroy_stream(cudaStream_t handle);
  /// Null for what is not a stream.
  CUstream_st* stream(cudaStream_t handle);
  CUevent_st* make_event(bool timed);
  CUevent_st* event(cudaEvent_t handle) { return live_events_.contains(handle) ? handle : nullptr; }
  bool destroy_event(cudaEvent_t handle) { return live_events_.erase(handle) != 0; }

  OperationPointer enqueue(CUstream_st& stream, std::function<void()> run, OperationPointer after = nullptr);
  void complete(const Operation& operation);
  /// Completes what the stream holds now, and for the legacy stream what it waits for.
  void complete(CUstream_st& stream);
  void complete_device(int device);
  bool idle(const CUstream_st& stream) const;
  void tick(CUstream_st& stream);

  cudaError_t copy(const Copy& what, cudaMemcpyKind kind, CUstream_st& stream, bool synchronous);
  cudaError_t fill(void* pointer, int value, std::size_t bytes, CUstream_st& stream);
  cudaError_t launch(std::function<void()> thread, const void* name, dim3 grid, dim3 block,
                     cudaStream_t handle);
  Statistics statistics() const;
  /// Makes device memory inaccessible again.
  void close();

 private:
  CUstream_st* make_stream(bool blocking);
  void step(CUstream_st& stream);
  void run_copy(const Copy& what);
  void open(Allocation& allocation);
  void open_only(int device);

  std::map<const std::byte*, Allocation> allocations_;  // By the mapping's begin.
  std::set<Allocation*> opened_;
  std::deque<std::pair<void*, std::size_t>> quarantine_;
  std::uint64_t next_allocation_ = 1;
  std::array<std::size_t, kDevices> used_{};

  // Streams and events stay in memory when they are destroyed: what is queued may refer to them, and a stale
  // handle never meets a new object.
  std::vector<std::unique_ptr<CUstream_st>> all_streams_;
  std::vector<std::unique_ptr<CUevent_st>> all_events_;
  std::set<CUstream_st*> live_streams_;
  std::set<CUevent_st*> live_events_;
  // Those that live or still have something to do, without the legacy stream.
  std::array<std::vector<CUstream_st*>, kDevices> streams_;
  std::array<CUstream_st, kDevices> legacy_{CUstream_st{.device = 0, .queue = {}},
                                            CUstream_st{.device = 1, .queue = {}}};
  std::map<std::pair<std::thread::id, int>, CUstream_st*> per_thread_;
};

Runtime& runtime() {
  static Runtime& instance = *new Runtime;  // Static objects may still need it at exit.
  return instance;
}

// A function of the API at work.
class Call {
 public:
  Call() : runtime_(runtime()), lock_(mutex_of(runtime_)) {}
  ~Call() { runtime_.close(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  Runtime* operator->() { return &runtime_; }

 private:
  static std::mutex& mutex_of(Runtime& of) {
    if (in_kernel) die("a kernel called a function of the host's");
    return of.mutex;
  }

  Runtime& runtime_;
  std::lock_guard<std::mutex> lock_;
};

cudaError_t Runtime::allocate(void** pointer, std::size_t bytes, cudaMemoryType type) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  if (bytes == 0 && type == cudaMemoryTypeManaged) return cudaErrorInvalidValue;
  if (malloc_to_fail != 0 && --malloc_to_fail == 0) return cudaErrorMemoryAllocation;
  (type == cudaMemoryTypeDevice ? counts.device_mallocs
   : type == cudaMemoryTypeHost ? counts.pinned_mallocs
                                : counts.managed_mallocs) += 1;
  if (bytes == 0) {
    *pointer = nullptr;
    return cudaSuccess;
  }
  std::size_t& used = used_[static_cast<std::size_t>(current_device)];
  if (bytes > kDeviceMemory || (type != cudaMemoryTypeHost && bytes > kDeviceMemory - used)) {
    return cudaErrorMemoryAllocation;
  }
  Allocation made;
  made.type = type;
  made.device = current_device;
  made.number = next_allocation_++;
  made.bytes = bytes;
  made.mapping_bytes = round_up(bytes, page_size()) + 2 * page_size();
  void* memory = mmap(nullptr, made.mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  made.mapping = static_cast<std::byte*>(memory);
  made.begin = made.inner_end() - round_up(bytes, kAlignment);
  if (mprotect(made.inner(), made.inner_bytes(), PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, made.mapping_bytes);
    return cudaErrorMemoryAllocation;
  }
  std::fill(made.inner(), made.begin, kGuard);
  std::memset(made.begin, 0xff, bytes);
  std::fill(made.end(), made.inner_end(), kGuard);
  if (type != cudaMemoryTypeHost) used += bytes;
  *pointer = made.begin;
  Allocation& kept = allocations_[made.mapping] = made;
  if (type == cudaMemoryTypeDevice && !host_may_touch) opened_.insert(&kept);
  return cudaSuccess;
}

Allocation* Runtime::find(const void* pointer) {
  auto after = allocations_.upper_bound(static_cast<const std::byte*>(pointer));
  if (after == allocations_.begin()) return nullptr;
  Allocation& candidate = std::prev(after)->second;
  return candidate.holds(pointer) ? &candidate : nullptr;
}

Allocation* Runtime::range(const void* pointer, std::size_t bytes, const char* what) {
  const auto* begin = static_cast<const std::byte*>(pointer);
  const auto* end = begin + bytes;
  Allocation* found = find(pointer);
  if (found != nullptr) {
    if (end > found->end()) {
      die("%s: %zu bytes from offset %td run out of %s", what, bytes, begin - found->begin,
          found->name().c_str());
    }
    return found;
  }
  auto after = allocations_.lower_bound(end);
  if (after != allocations_.begin()) {
    const Allocation& last = std::prev(after)->second;
    if (last.mapping + last.mapping_bytes > begin) {
      die("%s: %zu bytes at %p begin outside of %s but meet it or its guard pages", what, bytes, pointer,
          last.name().c_str());
    }
  }
  for (const auto& [freed, freed_bytes] : quarantine_) {
    const auto* freed_begin = static_cast<const std::byte*>(freed);
    if (end > freed_begin && begin < freed_begin + freed_bytes) {
      die("%s: %zu bytes at %p are in an allocation that has been freed", what, bytes, pointer);
    }
  }
  return nullptr;
}

void Runtime::check_guards(Allocation& allocation) {
  open(allocation);
  const auto bad = [](std::byte value) { return value != kGuard; };
  const std::byte* before = std::find_if(allocation.inner(), allocation.begin, bad);
  const std::byte* behind = std::find_if(allocation.end(), allocation.inner_end(), bad);
  if (before != allocation.begin) {
    die("the guard bytes before %s were overwritten, first at offset %td", allocation.name().c_str(),
        before - allocation.begin);
  }
  if (behind != allocation.inner_end()) {
    die("the guard bytes behind %s were overwritten, first at offset %td", allocation.name().c_str(),
        behind - allocation.begin);
  }
}

void Runtime::check_all() {
  for (auto& [begin, allocation] : allocations_) check_guards(allocation);
}

cudaError_t Runtime::release(void* pointer, bool pinned) {
  if (pointer == nullptr) return cudaSuccess;
  Allocation* found = find(pointer);
  if (found == nullptr || found->begin != pointer || (found->type == cudaMemoryTypeHost) != pinned) {
    return cudaErrorInvalidValue;
  }
  if (!pinned) {
    ++counts.free_synchronizations;
    complete_device(found->device);
  }
  check_guards(*found);
  opened_.erase(found);
  if (!pinned) used_[static_cast<std::size_t>(found->device)] -= found->bytes;
  // The addresses are not used again for a while, so that stale pointers are found.
  void* fresh = mmap(found->mapping, found->mapping_bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (fresh == MAP_FAILED) die("cannot unmap %s", found->name().c_str());
  quarantine_.emplace_back(found->mapping, found->mapping_bytes);
  if (quarantine_.size() > kQuarantine) {
    munmap(quarantine_.front().first, quarantine_.front().second);
    quarantine_.pop_front();
  }
  allocations_.erase(found->mapping);
  return cudaSuccess;
}

void Runtime::open(Allocation& allocation) {
  if (host_may_touch || allocation.type != cudaMemoryTypeDevice) return;
  if (!opened_.insert(&allocation).second) return;
  if (mprotect(allocation.inner(), allocation.inner_bytes(), PROT_READ | PROT_WRITE) != 0) {
    die("mprotect failed for %s", allocation.name().c_str());
  }
}

void Runtime::close() {
  if (opened_.empty()) return;
  for (Allocation* allocation : opened_) {
    if (mprotect(allocation->inner(), allocation->inner_bytes(), PROT_NONE) != 0) {
      die("mprotect failed for %s", allocation->name().c_str());
    }
  }
  opened_.clear();
}

// A kernel has no access to the other device's memory: nobody enabled it.
void Runtime::open_only(int device) {
  if (host_may_touch) return;
  if (std::any_of(opened_.begin(), opened_.end(),
                  [device](const Allocation* a) { return a->device != device; })) {
    close();
  }
  for (auto& [begin, allocation] : allocations_) {
    if (allocation.device == device) open(allocation);
  }
}

void Runtime::let_host_touch(bool may) {
  if (may == host_may_touch) return;
  if (may) {
    for (auto& [begin, allocation] : allocations_) open(allocation);
    opened_.clear();
    host_may_touch = true;
  } else {
    host_may_touch = false;
    for (auto& [begin, allocation] : allocations_) {
      if (allocation.type == cudaMemoryTypeDevice) opened_.insert(&allocation);
    }
  }
}

CUstream_st* Runtime::make_stream(bool blocking) {
  auto made = std::make_unique<CUstream_st>();
  made->device = current_device;
  made->blocking = blocking;
  CUstream_st* handle = made.get();
  all_streams_.push_back(std::move(made));
  auto& known = streams_[static_cast<std::size_t>(current_device)];
  // A good moment to forget those that were destroyed.
  std::erase_if(known, [this](CUstream_st* s) {
    if (!s->queue.empty() || live_streams_.contains(s)) return false;
    return std::none_of(per_thread_.begin(), per_thread_.end(), [s](const auto& e) { return e.second == s; });
  });
  known.push_back(handle);
  return handle;
}

CUstream_st* Runtime::create_stream(bool blocking) {
  CUstream_st* made = make_stream(blocking);
  live_streams_.insert(made);
  return made;
}

cudaError_t Runtime::destroy_stream(cudaStream_t handle) {
  if (live_streams_.erase(handle) == 0) return cudaErrorInvalidResourceHandle;
  return cudaSuccess;
}

CUstream_st* Runtime::stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) {
    return &legacy_[static_cast<std::size_t>(current_device)];
  }
  if (handle == cudaStreamPerThread) {
    CUstream_st*& own = per_thread_[{std::this_thread::get_id(), current_device}];
    if (own == nullptr) own = make_stream(true);
    return own;
  }
  return live_streams_.contains(handle) ? handle : nullptr;
}

CUevent_st* Runtime::make_event(bool timed) {
  auto made = std::make_unique<CUevent_st>();
  made->device = current_device;
  made->timed = timed;
  CUevent_st* handle = made.get();
  all_events_.push_back(std::move(made));
  live_events_.insert(handle);
  return handle;
}

OperationPointer Runtime::enqueue(CUstream_st& stream, std::function<void()> run, OperationPointer after) {
  auto operation = std::make_shared<Operation>();
  operation->run = std::move(run);
  operation->stream = &stream;
  if (after != nullptr && !after->done) operation->after.push_back(std::move(after));
  CUstream_st& legacy = legacy_[static_cast<std::size_t>(stream.device)];
  if (&stream == &legacy) {
    for (CUstream_st* other : streams_[static_cast<std::size_t>(stream.device)]) {
      if (other->blocking && !other->queue.empty()) operation->after.push_back(other->queue.back());
    }
  } else if (stream.blocking && !legacy.queue.empty()) {
    operation->after.push_back(legacy.queue.back());
  }
  stream.queue.push_back(operation);
  if (lag == 0) complete(*operation);
  return operation;
}

// One operation: the stream's next one, or one that it has to wait for.
void Runtime::step(CUstream_st& stream) {
  CUstream_st* at = &stream;
  for (std::size_t hops = 0;; ++hops) {
    const OperationPointer next = at->queue.front();
    const auto blocker = std::find_if(next->after.begin(), next->after.end(),
                                      [](const OperationPointer& other) { return !other->done; });
    if (blocker != next->after.end()) {
      if (hops > all_streams_.size() + kDevices) die("streams wait for each other in a circle");
      at = (*blocker)->stream;
      continue;
    }
    at->queue.pop_front();
    if (next->run) next->run();
    next->done = true;
    next->when = std::chrono::steady_clock::now();
    next->run = nullptr;
    next->after.clear();
    return;
  }
}

void Runtime::complete(const Operation& operation) {
  while (!operation.done) step(*operation.stream);
}

void Runtime::complete(CUstream_st& stream) {
  if (idle(stream)) return;
  if (&stream == &legacy_[static_cast<std::size_t>(stream.device)]) {
    complete(*enqueue(stream, nullptr));
  } else {
    const OperationPointer last = stream.queue.back();
    complete(*last);
  }
}

void Runtime::complete_device(int device) {
  const auto d = static_cast<std::size_t>(device);
  while (!legacy_[d].queue.empty()) step(legacy_[d]);
  for (CUstream_st* stream : streams_[d]) {
    while (!stream->queue.empty()) step(*stream);
  }
}

bool Runtime::idle(const CUstream_st& stream) const {
  if (!stream.queue.empty()) return false;
  const auto d = static_cast<std::size_t>(stream.device);
  if (&stream != &legacy_[d]) return true;
  return std::all_of(streams_[d].begin(), streams_[d].end(),
                     [](const CUstream_st* other) { return !other->blocking || other->queue.empty(); });
}

void Runtime::tick(CUstream_st& stream) {
  if (++stream.ticks < lag) return;
  stream.ticks = 0;
  if (!stream.queue.empty()) {
    step(stream);
    return;
  }
  for (CUstream_st* other : streams_[static_cast<std::size_t>(stream.device)]) {
    if (!other->blocking || other->queue.empty()) continue;
    step(*other);
    return;
  }
}

void Runtime::run_copy(const Copy& what) {
  // Once more: an allocation may have gone since.
  Allocation* to = range(what.to, what.to_bytes(), "destination of a copy that runs");
  Allocation* from = range(what.from, what.from_bytes(), "source of a copy that runs");
  if (to != nullptr) open(*to);
  if (from != nullptr) open(*from);
  run_rows(what);
}

cudaError_t Runtime::copy(const Copy& what, cudaMemcpyKind kind, CUstream_st& stream, bool synchronous) {
  if (what.width == 0 || what.height == 0) {
    if (synchronous) complete(stream);
    return cudaSuccess;
  }
  if (what.to == nullptr || what.from == nullptr) return cudaErrorInvalidValue;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  if (what.height > 1 && (what.to_pitch < what.width || what.from_pitch < what.width)) {
    return cudaErrorInvalidPitchValue;
  }
  const Allocation* to = range(what.to, what.to_bytes(), "destination of a copy");
  const Allocation* from = range(what.from, what.from_bytes(), "source of a copy");
  const auto is_device = [](const Allocation* a) { return a != nullptr && a->type != cudaMemoryTypeHost; };
  // With unified addresses a direction only has to be possible: managed memory is at home on both sides, and
  // pinned memory has a device address.
  const auto can_be = [](const Allocation* a, bool device) {
    return device ? a != nullptr : a == nullptr || a->type != cudaMemoryTypeDevice;
  };
  if (kind != cudaMemcpyDefault) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (!can_be(to, to_device) || !can_be(from, from_device)) return cudaErrorInvalidValue;
  }
  Statistics::Copies& direction = is_device(to) ? (is_device(from) ? counts.d2d : counts.h2d)
                                                : (is_device(from) ? counts.d2h : counts.h2h);
  ++direction.count;
  direction.bytes += what.width * what.height;

  const bool within_host = !is_device(to) && !is_device(from);
  if (!synchronous && from == nullptr && !within_host) {
    auto staged = std::make_shared<std::vector<std::byte>>(what.width * what.height);
    Copy out = what;
    out.to = staged->data();
    out.to_pitch = what.width;
    run_rows(out);
    Copy in = what;
    in.from = staged->data();
    in.from_pitch = what.width;
    enqueue(stream, [this, in, staged] { run_copy(in); });
    return cudaSuccess;
  }
  const OperationPointer operation = enqueue(stream, [this, what] { run_copy(what); });
  if (synchronous) {
    complete(*operation);
  } else if (to == nullptr || within_host) {
    ++counts.pageable_synchronizations;
    complete(*operation);
  }
  return cudaSuccess;
}

cudaError_t Runtime::fill(void* pointer, int value, std::size_t bytes, CUstream_st& stream) {
  if (bytes == 0) return cudaSuccess;
  const Allocation* to = range(pointer, bytes, "destination of a memset");
  if (to == nullptr) return cudaErrorInvalidValue;
  ++counts.memsets;
  enqueue(stream, [this, pointer, value, bytes] {
    Allocation* now = range(pointer, bytes, "destination of a memset that runs");
    if (now == nullptr) die("the destination of a memset was freed before it ran");
    open(*now);
    std::memset(pointer, value, bytes);
  });
  return cudaSuccess;
}

cudaError_t Runtime::launch(std::function<void()> thread, const void* name, dim3 grid, dim3 block,
                            cudaStream_t handle) {
  constexpr unsigned kMaxX = std::numeric_limits<int>::max();
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMaxX || grid.y > 65535 || grid.z > 65535 ||
      block.x == 0 || block.y == 0 || block.z == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  CUstream_st* on = stream(handle);
  if (on == nullptr || on->device != current_device) return cudaErrorInvalidResourceHandle;
  if (launch_to_fail != 0 && --launch_to_fail == 0) return cudaErrorLaunchFailure;
  ++counts.kernels;
  const int device = on->device;
  enqueue(*on, [this, thread = std::move(thread), name, grid, block, device] {
    open_only(device);
    in_kernel = true;
    engine().run(thread, name, grid, block, descending);
    in_kernel = false;
    for (auto& [begin, allocation] : allocations_) {
      if (allocation.device == device || allocation.type != cudaMemoryTypeDevice) check_guards(allocation);
    }
  });
  return cudaSuccess;
}

Statistics Runtime::statistics() const {
  Statistics now = counts;
  for (const auto& [begin, allocation] : allocations_) {
    (allocation.type == cudaMemoryTypeDevice ? now.live_device_allocations
     : allocation.type == cudaMemoryTypeHost ? now.live_pinned_allocations
                                             : now.live_managed_allocations) += 1;
  }
  now.live_streams = live_streams_.size();
  now.live_events = live_events_.size();
  for (std::size_t d = 0; d < kDevices; ++d) {
    now.pending_operations += legacy_[d].queue.size();
    for (const CUstream_st* stream : streams_[d]) now.pending_operations += stream->queue.size();
  }
  return now;
}

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorCudartUnloading, "cudaErrorCudartUnloading", "driver shutting down"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText* text_of(cudaError_t error) {
  for (const ErrorText& entry : kErrors) {
    if (entry.error == error) return &entry;
  }
  return nullptr;
}

bool is_ordinal(int device) { return device >= 0 && device < kDevices; }

constexpr int kMultiprocessors = 4;
constexpr int kSharedBytes = 48 * 1024;
constexpr int kL2Bytes = 4 << 20;

}  // namespace

namespace detail {

std::uint64_t collective(Collective kind, unsigned mask, std::uint64_t value, unsigned argument, int width) {
  return engine().wait(kind, mask, value, argument, width);
}

cudaError_t enqueue_kernel(std::function<void()> thread, const void* name, dim3 grid, dim3 block,
                           cudaStream_t stream) {
  return told(Call()->launch(std::move(thread), name, grid, block, stream));
}

}  // namespace detail

void set_lag(unsigned ticks) { Call()->lag = ticks; }
void set_host_may_touch(bool may) { Call()->let_host_touch(may); }
void set_descending_order(bool descending) { Call()->descending = descending; }
void fail_next_malloc(unsigned n) { Call()->malloc_to_fail = n; }
void fail_next_launch(unsigned n) { Call()->launch_to_fail = n; }
void check() { Call()->check_all(); }
Statistics statistics() { return Call()->statistics(); }
void reset_statistics() { Call()->counts = {}; }

}  // namespace terse::test::emulated_cuda

using terse::test::emulated_cuda::Allocation;
using terse::test::emulated_cuda::Call;
using terse::test::emulated_cuda::Copy;
using terse::test::emulated_cuda::current_device;
using terse::test::emulated_cuda::is_ordinal;
using terse::test::emulated_cuda::last_error;
using terse::test::emulated_cuda::OperationPointer;
using terse::test::emulated_cuda::told;

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  const auto* entry = terse::test::emulated_cuda::text_of(error);
  return entry != nullptr ? entry->text : "unrecognized error code";
}

const char* cudaGetErrorName(cudaError_t error) {
  const auto* entry = terse::test::emulated_cuda::text_of(error);
  return entry != nullptr ? entry->name : "unrecognized error code";
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDevice(int* device) {
  if (device == nullptr) return told(cudaErrorInvalidValue);
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (!is_ordinal(device)) return told(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  if (count == nullptr) return told(cudaErrorInvalidValue);
  *count = terse::test::emulated_cuda::kDevices;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Call call;
  ++call->counts.device_synchronizations;
  call->complete_device(current_device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (value == nullptr) return told(cudaErrorInvalidValue);
  if (!is_ordinal(device)) return told(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = terse::test::emulated_cuda::kSharedBytes;
      break;
    case cudaDevAttrWarpSize:
      *value = warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = terse::test::emulated_cuda::kMultiprocessors;
      break;
    case cudaDevAttrL2CacheSize:
      *value = terse::test::emulated_cuda::kL2Bytes;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
    case cudaDevAttrPageableMemoryAccess:
      *value = 0;
      break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
      *value = 1;
      break;
    default:
      return told(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (properties == nullptr) return told(cudaErrorInvalidValue);
  if (!is_ordinal(device)) return told(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "Emulated device %d", device);
  properties->totalGlobalMem = terse::test::emulated_cuda::kDeviceMemory;
  properties->sharedMemPerBlock = terse::test::emulated_cuda::kSharedBytes;
  properties->warpSize = warpSize;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->major = 9;
  properties->multiProcessorCount = terse::test::emulated_cuda::kMultiprocessors;
  properties->l2CacheSize = terse::test::emulated_cuda::kL2Bytes;
  properties->unifiedAddressing = 1;
  properties->managedMemory = 1;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  if (free_bytes == nullptr || total_bytes == nullptr) return told(cudaErrorInvalidValue);
  Call call;
  *total_bytes = terse::test::emulated_cuda::kDeviceMemory;
  *free_bytes = *total_bytes - call->used();
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaRuntimeGetVersion(int* version) {
  if (version == nullptr) return told(cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return told(Call()->allocate(pointer, bytes, cudaMemoryTypeDevice));
}

cudaError_t cudaFree(void* pointer) { return told(Call()->release(pointer, false)); }

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  if (flags > 7) return told(cudaErrorInvalidValue);
  return told(Call()->allocate(pointer, bytes, cudaMemoryTypeHost));
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* pointer) { return told(Call()->release(pointer, true)); }

cudaError_t cudaMallocManaged(void** pointer, std::size_t bytes, unsigned flags) {
  if (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost) return told(cudaErrorInvalidValue);
  return told(Call()->allocate(pointer, bytes, cudaMemoryTypeManaged));
}

cudaError_t cudaHostGetDevicePointer(void** device_pointer, void* host_pointer, unsigned flags) {
  Call call;
  const Allocation* found = call->find(host_pointer);
  if (device_pointer == nullptr || flags != 0 || found == nullptr || found->type != cudaMemoryTypeHost) {
    return told(cudaErrorInvalidValue);
  }
  *device_pointer = host_pointer;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  if (attributes == nullptr) return told(cudaErrorInvalidValue);
  Call call;
  const Allocation* found = call->find(pointer);
  void* same = const_cast<void*>(pointer);
  if (found == nullptr) {
    *attributes = {cudaMemoryTypeUnregistered, cudaInvalidDeviceId, nullptr, nullptr};
  } else {
    *attributes = {found->type, found->device, same, found->type == cudaMemoryTypeDevice ? nullptr : same};
  }
  return cudaSuccess;
}

int cuPointerGetAttributes(unsigned count, int* attributes, void** data, unsigned long long pointer) {
  Call call;
  const Allocation* found = call->find(reinterpret_cast<const void*>(pointer));
  for (unsigned i = 0; i < count; ++i) {
    switch (attributes[i]) {
      case 2:
        *static_cast<unsigned*>(data[i]) = found == nullptr ? 0 : found->type == cudaMemoryTypeHost ? 1 : 2;
        break;
      case 8:
        *static_cast<unsigned*>(data[i]) = found != nullptr && found->type == cudaMemoryTypeManaged;
        break;
      case 9:
        *static_cast<int*>(data[i]) = found == nullptr ? -2 : found->device;
        break;
      default:
        return 1;
    }
  }
  return 0;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  Call call;
  ++call->counts.memcpy_synchronizations;
  const Copy what{static_cast<std::byte*>(to), bytes, static_cast<const std::byte*>(from), bytes, bytes, 1};
  return told(call->copy(what, kind, *call->stream(nullptr), true));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  Call call;
  CUstream_st* on = call->stream(stream);
  if (on == nullptr) return told(cudaErrorInvalidResourceHandle);
  const Copy what{
      static_cast<std::byte*>(to), to_pitch, static_cast<const std::byte*>(from), from_pitch, width, height};
  return told(call->copy(what, kind, *on, false));
}

cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) {
  return cudaMemsetAsync(pointer, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  Call call;
  CUstream_st* on = call->stream(stream);
  if (on == nullptr) return told(cudaErrorInvalidResourceHandle);
  return told(call->fill(pointer, value, bytes, *on));
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) return told(cudaErrorInvalidValue);
  *stream = Call()->create_stream(flags == cudaStreamDefault);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) { return told(Call()->destroy_stream(stream)); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Call call;
  ++call->counts.stream_synchronizations;
  CUstream_st* on = call->stream(stream);
  if (on == nullptr) return told(cudaErrorInvalidResourceHandle);
  call->complete(*on);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Call call;
  ++call->counts.stream_queries;
  CUstream_st* on = call->stream(stream);
  if (on == nullptr) return told(cudaErrorInvalidResourceHandle);
  if (call->idle(*on)) return cudaSuccess;
  call->tick(*on);
  return told(cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  Call call;
  CUstream_st* on = call->stream(stream);
  const CUevent_st* what = call->event(event);
  if (on == nullptr || what == nullptr) return told(cudaErrorInvalidResourceHandle);
  if (flags != 0) return told(cudaErrorInvalidValue);
  ++call->counts.event_waits;
  if (what->record != nullptr) call->enqueue(*on, nullptr, what->record);
  return cudaSuccess;
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  Call call;
  const CUstream_st* on = call->stream(stream);
  if (on == nullptr) return told(cudaErrorInvalidResourceHandle);
  if (device == nullptr) return told(cudaErrorInvalidValue);
  *device = on->device;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (event == nullptr || flags > (cudaEventBlockingSync | cudaEventDisableTiming)) {
    return told(cudaErrorInvalidValue);
  }
  *event = Call()->make_event((flags & cudaEventDisableTiming) == 0);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return told(Call()->destroy_event(event) ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Call call;
  CUstream_st* on = call->stream(stream);
  CUevent_st* what = call->event(event);
  if (on == nullptr || what == nullptr || on->device != what->device) {
    return told(cudaErrorInvalidResourceHandle);
  }
  ++call->counts.event_records;
  what->record = call->enqueue(*on, nullptr);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Call call;
  ++call->counts.event_queries;
  const CUevent_st* what = call->event(event);
  if (what == nullptr) return told(cudaErrorInvalidResourceHandle);
  if (what->record == nullptr || what->record->done) return cudaSuccess;
  call->tick(*what->record->stream);
  return told(cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Call call;
  ++call->counts.event_synchronizations;
  const CUevent_st* what = call->event(event);
  if (what == nullptr) return told(cudaErrorInvalidResourceHandle);
  if (what->record != nullptr) call->complete(*what->record);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Call call;
  const CUevent_st* from = call->event(start);
  const CUevent_st* to = call->event(end);
  if (milliseconds == nullptr) return told(cudaErrorInvalidValue);
  if (from == nullptr || to == nullptr || from->device != to->device || !from->timed || !to->timed ||
      from->record == nullptr || to->record == nullptr) {
    return told(cudaErrorInvalidResourceHandle);
  }
  if (!from->record->done || !to->record->done) return told(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(to->record->when - from->record->when).count();
  return cudaSuccess;
}
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

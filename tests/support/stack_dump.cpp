// SPDX-License-Identifier: Apache-2.0
#include "support/stack_dump.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <thread>
#include <vector>

namespace terse::test {
namespace {

constexpr int kSignal = SIGURG;
constexpr auto kPatience = std::chrono::seconds(10);

// What the interrupted thread leaves for the one that asked. One stack at a time.
std::array<void*, 64> frames;
std::atomic<pid_t> asked = 0;
std::atomic<int> depth = -1;

void leave_stack(int) {
  const int error = errno;
  if (asked.load() == this_thread()) depth.store(backtrace(frames.data(), static_cast<int>(frames.size())));
  errno = error;
}

/// The functions of this program, those that are not exported too: from the symbol table of its file.
class Functions {
 public:
  Functions() {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    image_.assign(std::istreambuf_iterator<char>(file), {});
    ElfW(Ehdr) header;
    if (image_.size() < sizeof header) return;
    std::memcpy(&header, image_.data(), sizeof header);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return;
    std::vector<ElfW(Shdr)> sections(header.e_shnum);
    if (header.e_shoff + sections.size() * sizeof(ElfW(Shdr)) > image_.size()) return;
    std::memcpy(sections.data(), image_.data() + header.e_shoff, sections.size() * sizeof(ElfW(Shdr)));
    for (const auto& section : sections) {
      if (section.sh_type != SHT_SYMTAB) continue;
      symbols_.resize(section.sh_size / sizeof(ElfW(Sym)));
      std::memcpy(symbols_.data(), image_.data() + section.sh_offset, symbols_.size() * sizeof(ElfW(Sym)));
      names_ = image_.data() + sections[section.sh_link].sh_offset;
    }
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* bias) {
          *static_cast<std::uintptr_t*>(bias) = info->dlpi_addr;
          return 1;  // the first one is the program
        },
        &bias_);
  }
  const char* at(std::uintptr_t address) const {
    for (const auto& symbol : symbols_) {
      const std::uintptr_t begin = symbol.st_value + bias_;
      if ((symbol.st_info & 0xf) == STT_FUNC && address >= begin && address < begin + symbol.st_size) {
        return names_ + symbol.st_name;
      }
    }
    return nullptr;
  }

 private:
  std::string image_;
  std::vector<ElfW(Sym)> symbols_;
  const char* names_ = nullptr;
  std::uintptr_t bias_ = 0;
};

std::string describe(void* frame) {
  static const Functions functions;
  // a return address is behind the call, which may have been the last thing in its function
  const auto address = reinterpret_cast<std::uintptr_t>(frame) - 1;
  Dl_info info{};
  const bool known = dladdr(reinterpret_cast<void*>(address), &info) != 0;
  const char* symbol = functions.at(address);
  if (!symbol && known) symbol = info.dli_sname;
  std::string text = "?";
  if (symbol) {
    int status = 0;
    char* plain = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
    text = status == 0 ? plain : symbol;
    std::free(plain);
  }
  if (known && info.dli_fname) {
    std::array<char, 32> offset{};
    std::snprintf(offset.data(), offset.size(), "+0x%zx",
                  static_cast<std::size_t>(address - reinterpret_cast<std::uintptr_t>(info.dli_fbase)));
    text += " (" + std::filesystem::path(info.dli_fname).filename().string() + offset.data() + ")";
  }
  return text;
}

}  // namespace

pid_t this_thread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

void prepare_stack_dumps() {
  static std::once_flag once;
  std::call_once(once, [] {
    backtrace(frames.data(), 1);  // the first call loads a library, which a signal handler must not
    struct sigaction action {};
    action.sa_handler = leave_stack;
    action.sa_flags = SA_RESTART;
    sigaction(kSignal, &action, nullptr);
  });
}

std::string dump_stack(const std::string& who, pid_t thread) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  prepare_stack_dumps();
  depth = -1;
  asked = thread;
  const std::string begin = who + ", thread " + std::to_string(thread);
  if (syscall(SYS_tgkill, getpid(), thread, kSignal) != 0) return begin + " is no more\n";
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (depth < 0) {
    if (std::chrono::steady_clock::now() > end) {
      asked = 0;
      return begin + " does not answer\n";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  asked = 0;
  std::string text;
  for (int i = 1; i < depth; ++i) {  // 0 is the handler
    text += begin + ": " + describe(frames[static_cast<std::size_t>(i)]) + "\n";
  }
  return text;
}

std::string dump_all_stacks(const std::string& who) {
  std::string text;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    const auto thread = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (thread != this_thread()) text += dump_stack(who, thread);
  }
  return text;
}

}  // namespace terse::test

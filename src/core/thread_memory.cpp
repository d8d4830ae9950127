// SPDX-License-Identifier: Apache-2.0
#include "core/thread_memory.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <new>
#include <vector>

namespace terse::inline v0_1 {
namespace {

struct Kept {
  void* object = nullptr;
  void (*destroy)(void*) = nullptr;
};
using Table = std::vector<Kept>;  // by place

// POSIX calls this after the destructors of the thread's thread_local objects, and again as long as other
// destructors of its kind have asked for objects anew, with the key's value already null.
void destroy_table(void* value) {
  const std::unique_ptr<Table> table(static_cast<Table*>(value));
  for (auto kept = table->rbegin(); kept != table->rend(); ++kept) {
    if (kept->object != nullptr) kept->destroy(kept->object);
  }
}

// Threads that end call destroy_table: its code has to stay, even where a program unloads what holds it.
void stay_loaded() noexcept {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&destroy_table), &self) == 0 || self.dli_fname == nullptr) return;
  // a program's main file cannot be unloaded, nor be opened again: there this does nothing
  dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

pthread_key_t make_key() {
  pthread_key_t key{};
  if (pthread_key_create(&key, destroy_table) != 0) throw std::bad_alloc();
  stay_loaded();
  return key;
}

pthread_key_t the_key() {
  static const pthread_key_t key = make_key();
  return key;
}

// From 1 on.
std::size_t number_of(ThreadPlace& place) {
  static constinit ThreadPlace given{0};
  std::size_t number = place.load();
  if (number != 0) return number;
  const std::size_t fresh = given.fetch_add(1) + 1;
  return place.compare_exchange_strong(number, fresh) ? fresh : number;
}

}  // namespace

void* find_thread_object(const ThreadPlace& place) noexcept {
  const std::size_t number = place.load(std::memory_order_acquire);
  if (number == 0) return nullptr;  // so there may be no key yet
  const auto* table = static_cast<const Table*>(pthread_getspecific(the_key()));
  return table == nullptr || table->size() < number ? nullptr : (*table)[number - 1].object;
}

void keep_thread_object(ThreadPlace& place, void* object, void (*destroy)(void*)) {
  const pthread_key_t key = the_key();
  auto* table = static_cast<Table*>(pthread_getspecific(key));
  if (table == nullptr) {
    auto made = std::make_unique<Table>();
    if (pthread_setspecific(key, made.get()) != 0) throw std::bad_alloc();
    table = made.release();
  }
  const std::size_t number = number_of(place);
  table->resize(std::max(table->size(), number));
  (*table)[number - 1] = {object, destroy};
}

}  // namespace terse::inline v0_1

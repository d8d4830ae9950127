// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace terse::inline v0_1 {

/// Which of the objects that threads keep: a number that is given at its first use.
using ThreadPlace = std::atomic<std::size_t>;
/// What this thread keeps there; null: nothing yet.
void* find_thread_object(const ThreadPlace& place) noexcept;
/// Gives this thread an object to keep there until it ends. Errors: std::bad_alloc; nothing is kept then.
void keep_thread_object(ThreadPlace& place, void* object, void (*destroy)(void*));

/// The object of type T that this thread keeps for the lambda expression `Place`, made at its first use:
///
///     auto& memory = kept_by_thread<Scratch>([] {});
///
/// It differs from a thread_local one in two ways. It is there whenever the thread asks, also in destructors
/// of thread_local objects, in handlers of atexit and in destructors of globals: one that has been destroyed
/// is made anew. And it takes no thread-local storage, which the C library takes out of each thread's stack,
/// even of threads that never call Terse. The main thread's is left to the end of the process.
///
/// Errors: std::bad_alloc, and what T's constructor throws.
template <class T, class Place>
T& kept_by_thread(Place) {
  static constinit ThreadPlace place{0};
  if (void* found = find_thread_object(place)) return *static_cast<T*>(found);
  auto made = std::make_unique<T>();
  keep_thread_object(place, made.get(), [](void* object) { delete static_cast<T*>(object); });
  return *made.release();
}

}  // namespace terse::inline v0_1

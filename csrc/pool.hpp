// A small thread pool: tasks 0 .. count-1, claimed one by one, the caller works too.
//
// Not OpenMP, whose runtime hangs a forked child (DataLoader workers): after a fork the child starts a pool of its own.
// A call that finds the pool busy with another thread's job does its own tasks itself, so any number of
// threads may call at once. What a task computes must depend on its number alone, and sums are put together in task
// order: then results do not depend on the number of threads.
#pragma once
#include <cstdint>
#include <type_traits>

namespace semnr {

void run_tasks(int threads, std::int64_t count, void (*task)(void* context, std::int64_t index), void* context);

template <class F>
void parallel(int threads, std::int64_t count, F&& task) {
  using Task = std::remove_reference_t<F>;
  run_tasks(
      threads, count, [](void* context, std::int64_t index) { (*static_cast<Task*>(context))(index); },
      const_cast<std::remove_const_t<Task>*>(&task));
}

// Working memory of the calling thread, kept between calls; contents undefined. Aligned to 64 bytes.
// One block a thread: a task takes what it needs at once.
void* scratch(std::int64_t bytes);

}  // namespace semnr

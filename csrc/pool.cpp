#include "pool.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace semnr {
namespace {

struct Job {
  Job(void (*run)(void*, std::int64_t), void* with, std::int64_t tasks) : task(run), context(with), count(tasks) {}

  void (*task)(void*, std::int64_t);
  void* context;
  std::int64_t count;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> seats{0};  // workers that may still join

  std::mutex failed;
  std::exception_ptr error;  // the first one thrown by a task; rethrown to the caller

  void work() {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        task(context, i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(failed);
        if (!error) error = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }
};

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  // False where another thread's job runs: the caller does its work alone.
  bool run(int threads, Job& job) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy.owns_lock()) return false;
    if (!grow(threads - 1)) return false;
    job.seats.store(threads - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // late wakers find nothing
    idle_.wait(lock, [this] { return inside_ == 0; });
    return true;
  }

 private:
  bool grow(int workers) {
    while (started_ < workers) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::exception&) {
        return started_ > 0;  // the system gives no more threads: go on with those there are
      }
      ++started_;
    }
    return true;
  }

  void serve() {
    std::uint64_t seen = 0;
    for (;;) {
      // A short watch saves the wake-up where calls follow each other closely.
      for (int i = 0; i < 2000 && generation_.load(std::memory_order_acquire) == seen; ++i) pause_briefly();
      Job* job = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        if (job_ == nullptr || job_->seats.fetch_sub(1, std::memory_order_relaxed) <= 0) continue;
        job = job_;
        ++inside_;
      }
      job->work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--inside_ == 0) idle_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, idle_;
  std::atomic<std::uint64_t> generation_{0};
  Job* job_ = nullptr;
  int inside_ = 0, started_ = 0;
};

// Never destroyed: its threads are detached and may outlive static destruction.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
#if !defined(_WIN32)
  // In a forked child the parent's threads are gone and its locks may be held: the child starts afresh.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
  (void)registered;
#endif
  Pool* found = current.load();
  if (found == nullptr) {
    Pool* made = new Pool;
    if (current.compare_exchange_strong(found, made)) return *made;
    delete made;
  }
  return *found;
}

struct Block {
  void* memory = nullptr;
  std::int64_t bytes = 0;
  ~Block() { std::free(memory); }
};

}  // namespace

void run_tasks(int threads, std::int64_t count, void (*task)(void*, std::int64_t), void* context) {
  if (threads > count) threads = int(count);
  if (threads <= 1) {
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  Job job(task, context, count);
  if (!pool().run(threads, job)) job.work();
  if (job.error) std::rethrow_exception(job.error);
}

void* scratch(std::int64_t bytes) {
  thread_local Block block;
  if (block.bytes < bytes) {
    std::free(block.memory);
    block.bytes = 0;
    const std::int64_t rounded = (bytes + 4095) / 4096 * 4096;
    block.memory = std::aligned_alloc(4096, std::size_t(rounded));
    if (block.memory == nullptr) throw std::bad_alloc();
    block.bytes = rounded;
  }
  return block.memory;
}

}  // namespace semnr

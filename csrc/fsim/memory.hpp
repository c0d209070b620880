// Working memory for large planes.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../counts.hpp"
#include "../pool.hpp"

namespace semnr {

// Large pages where the system has them.
template <class R>
class Memory {
 public:
  explicit Memory(std::int64_t values) {
    const std::int64_t wanted = values * std::int64_t(sizeof(R)), page = wanted > kLarge ? 1 << 21 : 1 << 12;
    const std::int64_t bytes = round_up(wanted, page);
    data_.reset(static_cast<R*>(std::aligned_alloc(std::size_t(page), std::size_t(bytes))));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (wanted > kLarge) madvise(data_.get(), std::size_t(bytes), MADV_HUGEPAGE);
#endif
  }
  R* get() const { return data_.get(); }

 private:
  static constexpr std::int64_t kLarge = 1 << 24;
  struct Free {
    void operator()(R* p) const { std::free(p); }
  };
  std::unique_ptr<R, Free> data_;
};

// To the next multiple of 64 bytes.
template <class R>
std::int64_t rounded(std::int64_t values) {
  return round_up(values, 16);
}

// Runs one(k, memory, threads) for images 0 .. count - 1, each in so many values of working memory. Small images go one
// a thread, each in memory that stays in its cache; others one after the other, each shared out over the threads.
template <class R, class F>
void over_images(std::int64_t count, std::int64_t values, int threads, F&& one) {
  const bool small = values * std::int64_t(sizeof(R)) <= (1 << 25);
  const bool together = threads > 1 && small && (count >= 2 * threads || count % threads == 0);
  const Memory<R> memory((together ? threads : 1) * values);
  if (!together) {
    for (std::int64_t k = 0; k < count; ++k) one(k, memory.get(), threads);
    return;
  }
  std::atomic<std::int64_t> next{0};
  parallel(threads, threads, [&](std::int64_t slot) {
    for (std::int64_t k; (k = next.fetch_add(1)) < count;) one(k, memory.get() + slot * values, 1);
  });
}

}  // namespace semnr

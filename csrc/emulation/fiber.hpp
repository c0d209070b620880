// Fibers: stacks that one host thread switches between, at the cost of a function call.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

extern "C" void semnr_switch(void** save, void* load);

namespace semnr::emulation {

// Stacks for the threads of one block, each with a page below that faults when a kernel overflows it.
class Stacks {
 public:
  static constexpr std::size_t kBytes = 64 * 1024;

  explicit Stacks(int count) : size_(count * kStride) {
    void* p = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(p);
    for (int i = 0; i < count; ++i) {
      if (mprotect(low(i), kBytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    }
  }
  ~Stacks() { munmap(base_, size_); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  unsigned char* low(int i) const { return base_ + i * kStride + kGuard; }

  // The stack pointer of a fiber that will begin at `entry`.
  void* begin(int i, void (*entry)()) const {
    // not all at the same offset of a page: they would share the same few lines of the processor's cache
    void** top = reinterpret_cast<void**>(low(i) + kBytes - i * 7 % 61 * 64);
#if defined(__x86_64__)
    top -= 8;  // six registers, the return address, one word that keeps the ABI's alignment
    std::memset(top, 0, 8 * sizeof(void*));
    top[6] = reinterpret_cast<void*>(entry);
#else
    top -= 20;
    std::memset(top, 0, 20 * sizeof(void*));
    top[11] = reinterpret_cast<void*>(entry);
#endif
    return top;
  }

 private:
  static constexpr std::size_t kGuard = 64 * 1024;  // a multiple of every page size in use
  static constexpr std::size_t kStride = kBytes + kGuard;
  unsigned char* base_ = nullptr;
  std::size_t size_;
};

}  // namespace semnr::emulation

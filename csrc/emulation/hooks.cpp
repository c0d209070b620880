// What `-fsanitize=thread` calls before each access of instrumented code. libtsan is not linked: these are ours.
#include <cstring>

#include "machine.hpp"

namespace {

using semnr::emulation::machine;

inline void seen(const volatile void* address, std::size_t size, bool write, void* from) {
  auto& m = machine();
  if (!m.running || size == 0) return;
  m.running = false;  // what `touch` itself copies is no access of the kernel
  m.touch(reinterpret_cast<std::uintptr_t>(address), size, write, reinterpret_cast<std::uintptr_t>(from) - 1);
  m.running = true;
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define SEMNR_HOOKS(size)                                                                                   \
  void __tsan_read##size(void* p) { seen(p, size, false, __builtin_return_address(0)); }                    \
  void __tsan_write##size(void* p) { seen(p, size, true, __builtin_return_address(0)); }                    \
  void __tsan_unaligned_read##size(void* p) { seen(p, size, false, __builtin_return_address(0)); }          \
  void __tsan_unaligned_write##size(void* p) { seen(p, size, true, __builtin_return_address(0)); }          \
  void __tsan_volatile_read##size(void* p) { seen(p, size, false, __builtin_return_address(0)); }           \
  void __tsan_volatile_write##size(void* p) { seen(p, size, true, __builtin_return_address(0)); }           \
  void __tsan_unaligned_volatile_read##size(void* p) { seen(p, size, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_volatile_write##size(void* p) { seen(p, size, true, __builtin_return_address(0)); }
SEMNR_HOOKS(1)
SEMNR_HOOKS(2)
SEMNR_HOOKS(4)
SEMNR_HOOKS(8)
SEMNR_HOOKS(16)

void __tsan_read_range(void* p, std::size_t size) { seen(p, size, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, std::size_t size) { seen(p, size, true, __builtin_return_address(0)); }
void __tsan_vptr_read(void** p) { seen(p, sizeof(p), false, __builtin_return_address(0)); }
void __tsan_vptr_update(void** p, void*) { seen(p, sizeof(p), true, __builtin_return_address(0)); }

// The linker sends the module's calls of these here (-Wl,--wrap): the compiler does not instrument them.
void* __real_memcpy(void*, const void*, std::size_t);
void* __real_memmove(void*, const void*, std::size_t);
void* __real_memset(void*, int, std::size_t);
void* __wrap_memcpy(void* to, const void* from, std::size_t size) {
  seen(from, size, false, __builtin_return_address(0));
  seen(to, size, true, __builtin_return_address(0));
  return __real_memcpy(to, from, size);
}
void* __wrap_memmove(void* to, const void* from, std::size_t size) {
  seen(from, size, false, __builtin_return_address(0));
  seen(to, size, true, __builtin_return_address(0));
  return __real_memmove(to, from, size);
}
void* __wrap_memset(void* to, int byte, std::size_t size) {
  seen(to, size, true, __builtin_return_address(0));
  return __real_memset(to, byte, size);
}

}  // extern "C"

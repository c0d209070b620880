// What emulated kernels call: the names of csrc/emulation/cuda_names.hpp end here. Threads of a block are fibers of one
// host thread; blocks run one after another. A test tool: it is not in the wheel.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace semnr::emulation {

// A place in a kernel's source. As a default argument it is the place of the call.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// Constant within a fiber, hence `const`: the compiler may ask once.
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_size();
__attribute__((const)) dim3 grid_size();
__attribute__((const)) unsigned char* shared_memory();

void barrier(Site site);

// One exchange between the lanes of `mask`. `source` is the lane whose `value` comes back; Ballot returns a bit a lane
// whose value is not 0.
enum class Collective { Shuffle, Ballot, Sync };
std::uint64_t collective(Collective kind, unsigned mask, std::uint64_t value, int source, Site site);
int lane_index();

// An atomic read and write by the calling thread at `pc` begins; what it does itself is not instrumented.
void atomic(void* address, std::size_t size, void* pc);

// Which seeded fault of a kernel that was changed for a test is switched on; 0: none.
int mutation();

struct Launch {
  const char* kernel;
  dim3 grid, block;
  std::size_t shared_bytes;
  const void* arguments;  // readable by every thread
  std::size_t argument_bytes;
  void (*thread)(const void* arguments);  // the kernel, once
  const void* function;                   // the kernel's own address, which names its template's arguments
};
void launch(const Launch& launch);

template <class... Parameters, class... Arguments>
void launch(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  struct Bound {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> values;
  };
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "the kernel takes another number of arguments");
  const Bound bound{kernel, {static_cast<std::decay_t<Parameters>>(arguments)...}};
  const auto thread = [](const void* p) {
    const Bound& call = *static_cast<const Bound*>(p);
    std::apply(call.kernel, call.values);
  };
  launch(Launch{name, grid, block, shared_bytes, &bound, sizeof(bound), thread, reinterpret_cast<const void*>(kernel)});
}

template <class T>
std::uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves at most 8 bytes");
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T unpack(std::uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

float half_to_float(std::uint16_t h);
std::uint16_t float_to_half(float value);

}  // namespace semnr::emulation

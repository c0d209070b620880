// Launching without nvcc: the host's compiler compiles the launches alone (-DSEMNR_HOSTED). A kernel's name and
// parameters are known here; its machine code is made by NVRTC, for the device at hand, when it is first launched
// (semnr_kernels/nvrtc.py). Kernels are never called from here, so no code is made of them.
#pragma once
#include <atomic>
#include <cstddef>
#include <tuple>
#include <type_traits>

#include "stream.hpp"

namespace semnr::hosted {

constexpr int kDevices = 64;

// One launch. name: of the kernel, as the compiler writes a template's argument; source: the .cu that launches it.
struct Launch {
  const char *name, *source;
  unsigned grid[3], block[3];
  std::size_t shared_bytes;
  void* stream;
  void** parameters;
  const std::size_t* sizes;  // bytes of each parameter
  int count;
};

// found: the kernel's function on each device, null where it was not launched yet (csrc/cuda/module.cpp).
void launch(const Launch& launch, std::atomic<void*>* found);

template <auto Kernel>
struct Named {
  static const char* text() { return __PRETTY_FUNCTION__; }
  static inline std::atomic<void*> found[kDevices] = {};
};

template <class Kernel>
struct Kind;

template <class... Parameters>
struct Kind<void (*)(Parameters...)> {
  using Values = std::tuple<std::decay_t<Parameters>...>;
  static constexpr std::size_t sizes[] = {sizeof(std::decay_t<Parameters>)...};

  template <auto Kernel, class Grid, class... Arguments>
  static void launch(const char* source, Grid grid, Grid block, std::size_t shared_bytes, Stream stream,
                     const Arguments&... arguments) {
    static_assert(sizeof...(Parameters) == sizeof...(Arguments), "the kernel takes another number of arguments");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    Values values{static_cast<std::decay_t<Parameters>>(arguments)...};
    std::apply(
        [&](auto&... value) {
          void* parameters[] = {&value...};
          hosted::launch({Named<Kernel>::text(),
                          source,
                          {grid.x, grid.y, grid.z},
                          {block.x, block.y, block.z},
                          shared_bytes,
                          stream,
                          parameters,
                          sizes,
                          int(sizeof...(Parameters))},
                         Named<Kernel>::found);
        },
        values);
  }
};

template <auto Kernel, class Grid, class... Arguments>
void launch_kernel(const char* source, Grid grid, Grid block, std::size_t shared_bytes, Stream stream,
                   const Arguments&... arguments) {
  Kind<std::decay_t<decltype(Kernel)>>::template launch<Kernel>(source, grid, block, shared_bytes, stream,
                                                                arguments...);
}

}  // namespace semnr::hosted

#define SEMNR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::semnr::hosted::launch_kernel<kernel>(__FILE__, dim3(grid), dim3(block), (shared_bytes), (stream), ##__VA_ARGS__)

// Launching under nvcc; csrc/emulation/cuda_names.hpp has the emulated twin.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "stream.hpp"

namespace semnr {

inline void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Beyond 48 KB a kernel must ask for its shared memory.
template <class Kernel>
inline void allow_shared(Kernel* kernel, std::size_t bytes, const char* what) {
  if (bytes > 48 * 1024) {
    require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), what);
  }
}

}  // namespace semnr

// `kernel` is a kernel's name; a template's with commas goes in parentheses. An empty grid launches nothing.
#define SEMNR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                         \
  do {                                                                                                       \
    const dim3 semnr_grid = (grid);                                                                          \
    if (semnr_grid.x == 0 || semnr_grid.y == 0 || semnr_grid.z == 0) break;                                  \
    const std::size_t semnr_bytes = (shared_bytes);                                                          \
    ::semnr::allow_shared(kernel, semnr_bytes, #kernel);                                                     \
    kernel<<<semnr_grid, dim3(block), semnr_bytes, static_cast<cudaStream_t>(static_cast<void*>(stream))>>>( \
        __VA_ARGS__);                                                                                        \
    ::semnr::require(cudaGetLastError(), #kernel);                                                           \
  } while (false)

// The block's dynamic shared memory, 16-byte aligned.
#define SEMNR_SHARED(name)                                       \
  extern __shared__ __align__(16) unsigned char semnr_shared_[]; \
  unsigned char* const name = semnr_shared_

// Pixel errors: what one pixel adds. Written once, for the C++ loop and the CUDA kernel.
#pragma once
#include <cstdint>

#include "../counts.hpp"

namespace semnr {

// 32-bit lanes hold |x - y|² of 16-bit pixels exactly: 65535² < 2^32.
template <class T>
SEMNR_HD inline std::uint32_t integer_distance(T a, T b) {
  return a > b ? std::uint32_t(a) - std::uint32_t(b) : std::uint32_t(b) - std::uint32_t(a);
}

}  // namespace semnr

// Whole numbers: how many pieces cover a size, and where a mirrored border sends a pixel. For the C++ loops and the
// CUDA kernels alike.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define SEMNR_HD __host__ __device__
#else
#define SEMNR_HD
#endif

namespace semnr {

// Pieces that cover `size`, the last one maybe in part.
constexpr std::int64_t pieces(std::int64_t size, std::int64_t piece) { return (size + piece - 1) / piece; }

// The next multiple.
constexpr std::int64_t round_up(std::int64_t size, std::int64_t to) { return pieces(size, to) * to; }

// i mirrored into 0 .. n - 1 about the border pixels; at most n - 1 outside.
template <class N>
SEMNR_HD inline N mirrored(N i, N n) {
  i = i < 0 ? -i : i;
  return i < n ? i : 2 * (n - 1) - i;
}

}  // namespace semnr

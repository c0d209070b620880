// The filters of SSIM's kernels: eight windows side by side along a row, and the sums down a column in registers.
#pragma once
#include "../cuda/device.hpp"
#include "ssim_cuda.hpp"

namespace semnr {

// Where column c lies in shared memory. Threads are eight columns apart: one column (of moments, 16 bytes) or two (of
// pixels, 8 bytes) left out after every eight put the four or eight that are served together on different banks.
__host__ __device__ constexpr int pixel_place(int column) { return column + column / 8 * 2; }
__host__ __device__ constexpr int moment_place(int column) { return column + column / 8; }

// The window over its first weight: of each pass the first product, an eleventh of them, need not be made. Sums come
// out 1 / weight as large, where `weight` is that of the two-dimensional window's corner.
template <int Size>
struct SsimTaps {
  float tap[Size / 2 + 1];  // symmetric; tap[0] is 1
  __device__ __forceinline__ float operator()(int k) const { return tap[k <= Size / 2 ? k : Size - 1 - k]; }
};

// Two multiply-adds: one instruction where the chip has it.
__device__ __forceinline__ f32x2 fma2(float tap, f32x2 v, f32x2 sum) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  const float2 r = __ffma2_rn(make_float2(tap, tap), make_float2(v[0], v[1]), make_float2(sum[0], sum[1]));
  return f32x2{r.x, r.y};
#else
  return f32x2{fmaf(tap, v[0], sum[0]), fmaf(tap, v[1], sum[1])};
#endif
}
__device__ __forceinline__ f32x2 mul2(f32x2 a, f32x2 b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  const float2 r = __fmul2_rn(make_float2(a[0], a[1]), make_float2(b[0], b[1]));
  return f32x2{r.x, r.y};
#else
  return f32x2{a[0] * b[0], a[1] * b[1]};
#endif
}

// Two times two sums over the same window: means and mean squares of s and d, or the gradient's four.
struct Sums {
  f32x2 low, high;
};

__device__ __forceinline__ Sums sums_at(const unsigned char* p) {
  const f32x4 v = load<f32x4>(p);
  return {f32x2{v[0], v[1]}, f32x2{v[2], v[3]}};
}
__device__ __forceinline__ void put_sums(unsigned char* p, const Sums& v) {
  store(p, f32x4{v.low[0], v.low[1], v.high[0], v.high[1]});
}

// Adds a value to the sums of all windows side by side that hold it: the first window holds values 0 to Size - 1.
template <int Size>
__device__ __forceinline__ void to_windows(const SsimTaps<Size>& taps, int at, const Sums& v, Sums (&sums)[8]) {
#pragma unroll
  for (int o = 0; o < 8; ++o) {
    const int k = at - o;
    if (k == 0) {
      sums[o] = v;
    } else if (k > 0 && k < Size) {
      sums[o] = {fma2(taps(k), v.low, sums[o].low), fma2(taps(k), v.high, sums[o].high)};
    }
  }
}

// Weighted sums of eight windows side by side, along one row of pixels, from the first window's column on.
template <int Size>
__device__ __forceinline__ void along_row(const SsimTaps<Size>& taps, const unsigned char* pixels, Sums (&sums)[8]) {
#pragma unroll
  for (int j = 0; j < Size + 7; j += 2) {
    const f32x4 two = load<f32x4>(pixels + pixel_place(j) * 8);
    const f32x2 first = {two[0], two[1]}, second = {two[2], two[3]};
    to_windows<Size>(taps, j, {first, mul2(first, first)}, sums);
    to_windows<Size>(taps, j + 1, {second, mul2(second, second)}, sums);
  }
}

// Weighted sums down a column: partial[k] holds the windows that began k rows ago.
template <int Size>
struct Ring {
  Sums partial[Size - 1];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int k = 0; k < Size - 1; ++k) partial[k] = {f32x2{0, 0}, f32x2{0, 0}};
  }

  // One row further; returns the window that it completes.
  __device__ __forceinline__ Sums add(const SsimTaps<Size>& taps, const Sums& row) {
    const Sums& last = partial[Size - 2];
    const Sums done = {fma2(1.0f, row.low, last.low), fma2(1.0f, row.high, last.high)};
#pragma unroll
    for (int k = Size - 2; k > 0; --k) {
      partial[k] = {fma2(taps(k), row.low, partial[k - 1].low), fma2(taps(k), row.high, partial[k - 1].high)};
    }
    partial[0] = row;
    return done;
  }
};

}  // namespace semnr

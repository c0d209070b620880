// The two separable passes that forward and backward share, and the loading of rows.
//
// A tile of windows is walked top to bottom. Each image row is loaded once: converted, scaled by a power of two (so
// that any data_range behaves as about 1), shifted by a constant of the tile (so that a pedestal leaves no trace in
// float32), turned into planes (s, d, s², d², ...), filtered along the row and kept in a ring of size - 1 + kStep
// rows; then kStep rows of windows come from the ring by the vertical pass, one load serving kStep sums.
#pragma once
#include <algorithm>
#include <cmath>

#include "../image.hpp"
#include "../simd.hpp"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace semnr {
namespace {

constexpr int kStep = 4;  // rows of windows a vertical pass makes

// i mirrored into 0 .. n-1 about the border pixels; i at most n - 1 outside.
inline std::int64_t mirrored(std::int64_t i, std::int64_t n) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; }

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// The affine map from pixels to what is summed: value · scale + offset.
template <class R>
struct Shift {
  R scale, x, y;
};

// s and d of n pixels that lie `step` apart.
template <class T, class R>
inline void load_stretch(const T* x, std::int64_t step_x, const T* y, std::int64_t step_y, std::int64_t n,
                         const Shift<R>& shift, R* __restrict s, R* __restrict d) {
  // A float64 pixel is shifted before it is narrowed; every other type fits in R.
  using W = std::conditional_t<std::is_same_v<T, double>, double, R>;
  const W scale = shift.scale, offset_x = shift.x, offset_y = shift.y;
  if (step_x == 1 && step_y == 1) {
    for (std::int64_t i = 0; i < n; ++i) {
      const R a = R(real<W>(x[i]) * scale + offset_x), b = R(real<W>(y[i]) * scale + offset_y);
      s[i] = a + b;
      d[i] = a - b;
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      const R a = R(real<W>(x[i * step_x]) * scale + offset_x), b = R(real<W>(y[i * step_y]) * scale + offset_y);
      s[i] = a + b;
      d[i] = a - b;
    }
  }
}

// s and d of columns first .. first + n - 1 of one row, mirrored where they lie outside, then zeros up to `padded`.
template <class T, class R>
void load_row(const void* x_row, std::int64_t step_x, const void* y_row, std::int64_t step_y, std::int64_t width,
              std::int64_t first, std::int64_t n, std::int64_t padded, const Shift<R>& shift, R* s, R* d) {
  const T* x = static_cast<const T*>(x_row);
  const T* y = static_cast<const T*>(y_row);
  std::int64_t begin = std::max<std::int64_t>(0, -first), end = std::min(n, width - first);
  if (end == n) end = std::min(padded, width - first);  // whole vectors where the image goes on
  load_stretch<T, R>(x + (first + begin) * step_x, step_x, y + (first + begin) * step_y, step_y, end - begin, shift,
                     s + begin, d + begin);
  const auto mirror = [&](std::int64_t i) {
    const std::int64_t column = mirrored(first + i, width);
    load_stretch<T, R>(x + column * step_x, 1, y + column * step_y, 1, 1, shift, s + i, d + i);
  };
  for (std::int64_t i = 0; i < begin; ++i) mirror(i);
  for (std::int64_t i = end; i < n; ++i) mirror(i);
  for (std::int64_t i = std::max(end, n); i < padded; ++i) s[i] = d[i] = R(0);
}

#if defined(__AVX512F__)
// Columns t .. t + 15 of the 32 in low and high.
template <int T>
inline Vec<float> slide(Vec<float> low, Vec<float> high) {
  return T == 0 ? low : (Vec<float>)_mm512_alignr_epi32((__m512i)high, (__m512i)low, T & 15);
}

// A 64-byte load that starts off a cache line costs two; so s and d come from registers by shuffles, s² and d² from
// memory: the load ports and the arithmetic ports are then busy alike.
template <int K, int T, class Ask>
inline void taps_of(const float* in, std::int64_t pitch, const Vec<float>* w, Vec<float> s0, Vec<float> s1,
                    Vec<float> d0, Vec<float> d1, Vec<float>* sum, Ask&& ask) {
  if constexpr (T < K) {
    const Vec<float> weight = w[T > K / 2 ? K - 1 - T : T];
    sum[0] += weight * slide<T>(s0, s1);
    sum[1] += weight * slide<T>(d0, d1);
    sum[2] += weight * load(in + 2 * pitch + T);
    sum[3] += weight * load(in + 3 * pitch + T);
    taps_of<K, T + 1>(in, pitch, w, s0, s1, d0, d1, sum, ask);
  }
}
#endif

// Weighted sums along a row: planes `in` (pitch apart) to `out` (out_pitch apart), whole vectors.
// K: the window size, 0 where it is known at run time only. ask(c): a chance to prefetch.
template <class R, int K, int P, class Ask>
inline void along_row(const R* in, std::int64_t pitch, R* out, std::int64_t out_pitch, std::int64_t columns,
                      const R* taps, int size, Ask&& ask) {
  using V = Vec<R>;
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<R, float> && P == 4 && K > 1 && K <= 17) {
    V w[K / 2 + 1];
#pragma GCC unroll 16
    for (int t = 0; t <= K / 2; ++t) w[t] = splat<R>(taps[t]);
    V s0 = load(in), d0 = load(in + pitch);
    for (std::int64_t c = 0; c < columns; c += 16) {
      ask(c);
      const V s1 = load(in + c + 16), d1 = load(in + pitch + c + 16);
      V sum[4] = {};
      taps_of<K, 0>(in + c, pitch, w, s0, s1, d0, d1, sum, ask);
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) store<R>(out + p * out_pitch + c, sum[p]);
      s0 = s1;
      d0 = d1;
    }
    return;
  }
#endif
  const int k = K != 0 ? K : size;
  for (std::int64_t c = 0; c < columns; c += kLanes<R>) {
    ask(c);
    V sum[P];
    const V w0 = splat<R>(taps[0]);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sum[p] = w0 * load(in + p * pitch + c);
#pragma GCC unroll 16
    for (int t = 1; t < k; ++t) {
      const V w = splat<R>(taps[K != 0 && t > K / 2 ? K - 1 - t : t]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[p] += w * load(in + p * pitch + c + t);
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) store<R>(out + p * out_pitch + c, sum[p]);
  }
}

// Weighted sums down the ring for one vector of columns of plane p: kStep rows of windows.
// rows: addresses of size - 1 + kStep consecutive rows.
template <class R, int K>
inline void down_rows(const R* const* rows, std::int64_t offset, const R* taps, int size, Vec<R>* sum) {
  using V = Vec<R>;
  if constexpr (K != 0) {
    V w[K / 2 + 1];
#pragma GCC unroll 16
    for (int t = 0; t <= K / 2; ++t) w[t] = splat<R>(taps[t]);
    V total[kStep];
#pragma GCC unroll 32
    for (int j = 0; j < K - 1 + kStep; ++j) {
      const V v = load(rows[j] + offset);
#pragma GCC unroll 4
      for (int r = 0; r < kStep; ++r) {
        const int t = j - r;
        if (t == 0) total[r] = w[0] * v;
        if (t > 0 && t < K) total[r] += w[t > K / 2 ? K - 1 - t : t] * v;
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kStep; ++r) sum[r] = total[r];
  } else {
    V total[kStep] = {};
    for (int t = 0; t < size; ++t) {
      const V w = splat<R>(taps[t]);
#pragma GCC unroll 4
      for (int r = 0; r < kStep; ++r) total[r] += w * load(rows[t + r] + offset);
    }
    for (int r = 0; r < kStep; ++r) sum[r] = total[r];
  }
}

}  // namespace
}  // namespace semnr

// The two separable passes that forward and backward share, and the loading of rows.
//
// A tile of windows is walked top to bottom. Each image row is loaded once: converted, scaled by a power of two (so
// that any data_range behaves as about 1), shifted by a constant of the tile (so that a pedestal leaves no trace in
// float32), turned into planes (s, d, s², d², ...), filtered along the row and kept in a ring of size - 1 + kStep
// rows; then kStep rows of windows come from the ring by the vertical pass, one load serving kStep sums.
#pragma once
#include <algorithm>
#include <cmath>

#include "../counts.hpp"
#include "../image.hpp"
#include "../simd.hpp"

namespace semnr {
namespace {

constexpr int kStep = 4;  // rows of windows a vertical pass makes

// Tiles are cut by geometry alone, so results do not depend on the number of threads. The ring of an 11-tap window
// (14 rows of 4 planes of 1 KiB) stays in the second-level cache, and a row is long enough for the hardware prefetcher.
constexpr std::int64_t kTileRows = 128;
template <class R>
constexpr std::int64_t kTileColumns = 1024 / std::int64_t(sizeof(R));

// Distance between the planes of a loaded row, and of a filtered one. Constants where the window size K is one:
// every address of the unrolled sums is then a base and a displacement. The spare vector keeps planes off each other's
// cache sets, and a shuffle reads one vector past the last tap.
template <class R, int K>
constexpr std::int64_t line_pitch(int size) {
  return round_up(kTileColumns<R> + (K != 0 ? K : size) - 1, kLanes<R>) + kLanes<R>;
}
template <class R>
constexpr std::int64_t kRingPitch = kTileColumns<R> + kLanes<R>;

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
// Columns T .. T + 15 of the 32 in low and high.
template <int T>
inline Vec<float> slide(Vec<float> low, Vec<float> high) {
  if constexpr (T == 0) return low;
  return (Vec<float>)_mm512_maskz_alignr_epi32(__mmask16(0xffff), (__m512i)high, (__m512i)low, T & 15);
}
#endif

// `Many` vectors of columns of each plane at c. Many · P sums run side by side, enough to hide a sum's latency.
// With AVX-512 the two taps of one weight are added first: K multiplications become K / 2 + 1, and additions run on
// other ports where these are not the multipliers' (Zen 4); elsewhere the count of operations stays.
template <class R, int K, int P, int Many, int T>
inline void add_tap(const R* in, const Vec<R>* w, const Vec<R> (&low)[3][Many + 1], Vec<R> (&sum)[P][Many]) {
#if defined(__AVX512F__)
  constexpr bool kPairs = true;
#else
  constexpr bool kPairs = false;
#endif
  if constexpr (T < (kPairs ? K / 2 + 1 : K)) {
    constexpr std::int64_t pitch = line_pitch<R, K>(K);
    const Vec<R> weight = w[T > K / 2 ? K - 1 - T : T];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int m = 0; m < Many; ++m) {
        Vec<R> v;
#if defined(__AVX512F__)
        // A 64-byte load that starts off a cache line costs two: three planes come from registers by shuffles, one
        // from memory, so that load ports and arithmetic ports are busy alike.
        if constexpr (std::is_same_v<R, float> && K <= 17) {
          if (p < 3) {
            v = slide<T>(low[p][m], low[p][m + 1]);
            if constexpr (T < K / 2) v += slide<K - 1 - T>(low[p][m], low[p][m + 1]);
          } else {
            const R* const at = in + p * pitch + m * kLanes<R>;
            v = load(at + T);
            if constexpr (T < K / 2) v += load(at + K - 1 - T);
          }
        } else {
          const R* const at = in + p * pitch + m * kLanes<R>;
          v = load(at + T);
          if constexpr (T < K / 2) v += load(at + K - 1 - T);
        }
#else
        v = load(in + p * pitch + m * kLanes<R> + T);
#endif
        sum[p][m] = T == 0 ? weight * v : sum[p][m] + weight * v;
      }
    }
    add_tap<R, K, P, Many, T + 1>(in, w, low, sum);
  }
}

template <class R, int K, int P, int Many>
inline void along_some(const R* in, R* out, const Vec<R>* w) {
  constexpr std::int64_t pitch = line_pitch<R, K>(K);
  Vec<R> low[3][Many + 1];
#pragma GCC unroll 4
  for (int m = 0; m <= Many; ++m) {
    low[0][m] = load(in + m * kLanes<R>);
    low[1][m] = load(in + pitch + m * kLanes<R>);
    low[2][m] = load(in + 2 * pitch + m * kLanes<R>);
  }
  Vec<R> sum[P][Many];
  add_tap<R, K, P, Many, 0>(in, w, low, sum);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
    for (int m = 0; m < Many; ++m) store<R>(out + p * kRingPitch<R> + m * kLanes<R>, sum[p][m]);
  }
}

// Weighted sums along a row: planes `in` to `out`, whole vectors.
// K: the window size, 0 where it is known at run time only. ask(c): a chance to prefetch.
template <class R, int K, int P, class Ask>
inline void along_row(const R* in, R* out, std::int64_t columns, const R* taps, int size, Ask&& ask) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  if constexpr (K != 0) {
    V w[K / 2 + 1];
#pragma GCC unroll 16
    for (int t = 0; t <= K / 2; ++t) w[t] = splat<R>(taps[t]);
    std::int64_t c = 0;
    for (; c + 2 * L <= columns; c += 2 * L) {
      ask(c);
      ask(c + L);
      along_some<R, K, P, 2>(in + c, out + c, w);
    }
    if (c < columns) {
      ask(c);
      along_some<R, K, P, 1>(in + c, out + c, w);
    }
  } else {
    const std::int64_t pitch = line_pitch<R, K>(size);
    for (std::int64_t c = 0; c < columns; c += L) {
      ask(c);
      V sum[P] = {};
      for (int t = 0; t < size; ++t) {
        const V w = splat<R>(taps[t]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) sum[p] += w * load(in + p * pitch + c + t);
      }
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) store<R>(out + p * kRingPitch<R> + c, sum[p]);
    }
  }
}

// Weighted sums down the ring for one vector of columns: kStep rows of windows of P planes.
// rows: addresses of size - 1 + kStep consecutive rows. One load serves kStep sums.
template <class R, int K, int P>
inline void down_rows(const R* const* rows, std::int64_t offset, const R* taps, int size, Vec<R> (*sum)[kStep]) {
  using V = Vec<R>;
  if constexpr (K != 0) {
    V w[K / 2 + 1];
#pragma GCC unroll 16
    for (int t = 0; t <= K / 2; ++t) w[t] = splat<R>(taps[t]);
    V total[P][kStep];
#if defined(__AVX512F__)
    if constexpr (K <= 11) {  // the rows of a plane fit in registers: the two taps of one weight are added first
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        V v[K - 1 + kStep];
#pragma GCC unroll 32
        for (int j = 0; j < K - 1 + kStep; ++j) v[j] = load(rows[j] + offset + p * kRingPitch<R>);
#pragma GCC unroll 16
        for (int t = 0; t <= K / 2; ++t) {
#pragma GCC unroll 4
          for (int r = 0; r < kStep; ++r) {
            const V both = t < K / 2 ? v[r + t] + v[r + K - 1 - t] : v[r + t];
            sum[p][r] = t == 0 ? w[0] * both : sum[p][r] + w[t] * both;
          }
        }
      }
      return;
    }
#endif
#pragma GCC unroll 32
    for (int j = 0; j < K - 1 + kStep; ++j) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const V v = load(rows[j] + offset + p * kRingPitch<R>);
#pragma GCC unroll 4
        for (int r = 0; r < kStep; ++r) {
          const int t = j - r;
          if (t == 0) total[p][r] = w[0] * v;
          if (t > 0 && t < K) total[p][r] += w[t > K / 2 ? K - 1 - t : t] * v;
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int r = 0; r < kStep; ++r) sum[p][r] = total[p][r];
    }
  } else {
    V total[P][kStep] = {};
    for (int t = 0; t < size; ++t) {
      const V w = splat<R>(taps[t]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int r = 0; r < kStep; ++r) total[p][r] += w * load(rows[t + r] + offset + p * kRingPitch<R>);
      }
    }
    for (int p = 0; p < P; ++p) {
      for (int r = 0; r < kStep; ++r) sum[p][r] = total[p][r];
    }
  }
}

}  // namespace
}  // namespace semnr

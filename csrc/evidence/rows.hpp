// Rows of float32 that are read and written by whole blocks of vectors: filters along and across them, and their sums.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "../simd.hpp"

namespace semnr {

constexpr int kTogether = 4;                                // vectors of a block
constexpr std::int64_t kBlock = kTogether * kLanes<float>;  // values of a block
constexpr std::int64_t kSpan = 64;  // rows can be read to a multiple of it, whatever the vectors

inline std::int64_t span_of(std::int64_t width) { return (width + kSpan - 1) / kSpan * kSpan; }
// From row to row: an odd number of cache lines, so that a column's pixels lie in all parts of the cache.
inline std::int64_t pitch_of(std::int64_t width) { return span_of(width) + 16; }

constexpr std::int64_t kPlaneStats = 5;  // base; sum, least and largest of what is left; pixels that are not finite

// Whole planes of float32, rows `pitch` apart and 0 beyond their width, and what was taken off each.
struct Planes {
  const float* data;
  const double* stats;  // (n, kPlaneStats)
  std::int64_t n, h, w, pitch, span;

  const float* row(std::int64_t k, std::int64_t y) const { return data + (k * h + y) * pitch; }
  double base(std::int64_t k) const { return stats[k * kPlaneStats]; }
  double sum(std::int64_t k) const { return stats[k * kPlaneStats + 1]; }
  double least(std::int64_t k) const { return stats[k * kPlaneStats + 2]; }
  double largest(std::int64_t k) const { return stats[k * kPlaneStats + 3]; }
};

// out[x] = taps[0] at(0)[x] + Σ taps[i] (at(i)[x] + at(-i)[x]), or for odd taps Σ taps[i] (at(i)[x] - at(-i)[x]);
// at(i) points to the values i steps away.
template <bool kOdd, class At>
[[gnu::always_inline]] inline void folded(const float* taps, int radius, At at, std::int64_t count, float* out) {
  constexpr std::int64_t L = kLanes<float>;
  for (std::int64_t x = 0; x < count; x += kBlock) {
    Vec<float> sum[kTogether] = {};
    if constexpr (!kOdd) {
      const float* const from = at(0) + x;
#pragma GCC unroll 4
      for (int b = 0; b < kTogether; ++b) sum[b] = taps[0] * load(from + b * L);
    }
    for (int i = 1; i <= radius; ++i) {
      const float *const after = at(i) + x, *const before = at(-i) + x;
#pragma GCC unroll 4
      for (int b = 0; b < kTogether; ++b) {
        const Vec<float> one = load(after + b * L), other = load(before + b * L);
        sum[b] += taps[i] * (kOdd ? one - other : one + other);
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < kTogether; ++b) store<float>(out + x + b * L, sum[b]);
  }
}

// The largest of values; -infinity of none.
inline float largest_of(const float* values, std::int64_t count) {
  constexpr std::int64_t L = kLanes<float>;
  constexpr float kLeast = -std::numeric_limits<float>::infinity();
  Vec<float> most = splat(kLeast);
  std::int64_t i = 0;
  for (; i + L <= count; i += L) {
    const Vec<float> v = load(values + i);
    most = v > most ? v : most;
  }
  float found = kLeast;
  for (std::int64_t lane = 0; lane < L; ++lane) found = std::max(found, most[lane]);
  for (; i < count; ++i) found = std::max(found, values[i]);
  return found;
}

// Σ f(vector at x) over `count` values; what lies beyond them must be there and give 0. In float64 but for a few at a
// time.
template <class F>
[[gnu::always_inline]] inline double total(std::int64_t count, F&& f) {
  constexpr std::int64_t L = kLanes<float>, kFew = 8 * L;
  Vec<double> sum = {};
  for (std::int64_t x = 0; x < count; x += kFew) {
    Vec<float> some = {};
    for (std::int64_t i = x; i < std::min(x + kFew, count); i += L) some += f(i);
    sum += widened_sum(some);
  }
  return semnr::sum<double>(sum);
}

}  // namespace semnr

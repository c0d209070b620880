// How far apart the pixels of two rows lie, and which values they take: read beside the windows, while the row is near.
#pragma once
#include <cmath>
#include <limits>

#include "../image.hpp"
#include "../simd.hpp"

namespace semnr {
namespace {

// Over the rows that a tile owns: Σ |x - y|, Σ (x - y)², and the extremes of both images. A NaN is no extreme.
struct Apart {
  double sum = 0, square = 0;
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(const Apart& o) {
    sum += o.sum;
    square += o.square;
    low = o.low < low ? o.low : low;
    high = o.high > high ? o.high : high;
  }
};

// `count` pixels that lie `step` apart, from a vector on; the lanes after them repeat the first.
template <class T, class R>
inline Vec<R> pixels(const T* p, std::int64_t step, std::int64_t count) {
  constexpr int L = kLanes<R>;
  if (step == 1 && count >= L) {
    if constexpr (std::is_same_v<T, R>) return load(p);
    alignas(kVectorBytes) R lanes[L];
    for (int i = 0; i < L; ++i) lanes[i] = real<R>(p[i]);
    return load(lanes);
  }
  alignas(kVectorBytes) R lanes[L];
  for (int i = 0; i < L; ++i) lanes[i] = real<R>(p[i < count ? i * step : 0]);
  return load(lanes);
}

// scale: of the differences alone.
template <class T, class R>
void measure_row(const void* x_row, std::int64_t step_x, const void* y_row, std::int64_t step_y, std::int64_t first_at,
                 std::int64_t n, R scale, Apart& to) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  const T* x = static_cast<const T*>(x_row) + first_at * step_x;
  const T* y = static_cast<const T*>(y_row) + first_at * step_y;
  V total = {}, square = {}, low = splat<R>(std::numeric_limits<R>::infinity()), high = -low;
  for (std::int64_t i = 0; i < n; i += L) {
    const V a = pixels<T, R>(x + i * step_x, step_x, n - i), b = pixels<T, R>(y + i * step_y, step_y, n - i);
    const V d = a - b, distance = (d < V{} ? -d : d) * scale;
    const V counted = n - i < L ? first<R>(distance, n - i) : distance;
    total += counted;
    square += counted * counted;
    const V less = a < b ? a : b, more = a < b ? b : a;
    low = less < low ? less : low;
    high = more > high ? more : high;
  }
  Apart row;
  row.sum = sum<double>(widened_sum(total));
  row.square = sum<double>(widened_sum(square));
  for (int i = 0; i < L; ++i) {
    row.low = low[i] < row.low ? double(low[i]) : row.low;
    row.high = high[i] > row.high ? double(high[i]) : row.high;
  }
  to.add(row);
}

// The derivative of |x - y| by x, times `by`; 0 where they are equal.
template <class T, class R>
void sign_row(const void* x_row, std::int64_t step_x, const void* y_row, std::int64_t step_y, std::int64_t first_at,
              std::int64_t n, R by, R* __restrict out) {
  const T* x = static_cast<const T*>(x_row) + first_at * step_x;
  const T* y = static_cast<const T*>(y_row) + first_at * step_y;
  for (std::int64_t i = 0; i < n; ++i) {
    const R a = real<R>(x[i * step_x]), b = real<R>(y[i * step_y]);
    out[i] = a > b ? by : (a < b ? -by : R(0));
  }
}

}  // namespace
}  // namespace semnr

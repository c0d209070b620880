// Sums of squared and of absolute differences over pixels that lie side by side.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "../simd.hpp"
#include "pixel_math.hpp"

namespace semnr {
namespace {

// 32-bit sums of squares of 8-bit differences, and of 16-bit distances, stay exact: 32768 · 255² < 2³¹.
constexpr std::int64_t kExactBlock = 32768;

struct Partial {
  double square = 0, absolute = 0, count = 0;
  std::uint64_t exact_square = 0, exact_absolute = 0;
};

// Asks for memory well ahead of the loads: a page ends before the hardware's own look-ahead has caught up.
template <class T>
inline void ask_ahead(const T* p) {
  constexpr std::int64_t kAhead = 2048;
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kAhead);
}

template <bool Absolute>
inline void add_block(const std::uint8_t* x, const std::uint8_t* y, std::int64_t n, Partial& sum) {
  std::int32_t square = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int16_t d = std::int16_t(x[i] - y[i]);
    square += std::int32_t(d) * std::int32_t(d);  // pairs of products in one instruction
  }
  sum.exact_square += std::uint64_t(square);
  if constexpr (Absolute) {
    std::uint32_t absolute = 0;
    for (std::int64_t i = 0; i < n; ++i) absolute += std::uint32_t(std::abs(int(x[i]) - int(y[i])));
    sum.exact_absolute += absolute;
  }
}

template <bool Absolute>
inline void add_block(const std::uint16_t* x, const std::uint16_t* y, std::int64_t n, Partial& sum) {
  std::uint64_t square = 0;
  std::uint32_t absolute = 0;  // 32768 · 65535 < 2³²
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t d = integer_distance(x[i], y[i]);
    square += std::uint64_t(d * d);  // < 2³²
    if constexpr (Absolute) absolute += d;
  }
  sum.exact_square += square;
  sum.exact_absolute += absolute;
}

inline Vec<double> magnitude(Vec<double> v) {
  Vec<std::int64_t> bits;
  std::memcpy(&bits, &v, sizeof v);
  bits &= INT64_MAX - Vec<std::int64_t>{};  // the sign bit off: one instruction, NaN kept
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// Differences and sums in float64, as the definition has them.
template <bool Absolute, class T>
void add_real(const T* x, const T* y, std::int64_t n, Partial& sum) {
  constexpr int L = kLanes<double>, kMany = 8;
  Vec<double> square[kMany] = {}, absolute[kMany] = {};
  std::int64_t i = 0;
  for (; i + kMany * L <= n; i += kMany * L) {
    for (std::int64_t at = 0; at < std::int64_t(kMany * L * sizeof(T)); at += 64) {
      ask_ahead(reinterpret_cast<const char*>(x + i) + at);
      ask_ahead(reinterpret_cast<const char*>(y + i) + at);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kMany; ++k) {
      const Vec<double> d = widened(x + i + k * L) - widened(y + i + k * L);
      square[k] += d * d;
      if constexpr (Absolute) absolute[k] += magnitude(d);
    }
  }
  double rest_square = 0, rest_absolute = 0;
  for (; i < n; ++i) {
    const double d = double(x[i]) - double(y[i]);
    rest_square += d * d;
    rest_absolute += std::fabs(d);
  }
  for (int k = 1; k < kMany; ++k) {
    square[0] += square[k];
    absolute[0] += absolute[k];
  }
  sum.square += semnr::sum<double>(square[0]) + rest_square;
  sum.absolute += semnr::sum<double>(absolute[0]) + rest_absolute;
}

template <bool Absolute, class T>
void add(const T* x, const T* y, std::int64_t n, Partial& sum) {
  if constexpr (std::is_integral_v<T>) {
    for (std::int64_t i = 0; i < n; i += kExactBlock)
      add_block<Absolute>(x + i, y + i, std::min(kExactBlock, n - i), sum);
  } else {
    add_real<Absolute>(x, y, n, sum);
  }
}

}  // namespace
}  // namespace semnr

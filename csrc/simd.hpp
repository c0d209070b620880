// Vectors of the native width of the instruction set that this translation unit is built for.
// One source for AVX-512, AVX2, SSE2 and NEON: GCC and Clang vector types; intrinsics only where a compiler is known to
// miss the one instruction meant.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace semnr {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class R>
struct Vector {
  typedef R type __attribute__((vector_size(kVectorBytes)));
};
template <class R>
using Vec = typename Vector<R>::type;

template <class R>
constexpr int kLanes = kVectorBytes / int(sizeof(R));

template <class R>
inline Vec<R> load(const R* p) {
  Vec<R> v;
  std::memcpy(&v, p, sizeof v);  // any alignment
  return v;
}

template <class R>
inline void store(R* p, Vec<R> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class R>
inline Vec<R> splat(R value) {
  return value - Vec<R>{};
}

// max(v, 0) that lets NaN through.
template <class R>
inline Vec<R> not_negative(Vec<R> v) {
  return v < Vec<R>{} ? Vec<R>{} : v;
}

// √v of each lane.
template <class R>
inline Vec<R> root(Vec<R> v) {
#if defined(__AVX512F__)  // masked: GCC 12 warns of what the plain ones leave undefined
  if constexpr (sizeof(R) == 4) {
    return (Vec<R>)_mm512_maskz_sqrt_ps(__mmask16(0xffff), (__m512)v);
  } else {
    return (Vec<R>)_mm512_maskz_sqrt_pd(__mmask8(0xff), (__m512d)v);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(R) == 4) {
    return (Vec<R>)_mm256_sqrt_ps((__m256)v);
  } else {
    return (Vec<R>)_mm256_sqrt_pd((__m256d)v);
  }
#elif defined(__x86_64__)
  if constexpr (sizeof(R) == 4) {
    return (Vec<R>)_mm_sqrt_ps((__m128)v);
  } else {
    return (Vec<R>)_mm_sqrt_pd((__m128d)v);
  }
#else
  for (int i = 0; i < kLanes<R>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

template <class R>
inline R sum(Vec<R> v) {
  R total = 0;
  for (int i = 0; i < kLanes<R>; ++i) total += v[i];
  return total;
}

// As many values as a vector of doubles holds, widened.
template <class T>
inline Vec<double> widened(const T* p) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {  // GCC 12 converts by halves
    return (Vec<double>)_mm512_maskz_cvtps_pd(__mmask8(0xff), _mm256_loadu_ps(p));
  }
#endif
  typedef T Narrow __attribute__((vector_size(kLanes<double> * sizeof(T))));
  Narrow narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  return __builtin_convertvector(narrow, Vec<double>);
}

// Sum of a float vector's lanes pairs into doubles: same lane order on every call.
inline Vec<double> widened_sum(Vec<float> v) {
  float lanes[kLanes<float>];
  std::memcpy(lanes, &v, sizeof lanes);
  return widened(lanes) + widened(lanes + kLanes<double>);
}
inline Vec<double> widened_sum(Vec<double> v) { return v; }

// Lanes 0 .. count-1 keep their value, the others become 0.
template <class R>
inline Vec<R> first(Vec<R> v, std::int64_t count) {
  alignas(kVectorBytes) R lanes[kLanes<R>];
  store(lanes, v);
  for (int i = 0; i < kLanes<R>; ++i) lanes[i] = i < count ? lanes[i] : R(0);
  return load(lanes);
}

}  // namespace semnr

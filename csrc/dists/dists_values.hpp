// Vectors of network values: float lanes of float32, bfloat16 and float16 in memory, double lanes of float64.
#pragma once
#include "../image.hpp"
#include "../simd.hpp"

namespace semnr {

template <class T>
struct Computed {
  using type = float;
};
template <>
struct Computed<double> {
  using type = double;
};

constexpr int kFloats = kLanes<float>;

inline Vec<float> values(const float* p) { return load(p); }
inline Vec<double> values(const double* p) { return load(p); }

inline Vec<float> values(const BFloat* p) {
  typedef std::uint16_t Narrow __attribute__((vector_size(kFloats * 2)));
  typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  Narrow narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  const Bits bits = __builtin_convertvector(narrow, Bits) << 16;
  Vec<float> v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

inline Vec<float> values(const Half* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_cvtph_ps(__mmask16(0xffff), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  float lanes[kFloats];
  for (int i = 0; i < kFloats; ++i) lanes[i] = real<float>(p[i]);
  return load(lanes);
#endif
}

inline void put(float* p, Vec<float> v) { store(p, v); }
inline void put(double* p, Vec<double> v) { store(p, v); }

// To the nearest, halves to even; NaN stays NaN.
inline void put(BFloat* p, Vec<float> v) {
  typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  typedef std::uint16_t Narrow __attribute__((vector_size(kFloats * 2)));
  Bits bits;
  std::memcpy(&bits, &v, sizeof bits);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits chosen = v == v ? rounded : (bits >> 16) | 0x40u;
  const Narrow narrow = __builtin_convertvector(chosen, Narrow);
  std::memcpy(p, &narrow, sizeof narrow);
}

inline void put(Half* p, Vec<float> v) {
#if defined(__AVX512F__)
  const __m256i narrow = _mm512_maskz_cvtps_ph(__mmask16(0xffff), (__m512)v, _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow);
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kFloats; ++i) p[i].bits = half_bits(v[i]);
#endif
}

// The lanes of a vector of R as vectors of A, in order.
template <class R, class A>
struct Lanes {
  static constexpr int parts = kLanes<R> / kLanes<A>;
  Vec<A> part[parts];
};

template <class A>
inline Lanes<A, A> lanes(Vec<A> v) {
  return {{v}};
}

template <class A, class = std::enable_if_t<std::is_same_v<A, double>>>
inline Lanes<float, double> lanes(Vec<float> v) {
#if defined(__AVX512F__)
  // GCC 12 converts by halves unless the instruction is named, and warns of the unmasked forms
  const __mmask8 all = 0xff;
  return {{(Vec<double>)_mm512_maskz_cvtps_pd(all, _mm512_maskz_extractf32x8_ps(all, (__m512)v, 0)),
           (Vec<double>)_mm512_maskz_cvtps_pd(all, _mm512_maskz_extractf32x8_ps(all, (__m512)v, 1))}};
#elif defined(__AVX2__)
  return {{(Vec<double>)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)),
           (Vec<double>)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1))}};
#else
  return {{Vec<double>{double(v[0]), double(v[1])}, Vec<double>{double(v[2]), double(v[3])}}};
#endif
}

// Doubles as the lanes of a vector of R in vectors of A.
template <class R, class A>
inline Lanes<R, A> near(const double* p) {
  Lanes<R, A> all;
  for (int i = 0; i < Lanes<R, A>::parts; ++i) {
    for (int k = 0; k < kLanes<A>; ++k) all.part[i][k] = A(p[i * kLanes<A> + k]);
  }
  return all;
}

}  // namespace semnr

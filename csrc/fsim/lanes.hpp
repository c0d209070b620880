// Vectors as columns of a block: their transposition, packing, and √v with 1/√v.
#pragma once
#include <cmath>
#include <cstdint>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../simd.hpp"

namespace semnr {

// Exchanges the off-diagonal squares of D × D values in the rows a = i and b = i + D of a block.
template <int D, class R, std::size_t... J>
inline void swap_squares(Vec<R>& a, Vec<R>& b, std::index_sequence<J...>) {
  constexpr int L = kLanes<R>;
  const Vec<R> low = __builtin_shufflevector(a, b, ((J & D) != 0 ? L + int(J) - D : int(J))...);
  b = __builtin_shufflevector(a, b, ((J & D) != 0 ? L + int(J) : int(J) + D)...);
  a = low;
}

template <int D, class R>
inline void transpose_from(Vec<R>* v) {
  constexpr int L = kLanes<R>;
  if constexpr (D < L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if ((i & D) == 0) swap_squares<D, R>(v[i], v[i + D], std::make_index_sequence<std::size_t(L)>{});
    }
    transpose_from<2 * D, R>(v);
  }
}

// Lane j of vector i goes to lane i of vector j.
template <class R>
inline void transpose(Vec<R> (&v)[kLanes<R>]) {
  transpose_from<1, R>(v);
}

// The lanes in which a comparison (all bits or none) holds, as bits.
template <class R, class M>
inline std::uint32_t lanes_of(M holds) {
  static_assert(sizeof(M) == kVectorBytes, "a comparison of vectors");
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 4) {
    return _mm512_movepi32_mask((__m512i)holds);
  } else {
    return _mm512_movepi64_mask((__m512i)holds);
  }
#elif defined(__AVX2__)
  return std::uint32_t(sizeof(R) == 4 ? _mm256_movemask_ps((__m256)holds) : _mm256_movemask_pd((__m256d)holds));
#elif defined(__x86_64__)
  return std::uint32_t(sizeof(R) == 4 ? _mm_movemask_ps((__m128)holds) : _mm_movemask_pd((__m128d)holds));
#else
  std::uint32_t bits = 0;
  for (int i = 0; i < kLanes<R>; ++i) bits |= std::uint32_t(holds[i] != 0) << i;
  return bits;
#endif
}

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__BMI2__))
template <class R>
constexpr bool kPacks = sizeof(R) == 4;
#else
template <class R>
constexpr bool kPacks = false;
#endif

// The lanes whose bit is set, side by side from the first; only where kPacks.
template <class R>
inline Vec<R> packed(Vec<R> v, [[maybe_unused]] std::uint32_t bits) {
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 4) return (Vec<R>)_mm512_maskz_compress_ps(__mmask16(bits), (__m512)v);
#elif defined(__AVX2__) && defined(__BMI2__)
  if constexpr (sizeof(R) == 4) {
    const std::uint64_t bytes = _pdep_u64(bits, 0x0101010101010101u) * 0xff;
    const __m128i order = _mm_cvtsi64_si128((long long)_pext_u64(0x0706050403020100u, bytes));
    return (Vec<R>)_mm256_permutevar8x32_ps((__m256)v, _mm256_cvtepu8_epi32(order));
  }
#endif
  return v;
}

// √v and 1/√v of v >= 0; both 0 at 0.
template <class R>
struct Roots {
  Vec<R> root, inverse;
};

template <class R>
inline Roots<R> roots(Vec<R> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 4) {  // an estimate of 14 bits and one Newton step:
                                   // a third of the square root's time
    const __mmask16 some = _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const Vec<R> inverse = (Vec<R>)_mm512_maskz_rsqrt14_ps(some, (__m512)v);
    const Vec<R> first = v * inverse, half = inverse * R(0.5);
    const Vec<R> error = R(0.5) - first * half;
    return {first + first * error, inverse + inverse * error};
  }
#endif
  const Vec<R> zero = {}, whole = root<R>(v);
  return {whole, v == zero ? zero : 1 / (v == zero ? splat<R>(1) : whole)};
}

}  // namespace semnr

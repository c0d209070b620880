// SSIM from window moments. Written once, for C++ vectors, scalars and the CUDA kernel.
//
// With s = x + y and d = x - y (Wang 2004, eq. 13, regrouped):
//   luminance          = 1 - D² / (M + C1)     D = μx - μy,       M = μx² + μy² = (μs² + μd²) / 2
//   contrast·structure = 1 - Vd / (V + C2)     Vd = var(x - y),   V = σx² + σy² = (Vs + Vd) / 2
// Four moments (s, d, s², d²) are enough, and what makes the images differ is never a difference of large numbers.
#pragma once

#if defined(__CUDACC__)
#define SEMNR_SSIM_HD __host__ __device__
#else
#define SEMNR_SSIM_HD
#endif

namespace semnr {

template <class V>
struct SsimTerms {
  V luminance_top, luminance_bottom;  // luminance = top / bottom
  V structure_top, structure_bottom;  // contrast·structure = top / bottom
  V luminance_loss, structure_loss;   // bottom - top, with all its digits
};

// mean_s, mean_d: means of the shifted s and d; offset_s, offset_d: what brings them back to x + y and x - y.
// var_s, var_d: population variances; spread: the sample covariance's factor, over 2.
template <class V, class R>
SEMNR_SSIM_HD inline SsimTerms<V> ssim_terms(V mean_s, V mean_d, V var_s, V var_d, R offset_s, R offset_d, R spread,
                                             R c1, R c2) {
  const V sum = mean_s + offset_s, difference = mean_d + offset_d;
  const V square = difference * difference;
  const V bottom = (sum * sum + square) * R(0.5) + c1;
  const V spread_bottom = (var_s + var_d) * spread + c2;
  const V apart = var_d * (spread + spread);
  return {bottom - square, bottom, spread_bottom - apart, spread_bottom, square, apart};
}

}  // namespace semnr

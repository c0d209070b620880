// The similarity of two gradient magnitudes and its derivatives. Written once,
// for the C++ loop and the CUDA kernel.
#pragma once

#if defined(__CUDACC__)
#define SEMNR_HD __host__ __device__
#else
#define SEMNR_HD
#endif

namespace semnr {

constexpr double kScharrSide = 3.0 / 16, kScharrMiddle = 10.0 / 16;

// S = (2ab + T) / (a² + b² + T). The denominator as (a - b)² + the numerator:
// equal gradients give 1 exactly.
template <class V>
struct GradientTerms {
  V similarity, over;  // over: 1 / denominator
};

template <class V>
SEMNR_HD inline GradientTerms<V> gradient_terms(V a, V b, V constant) {
  const V apart = a - b, top = (a + a) * b + constant;
  const V bottom = apart * apart + top;
  const V over = (constant * 0 + 1) / bottom;
  return {top / bottom, over};
}

// ∂S/∂a = 2 (b - S a) / denominator. The derivative by a component p of the
// gradient is ∂S/∂a · p / a; at a = 0, where the magnitude has no derivative,
// it is 0.
template <class V>
SEMNR_HD inline V gradient_slope(const GradientTerms<V>& t, V a, V b) {
  return (b - t.similarity * a) * t.over * 2;
}

}  // namespace semnr

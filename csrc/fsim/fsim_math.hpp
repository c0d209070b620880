// FSIM's formulas, in the names and the order of semnr_kernels/fsim/README.md. Written once.
#pragma once
#include <cmath>
#include <cstdint>

#include "../counts.hpp"

namespace semnr {

constexpr double kT1 = 0.85, kT2 = 160, kT3 = 200, kT4 = 200, kLambda = 0.03;
constexpr double kEpsilon = 2.220446049250313e-16;
constexpr double kYiq[3][3] = {{0.299, 0.587, 0.114}, {0.5959, -0.2746, -0.3213}, {0.2115, -0.5227, 0.3112}};
constexpr double kPi = 3.14159265358979323846;

struct LogGabor {
  int scales, orientations;
  double min_length, mult, sigma_f, delta_theta;

  // Cycles a pixel at a bin of a transform of n. The divisor is n - 1 on odd sizes (Kovesi: ±0.5 is reached).
  static double frequency(std::int64_t bin, std::int64_t n) {
    return double(bin < (n + 1) / 2 ? bin : bin - n) / double(n - n % 2);
  }

  double radial(double radius, int scale) const {
    const double octave = std::log(radius * min_length * std::pow(mult, scale)) / std::log(sigma_f);
    return std::exp(-octave * octave / 2) / (1 + std::pow(radius / 0.45, 30));
  }

  double angular(double theta, int orientation) const {
    const double distance = std::remainder(theta - orientation * kPi / orientations, 2 * kPi);
    const double turns = distance * orientations * delta_theta / kPi;
    return std::exp(-turns * turns / 2);
  }
};

// (2ab + T) / (a² + b² + T). The denominator as (a - b)² + the numerator: equal values give 1 exactly.
template <class V>
struct Similarity {
  V value, over;  // over: 1 / denominator

  // ∂value/∂a = 2 (b - value a) / denominator
  SEMNR_HD V slope(V a, V b) const { return (b - value * a) * over * 2; }
};

template <class V>
SEMNR_HD inline Similarity<V> similarity_of(V a, V b, V constant) {
  const V apart = a - b, top = (a + a) * b + constant;
  const V bottom = apart * apart + top;
  return {top / bottom, (constant * 0 + 1) / bottom};
}

}  // namespace semnr

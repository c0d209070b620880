// Contrast over the noise of the noisy image, and what is left of the contrast: semnr_kernels/cnr/reference.py.
#pragma once
#include <cmath>
#include <limits>

namespace semnr {

// Without noise an infinity; with neither contrast nor noise NaN.
inline double fixed_noise_ratio(double contrast, double variance) {
  const double top = std::fabs(contrast);
  return variance > 0 ? top / std::sqrt(variance) : top / std::fabs(variance);
}

// NaN where the reference has no contrast.
inline double contrast_retention(double candidate, double reference) {
  return reference == 0 ? std::numeric_limits<double>::quiet_NaN() : candidate / reference;
}

}  // namespace semnr

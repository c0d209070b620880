// The line through measured variances, in float64.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace semnr {

struct NoisePoint {
  double level, variance, count;
};

struct NoiseLine {
  double gain = 0, offset = 0, error = std::numeric_limits<double>::quiet_NaN();
};

inline double median_of(std::vector<double> values) {
  const std::size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(middle), values.end());
  if (values.size() % 2 != 0) return values[middle];
  return 0.5 * (values[middle] + *std::max_element(values.begin(), values.begin() + std::ptrdiff_t(middle)));
}

inline double mean_variance(const std::vector<NoisePoint>& points) {
  double sum = 0, count = 0;
  for (const NoisePoint& p : points) {
    sum += p.variance * p.count;
    count += p.count;
  }
  return sum / count;
}

// Weighted by what the line says, outliers turned down; its gain's standard error.
inline NoiseLine line_through(const std::vector<NoisePoint>& points) {
  const std::size_t n = points.size();
  const auto by_level = [](const NoisePoint& a, const NoisePoint& b) { return a.level < b.level; };
  const auto [low, high] = std::minmax_element(points.begin(), points.end(), by_level);
  const NoiseLine none = {0, mean_variance(points), std::numeric_limits<double>::quiet_NaN()};
  if (n < 3 || !(high->level > low->level)) return none;
  double middle = 0, least = points[0].variance;
  for (const NoisePoint& p : points) {
    middle += p.level / double(n);
    least = std::min(least, p.variance);
  }
  std::vector<double> fitted(n, none.offset), robust(n, 1.0), weight(n), relative(n);
  double s0 = 0, s1 = 0, s2 = 0, determinant = 0, gain = 0, offset = 0;
  for (int turn = 0; turn < 10; ++turn) {
    const double floor = 1e-3 * *std::max_element(fitted.begin(), fitted.end()) + 1e-300;
    double t0 = 0, t1 = 0;
    s0 = s1 = s2 = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double scale = std::max(fitted[i], floor), x = points[i].level - middle;
      weight[i] = robust[i] * points[i].count / (scale * scale);
      s0 += weight[i];
      s1 += weight[i] * x;
      s2 += weight[i] * x * x;
      t0 += weight[i] * points[i].variance;
      t1 += weight[i] * points[i].variance * x;
    }
    determinant = s2 * s0 - s1 * s1;
    if (!(determinant > 1e-12 * s2 * s0)) return none;  // the levels that count are one
    gain = (s0 * t1 - s1 * t0) / determinant;
    offset = (s2 * t0 - s1 * t1) / determinant;
    for (std::size_t i = 0; i < n; ++i) {
      fitted[i] = std::max(gain * (points[i].level - middle) + offset, 0.25 * least);
      relative[i] = std::abs(points[i].variance - fitted[i]) / std::max(fitted[i], 1e-300);
    }
    const double spread = 1.4826 * median_of(relative) + 0.01;
    for (std::size_t i = 0; i < n; ++i) robust[i] = 1 / std::max(1.0, relative[i] / (1.5 * spread));
  }
  double chi2 = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double apart = points[i].variance - gain * (points[i].level - middle) - offset;
    chi2 += weight[i] * apart * apart;
  }
  chi2 /= double(std::max<std::size_t>(1, n - 2));
  return {gain, offset - gain * middle, std::sqrt(chi2 * s0 / determinant)};
}

}  // namespace semnr

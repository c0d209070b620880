// The noise law of images from the images themselves; semnr_kernels/noise/README.md has the formulas.
#pragma once
#include <cstdint>
#include <vector>

namespace semnr {

constexpr int kNoiseBins = 48;  // levels that are told apart
constexpr int kNoiseLags = 4;   // pixels along the line over which the correlation is followed
// gain, offset, its standard error, clipped shares below and above, number of points, share of the pixels that took
// part (0: too few are not clipped); then the points' levels, variances and counts; then for each lag the products of
// neighbours and their mean squares; then how differences grow with distance: across the lines, along
// them, and the share of even and odd lines
constexpr int kNoiseSpacing = 6;
constexpr int kNoiseRow = 7 + 3 * kNoiseBins + 2 * kNoiseLags + kNoiseSpacing;

// Part of an image: float32 less `base`.
struct NoiseWindow {
  const float* data;
  std::int64_t pitch, h, w;
  double base;
};

struct NoiseLimits {
  double low, high;  // ends of the scale
  double piled;      // share of the pixels from which an end counts as one
};

// One law for all windows; row: kNoiseRow.
void noise_fit(const std::vector<NoiseWindow>& windows, const NoiseLimits& limits, double* row);

}  // namespace semnr

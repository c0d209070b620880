#pragma once
#include "../image.hpp"
#include "../ssim/ssim_cpu.hpp"

namespace semnr {

constexpr int kProfileRegions = 2;
constexpr int kProfileRow = 6 + 3 * kProfileRegions;
constexpr int kProfileImages = 3;  // x, y and the noisy image
constexpr int kProfileCellMoments = kProfileImages * kProfileRegions;
constexpr std::int64_t kProfileCell = 32;  // px; a window is two by two cells, one begins at every cell

constexpr int kProfileNoisyRow = 5;

// The noisy image of which x was made. out: N rows of its MSE to y, of the contrast of x over its noise and the share
// of the reference's contrast that x has, and of the lowest of both among windows with at least `least` pixels of each
// region (NaN: there is none).
struct NoisyProfile {
  Image image;
  double least;
  double* out;
};

// Pixel errors, SSIM, the moments of two regions of x and those of all of y, from one walk over the pixels.
//
// One channel, pixels of a row side by side (masks too, and they are there); uint8, uint16, float32, float64.
// out: N rows of MSE, MAE, score, pixels that both regions hold, mean and population variance of y, then pixels, mean
// and population variance of each region (NaN where empty). With `noisy`, sides of at least 64.
void profile_scores(const Image& x, const Image& y, const Mask (&regions)[kProfileRegions], Dtype dtype,
                    const Shape& shape, const SsimOptions& options, double* out, const NoisyProfile* noisy = nullptr);

}  // namespace semnr

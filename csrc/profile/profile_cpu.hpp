#pragma once
#include "../image.hpp"
#include "../ssim/ssim_cpu.hpp"

namespace semnr {

constexpr int kProfileRegions = 2;
constexpr int kProfileRow = 6 + 3 * kProfileRegions;

// Pixel errors, SSIM, the moments of two regions of x and those of all of y, from one walk over the pixels.
//
// One channel, pixels of a row side by side (masks too, and they are there); uint8, uint16, float32, float64.
// out: N rows of MSE, MAE, score, pixels that both regions hold, mean and population variance of y, then pixels, mean
// and population variance of each region (NaN where empty).
void profile_scores(const Image& x, const Image& y, const Mask (&regions)[kProfileRegions], Dtype dtype,
                    const Shape& shape, const SsimOptions& options, double* out);

}  // namespace semnr

#pragma once
#include "../cuda/stream.hpp"
#include "../image.hpp"
#include "../ssim/ssim_cuda.hpp"

namespace semnr {

constexpr int kProfileTallies = 3;  // moments: of x in the signal and in the background, and of all of y

// What a launch leaves for the last stages: 2, 3 and 9 numbers of 8 bytes a block of the plan.
struct ProfileScratch {
  double* ssim;
  std::uint64_t* pixels;
  std::uint64_t* cells;  // kProfileTallies × planes × 3 × segments × strips, as csrc/cnr has them
};

// One read of the pixels: the SSIM of windows of 11 in float32, pixel errors and moments by blocks. One channel, whole
// windows. regions: signal and background. out: 5 x N float64: MSE, MAE, pixels in both regions, SSIM,
// contrast·structure.
void profile_scores_cuda(const Image& x, const Image& y, const Mask* regions, Dtype dtype, const Shape& shape,
                         const SsimCudaOptions& options, const SsimWalk& walk, const ProfileScratch& scratch,
                         double* out, Stream stream);

}  // namespace semnr

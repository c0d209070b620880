#pragma once
#include "../cuda/stream.hpp"
#include "../image.hpp"
#include "../ssim/ssim_cuda.hpp"

namespace semnr {

constexpr int kProfileTallies = 3;  // moments: of x in the signal and in the background, and of all of y

// The cells whose moments are kept, rows and columns of them: one a block of the plan (segments × strips), or, where
// `stride` is not 0, cut every `stride` pixels and `rest` after those (0: not); multiples of 8, and segments and strips
// begin at strides.
struct ProfileCells {
  std::int64_t rows, columns;
  std::int64_t stride[2], rest[2];  // down, across
};

// What a launch leaves for the last stages: 2 and 3 numbers of 8 bytes a block of the plan, and 9 a cell of each plane.
struct ProfileScratch {
  double* ssim;
  std::uint64_t* pixels;
  std::uint64_t* cells;  // kProfileTallies × planes × 3 × rows × columns, as csrc/cnr has them
};

// One read of the pixels: the SSIM of windows of 11 in float32, pixel errors and moments by cells. One channel, whole
// windows. regions: signal and background. out: 5 x N float64: MSE, MAE, pixels in both regions, SSIM,
// contrast·structure.
void profile_scores_cuda(const Image& x, const Image& y, const Mask* regions, Dtype dtype, const Shape& shape,
                         const SsimCudaOptions& options, const SsimPlan& plan, const ProfileCells& cells,
                         const ProfileScratch& scratch, double* out, Stream stream);

}  // namespace semnr

// The launch of the one read, and the last stages of SSIM and of the pixel errors.
#include <stdexcept>

#include "../pixel/pixel_cuda.hpp"
#include "../ssim/ssim_launch.cuh"
#include "profile_kernel.cuh"

namespace semnr {

void profile_scores_cuda(const Image& x, const Image& y, const Mask* regions, Dtype dtype, const Shape& shape,
                         const SsimCudaOptions& options, const SsimWalk& walk, const ProfileScratch& scratch,
                         double* out, Stream stream) {
  constexpr int kSize = 11;
  if (options.taps.size() != kSize || options.reflect || shape.c != 1) {
    throw std::invalid_argument("profile_scores_cuda: whole windows of 11, one channel");
  }
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (std::is_same_v<T, double>) {
      throw std::invalid_argument("profile_scores_cuda: float64 images are scored one metric at a time");
    } else {
      SsimBatch batch = batch_of(x, y, int(sizeof(T)), shape, options, walk);
      const std::int64_t strips = batch.planes * walk.strips;
      if (walk.blocks % strips != 0) throw std::invalid_argument("profile_scores_cuda: parts of a strip");
      ProfileJob job{};
      for (int r = 0; r < kProfileRegions; ++r) {
        const Mask& region = regions[r];
        job.region[r] = {reinterpret_cast<const char*>(region.data), region.stride[0], region.stride[1],
                         region.stride[2]};
        batch.packed = batch.packed && region.stride[2] == 1 && region.stride[1] % 8 == 0 &&
                       (shape.n == 1 || region.stride[0] % 8 == 0) &&
                       reinterpret_cast<std::uintptr_t>(region.data) % 8 == 0;
      }
      job.planes = batch.planes;
      job.rows = int(walk.blocks / strips);
      job.columns = batch.strips;
      job.scratch = scratch;
      const SsimJob<kSize> ssim = job_of<kSize>(batch, options);
      constexpr int kBytes = ProfileLayout<T, kSize>::kBytes;
      const int threads = int(walk.threads);
      if (batch.packed) {
        SEMNR_LAUNCH((profile_scores<T, kSize, true>), batch.blocks, threads, kBytes, stream, ssim, job);
      } else {
        SEMNR_LAUNCH((profile_scores<T, kSize, false>), batch.blocks, threads, kBytes, stream, ssim, job);
      }
      pixel_fold_cuda(dtype, shape.n, walk.blocks / shape.n, shape.h * shape.w, true, scratch.pixels, out,
                      out + 2 * shape.n, stream);
      ssim_fold_cuda(batch, scratch.ssim, out + 3 * shape.n, {}, stream);
    }
  });
}

}  // namespace semnr

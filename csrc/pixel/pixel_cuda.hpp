#pragma once
#include "../cuda/stream.hpp"
#include "../image.hpp"

namespace semnr {

// How a launch walks the images: each is `planes` × `height` lines of `length` pixels, cut into packs of `pack` pixels
// and those into parts of `packs_a_part`; a block takes whole parts, so sums do not depend on the number of blocks.
// straight: packs of pixels and of the mask lie side by side and aligned in memory, one load each.
struct PixelPlan {
  std::int64_t planes, height, length, pack, packs_a_part;
  bool straight;
  int blocks;
};

constexpr int kPixelThreads = 256;  // packs_a_part is a multiple
constexpr int kPixelPartial = 3;    // 8-byte numbers a part: Σ d², Σ |d|, pixels

// out: 2 × N float64, mean squared and mean absolute errors. partial: N × parts × kPixelPartial.
void pixel_errors_cuda(const Image& x, const Image& y, const Mask& valid, Dtype dtype, std::int64_t images,
                       const PixelPlan& plan, std::uint64_t* partial, double* out, Stream stream);

// The last stage: out as above, from `parts` partial sums an image of `pixels`. all: every pixel counts; else the
// parts' third numbers say how many do. counts: N sums of those, or null.
void pixel_fold_cuda(Dtype dtype, std::int64_t images, std::int64_t parts, std::int64_t pixels, bool all,
                     const std::uint64_t* partial, double* out, double* counts, Stream stream);

}  // namespace semnr

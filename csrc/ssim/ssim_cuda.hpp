// SSIM on CUDA devices: what the launches are told.
#pragma once
#include <cstdint>
#include <vector>

#include "../cuda/stream.hpp"
#include "../image.hpp"

namespace semnr {

constexpr int kSsimThreads = 256;          // of a forward block at most, or half of them; columns of windows of a strip
constexpr int kSsimBackwardThreads = 128;  // of a backward block
constexpr int kSsimGeneralColumns = 32;    // of a strip of the general kernels
constexpr int kSsimGeneralSize = 47;       // their largest window: 99 KB of shared memory, which every chip has
constexpr int kSsimGeneralSums = 7;        // float64 that a block of theirs leaves

struct SsimCudaOptions {
  std::vector<double> taps;  // the symmetric 1-D window; of the fast kernels over its first tap
  double weight;             // what makes the 2-D window whole: (sum of taps)² * weight is 1, in float32 too
  bool reflect;              // windows at every pixel, the image mirrored about its border pixels; else whole windows
  double c1, c2;             // (K1 L)², (K2 L)²
  double range;              // L: only the scale on which the arithmetic runs
  double unbiased;           // n / (n - 1) for the sample covariance, else 1
};

// How the windows of each plane are dealt to blocks: strips side by side, segments one above the other. Backward:
// pixels.
struct SsimPlan {
  std::int64_t threads, strips, segments, rows;  // of a block; blocks across; blocks down; rows that a block walks down
};

// How the forward kernel deals windows to blocks: each column strip of each plane is a run of units of eight rows of
// windows, and block b of B walks down a part of strip b * S / B of the S strips of all planes. No bit depends on B.
struct SsimWalk {
  std::int64_t threads, strips, blocks;  // of a block; side by side in a plane; in the grid, at least one a strip
};

// Planes of one size. Steps in bytes, those inside a plane below 2³¹.
struct SsimBatch {
  std::int64_t x, y;  // addresses of the first pixels
  std::int64_t x_image, x_channel, y_image, y_channel;
  int x_row, x_pixel, y_row, y_pixel;
  int height, width;
  int strips, segments, rows;  // SsimPlan; forward: `strips` alone
  int planes, channels, blocks;
  int columns;  // windows of a strip; backward: pixels
  int lead;     // the first window starts this far outside the image
  int less;     // an image has this many windows less than pixels, along each axis
  bool packed;  // pixels side by side, rows and strips aligned to 8 pixels or 16 bytes, whichever is less
};

// The fast kernels: float32 moments, windows of 7 and 11, no mask; pixels of any type but float64.
bool ssim_has_fast(int size);

// How far apart the pixels lie, and their extremes, from the forward kernel's own read; for whole windows of 11. A NaN
// is no extreme.
struct SsimApart {
  double* partial = nullptr;  // 2 a block: Σ |x - y| and Σ (x - y)²; null: not asked for
  float* extents = nullptr;   // 4 a block: least and greatest of x and of y
  double* out = nullptr;      // 2 x planes: the means of |x - y| and of (x - y)²
};
constexpr int kSsimApartSize = 11;

// partial: 2 float64 a block. out: score and contrast·structure, 2 x planes float64. map: (planes, h, w) float32 or
// null.
void ssim_forward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                       const SsimWalk& walk, double* partial, double* out, float* map, const SsimApart& apart,
                       Stream stream);

// The last stage: out is 2 x planes, the means of l·c·s and of c·s, from the blocks' sums of what they lack to 1.
void ssim_fold_cuda(const SsimBatch& batch, const double* partial, double* out, const SsimApart& apart, Stream stream);

// index, structure: the loss's derivatives by the scores of `ssim_forward_cuda`, planes float64; map: by the map, or
// null; absolute: by |x - y| of each pixel, planes float64, or null. Out: contiguous gradients of the pixels' type
// (16-bit or 32-bit floats), or null.
void ssim_backward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                        const SsimPlan& plan, const double* index, const double* structure, const float* map,
                        const double* absolute, void* out_x, void* out_y, Stream stream);

// A loss: index · (1 - mean score) + absolute · mean |x - y|.
struct SsimWeights {
  double index = 1, absolute = 0;
};

// What is asked about all planes of a batch after their scores: `told` is the mean score and, where `blocks` is not 0,
// the widest range of the pixels of either image (max - min; what is NaN is left out), from 4 float32 a block.
struct SsimTold {
  double* told;    // 2 float64
  void* loss;      // as `weights` make it, or null
  bool narrow;     // of `loss`: float32, else float64
  float* extents;  // 4 x blocks float32: least and greatest of x and of y; or null
  std::int64_t blocks;
  bool measured = false;             // `extents` came from the forward kernel: no launch makes them
  double* extent = nullptr;          // 2 float64: the least and the greatest of all pixels; or null
  const double* absolute = nullptr;  // planes float64: mean |x - y|; or null where the loss has no such term
  SsimWeights weights = {};
};

// x, y: contiguous, of any type but float64. rows: planes float64, as `ssim_forward_cuda` leaves them.
void ssim_told_cuda(const void* x, const void* y, Dtype dtype, const Shape& shape, const double* rows,
                    const SsimTold& told, Stream stream);

// The gradient of a loss with these weights. slope: its own, one number. Otherwise as `ssim_backward_cuda`.
void ssim_loss_backward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape,
                             const SsimCudaOptions& options, const SsimPlan& plan, const SsimWeights& weights,
                             const void* slope, bool narrow, void* out_x, void* out_y, Stream stream);

// The general kernels: every type, any odd window up to kSsimGeneralSize, masks and components, float64 moments.
struct SsimGeneralOutputs {
  bool all;         // masks or components: all rows of `out`, else its first two
  double* partial;  // kSsimGeneralSums a block; or null
  double* out;      // 6 x planes: l·c·s, c·s, l, c, s, coverage; or null
  void* map;        // (planes, h, w) of the precision's type, or null
  double* fields;   // 4 x (planes, h, w), what `ssim_spread_cuda` takes, or null
};

// float64: precision of the moments; `all` implies it. slopes: 2 x planes; slopes_map: (planes, h, w); or null.
void ssim_general_cuda(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
                       const SsimCudaOptions& options, bool float64, const SsimPlan& plan, const double* slopes,
                       const double* slopes_map, const SsimGeneralOutputs& out, Stream stream);

// Gradients from the fields of all windows inside the image, for any type of floats.
void ssim_spread_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                      const SsimPlan& plan, const double* fields, void* out_x, void* out_y, Stream stream);

}  // namespace semnr

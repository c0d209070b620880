#pragma once
#include "../image.hpp"

namespace semnr {

struct SsimOptions {
  const double* taps;  // the symmetric, normalised 1-D window
  int size;            // odd
  bool reflect;        // windows at every pixel, the image mirrored about its border pixels; else whole windows only
  bool float64;        // precision of the moments
  double c1, c2;       // (K1 L)², (K2 L)²
  double range;        // L: only the scale on which the arithmetic runs
  double unbiased;     // n / (n - 1) for the sample covariance, else 1
  int threads;
};

// Means over windows, N x C float64 each; null: not wanted. Masked: over windows whose centre pixel is valid.
struct SsimOutputs {
  double* score;
  double* contrast_structure;
  double* luminance;  // the three components come together
  double* contrast;
  double* structure;
  void* map;         // contiguous (N, C, h, w); float32, or float64 where `ssim_map_is_double`
  double* coverage;  // N: mean share of valid weight
  // All or none, of all pixels, masked or not:
  double* absolute = nullptr;  // N x C: mean of |x - y|
  double* squared = nullptr;   // N x C: mean of (x - y)²
  double* extent = nullptr;    // 2: the smallest and the largest pixel of both images; a NaN is neither
};

// Components and masks are always computed in float64.
inline bool ssim_computes_in_double(const SsimOptions& o, bool masked, bool components) {
  return o.float64 || masked || components;
}

// A share of the image's pixels; those of all tasks cover every pixel once.
struct PixelTile {
  std::int64_t task, n, c, row, column, rows, columns;
};

// Work on the same pixels, done by the thread that has just walked a tile of windows over them: they are still near.
struct Beside {
  void (*run)(void* context, const PixelTile& tile);
  void* context;
};

// How many tiles `Beside` is run for.
std::int64_t ssim_tasks(const Shape& shape, const SsimOptions& options);

void ssim_forward(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
                  const SsimOptions& options, const SsimOutputs& out, const Beside* beside = nullptr);

constexpr int kSsimBackwardSize = 65;  // the largest window with a gradient

// by_score, by_structure: N x C, the loss's derivative by the index and by the contrast·structure of each window of
// that plane; by_map: (N, C, h, w) more of the former, or null; by_absolute: N x C, by |x - y| of each pixel, or null.
// Out: contiguous (N, C, H, W); each of the precision's type.
void ssim_backward(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimOptions& options,
                   const double* by_score, const double* by_structure, const void* by_map, const double* by_absolute,
                   void* out_x, void* out_y);

}  // namespace semnr

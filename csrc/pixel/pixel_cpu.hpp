#pragma once
#include "../image.hpp"

namespace semnr {

// square, absolute: N means over the valid pixels of all channels (NaN where there are none).
// absolute may be null: not wanted, and about half the work.
void pixel_errors(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape, int threads,
                  double* square, double* absolute);

// out_x[i] = g_square[n] · 2 (x − y) / count + g_absolute[n] · sign(x − y) / count; out_y is its negative.
// Contiguous outputs of the images' dtype (float16 to float64); either may be null.
void pixel_gradient(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape, int threads,
                    const double* g_square, const double* g_absolute, void* out_x, void* out_y);

}  // namespace semnr

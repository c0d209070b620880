#pragma once
#include "../image.hpp"

namespace semnr {

struct Windows {
  std::int64_t height, width;  // of one window
  std::int64_t down, right;    // strides
  std::int64_t rows, columns;  // how many
};

// Per window of each plane, (N, C, rows, columns) float64: valid pixels, mean, population variance (NaN without pixels).
// The cost does not depend on the window's size.
void window_moments(const Image& x, const Mask& roi, Dtype dtype, const Shape& shape, const Windows& windows,
                    int threads, double* pixels, double* mean, double* variance);

}  // namespace semnr

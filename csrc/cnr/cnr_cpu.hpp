#pragma once
#include <vector>

#include "../image.hpp"

namespace semnr {

// Windows inside the image, the first in its upper-left corner; rows, then
// columns.
struct WindowGrid {
  std::int64_t window[2], stride[2];
};

inline std::int64_t windows_along(std::int64_t size, std::int64_t window, std::int64_t stride) {
  return (size - window) / stride + 1;
}

// Pixels, mean and population variance of the pixels of each region in each
// window, from one read of the image. regions: bytes of the image's shape, 0
// where a pixel is outside. out: regions x 3 x N x C x rows x columns; mean and
// variance are NaN where there is no pixel.
void cnr_moments(const Image& x, Dtype dtype, const Shape& shape, const std::vector<Image>& regions,
                 const WindowGrid& grid, int threads, double* out);

}  // namespace semnr

// The largest difference of two images: what the binding calls.
#pragma once
#include "image.hpp"

namespace semnr {

// largest: (N) float64, max |x - y| over the channels and pixels of each image. The same for any number of threads.
void peak_errors(const Image& x, const Image& y, Dtype dtype, const Shape& shape, int threads, double* largest);

}  // namespace semnr

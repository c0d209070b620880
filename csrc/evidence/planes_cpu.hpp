// From images of any type and layout to planes of float32 less a level of their own.
#pragma once
#include "../image.hpp"

namespace semnr {

// planes: (n, h, pitch_of(w)), channels averaged, what is not finite at the base; stats: (n, kPlaneStats).
void evidence_planes(const Image& image, Dtype dtype, const Shape& shape, int threads, float* planes, double* stats);

}  // namespace semnr

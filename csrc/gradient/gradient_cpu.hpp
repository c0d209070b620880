#pragma once
#include "../image.hpp"

namespace semnr {

// Similarity of two Scharr gradient magnitudes a, b: (2ab + T) / (a² + b² + T),
// the images being zero beyond their border. Images are float32 or float64 and
// so is the arithmetic; one kind for a call.
struct GradientInputs {
  Image x, y;
  Image weight;     // data == nullptr: none
  double constant;  // T
};

// map: contiguous (N, C, H, W), or null. sums: N x C float64 sums of weight ·
// similarity, or null.
void gradient_forward(const GradientInputs& in, Dtype dtype, const Shape& shape, int threads, void* map, double* sums);

// by_map: (N, C, H, W) derivatives by the map, or by_sums: N x C by the sums;
// else with data == nullptr. Out: contiguous (N, C, H, W), each may be null;
// out_weight only with by_sums.
void gradient_backward(const GradientInputs& in, Dtype dtype, const Shape& shape, int threads, const Image& by_map,
                       const double* by_sums, void* out_x, void* out_y, void* out_weight);

}  // namespace semnr

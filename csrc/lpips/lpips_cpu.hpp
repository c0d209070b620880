#pragma once
#include "../image.hpp"

namespace semnr {

// What LPIPS compares at each position of two maps, float32 and channels last: the weighted squares of the difference
// of the channels, each image's divided by their norm.
struct LpipsMaps {
  Image x, y;           // channels side by side in memory
  Shape shape;          // of both
  const float* linear;  // (c)
  float eps;            // beside the norm
  float* each;          // (n, h, w)
  int threads;
};

void lpips_differences(const LpipsMaps& maps);

}  // namespace semnr

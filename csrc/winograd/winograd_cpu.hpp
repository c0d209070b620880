#pragma once
#include "../image.hpp"

namespace semnr {

// A convolution of 3 x 3 or 5 x 5 with stride 1, its bias and its ReLU, by Winograd's minimal filtering.
//
// Values lie channels last and are float32, or bfloat16 where the CPU multiplies it (AVX-512 BF16): then the transforms
// and the sums stay in float32. A square of 6 x 6 values gives 4 x 4 outputs of 3 x 3 taps, or 2 x 2 of
// 5 x 5, for 36 multiplications a pair of channels in place of 144 or 100.
struct Winograd {
  Image x;      // channels side by side in memory
  Shape shape;  // of x
  Image y;      // (n, channels, shape.h + 2 down - taps + 1, shape.w + 2 across - taps + 1), side by side too
  std::int64_t channels;
  std::int64_t taps;          // 3 or 5
  std::int64_t down, across;  // rows and columns of zeros on either side
  const void* weights;        // transformed: (36, channels / kWinogradPanel, shape.c, kWinogradPanel), of `dtype`;
                              // bfloat16: (36, channels / kWinogradPanel, shape.c / 2, kWinogradPanel, 2)
  const float* bias;          // (channels)
  bool rectified;
  int threads;
  Dtype dtype = Dtype::f32;  // of x, y and the weights
};

constexpr std::int64_t kWinogradPanel = 16;  // channels that the innermost product makes at once

void winograd(const Winograd& job);

// Whether this module and this CPU multiply bfloat16.
bool winograd_takes_bfloat();

}  // namespace semnr

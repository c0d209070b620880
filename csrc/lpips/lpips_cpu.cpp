// Norms and differences of two maps, a position at a time: its channels are read twice, from the first cache.
#include "lpips_cpu.hpp"

#include <cmath>

#include "../pool.hpp"
#include "../simd.hpp"

namespace semnr {
namespace {

constexpr int L = kLanes<float>;

inline const float* at(const Image& v, std::int64_t n, std::int64_t h) {
  return static_cast<const float*>(v.data) + n * v.stride[0] + h * v.stride[2];
}

inline float inverse_norm(const float* channels, std::int64_t count, float eps) {
  Vec<float> squares = {};
  for (std::int64_t c = 0; c < count; c += L) {
    const Vec<float> v = load(channels + c);
    squares += v * v;
  }
  return 1 / (std::sqrt(sum<float>(squares)) + eps);
}

}  // namespace

void lpips_differences(const LpipsMaps& s) {
  const Shape& shape = s.shape;
  if (shape.c % L != 0) throw std::invalid_argument("lpips_differences: the channels do not fill vectors");
  if (s.x.stride[1] != 1 || s.y.stride[1] != 1) {
    throw std::invalid_argument("lpips_differences: channels-last maps only");
  }
  parallel(s.threads, shape.n * shape.h, [&](std::int64_t row) {
    const float *x = at(s.x, row / shape.h, row % shape.h), *y = at(s.y, row / shape.h, row % shape.h);
    float* const to = s.each + row * shape.w;
    for (std::int64_t w = 0; w < shape.w; ++w, x += s.x.stride[3], y += s.y.stride[3]) {
      const float of_x = inverse_norm(x, shape.c, s.eps), of_y = inverse_norm(y, shape.c, s.eps);
      const float ratio = of_y / of_x;  // 1 for equal images, which then differ by exactly 0
      Vec<float> total = {};
      for (std::int64_t c = 0; c < shape.c; c += L) {
        const Vec<float> apart = load(x + c) - load(y + c) * ratio;
        total += load(s.linear + c) * (apart * apart);
      }
      to[w] = sum<float>(total) * of_x * of_x;
    }
  });
}

}  // namespace semnr

// Mean squared and mean absolute error of each image of a batch, in one pass.
#include "pixel_cpu.hpp"

#include <algorithm>
#include <cmath>

#include "pixel_math.hpp"

namespace semnr {
namespace {

// A block is short enough that 32-bit partial sums of uint8 stay exact, and long enough to vectorise.
constexpr std::int64_t kBlock = 4096;

template <class T>
void integer_errors(const T* x, const T* y, std::int64_t n, double* square, double* absolute) {
  std::uint64_t sum_square = 0, sum_absolute = 0;
  for (std::int64_t start = 0; start < n; start += kBlock) {
    const std::int64_t stop = std::min(n, start + kBlock);
    std::uint64_t block_square = 0, block_absolute = 0;
    for (std::int64_t i = start; i < stop; ++i) {
      const std::uint32_t d = integer_distance(x[i], y[i]);
      block_square += std::uint64_t(d) * d;
      block_absolute += d;
    }
    sum_square += block_square;
    sum_absolute += block_absolute;
  }
  *square = double(sum_square) / double(n);
  *absolute = double(sum_absolute) / double(n);
}

template <class T>
void float_errors(const T* x, const T* y, std::int64_t n, double* square, double* absolute) {
  // Independent lanes let the compiler vectorise without reassociating; the order is fixed, so is the result.
  constexpr int kLanes = 16;
  double lane_square[kLanes] = {}, lane_absolute[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const double d = double(x[i + k]) - double(y[i + k]);
      lane_square[k] += d * d;
      lane_absolute[k] += std::fabs(d);
    }
  }
  for (; i < n; ++i) {
    const double d = double(x[i]) - double(y[i]);
    lane_square[0] += d * d;
    lane_absolute[0] += std::fabs(d);
  }
  double sum_square = 0, sum_absolute = 0;
  for (int k = 0; k < kLanes; ++k) {
    sum_square += lane_square[k];
    sum_absolute += lane_absolute[k];
  }
  *square = sum_square / double(n);
  *absolute = sum_absolute / double(n);
}

}  // namespace

template <class T>
void pixel_errors(const T* x, const T* y, std::int64_t images, std::int64_t pixels, double* square, double* absolute) {
  for (std::int64_t i = 0; i < images; ++i) {
    if constexpr (std::is_integral_v<T>) {
      integer_errors(x + i * pixels, y + i * pixels, pixels, square + i, absolute + i);
    } else {
      float_errors(x + i * pixels, y + i * pixels, pixels, square + i, absolute + i);
    }
  }
}

template void pixel_errors(const std::uint8_t*, const std::uint8_t*, std::int64_t, std::int64_t, double*, double*);
template void pixel_errors(const std::uint16_t*, const std::uint16_t*, std::int64_t, std::int64_t, double*, double*);
template void pixel_errors(const float*, const float*, std::int64_t, std::int64_t, double*, double*);
template void pixel_errors(const double*, const double*, std::int64_t, std::int64_t, double*, double*);

}  // namespace semnr

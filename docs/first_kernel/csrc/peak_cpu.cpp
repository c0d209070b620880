// One pass over both images. What a first kernel needs to know stands here: pixels are reached by strides, read as
// their own type by `with_type` and `real`, and tasks are cut by the shape alone, so that results do not depend on
// threads.
#include "peak_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "pool.hpp"

namespace semnr {
namespace {

template <class T>
double row_peak(const T* a, std::int64_t a_step, const T* b, std::int64_t b_step, std::int64_t width) {
  double largest = 0;
  for (std::int64_t w = 0; w < width; ++w) {
    const double d = std::abs(real<double>(a[w * a_step]) - real<double>(b[w * b_step]));
    largest = d > largest || d != d ? d : largest;  // a NaN stays
    if (d != d) break;
  }
  return largest;
}

}  // namespace

void peak_errors(const Image& x, const Image& y, Dtype dtype, const Shape& s, int threads, double* largest) {
  std::vector<double> rows(std::size_t(s.n * s.c * s.h));
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    parallel(threads, s.n * s.c * s.h, [&](std::int64_t task) {
      const std::int64_t n = task / (s.c * s.h), c = task / s.h % s.c, h = task % s.h;
      const auto at = [&](const Image& v) {
        return static_cast<const T*>(v.data) + n * v.stride[0] + c * v.stride[1] + h * v.stride[2];
      };
      rows[std::size_t(task)] = row_peak(at(x), x.stride[3], at(y), y.stride[3], s.w);
    });
  });
  for (std::int64_t n = 0; n < s.n; ++n) {
    double all = 0;
    for (std::int64_t k = n * s.c * s.h; k < (n + 1) * s.c * s.h; ++k) {
      const double d = rows[std::size_t(k)];
      all = all != all ? all : d > all || d != d ? d : all;
    }
    largest[n] = all;
  }
}

}  // namespace semnr

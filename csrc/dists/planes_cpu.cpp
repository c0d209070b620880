// Sums of two images, or of maps in any layout.
#include <algorithm>

#include "../counts.hpp"
#include "../pool.hpp"
#include "../simd.hpp"
#include "dists_sums.hpp"

namespace semnr {
namespace {

// A row of any layout and type as doubles.
inline void read(const Image& v, Dtype dtype, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t from,
                 std::int64_t count, double* to) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const T* p = at<T>(v, n, c, h, from);
    const std::int64_t step = v.stride[3];
    if (step == 1) {
      for (std::int64_t i = 0; i < count; ++i) to[i] = real<double>(p[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) to[i] = real<double>(p[i * step]);
    }
  });
}

}  // namespace

void dists_planes(const DistsPlanes& s) {
  constexpr std::int64_t kSegment = 512;  // three lines of doubles in the first cache
  constexpr int L = kLanes<double>;
  const Shape& shape = s.shape;
  DistsGrid grid(shape.n, shape.c, shape.h, shape.w, s.cell);
  for (std::int64_t n = 0; s.fresh && n < shape.n; ++n) {
    for (std::int64_t c = 0; c < shape.c; ++c) {
      read(s.x, s.x_dtype, n, c, 0, 0, 1, s.near + 2 * n * shape.c + c);
      read(s.y, s.y_dtype, n, c, 0, 0, 1, s.near + (2 * n + 1) * shape.c + c);
      s.near[2 * n * shape.c + c] *= s.scale;
      s.near[(2 * n + 1) * shape.c + c] *= s.scale;
    }
  }
  const std::int64_t tall = pieces(shape.h, kDistsRows);
  parallel(s.threads, shape.n * shape.c * tall, [&](std::int64_t task) {
    const std::int64_t block = task % tall, c = task / tall % shape.c, n = task / tall / shape.c;
    const double near_x = s.near[2 * n * shape.c + c], near_y = s.near[(2 * n + 1) * shape.c + c];
    double* const x = static_cast<double*>(scratch(3 * kSegment * std::int64_t(sizeof(double))));
    double *const y = x + kSegment, *const w = y + kSegment;
    const std::int64_t side = s.cell > 0 ? std::min(s.cell, kSegment) : kSegment;
    for (std::int64_t h = block * kDistsRows; h < std::min((block + 1) * kDistsRows, shape.h); ++h) {
      for (std::int64_t start = 0; start < shape.w; start += side) {
        const std::int64_t count = std::min(side, shape.w - start), full = pieces(count, L) * L;
        read(s.x, s.x_dtype, n, c, h, start, count, x);
        read(s.y, s.y_dtype, n, c, h, start, count, y);
        std::fill(w, w + count, 1.0);
        if (s.share.data != nullptr) read(s.share, Dtype::f64, n, 0, h, start, count, w);
        std::fill(x + count, x + full, 0.0);
        std::fill(y + count, y + full, 0.0);
        std::fill(w + count, w + full, 0.0);
        Vec<double> weight = {}, a = {}, b = {}, aa = {}, bb = {}, ab = {};
        for (std::int64_t i = 0; i < full; i += L) {
          const Vec<double> p = load(x + i) * s.scale - near_x, q = load(y + i) * s.scale - near_y;
          const Vec<double> v = load(w + i), vp = v * p, vq = v * q;
          weight += v;
          a += vp;
          b += vq;
          aa += vp * p;
          bb += vq * q;
          ab += vp * q;
        }
        const Vec<double>* const all[kDistsSums] = {&weight, &a, &b, &aa, &bb, &ab};
        double* const to = grid.part(n, h, start);
        for (int i = 0; i < kDistsSums; ++i) to[i * shape.c + c] += sum<double>(*all[i]);
      }
    }
  });
  parallel(s.threads, shape.n, [&](std::int64_t n) { grid.fold(n, s.sums, s.cells, s.cell_image, s.cell_row); });
}

}  // namespace semnr

// Mean squared and mean absolute error of each image of a batch, in one pass, and their gradient.
#include "pixel_cpu.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "pixel_sums.hpp"

namespace semnr {
namespace {

// One task, cut by size alone: results do not depend on the number of threads.
constexpr std::int64_t kChunk = 65536;

template <class T>
constexpr bool kExact = std::is_integral_v<T>;
template <class T>
constexpr bool kSmallFloat = std::is_same_v<T, Half> || std::is_same_v<T, BFloat>;

// A stretch of a row whose pixels do not lie side by side, or that a mask thins out: gathered, then as above.
template <class T>
struct Gathered {
  T x[1024], y[1024];
};

template <bool Absolute, class T>
void add_stretch(const T* x, std::int64_t step_x, const T* y, std::int64_t step_y, const std::uint8_t* valid,
                 std::int64_t step_valid, std::int64_t n, Partial& sum) {
  if constexpr (!kSmallFloat<T>) {
    if (step_x == 1 && step_y == 1 && valid == nullptr) {
      add<Absolute>(x, y, n, sum);
      sum.count += double(n);
      return;
    }
  }
  using G = std::conditional_t<kSmallFloat<T>, float, T>;
  Gathered<G> part;
  for (std::int64_t start = 0; start < n; start += 1024) {
    const std::int64_t stop = std::min(n, start + 1024);
    std::int64_t kept = 0;
    for (std::int64_t i = start; i < stop; ++i) {
      if constexpr (kSmallFloat<T>) {
        part.x[kept] = real<float>(x[i * step_x]);
        part.y[kept] = real<float>(y[i * step_y]);
      } else {
        part.x[kept] = x[i * step_x];
        part.y[kept] = y[i * step_y];
      }
      kept += valid == nullptr || valid[i * step_valid] != 0;
    }
    add<Absolute>(part.x, part.y, kept, sum);
    sum.count += double(kept);
  }
}

// The same loop of rows over any layout; images that lie in one piece are one long row.
struct Rows {
  std::int64_t rows, length;  // of one image, channels included
  bool merged;
};

bool one_piece(const Image& v, const Shape& s) {
  return v.stride[3] == 1 && (s.h == 1 || v.stride[2] == s.w) && (s.c == 1 || v.stride[1] == s.h * s.w);
}

Rows layout(const Image& x, const Image& y, const Mask& valid, const Shape& s) {
  if (valid.data == nullptr && one_piece(x, s) && one_piece(y, s)) return {1, s.c * s.h * s.w, true};
  return {s.c * s.h, s.w, false};
}

// Calls f(image, row, first column, columns) for the stretches of chunk `index`; returns nothing, order fixed.
template <class F>
void stretches(const Rows& rows, std::int64_t chunk, F&& f) {
  std::int64_t at = chunk * kChunk;
  const std::int64_t end = std::min(rows.rows * rows.length, at + kChunk);
  while (at < end) {
    const std::int64_t row = at / rows.length, column = at % rows.length;
    const std::int64_t n = std::min(end - at, rows.length - column);
    f(row, column, n);
    at += n;
  }
}

template <class T>
const T* address(const Image& v, const Shape& s, std::int64_t image, std::int64_t row, std::int64_t column) {
  return static_cast<const T*>(v.data) + image * v.stride[0] + row / s.h * v.stride[1] + row % s.h * v.stride[2] +
         column * v.stride[3];
}

const std::uint8_t* address(const Mask& v, const Shape& s, std::int64_t image, std::int64_t row, std::int64_t column) {
  return v.data == nullptr ? nullptr : v.row(image, row % s.h) + column * v.stride[2];
}

template <class T, bool Absolute>
void errors(const Image& x, const Image& y, const Mask& valid, const Shape& s, int threads, double* square,
            double* absolute) {
  const Rows rows = layout(x, y, valid, s);
  const std::int64_t chunks = pieces(rows.rows * rows.length, kChunk);
  std::vector<Partial> partial(std::size_t(s.n * chunks));
  parallel(threads, s.n * chunks, [&](std::int64_t task) {
    const std::int64_t image = task / chunks;
    Partial sum;
    stretches(rows, task % chunks, [&](std::int64_t row, std::int64_t column, std::int64_t n) {
      add_stretch<Absolute>(address<T>(x, s, image, row, column), x.stride[3], address<T>(y, s, image, row, column),
                            y.stride[3], address(valid, s, image, row, column), valid.stride[2], n, sum);
    });
    partial[std::size_t(task)] = sum;
  });
  for (std::int64_t image = 0; image < s.n; ++image) {
    Partial total;
    for (std::int64_t k = 0; k < chunks; ++k) {
      const Partial& p = partial[std::size_t(image * chunks + k)];
      total.square += p.square;
      total.absolute += p.absolute;
      total.count += p.count;
      total.exact_square += p.exact_square;
      total.exact_absolute += p.exact_absolute;
    }
    square[image] = (kExact<T> ? double(total.exact_square) : total.square) / total.count;
    if constexpr (Absolute) absolute[image] = (kExact<T> ? double(total.exact_absolute) : total.absolute) / total.count;
  }
}

inline void put(Half* p, double v) { p->bits = half_bits(float(v)); }
inline void put(BFloat* p, double v) { p->bits = bfloat_bits(float(v)); }
inline void put(float* p, double v) { *p = float(v); }
inline void put(double* p, double v) { *p = v; }

template <class T>
void gradient(const Image& x, const Image& y, const Mask& valid, const Shape& s, int threads, const double* g_square,
              const double* g_absolute, T* out_x, T* out_y) {
  const Rows rows = layout(x, y, valid, s);
  const std::int64_t pixels = s.c * s.h * s.w, chunks = pieces(pixels, kChunk);
  std::vector<double> count(std::size_t(s.n), double(pixels));
  for (std::int64_t image = 0; valid.data != nullptr && image < s.n; ++image) {
    std::int64_t set = 0;
    for (std::int64_t h = 0; h < s.h; ++h)
      for (std::int64_t w = 0; w < s.w; ++w) set += valid.row(image, h)[w * valid.stride[2]] != 0;
    count[std::size_t(image)] = double(set * s.c);
  }
  using G = std::conditional_t<std::is_same_v<T, double>, double, float>;
  parallel(threads, s.n * chunks, [&](std::int64_t task) {
    const std::int64_t image = task / chunks;
    const double share = 1.0 / count[std::size_t(image)];
    const G slope = G(2 * g_square[image] * share), level = G(g_absolute[image] * share);
    stretches(rows, task % chunks, [&](std::int64_t row, std::int64_t column, std::int64_t n) {
      const T* a = address<T>(x, s, image, row, column);
      const T* b = address<T>(y, s, image, row, column);
      const std::uint8_t* v = address(valid, s, image, row, column);
      const std::int64_t at = image * pixels + row * rows.length + column;
      const std::int64_t step_a = x.stride[3], step_b = y.stride[3], step_v = valid.stride[2];
      for (std::int64_t i = 0; i < n; ++i) {
        const G d = real<G>(a[i * step_a]) - real<G>(b[i * step_b]);
        G g = slope * d + (d > 0 ? level : d < 0 ? -level : G(0) * d);
        if (v != nullptr && v[i * step_v] == 0) g = 0;
        if (out_x != nullptr) put(out_x + at + i, g);
        if (out_y != nullptr) put(out_y + at + i, -g);
      }
    });
  });
}

}  // namespace

void pixel_errors(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape, int threads,
                  double* square, double* absolute) {
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if (absolute == nullptr) {
      errors<T, false>(x, y, valid, shape, threads, square, absolute);
    } else {
      errors<T, true>(x, y, valid, shape, threads, square, absolute);
    }
  });
}

void pixel_gradient(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape, int threads,
                    const double* g_square, const double* g_absolute, void* out_x, void* out_y) {
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (!std::is_integral_v<T>) {
      gradient<T>(x, y, valid, shape, threads, g_square, g_absolute, static_cast<T*>(out_x), static_cast<T*>(out_y));
    } else {
      throw std::invalid_argument("pixel_gradient: integer images have no gradient");
    }
  });
}

}  // namespace semnr

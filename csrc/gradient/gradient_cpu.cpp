// Similarity of Scharr gradients, forward and backward, row by row: the
// gradients are never stored.
#include "gradient_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../pool.hpp"
#include "../simd.hpp"
#include "gradient_math.hpp"

namespace semnr {
namespace {

constexpr std::int64_t kRows = 64;      // of one task
constexpr std::int64_t kColumns = 512;  // its lines stay in the first cache

template <class R>
inline Vec<R> root(Vec<R> v) {
  for (int i = 0; i < kLanes<R>; ++i) v[i] = std::sqrt(v[i]);
  return v;
}

// Lines hold a tile's columns with a margin of a vector on both sides.
template <class R>
constexpr std::int64_t kPitch = kColumns + 4 * kLanes<R>;

struct Tile {
  std::int64_t n, c, row, rows, column, columns;
};

template <class R>
struct Images {
  const GradientInputs& in;
  const Shape& shape;

  // Columns [column, column + count) of a row; zeros outside the image.
  void row(const Image& v, const Tile& t, std::int64_t h, std::int64_t column, std::int64_t count, R* line) const {
    if (h < 0 || h >= shape.h) {
      std::fill_n(line, count, R(0));
      return;
    }
    const std::int64_t first = std::max<std::int64_t>(column, 0), stop = std::min(column + count, shape.w);
    const R* from = static_cast<const R*>(v.data) + t.n * v.stride[0] + t.c * v.stride[1] + h * v.stride[2];
    std::fill_n(line, first - column, R(0));
    if (v.stride[3] == 1) {
      std::copy_n(from + first, stop - first, line + (first - column));
    } else {
      for (std::int64_t w = first; w < stop; ++w) line[w - column] = from[w * v.stride[3]];
    }
    std::fill(line + (stop - column), line + count, R(0));
  }
};

// Both components of the gradient at column c from three rows that start one
// column before the tile.
template <class R>
struct Components {
  Vec<R> across, down;
};

template <class R>
inline Components<R> components(const R* above, const R* at, const R* below, std::int64_t c) {
  const R side = R(kScharrSide), middle = R(kScharrMiddle);
  const Vec<R> a0 = load(above + c), a1 = load(above + c + 1), a2 = load(above + c + 2);
  const Vec<R> b0 = load(at + c), b2 = load(at + c + 2);
  const Vec<R> c0 = load(below + c), c1 = load(below + c + 1), c2 = load(below + c + 2);
  return {side * ((a2 - a0) + (c2 - c0)) + middle * (b2 - b0), side * ((c0 - a0) + (c2 - a2)) + middle * (c1 - a1)};
}

template <class R>
inline Vec<R> magnitude(const Components<R>& g) {
  return root<R>(g.across * g.across + g.down * g.down);
}

std::int64_t pieces(std::int64_t size, std::int64_t most) { return (size + most - 1) / most; }

template <class F>
void over_tiles(const Shape& s, int threads, F&& f) {
  const std::int64_t down = pieces(s.h, kRows), across = pieces(s.w, kColumns);
  parallel(threads, s.n * s.c * down * across, [&](std::int64_t task) {
    const std::int64_t plane = task / (down * across), at = task % (down * across);
    const std::int64_t row = at / across * kRows, column = at % across * kColumns;
    f(task, Tile{plane / s.c, plane % s.c, row, std::min(kRows, s.h - row), column, std::min(kColumns, s.w - column)});
  });
}

template <class R>
void forward(const GradientInputs& in, const Shape& s, int threads, R* map, double* sums) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  constexpr std::int64_t P = kPitch<R>;
  const Images<R> images{in, s};
  const std::int64_t tiles = pieces(s.h, kRows) * pieces(s.w, kColumns);
  std::vector<double> partial(std::size_t(sums == nullptr ? 0 : s.n * s.c * tiles));
  const V constant = splat<R>(R(in.constant));
  over_tiles(s, threads, [&](std::int64_t task, const Tile& t) {
    R* const lines = static_cast<R*>(scratch(8 * P * std::int64_t(sizeof(R))));  // 3 rows of x, 3 of y, weight, result
    std::fill_n(lines, 8 * P, R(0));
    R *const weight = lines + 6 * P, *const result = lines + 7 * P;
    const auto feed = [&](std::int64_t h) {
      R* const into = lines + (h + 3) % 3 * P;
      images.row(in.x, t, h, t.column - 1, t.columns + 2, into);
      images.row(in.y, t, h, t.column - 1, t.columns + 2, into + 3 * P);
    };
    feed(t.row - 1);
    feed(t.row);
    double sum = 0;
    for (std::int64_t h = t.row; h < t.row + t.rows; ++h) {
      feed(h + 1);
      const R *above = lines + (h + 2) % 3 * P, *at = lines + h % 3 * P, *below = lines + (h + 1) % 3 * P;
      if (sums != nullptr) images.row(in.weight, t, h, t.column, t.columns, weight);
      V total = {};
      for (std::int64_t c = 0; c < t.columns; c += L) {
        const V a = magnitude<R>(components(above, at, below, c));
        const V b = magnitude<R>(components(above + 3 * P, at + 3 * P, below + 3 * P, c));
        const V similarity = gradient_terms<V>(a, b, constant).similarity;
        if (map != nullptr) store<R>(result + c, similarity);
        if (sums != nullptr) {
          const V weighted = similarity * load(weight + c);
          total += c + L <= t.columns ? weighted : first<R>(weighted, t.columns - c);
        }
      }
      if (map != nullptr) {
        std::copy_n(result, t.columns, map + ((t.n * s.c + t.c) * s.h + h) * s.w + t.column);
      }
      if (sums != nullptr) sum += semnr::sum<double>(widened_sum(total));
    }
    if (sums != nullptr) partial[std::size_t(task)] = sum;
  });
  for (std::int64_t plane = 0; sums != nullptr && plane < s.n * s.c; ++plane) {
    sums[plane] = 0;
    for (std::int64_t k = 0; k < tiles; ++k) sums[plane] += partial[std::size_t(plane * tiles + k)];
  }
}

// A tile of pixels makes the derivatives by the components at its pixels and
// one around, three rows at a time, and gathers them by the turned filters.
template <class R>
void backward(const GradientInputs& in, const Shape& s, int threads, const Image& by_map, const double* by_sums,
              R* out_x, R* out_y, R* out_weight) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  constexpr std::int64_t P = kPitch<R>;
  const Images<R> images{in, s};
  const V constant = splat<R>(R(in.constant)), zero = {}, one = splat<R>(R(1));
  const R side = R(kScharrSide), middle = R(kScharrMiddle);
  over_tiles(s, threads, [&](std::int64_t, const Tile& t) {
    // 3 rows of x and of y; 3 rows of each of four derivatives; upstream,
    // result
    R* const lines = static_cast<R*>(scratch(20 * P * std::int64_t(sizeof(R))));
    std::fill_n(lines, 20 * P, R(0));
    R *const derived = lines + 6 * P, *const upstream = lines + 18 * P, *const result = lines + 19 * P;
    const std::int64_t plane = t.n * s.c + t.c, around = t.columns + 2;
    const auto feed = [&](std::int64_t h) {
      R* const into = lines + (h + 3) % 3 * P;
      images.row(in.x, t, h, t.column - 2, t.columns + 4, into);
      images.row(in.y, t, h, t.column - 2, t.columns + 4, into + 3 * P);
    };
    const auto write = [&](R* to, std::int64_t h) {
      std::copy_n(result, t.columns, to + (plane * s.h + h) * s.w + t.column);
    };
    // the derivatives of row h, from one column before the tile to one after;
    // zeros outside the image
    const auto derive = [&](std::int64_t h) {
      R* const into = derived + (h + 3) % 3 * P;
      images.row(by_sums == nullptr ? by_map : in.weight, t, h, t.column - 1, around, upstream);
      const R *above = lines + (h + 2) % 3 * P, *at = lines + (h + 3) % 3 * P, *below = lines + (h + 1) % 3 * P;
      const R by = by_sums == nullptr ? R(1) : R(by_sums[plane]);
      const bool inside = h >= t.row && h < t.row + t.rows;
      for (std::int64_t c = 0; c < around; c += L) {
        const Components<R> gx = components(above, at, below, c);
        const Components<R> gy = components(above + 3 * P, at + 3 * P, below + 3 * P, c);
        const V a = magnitude<R>(gx), b = magnitude<R>(gy);
        const GradientTerms<V> terms = gradient_terms<V>(a, b, constant);
        const V up = load(upstream + c) * by;
        // no product with 0: at a = 0 the quotient is taken elsewhere and
        // dropped
        const V to_x = a == zero ? zero : up * gradient_slope<V>(terms, a, b) / (a == zero ? one : a);
        const V to_y = b == zero ? zero : up * gradient_slope<V>(terms, b, a) / (b == zero ? one : b);
        store<R>(into + c, to_x * gx.across);
        store<R>(into + 3 * P + c, to_x * gx.down);
        store<R>(into + 6 * P + c, to_y * gy.across);
        store<R>(into + 9 * P + c, to_y * gy.down);
        if (inside && out_weight != nullptr) store<R>(result + c, terms.similarity * by);
      }
      if (inside && out_weight != nullptr) {
        std::copy_n(result + 1, t.columns, out_weight + (plane * s.h + h) * s.w + t.column);
      }
    };
    feed(t.row - 2);
    feed(t.row - 1);
    feed(t.row);
    derive(t.row - 1);
    feed(t.row + 1);
    derive(t.row);
    for (std::int64_t h = t.row; h < t.row + t.rows; ++h) {
      feed(h + 2);
      derive(h + 1);
      const R *above = derived + (h + 2) % 3 * P, *at = derived + h % 3 * P, *below = derived + (h + 1) % 3 * P;
      R* const out[2] = {out_x, out_y};
      for (int i = 0; i < 2; ++i) {
        if (out[i] == nullptr) continue;
        const std::int64_t across = 6 * i * P, down = across + 3 * P;
        for (std::int64_t c = 0; c < t.columns; c += L) {
          const auto line = [&](const R* row, std::int64_t k) { return load(row + c + k); };
          // a pixel enters the difference to its left neighbour's right and to
          // its right neighbour's left
          const V g = side * ((line(above + across, 0) - line(above + across, 2)) +
                              (line(below + across, 0) - line(below + across, 2))) +
                      middle * (line(at + across, 0) - line(at + across, 2)) +
                      side * ((line(above + down, 0) - line(below + down, 0)) +
                              (line(above + down, 2) - line(below + down, 2))) +
                      middle * (line(above + down, 1) - line(below + down, 1));
          store<R>(result + c, g);
        }
        write(out[i], h);
      }
    }
  });
}

}  // namespace

void gradient_forward(const GradientInputs& in, Dtype dtype, const Shape& shape, int threads, void* map, double* sums) {
  if (dtype == Dtype::f64) {
    forward<double>(in, shape, threads, static_cast<double*>(map), sums);
  } else if (dtype == Dtype::f32) {
    forward<float>(in, shape, threads, static_cast<float*>(map), sums);
  } else {
    throw std::invalid_argument("gradient_forward: float32 and float64 images only");
  }
}

void gradient_backward(const GradientInputs& in, Dtype dtype, const Shape& shape, int threads, const Image& by_map,
                       const double* by_sums, void* out_x, void* out_y, void* out_weight) {
  if (dtype == Dtype::f64) {
    backward<double>(in, shape, threads, by_map, by_sums, static_cast<double*>(out_x), static_cast<double*>(out_y),
                     static_cast<double*>(out_weight));
  } else if (dtype == Dtype::f32) {
    backward<float>(in, shape, threads, by_map, by_sums, static_cast<float*>(out_x), static_cast<float*>(out_y),
                    static_cast<float*>(out_weight));
  } else {
    throw std::invalid_argument("gradient_backward: float32 and float64 images only");
  }
}

}  // namespace semnr

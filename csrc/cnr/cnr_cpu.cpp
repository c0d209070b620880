// Moments of windows under a region: blocks once, then merged.
//
// The windows of one size and stride are unions of blocks of gcd(size, stride). A block's moments are taken about one of
// its own pixels, and moments are merged about each other's means (Chan et al. 1983): a pedestal leaves no trace, and a
// constant region has a variance of exactly zero, which sums over the whole image would not give. Windows are
// put together by prefixes and suffixes of runs of blocks (van Herk 1992): three merges a block, whatever the window.
#include "cnr_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "../pool.hpp"

namespace semnr {
namespace {

struct Moments {
  double count = 0, mean = 0, square = 0;  // square: Σ (v - mean)²
};

inline Moments merged(const Moments& a, const Moments& b) {
  if (b.count == 0) return a;
  if (a.count == 0) return b;
  const double count = a.count + b.count, delta = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + delta * share, a.square + b.square + delta * delta * a.count * share};
}

// Windows of `length` entries at 0, step, ... of a sequence whose entries lie `apart`.
void slide(const Moments* in, std::int64_t apart, std::int64_t n, std::int64_t length, std::int64_t step,
           Moments* out, std::int64_t out_apart, std::int64_t windows, std::vector<Moments>& work) {
  work.resize(std::size_t(2 * n));
  Moments* prefix = work.data();
  Moments* suffix = prefix + n;
  for (std::int64_t i = 0; i < n; ++i) {
    prefix[i] = i % length == 0 ? in[i * apart] : merged(prefix[i - 1], in[i * apart]);
  }
  for (std::int64_t i = n - 1; i >= 0; --i) {
    suffix[i] = i == n - 1 || i % length == length - 1 ? in[i * apart] : merged(in[i * apart], suffix[i + 1]);
  }
  for (std::int64_t k = 0; k < windows; ++k) {
    const std::int64_t first = k * step, last = first + length - 1;
    out[k * out_apart] = first % length == 0 ? prefix[last] : merged(suffix[first], prefix[last]);
  }
}

// One band's sums, a column each.
template <class T>
struct Columns {
  std::vector<T> pivot, chosen;
  std::vector<double> sum, square;
  std::vector<std::uint32_t> count;
};

// Moments of the blocks of one band of `height` rows: `blocks` blocks, each `width` columns, from (row, column) on.
template <class T>
void band(const Image& x, const Mask& roi, std::int64_t n, std::int64_t c, std::int64_t row, std::int64_t height,
          std::int64_t column, std::int64_t width, std::int64_t blocks, Columns<T>& work, Moments* out) {
  const std::int64_t total = width * blocks, step = x.stride[3], roi_step = roi.stride[2];
  const auto pixels = [&](std::int64_t h) {
    return static_cast<const T*>(x.data) + n * x.stride[0] + c * x.stride[1] + h * x.stride[2] + column * step;
  };
  const auto valid = [&](std::int64_t h) { return roi.row(n, h) + column * roi_step; };
  work.pivot.assign(std::size_t(total), T{});
  work.chosen.resize(std::size_t(total));
  work.sum.assign(std::size_t(total), 0.0);
  work.square.assign(std::size_t(total), 0.0);
  work.count.assign(std::size_t(total), 0);
  for (std::int64_t b = 0; b < blocks; ++b) {
    T first{};
    bool found = false;
    for (std::int64_t h = row; h < row + height && !found; ++h) {
      const std::uint8_t* v = valid(h);
      for (std::int64_t i = b * width; i < (b + 1) * width && !found; ++i) {
        found = v[i * roi_step] != 0;
        if (found) first = pixels(h)[i * step];
      }
    }
    std::fill_n(work.pivot.begin() + b * width, width, first);
  }
  const T* __restrict pivot = work.pivot.data();
  T* __restrict chosen = work.chosen.data();
  double* __restrict sum = work.sum.data();
  double* __restrict square = work.square.data();
  std::uint32_t* __restrict count = work.count.data();
  for (std::int64_t h = row; h < row + height; ++h) {
    const T* p = pixels(h);
    const std::uint8_t* v = valid(h);
    // A choice, not a product: NaN outside must not get in; the pivot itself adds nothing. Loops of one width each.
    if (step == 1 && roi_step == 1) {
      for (std::int64_t i = 0; i < total; ++i) chosen[i] = v[i] != 0 ? p[i] : pivot[i];
      for (std::int64_t i = 0; i < total; ++i) count[i] += v[i] != 0;
    } else {
      for (std::int64_t i = 0; i < total; ++i) {
        chosen[i] = v[i * roi_step] != 0 ? p[i * step] : pivot[i];
        count[i] += v[i * roi_step] != 0;
      }
    }
    for (std::int64_t i = 0; i < total; ++i) {
      const double z = real<double>(chosen[i]) - real<double>(pivot[i]);
      sum[i] += z;
      square[i] += z * z;
    }
  }
  for (std::int64_t b = 0; b < blocks; ++b) {
    double s = 0, q = 0, k = 0;
    for (std::int64_t i = b * width; i < (b + 1) * width; ++i) {
      s += sum[i];
      q += square[i];
      k += double(count[i]);
    }
    out[b] = {};
    if (k == 0) continue;
    const double rest = q - s * (s / k);
    out[b] = {k, real<double>(pivot[b * width]) + s / k, rest < 0 ? 0.0 : rest};  // NaN stays
  }
}

template <class T>
void moments(const Image& x, const Mask& roi, const Shape& shape, const Windows& w, int threads, double* pixels,
             double* mean, double* variance) {
  // one row or column of windows may be cut anywhere
  const auto cut = [](std::int64_t size, std::int64_t stride, std::int64_t windows) {
    if (windows > 1) return std::gcd(size, stride);
    for (std::int64_t part : {64, 32, 16, 8}) {
      if (size % part == 0) return part;
    }
    return size <= 512 ? size : std::int64_t(1);
  };
  const std::int64_t high = cut(w.height, w.down, w.rows), wide = cut(w.width, w.right, w.columns);
  const std::int64_t length_down = w.height / high, step_down = w.down / high;
  const std::int64_t length_right = w.width / wide, step_right = w.right / wide;
  const std::int64_t bands = (w.rows - 1) * step_down * (w.rows > 1) + length_down;
  // a task: some columns of windows, about 512 pixels
  const std::int64_t some = std::max<std::int64_t>(1, (512 - std::min<std::int64_t>(w.width, 512)) / w.right + 1);
  const std::int64_t parts = (w.columns + some - 1) / some;
  parallel(threads, shape.n * shape.c * parts, [&](std::int64_t task) {
    const std::int64_t plane = task / parts, n = plane / shape.c, c = plane % shape.c;
    const std::int64_t first = task % parts * some, columns = std::min(some, w.columns - first);
    const std::int64_t blocks = (columns - 1) * step_right * (columns > 1) + length_right;
    std::vector<Moments> block(std::size_t(bands * blocks)), tall(std::size_t(w.rows * blocks)), line, work;
    line.resize(std::size_t(columns));
    Columns<T> sums;
    for (std::int64_t b = 0; b < bands; ++b) {
      band<T>(x, roi, n, c, b * high, high, first * w.right, wide, blocks, sums, block.data() + b * blocks);
    }
    for (std::int64_t b = 0; b < blocks; ++b) {
      slide(block.data() + b, blocks, bands, length_down, step_down, tall.data() + b, blocks, w.rows, work);
    }
    for (std::int64_t r = 0; r < w.rows; ++r) {
      slide(tall.data() + r * blocks, 1, blocks, length_right, step_right, line.data(), 1, columns, work);
      for (std::int64_t k = 0; k < columns; ++k) {
        const Moments& m = line[std::size_t(k)];
        const std::int64_t at = (plane * w.rows + r) * w.columns + first + k;
        pixels[at] = m.count;
        mean[at] = m.count == 0 ? NAN : m.mean;
        variance[at] = m.count == 0 ? NAN : m.square / m.count;
      }
    }
  });
}

}  // namespace

void window_moments(const Image& x, const Mask& roi, Dtype dtype, const Shape& shape, const Windows& windows,
                    int threads, double* pixels, double* mean, double* variance) {
  with_type(dtype, [&](auto pixel) {
    moments<decltype(pixel)>(x, roi, shape, windows, threads, pixels, mean, variance);
  });
}

}  // namespace semnr

// What the Otsu masks are made of: smoothed pixels, and regions that keep their distance.
#include "otsu_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "../simd.hpp"

namespace semnr {
namespace {

using V = Vec<double>;
constexpr int L = kLanes<double>;
constexpr std::int64_t kStrip = 32;  // rows of a task
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A product that stays rounded: no compiler fuses what it cannot see through.
template <class T>
inline T rounded(T v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__) || defined(__i386__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}

struct Pixels {
  const Image& x;
  const Shape& shape;
  const Mask& valid;

  bool inside(std::int64_t n, std::int64_t h, std::int64_t w) const {
    return valid.data == nullptr || valid.row(n, h)[w * valid.stride[2]] != 0;
  }
};

// One row of the mean over channels.
template <class T>
void mean_row(const Pixels& of, std::int64_t n, std::int64_t h, double* line) {
  const std::int64_t width = of.shape.w, step = of.x.stride[3];
  for (std::int64_t c = 0; c < of.shape.c; ++c) {
    const T* p = static_cast<const T*>(of.x.data) + n * of.x.stride[0] + c * of.x.stride[1] + h * of.x.stride[2];
    if (c == 0 && step == 1) {
      for (std::int64_t w = 0; w < width; ++w) line[w] = real<double>(p[w]);
    } else if (c == 0) {
      for (std::int64_t w = 0; w < width; ++w) line[w] = real<double>(p[w * step]);
    } else {
      for (std::int64_t w = 0; w < width; ++w) line[w] += real<double>(p[w * step]);
    }
  }
  if (of.shape.c == 1) return;
  const double channels = double(of.shape.c);
  for (std::int64_t w = 0; w < width; ++w) line[w] /= channels;
}

// The only step that knows the pixels' type.
using MeanRow = void (*)(const Pixels& of, std::int64_t n, std::int64_t h, double* line);

MeanRow mean_row_of(Dtype dtype) {
  return with_type(dtype, [](auto pixel) -> MeanRow { return &mean_row<decltype(pixel)>; });
}

struct Extremes {
  double low = kInfinity, high = -kInfinity;
  std::int64_t bad = 0;

  void take(const Extremes& o) {
    low = std::min(low, o.low);
    high = std::max(high, o.high);
    bad += o.bad;
  }
};

// Lowest finite value, and how many are not finite.
Extremes lowest(const Pixels& of, std::int64_t n, std::int64_t h, const double* line) {
  Extremes found;
  if (of.valid.data != nullptr) {
    for (std::int64_t w = 0; w < of.shape.w; ++w) {
      if (!of.inside(n, h, w)) continue;
      if (std::isfinite(line[w])) {
        found.low = std::min(found.low, line[w]);
      } else {
        ++found.bad;
      }
    }
    return found;
  }
  V low = splat(kInfinity);
  Vec<std::int64_t> finite = {};
  std::int64_t w = 0;
  for (; w + L <= of.shape.w; w += L) {
    const V v = load(line + w);
    const Vec<std::int64_t> all = (v - v) == V{};  // not of a NaN, not of an infinity
    finite += all;
    low = all & (v < low) ? v : low;
  }
  for (int i = 0; i < L; ++i) {
    found.low = std::min(found.low, low[i]);
    found.bad += w / L + finite[i];
  }
  for (; w < of.shape.w; ++w) {
    if (std::isfinite(line[w])) {
      found.low = std::min(found.low, line[w]);
    } else {
      ++found.bad;
    }
  }
  return found;
}

// Σ over taps, the nearest first, at `w` of rows: above[0] is the row itself, above[j] and below[j] those j away.
inline V down(const double* const* above, const double* const* below, std::int64_t w, const std::vector<double>& taps,
              std::int64_t reach) {
  V total = rounded(load(above[0] + w) * taps[0]);
  for (std::int64_t j = 1; j <= reach; ++j) {
    total += rounded((load(above[j] + w) + load(below[j] + w)) * taps[std::size_t(j)]);
  }
  return total;
}

// The same along a line with zeros around it.
inline V across(const double* v, const std::vector<double>& taps) {
  V total = rounded(load(v) * taps[0]);
  for (std::size_t j = 1; j < taps.size(); ++j) {
    const std::int64_t at = std::int64_t(j);
    total += rounded((load(v - at) + load(v + at)) * taps[j]);
  }
  return total;
}

// The same of a pixel whose neighbours all are `one`, where there are any.
inline double weight(double one, std::int64_t before, std::int64_t after, const std::vector<double>& taps) {
  double total = rounded(one * taps[0]);
  const std::int64_t reach = std::min(std::int64_t(taps.size()) - 1, std::max(before, after));
  for (std::int64_t j = 1; j <= reach; ++j) {
    const double pair = (j <= before ? one : 0.0) + (j <= after ? one : 0.0);
    total += rounded(pair * taps[std::size_t(j)]);
  }
  return total;
}

std::int64_t whole_vectors(std::int64_t n) { return round_up(n, L); }

// A strip of rows of one image: the rows that a row's sums reach are kept as doubles in a ring.
class Smoothing {
 public:
  Smoothing(const Pixels& of, MeanRow mean_row, const std::vector<double>& taps, std::int64_t n, double pivot,
            double* out)
      : of_(of), mean_row_(mean_row), taps_(taps), n_(n), pivot_(pivot), out_(out), masked_(of.valid.data != nullptr) {
    width_ = of.shape.w;
    pitch_ = whole_vectors(width_);
    reach_ = std::min(std::int64_t(taps.size()), of.shape.h) - 1;
    margin_ = whole_vectors(std::int64_t(taps.size()) - 1);
    const std::int64_t line = pitch_ + 2 * margin_, rings = (masked_ ? 2 : 1) * (2 * reach_ + 1) * pitch_;
    nothing_ = static_cast<double*>(scratch((rings + 2 * pitch_ + 2 * line) * std::int64_t(sizeof(double))));
    ring_ = nothing_ + pitch_;
    found_ = ring_ + rings;
    line_ = found_ + pitch_ + margin_;
    share_ = line_ + line;
    std::fill(nothing_, ring_, 0.0);
    for (double* v : {line_, share_}) {
      std::fill(v - margin_, v, 0.0);
      std::fill(v + pitch_, v + pitch_ + margin_, 0.0);
    }
    rows_.resize(std::size_t(2 * reach_ + 2));
  }

  Extremes rows(std::int64_t top, std::int64_t stop) {
    Extremes found;
    for (std::int64_t h = std::max<std::int64_t>(0, top - reach_); h < top + reach_; ++h) read(h);
    for (std::int64_t h = top; h < stop; ++h) {
      read(h + reach_);
      smooth(h, found);
    }
    return found;
  }

 private:
  double* slot(std::int64_t h, bool share) const {
    const std::int64_t length = 2 * reach_ + 1;
    return ring_ + ((share ? length : 0) + h % length) * pitch_;
  }

  void read(std::int64_t h) {
    if (h >= of_.shape.h) return;
    double* const line = slot(h, false);
    mean_row_(of_, n_, h, line);
    for (std::int64_t w = 0; w < width_; ++w) line[w] -= pivot_;
    std::fill(line + width_, line + pitch_, 0.0);
    if (!masked_) return;
    double* const share = slot(h, true);
    std::fill(share, share + pitch_, 0.0);
    for (std::int64_t w = 0; w < width_; ++w) {
      if (of_.inside(n_, h, w)) {
        share[w] = 1.0;
      } else {
        line[w] = 0.0;
      }
    }
  }

  void columns(std::int64_t h, bool share, double* line) {
    const double** const above = rows_.data();
    const double** const below = above + reach_ + 1;
    for (std::int64_t j = 0; j <= reach_; ++j) {
      above[j] = h - j >= 0 ? slot(h - j, share) : nothing_;
      below[j] = h + j < of_.shape.h ? slot(h + j, share) : nothing_;
    }
    for (std::int64_t w = 0; w < pitch_; w += L) store(line + w, down(above, below, w, taps_, reach_));
  }

  void weights(std::int64_t h) {
    const std::int64_t radius = std::int64_t(taps_.size()) - 1;
    const double column = weight(1.0, h, of_.shape.h - 1 - h, taps_);
    const double inner = weight(column, radius, radius, taps_);
    const std::int64_t edge = std::min(radius, width_);
    std::fill(found_, found_ + width_, inner);
    for (std::int64_t w = 0; w < edge; ++w) found_[w] = weight(column, w, width_ - 1 - w, taps_);
    for (std::int64_t w = std::max(edge, width_ - edge); w < width_; ++w) {
      found_[w] = weight(column, w, width_ - 1 - w, taps_);
    }
    std::fill(found_ + width_, found_ + pitch_, 1.0);
  }

  void smooth(std::int64_t h, Extremes& extremes) {
    columns(h, false, line_);
    if (masked_) {
      columns(h, true, share_);
    } else {
      weights(h);
    }
    double* const to = out_ + (n_ * of_.shape.h + h) * width_;
    V low = splat(kInfinity), high = splat(-kInfinity);
    for (std::int64_t w = 0; w < width_; w += L) {
      const V by = masked_ ? across(share_ + w, taps_) : load(found_ + w), v = across(line_ + w, taps_) / by;
      if (!masked_ && w + L <= width_) {
        store(to + w, v);
        low = v < low ? v : low;
        high = v > high ? v : high;
        continue;
      }
      for (std::int64_t i = 0; i < std::min<std::int64_t>(L, width_ - w); ++i) {
        const bool in = of_.inside(n_, h, w + i);
        to[w + i] = in ? v[i] : 0.0;
        if (in) extremes.take({v[i], v[i], 0});
      }
    }
    for (int i = 0; i < L; ++i) extremes.take({low[i], high[i], 0});
  }

  const Pixels& of_;
  const MeanRow mean_row_;
  const std::vector<double>& taps_;
  std::int64_t n_;
  double pivot_;
  double* out_;
  bool masked_;
  std::int64_t width_, pitch_, reach_, margin_;  // pitch: whole vectors, zeros at the end
  double *nothing_, *ring_, *found_, *line_, *share_;
  std::vector<const double*> rows_;
};

// Row into `line`: each pixel whether any within `radius` is set. Lengths double: the cost grows with log radius.
void dilate_row(const std::uint8_t* row, std::int64_t width, std::int64_t radius, std::uint8_t* line) {
  using Bytes = Vec<std::uint8_t>;
  const std::int64_t length = 2 * radius + 1, all = width + 2 * radius;
  std::uint8_t* const v = static_cast<std::uint8_t*>(scratch(all + 2 * length + 2 * kVectorBytes));
  std::fill_n(v, all + 2 * length + 2 * kVectorBytes, std::uint8_t(0));
  std::copy_n(row, width, v + radius);
  const auto join = [&](std::int64_t apart) {
    for (std::int64_t i = 0; i < all; i += kVectorBytes) {
      const Bytes a = load(v + i), b = load(v + i + apart);
      store(v + i, Bytes(a | b));
    }
  };
  std::int64_t reach = 1;
  for (; 2 * reach <= length; reach *= 2) join(reach);
  if (reach < length) join(length - reach);
  std::copy_n(v, width, line);
}

}  // namespace

void otsu_pixels(const Image& x, Dtype dtype, const Shape& shape, const Mask& valid, int threads, double* pivot,
                 std::int64_t* bad) {
  const Pixels of{x, shape, valid};
  const std::int64_t strips = pieces(shape.h, kStrip);
  std::vector<Extremes> found(std::size_t(shape.n * strips));
  const MeanRow mean_row = mean_row_of(dtype);
  parallel(threads, shape.n * strips, [&](std::int64_t task) {
    const std::int64_t n = task / strips, top = task % strips * kStrip;
    double* const line = static_cast<double*>(scratch(shape.w * std::int64_t(sizeof(double))));
    for (std::int64_t h = top; h < std::min(shape.h, top + kStrip); ++h) {
      mean_row(of, n, h, line);
      found[std::size_t(task)].take(lowest(of, n, h, line));
    }
  });
  for (std::int64_t n = 0; n < shape.n; ++n) {
    Extremes all;
    for (std::int64_t i = 0; i < strips; ++i) all.take(found[std::size_t(n * strips + i)]);
    pivot[n] = std::isfinite(all.low) ? all.low : 0.0;
    bad[n] = all.bad;
  }
}

void otsu_smooth(const Image& x, Dtype dtype, const Shape& shape, const Mask& valid, const double* pivot,
                 const std::vector<double>& taps, int threads, double* out, double* low, double* high) {
  const Pixels of{x, shape, valid};
  // rows around a strip are read twice: no more of them than the strip has
  const std::int64_t rows = std::max(2 * kStrip, 2 * std::int64_t(taps.size()));
  const std::int64_t strips = pieces(shape.h, rows);
  std::vector<Extremes> found(std::size_t(shape.n * strips));
  const MeanRow mean_row = mean_row_of(dtype);
  parallel(threads, shape.n * strips, [&](std::int64_t task) {
    const std::int64_t n = task / strips, top = task % strips * rows;
    Smoothing strip(of, mean_row, taps, n, pivot[n], out);
    found[std::size_t(task)] = strip.rows(top, std::min(shape.h, top + rows));
  });
  for (std::int64_t n = 0; n < shape.n; ++n) {
    Extremes all;
    for (std::int64_t i = 0; i < strips; ++i) all.take(found[std::size_t(n * strips + i)]);
    low[n] = all.low;
    high[n] = all.high;
  }
}

void otsu_split(const double* values, const Mask& valid, const Shape& shape, const double* at, int threads,
                std::uint8_t* bright, std::uint8_t* dark) {
  const std::int64_t width = shape.w, rows = shape.n * shape.h;
  parallel(threads, pieces(rows, kStrip), [&](std::int64_t task) {
    for (std::int64_t r = task * kStrip; r < std::min(rows, (task + 1) * kStrip); ++r) {
      const double* __restrict v = values + r * width;
      std::uint8_t* __restrict above = bright + r * width;
      std::uint8_t* __restrict below = dark + r * width;
      const double t = at[r / shape.h];
      for (std::int64_t w = 0; w < width; ++w) above[w] = v[w] > t;
      for (std::int64_t w = 0; w < width; ++w) below[w] = v[w] <= t;
      if (valid.data == nullptr) continue;
      const std::uint8_t* inside = valid.row(r / shape.h, r % shape.h);
      for (std::int64_t w = 0; w < width; ++w) {
        const std::uint8_t in = inside[w * valid.stride[2]] != 0;
        above[w] &= in;
        below[w] &= in;
      }
    }
  });
}

void guard_band(const std::uint8_t* bright, const std::uint8_t* dark, const Shape& shape, std::int64_t radius,
                int threads, std::uint8_t* out, std::int64_t* pixels) {
  const std::int64_t rows = shape.n * shape.h, width = shape.w;
  const std::int64_t up = std::min(radius, shape.h - 1), along = std::min(radius, width - 1);
  const std::unique_ptr<std::uint8_t[]> memory(new std::uint8_t[std::size_t(2 * rows * width)]);
  std::uint8_t* const wide[2] = {memory.get(), memory.get() + rows * width};
  const std::uint8_t* const of[2] = {bright, dark};
  parallel(threads, pieces(rows, kStrip), [&](std::int64_t task) {
    for (std::int64_t r = task * kStrip; r < std::min(rows, (task + 1) * kStrip); ++r) {
      for (int k = 0; k < 2; ++k) dilate_row(of[k] + r * width, width, along, wide[k] + r * width);
    }
  });
  // Down the columns the rows of a window are counted as it moves: one comes in, one goes.
  constexpr std::int64_t kColumns = 256;
  const std::int64_t blocks = pieces(width, kColumns), tasks = 2 * shape.n * blocks;
  std::vector<std::int64_t> found(std::size_t(tasks), 0);
  parallel(threads, tasks, [&](std::int64_t task) {
    const std::int64_t k = task / blocks / shape.n, n = task / blocks % shape.n, from = task % blocks * kColumns;
    const std::int64_t columns = std::min(kColumns, width - from), first = n * shape.h * width + from;
    const std::uint8_t* const other = wide[1 - k] + first;
    std::uint32_t count[kColumns] = {}, kept[kColumns] = {};
    const auto move = [&](std::int64_t h, std::uint32_t by) {
      const std::uint8_t* row = other + h * width;
      for (std::int64_t w = 0; w < columns; ++w) count[w] += by * row[w];
    };
    for (std::int64_t h = 0; h < up; ++h) move(h, 1);
    for (std::int64_t h = 0; h < shape.h; ++h) {
      if (h + up < shape.h) move(h + up, 1);
      if (h - up - 1 >= 0) move(h - up - 1, std::uint32_t(-1));
      const std::uint8_t* __restrict own = of[k] + first + h * width;
      std::uint8_t* __restrict to = out + k * rows * width + first + h * width;
      for (std::int64_t w = 0; w < columns; ++w) {
        to[w] = std::uint8_t(own[w] & (count[w] == 0));
        kept[w] += to[w];
      }
    }
    for (std::int64_t w = 0; w < columns; ++w) found[std::size_t(task)] += kept[w];
  });
  for (std::int64_t i = 0; i < 2 * shape.n; ++i) {
    pixels[i] = 0;
    for (std::int64_t b = 0; b < blocks; ++b) pixels[i] += found[std::size_t(i * blocks + b)];
  }
}

}  // namespace semnr

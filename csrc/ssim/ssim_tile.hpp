// One tile: its job, its shift, the planes of its rows.
#pragma once
#include <type_traits>
#include <vector>

#include "../counts.hpp"
#include "ssim_apart.hpp"
#include "ssim_cpu.hpp"
#include "ssim_rows.hpp"

namespace semnr {
namespace {

struct Tile {
  std::int64_t n, c, row, column, rows, columns;
};

// Where a tile's numbers go, from and to memory of the type they are computed in; or of float, where the tile is one
// that float32 is too narrow for (`Job::narrow`) and is computed in double.
template <class R>
struct Plane {
  R* same = nullptr;
  float* single = nullptr;

  explicit operator bool() const { return same != nullptr || single != nullptr; }
  Plane<double> widened() const {
    if constexpr (std::is_same_v<R, float>) return {nullptr, same};
    return {};
  }

  // The first n lanes of v; n may be more than there are.
  void put(std::int64_t at, Vec<R> v, std::int64_t n) const {
    if (single == nullptr && n >= kLanes<R>) return store<R>(same + at, v);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(n, kLanes<R>); ++i) set(at + i, v[i]);
  }
  void set(std::int64_t at, R v) const {
    if (single == nullptr) {
      same[at] = v;
    } else {
      single[at] = float(v);
    }
  }
  Vec<R> get(std::int64_t at, std::int64_t n) const {
    if (single == nullptr && n >= kLanes<R>) return load(same + at);
    Vec<R> v = {};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(n, kLanes<R>); ++i) {
      v[i] = single == nullptr ? same[at + i] : R(single[at + i]);
    }
    return v;
  }
};

// A variance is a difference, E[s²] - E[s]², and carries float32's rounding of E[s²]: about 6e-8 of it, beside C2. Up
// to this many times C2 the map keeps its bound (2e-4; README.md). Values inside [0, L] reach at most 4 L², 4444 times
// C2 for K2 = 0.03: they never pay. What lies beyond, such as black beside a pedestal of many times L, is left to
// double.
constexpr double kNarrow = 4500;

template <class R>
struct Job {
  Image x, y;
  Mask valid;
  Shape shape;
  std::int64_t rows, columns;  // of windows
  std::int64_t lead;           // the first window starts this far outside the image
  int size;
  std::vector<R> taps;
  R scale, c1, c2, spread;
  void (*load)(const void*, std::int64_t, const void*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
               std::int64_t, const Shift<R>&, R*, R*);
  Shift<R> (*shift)(const Job<R>&, const Tile&);
  void (*measure)(const void*, std::int64_t, const void*, std::int64_t, std::int64_t, std::int64_t, R, Apart&);
  void (*sign)(const void*, std::int64_t, const void*, std::int64_t, std::int64_t, std::int64_t, R, R*);
  std::int64_t bytes;  // of one pixel
  Plane<R> map;
  bool components;

  // Whether E[s²] + E[d²], at most `peak` in any window, is too large beside C2 for moments in R.
  bool narrow(Vec<R> peak) const {
    if constexpr (std::is_same_v<R, double>) return false;
    bool found = false;
    for (int i = 0; i < kLanes<R>; ++i) found = found || !(peak[i] <= R(kNarrow) * c2);
    return found;
  }
};

const char* row_address(const Image& v, std::int64_t bytes, std::int64_t n, std::int64_t c, std::int64_t h) {
  return static_cast<const char*>(v.data) + (n * v.stride[0] + c * v.stride[1] + h * v.stride[2]) * bytes;
}

// About the mean of the tile's pixels, from a spread of samples; any constant is right, a near one is precise.
template <class T, class R>
Shift<R> shift_of(const Job<R>& job, const Tile& tile) {
  constexpr int kSamples = 8;  // a side
  const std::int64_t top = std::max<std::int64_t>(0, tile.row - job.lead);
  const std::int64_t left = std::max<std::int64_t>(0, tile.column - job.lead);
  const std::int64_t height = std::min(job.shape.h - top, tile.rows + job.size - 1);
  const std::int64_t width = std::min(job.shape.w - left, tile.columns + job.size - 1);
  double sum_x = 0, sum_y = 0, count = 0;
  for (int i = 0; i < kSamples; ++i) {
    const std::int64_t h = top + (2 * i + 1) * height / (2 * kSamples);
    const T* x = reinterpret_cast<const T*>(row_address(job.x, job.bytes, tile.n, tile.c, h));
    const T* y = reinterpret_cast<const T*>(row_address(job.y, job.bytes, tile.n, tile.c, h));
    const std::uint8_t* valid = job.valid.data == nullptr ? nullptr : job.valid.row(tile.n, h);
    for (int j = 0; j < kSamples; ++j) {
      // each row starts elsewhere, so that no pattern along the columns is met at one phase only
      const std::int64_t w = left + (kSamples * j + 3 * i % kSamples) * width / (kSamples * kSamples);
      const double a = real<double>(x[w * job.x.stride[3]]), b = real<double>(y[w * job.y.stride[3]]);
      if (std::isfinite(a + b) && (valid == nullptr || valid[w * job.valid.stride[2]] != 0)) {
        sum_x += a;
        sum_y += b;
        count += 1;
      }
    }
  }
  if (count == 0) return {job.scale, 0, 0};
  const double to = double(job.scale) / count;
  return {job.scale, R(-sum_x * to), R(-sum_y * to)};
}

// The planes of one image row: s, d, s², d² and, for components and masks, s·d and the weight.
template <class R, int P>
void make_planes(const Job<R>& job, const Tile& tile, std::int64_t row, std::int64_t padded, const Shift<R>& shift,
                 R* planes, std::int64_t pitch) {
  const std::int64_t h = mirrored(row, job.shape.h), first = tile.column - job.lead, n = tile.columns + job.size - 1;
  R* __restrict s = planes;
  R* __restrict d = planes + pitch;
  R* __restrict ss = planes + 2 * pitch;
  R* __restrict dd = planes + 3 * pitch;
  job.load(row_address(job.x, job.bytes, tile.n, tile.c, h), job.x.stride[3],
           row_address(job.y, job.bytes, tile.n, tile.c, h), job.y.stride[3], job.shape.w, first, n, padded, shift, s,
           d);
  if constexpr (P > 4) {
    R* __restrict weight = planes + 5 * pitch;
    const std::uint8_t* valid = job.valid.data == nullptr ? nullptr : job.valid.row(tile.n, h);
    for (std::int64_t i = 0; i < padded; ++i) {
      const bool counts = i < n && (valid == nullptr || valid[mirrored(first + i, job.shape.w) * job.valid.stride[2]]);
      weight[i] = counts ? R(1) : R(0);
      s[i] = counts ? s[i] : R(0);
      d[i] = counts ? d[i] : R(0);
    }
    R* __restrict sd = planes + 4 * pitch;
    for (std::int64_t i = 0; i < padded; ++i) sd[i] = s[i] * d[i];
  }
  for (std::int64_t i = 0; i < padded; ++i) {
    ss[i] = s[i] * s[i];
    dd[i] = d[i] * d[i];
  }
}

// Asks for a row that will be loaded later, a line at a time between the sums: no hardware prefetcher follows
// a walk down a tile, and a burst would fill the miss buffers.
struct Ahead {
  const char* line = nullptr;
  std::int64_t bytes = 0, pixel = 1;

  void ask(std::int64_t column, std::int64_t columns) const {
    for (std::int64_t at = round_up(column * pixel, 64); at < std::min(bytes, (column + columns) * pixel); at += 64) {
      __builtin_prefetch(line + at);
    }
  }
};

// `row` counts the tile's rows of pixels.
template <class R>
Ahead ahead(const Job<R>& job, const Image& image, const Tile& tile, std::int64_t row) {
  if (image.stride[3] != 1 || row >= tile.rows + job.size - 1) return {};
  const std::int64_t h = mirrored(tile.row - job.lead + row, job.shape.h);
  const std::int64_t w = std::max<std::int64_t>(0, tile.column - job.lead);
  const Ahead next{row_address(image, job.bytes, tile.n, tile.c, h) + w * job.bytes,
                   std::min(tile.columns + job.size - 1, job.shape.w - w) * job.bytes, job.bytes};
  Ahead(next).ask(round_up(tile.columns, kLanes<R>), job.size + kLanes<R>);  // what the walk over columns leaves out
  return next;
}

// A job's fixed part.
template <class R>
Job<R> job_of(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
              const SsimOptions& o) {
  Job<R> job{};
  job.x = x;
  job.y = y;
  job.valid = valid;
  job.shape = shape;
  job.size = o.size;
  job.lead = o.reflect ? (o.size - 1) / 2 : 0;
  job.rows = o.reflect ? shape.h : shape.h - o.size + 1;
  job.columns = o.reflect ? shape.w : shape.w - o.size + 1;
  job.taps.assign(o.taps, o.taps + o.size);
  // A power of two: scaling is exact.
  const double scale = std::exp2(-std::ceil(std::log2(o.range)));
  job.scale = R(scale);
  job.c1 = R(o.c1 * scale * scale);
  job.c2 = R(o.c2 * scale * scale);
  job.spread = R(o.unbiased / 2);
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    job.load = &load_row<T, R>;
    job.shift = &shift_of<T, R>;
    job.measure = &measure_row<T, R>;
    job.sign = &sign_row<T, R>;
    job.bytes = sizeof(T);
  });
  return job;
}

}  // namespace
}  // namespace semnr

// SSIM where speed is not the point: any odd window, masks, components, float64 moments, any type of pixels.
//
// A block walks down a strip of 32 columns, four rows at a time: pixels to shared memory, filtered along the row into a
// ring of as many rows as four windows need, from which each thread sums down its window's column.
#pragma once
#include "../counts.hpp"
#include "ssim_strip.cuh"

namespace semnr {

constexpr int kGeneralRows = 4;
constexpr int kGeneralThreads = kSsimGeneralColumns * kGeneralRows;

template <class R>
struct SsimGeneralJob {
  Image x, y;
  Mask valid;
  Dtype dtype;
  int channels, height, width, lead, less, size;
  int strips, segments, rows;
  R scale, c1, c2, spread;  // as ssim_terms takes them
  R tap[kSsimGeneralSize / 2 + 1];

  __device__ __forceinline__ R weight(int k) const { return tap[k <= size / 2 ? k : size - 1 - k]; }
};

// Where a block works: rows and columns of windows, or of the pixels that it writes.
struct GeneralStrip {
  int plane, n, c, top, left, rows, columns;
};

template <class R>
__device__ __forceinline__ GeneralStrip general_strip(const SsimGeneralJob<R>& job, int down, int across) {
  const int each = job.strips * job.segments, plane = int(blockIdx.x) / each, part = int(blockIdx.x) % each;
  const int top = part / job.strips * job.rows, left = part % job.strips * kSsimGeneralColumns;
  return {plane,
          plane / job.channels,
          plane % job.channels,
          top,
          left,
          min(job.rows, down - top),
          min(kSsimGeneralColumns, across - left)};
}

template <class R>
__device__ __forceinline__ R real_pixel(Dtype dtype, const Image& image, const GeneralStrip& s, int h, int w) {
  const std::int64_t at = s.n * image.stride[0] + s.c * image.stride[1] + h * image.stride[2] + w * image.stride[3];
  const char* const data = static_cast<const char*>(image.data);
  switch (dtype) {
    case Dtype::u8:
      return R(load_global<std::uint8_t>(data + at));
    case Dtype::u16:
      return R(load_global<std::uint16_t>(data + 2 * at));
    case Dtype::f16:
      return R(half_to_float(load_global<std::uint16_t>(data + 2 * at)));
    case Dtype::bf16:
      return R(bfloat16_to_float(load_global<std::uint16_t>(data + 2 * at)));
    case Dtype::f32:
      return R(load_global<float>(data + 4 * at));
    default:
      return R(load_global<double>(data + 8 * at));
  }
}

__device__ __forceinline__ void put_pixel(Dtype dtype, char* data, std::int64_t at, double v) {
  switch (dtype) {
    case Dtype::f16:
      return store(data + 2 * at, float_to_half(float(v)));
    case Dtype::bf16:
      return store(data + 2 * at, float_to_bfloat16(float(v)));
    case Dtype::f32:
      return store(data + 4 * at, float(v));
    default:
      return store(data + 8 * at, v);
  }
}

__device__ __forceinline__ bool counts(const Mask& valid, int n, int h, int w) {
  return valid.data == nullptr ||
         load_global<std::uint8_t>(valid.data + n * valid.stride[0] + h * valid.stride[1] + w * valid.stride[2]) != 0;
}

template <class R>
__device__ __forceinline__ R not_negative(R v) {
  return v < 0 ? R(0) : v;  // NaN stays
}

// A block's shared memory: four rows of `Lines` numbers a pixel, and the ring of `Moments` a column.
template <class R, int Lines, int Moments>
struct GeneralShared {
  R* lines;
  R* ring;
  int size;

  static __host__ __device__ int line(int size) { return kSsimGeneralColumns + size - 1; }
  static __host__ __device__ int bytes(int size) {
    const int reals = kGeneralRows * Lines * line(size) + (size + kGeneralRows - 1) * Moments * kSsimGeneralColumns;
    const int sums = kGeneralThreads * kSsimGeneralSums * 8;  // in the same place, at the end
    return reals * int(sizeof(R)) > sums ? reals * int(sizeof(R)) : sums;
  }
  __device__ __forceinline__ GeneralShared(unsigned char* shared, int window)
      : lines(reinterpret_cast<R*>(shared)), ring(lines + kGeneralRows * Lines * line(window)), size(window) {}

  __device__ __forceinline__ R* line_at(int row, int which) const { return lines + (row * Lines + which) * line(size); }
  // Row i of the walk.
  __device__ __forceinline__ R* ring_at(int i, int moment) const {
    return ring + (i % (size + kGeneralRows - 1) * Moments + moment) * kSsimGeneralColumns;
  }
};

// What the windows of a thread add up to.
struct GeneralSums {
  double of[kSsimGeneralSums] = {};  // 1 - l·c·s, 1 - c·s, 1 - l, 1 - c, 1 - s, weight, 1
};

// The fields of a window that `ssim_spread` takes: of s = x + y as it is, so that blocks agree.
template <class R>
__device__ __forceinline__ void put_fields(const SsimGeneralJob<R>& job, const SsimTerms<R>& t, R sum, R difference,
                                           R by_index, R by_structure, double* to, std::int64_t step) {
  const R both = 1 / (t.luminance_bottom * t.structure_bottom);
  const R over_luminance = t.structure_bottom * both, over_structure = t.luminance_bottom * both;
  const R luminance = t.luminance_loss * over_luminance, structure = t.structure_loss * over_structure;
  const R at_luminance = by_index * (1 - structure) * over_luminance;
  const R at_structure = (by_index * (1 - luminance) + by_structure) * over_structure * 2 * job.spread;
  const R by_s = at_structure * structure, by_d = at_structure * (structure - 2);
  to[0] = sum * (at_luminance * luminance - by_s);
  to[step] = difference * (at_luminance * (luminance - 2) - by_d);
  to[2 * step] = by_s;
  to[3 * step] = by_d;
}

// All: also s·d and the weight, for components and masks.
template <class R, bool All>
__global__ void __launch_bounds__(kGeneralThreads)
    ssim_general(const SsimGeneralJob<R> job, double* partial, R* map, const double* slopes, const double* slopes_map,
                 double* fields) {
  constexpr int kLines = All ? 3 : 2, kMoments = All ? 6 : 4;
  SEMNR_SHARED(memory);
  const GeneralShared<R, kLines, kMoments> shared(memory, job.size);
  const int down = job.height - job.less, across = job.width - job.less, thread = int(threadIdx.x);
  const GeneralStrip strip = general_strip(job, down, across);
  const int lines = GeneralShared<R, kLines, kMoments>::line(job.size), half = job.size / 2;
  const int my_row = thread / kSsimGeneralColumns, my_column = thread % kSsimGeneralColumns;

  f32x2 mean = {0, 0};
  if (thread < 32) {
    mean = mean_of(strip.rows + job.size - 1, strip.columns + job.size - 1, [&](int row, int column) {
      const int h = mirrored(strip.top - job.lead + row, job.height),
                w = mirrored(strip.left - job.lead + column, job.width);
      if (All && !counts(job.valid, strip.n, h, w)) return f32x2{INFINITY, 0};
      return f32x2{float(real_pixel<R>(job.dtype, job.x, strip, h, w)),
                   float(real_pixel<R>(job.dtype, job.y, strip, h, w))};
    });
    if (thread == 0) store(memory, mean);
  }
  __syncthreads();
  mean = load<f32x2>(memory);
  __syncthreads();
  const R x_offset = -R(mean[0]) * job.scale, y_offset = -R(mean[1]) * job.scale;
  const R offset_s = -(x_offset + y_offset), offset_d = y_offset - x_offset;

  GeneralSums sums;
  for (int first = 0; first < strip.rows + job.size - 1; first += kGeneralRows) {
    for (int i = thread; i < kGeneralRows * lines; i += kGeneralThreads) {
      const int row = i / lines, column = i % lines;
      R s = 0, d = 0, weight = 0;
      if (first + row < strip.rows + job.size - 1 && column < strip.columns + job.size - 1) {
        const int h = mirrored(strip.top - job.lead + first + row, job.height);
        const int w = mirrored(strip.left - job.lead + column, job.width);
        if (!All || counts(job.valid, strip.n, h, w)) {
          const R a = real_pixel<R>(job.dtype, job.x, strip, h, w) * job.scale + x_offset;
          const R b = real_pixel<R>(job.dtype, job.y, strip, h, w) * job.scale + y_offset;
          s = a + b;
          d = a - b;
          weight = 1;
        }
      }
      shared.line_at(row, 0)[column] = s;
      shared.line_at(row, 1)[column] = d;
      if (All) shared.line_at(row, 2)[column] = weight;
    }
    __syncthreads();
    R along[kMoments] = {};
    for (int k = 0; k < job.size; ++k) {
      const R tap = job.weight(k), s = shared.line_at(my_row, 0)[my_column + k],
              d = shared.line_at(my_row, 1)[my_column + k];
      along[0] += tap * s;
      along[1] += tap * d;
      along[2] += tap * (s * s);
      along[3] += tap * (d * d);
      if (All) {
        along[4] += tap * (s * d);
        along[5] += tap * shared.line_at(my_row, 2)[my_column + k];
      }
    }
    for (int m = 0; m < kMoments; ++m) shared.ring_at(first + my_row, m)[my_column] = along[m];
    __syncthreads();
    const int row = first + my_row - (job.size - 1);
    if (row < 0 || row >= strip.rows || my_column >= strip.columns) continue;
    R moment[kMoments] = {};
    for (int k = 0; k < job.size; ++k) {
      for (int m = 0; m < kMoments; ++m) moment[m] += job.weight(k) * shared.ring_at(row + k, m)[my_column];
    }
    if (All) {
      const R share = 1 / (moment[5] > 0 ? moment[5] : R(1));
      for (int m = 0; m < 5; ++m) moment[m] *= share;
    }
    const R var_s = not_negative(moment[2] - moment[0] * moment[0]),
            var_d = not_negative(moment[3] - moment[1] * moment[1]);
    const SsimTerms<R> t =
        ssim_terms(moment[0], moment[1], var_s, var_d, offset_s, offset_d, job.spread, job.c1, job.c2);
    const R luminance = t.luminance_loss / t.luminance_bottom, structure = t.structure_loss / t.structure_bottom;
    const R index = luminance + structure - luminance * structure;
    const std::int64_t plane = strip.plane, at = (plane * down + strip.top + row) * across + strip.left + my_column;
    const bool pooled =
        !All || counts(job.valid, strip.n, strip.top + row - job.lead + half, strip.left + my_column - job.lead + half);
    if (map != nullptr) map[at] = pooled ? 1 - index : R(NAN);
    if (fields != nullptr) {
      const std::int64_t planes = gridDim.x / (job.strips * job.segments);
      const R by_index = R(slopes[plane] + (slopes_map == nullptr ? 0 : slopes_map[at]));
      put_fields(job, t, moment[0] + offset_s, moment[1] + offset_d, by_index, R(slopes[planes + plane]), fields + at,
                 planes * down * across);
    }
    if (!pooled) continue;
    sums.of[0] += index;
    sums.of[1] += structure;
    sums.of[6] += 1;
    if (All) {
      // variances of x and y, and the terms as README.md has them
      const R quarter = job.spread / 2, both = 2 * (moment[4] - moment[0] * moment[1]);
      const R var_x = not_negative((var_s + var_d + both) * quarter),
              var_y = not_negative((var_s + var_d - both) * quarter);
      const R deviations = sqrt(var_x * var_y), cov = (var_s - var_d) * quarter;
      sums.of[2] += luminance;
      sums.of[3] += 1 - (2 * deviations + job.c2) / (var_x + var_y + job.c2);
      sums.of[4] += 1 - (2 * cov + job.c2) / (2 * deviations + job.c2);
      sums.of[5] += moment[5];
    }
  }
  if (partial == nullptr) return;
  __syncthreads();
  double* const all = reinterpret_cast<double*>(memory);
  for (int k = 0; k < kSsimGeneralSums; ++k) all[k * kGeneralThreads + thread] = sums.of[k];
  __syncthreads();
  if (thread < kSsimGeneralSums) {
    double total = 0;
    for (int t = 0; t < kGeneralThreads; ++t) total += all[thread * kGeneralThreads + t];
    partial[std::int64_t(blockIdx.x) * kSsimGeneralSums + thread] = total;
  }
}

// out: six rows of planes, l·c·s, c·s, l, c, s and the coverage; NaN where no window is pooled.
__global__ void __launch_bounds__(32) ssim_general_fold(const double* partial, int blocks, double* out) {
  const std::int64_t plane = blockIdx.x, planes = gridDim.x;
  const int k = int(threadIdx.x);
  if (k >= 6) return;
  double sum = 0, windows = 0;
  for (int i = 0; i < blocks; ++i) {
    const double* const p = partial + (plane * blocks + i) * kSsimGeneralSums;
    sum += p[k];
    windows += p[6];
  }
  out[k * planes + plane] = k < 5 ? 1 - sum / windows : sum / windows;
}

// Gradients from the windows' fields: each pixel's weighted sum over the windows that hold it.
__global__ void __launch_bounds__(kGeneralThreads)
    ssim_spread(const SsimGeneralJob<double> job, const double* fields, char* x, char* y) {
  SEMNR_SHARED(memory);
  const GeneralShared<double, 4, 4> shared(memory, job.size);
  const int down = job.height - job.less, across = job.width - job.less, thread = int(threadIdx.x);
  const GeneralStrip strip = general_strip(job, job.height, job.width);
  const int lines = GeneralShared<double, 4, 4>::line(job.size), reach = job.size - 1;
  const int my_row = thread / kSsimGeneralColumns, my_column = thread % kSsimGeneralColumns;
  const std::int64_t planes = gridDim.x / (job.strips * job.segments), plane = strip.plane;
  for (int first = 0; first < strip.rows + reach; first += kGeneralRows) {
    for (int i = thread; i < kGeneralRows * 4 * lines; i += kGeneralThreads) {
      const int row = i / (4 * lines), which = i / lines % 4, column = i % lines;
      const int h = strip.top + first + row - reach, w = strip.left + column - reach;
      const bool inside = h >= 0 && h < down && w >= 0 && w < across;
      shared.line_at(row, which)[column] = inside ? fields[((which * planes + plane) * down + h) * across + w] : 0.0;
    }
    __syncthreads();
    for (int m = 0; m < 4; ++m) {
      double along = 0;
      for (int k = 0; k < job.size; ++k) along += job.weight(k) * shared.line_at(my_row, m)[my_column + k];
      shared.ring_at(first + my_row, m)[my_column] = along;
    }
    __syncthreads();
    const int row = first + my_row - reach;
    if (row < 0 || row >= strip.rows || my_column >= strip.columns) continue;
    double sum[4] = {};
    for (int k = 0; k < job.size; ++k) {
      for (int m = 0; m < 4; ++m) sum[m] += job.weight(k) * shared.ring_at(row + k, m)[my_column];
    }
    const int h = strip.top + row, w = strip.left + my_column;
    const double a = real_pixel<double>(job.dtype, job.x, strip, h, w) * job.scale;
    const double b = real_pixel<double>(job.dtype, job.y, strip, h, w) * job.scale;
    const double by_s = (sum[0] + (a + b) * sum[2]) * job.scale, by_d = (sum[1] + (a - b) * sum[3]) * job.scale;
    const std::int64_t at = (plane * job.height + h) * job.width + w;
    if (x != nullptr) put_pixel(job.dtype, x, at, by_s + by_d);
    if (y != nullptr) put_pixel(job.dtype, y, at, by_s - by_d);
  }
}

}  // namespace semnr

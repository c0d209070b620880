// Gradient of SSIM to both images in one launch: moments are recomputed from the pixels, nothing is stored between.
//
// With the terms of ssim_math.hpp and window weights w, the gradient to the pixel p of s = x + y is
//   Σ_q w(p - q) a(q) + s(p) Σ_q w(p - q) P(q),   a = ∂/∂E[s], P = 2 ∂/∂E[s²] at window q,
// and likewise b, Q for d = x - y. A block walks down as in the forward kernel; what it then knows of a window it feeds
// at once, in the same thread, to the second filter down the column, and only that filter's sums cross the threads.
#pragma once
#include "ssim_strip.cuh"

namespace semnr {

template <int Size>
struct SsimBackwardLayout {
  static constexpr int kReach = Size - 1;
  static constexpr int kBefore = (kReach + 7) / 8 * 8;             // columns of windows before the first pixel's own
  static constexpr int kColumns = kSsimBackwardThreads - kBefore;  // of pixels, whose gradient a block writes
  static constexpr int kRing = 32;  // rows of pixels: eight being read, eight in use, Size - 1 to be used again
  static constexpr int kPixelPitch = pixel_place((kSsimBackwardThreads + kReach + 7) / 8 * 8);  // pairs of floats
  static constexpr int kMomentPitch = moment_place(kSsimBackwardThreads);                       // quadruples
  static constexpr int kPixels = sizeof(Strip);
  static constexpr int kMoments = kPixels + kRing * kPixelPitch * 8;
  static constexpr int kBytes = kMoments + kBatch * kMomentPitch * 16;
  // of |x - y|: signs of the pixels of `kRing` rows, 2 bytes each
  static constexpr int kSigns = kBytes, kSignPitch = kSsimBackwardThreads + 16;
  static constexpr int kApartBytes = kSigns + kRing * kSignPitch * 2;
};

// The loss's derivatives, times the pixels' scale: by each window's index and by its contrast·structure.
struct SsimSlopes {
  const double* index;      // planes
  const double* structure;  // planes
  const float* map;         // (planes, h, w) more of the former, or null; not times the scale
  double factor;            // of the former two
  const void* common;       // the slope of the mean over all planes, one number for all instead of the former; or null
  bool narrow;              // float32, else float64
  const double* absolute;   // planes: by |x - y| of each pixel, or null
  double absolute_factor;   // of the latter by `common`

  bool apart() const { return absolute != nullptr || absolute_factor != 0; }
  __device__ __forceinline__ float by_index(int plane) const {
    return float(common == nullptr ? index[plane] * factor : slope() * factor);
  }
  __device__ __forceinline__ float by_structure(int plane) const {
    return common == nullptr ? float(structure[plane] * factor) : 0.0f;
  }
  __device__ __forceinline__ float by_absolute(int plane) const {
    return float(common == nullptr ? absolute[plane] : slope() * absolute_factor);
  }

 private:
  __device__ __forceinline__ double slope() const {
    return narrow ? double(load_global<float>(common)) : load_global<double>(common);
  }
};

// The sign of x - y, 0 where they are equal, as a float32 without its lower half.
__device__ __forceinline__ std::uint32_t sign_of(float x, float y) {
  const float d = x - y;
  return d == 0 ? 0u : (__float_as_uint(d) & 0x80000000u) | 0x3f800000u;
}

// The signs of a thread's eight pixels, to its row of them. As `Reader::put` has the pixels.
template <class T, bool Packed, class Reader>
__device__ __forceinline__ void put_signs(const Reader& reader, int shift, unsigned char* row) {
  if constexpr (Packed) {
    u32x4 words;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t low = sign_of(biased<T>(reader.x(), 2 * i), biased<T>(reader.y(), 2 * i));
      const std::uint32_t high = sign_of(biased<T>(reader.x(), 2 * i + 1), biased<T>(reader.y(), 2 * i + 1));
      words[i] = high | low >> 16;
    }
    store(row + 16 * reader.group(), words);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t sign = sign_of(biased<T>(reader.x() + i, 0), biased<T>(reader.y() + i, 0));
      store(row + 2 * ((i << shift) + reader.group()), std::uint16_t(sign >> 16));
    }
  }
}

// a, b, P, Q of a window, times `weight`.
template <int Size>
__device__ __forceinline__ Sums fields(const SsimJob<Size>& job, const Sums& m, float offset_s, float offset_d,
                                       float by_index, float by_structure) {
  const float mean_s = m.low[0] * job.weight, mean_d = m.low[1] * job.weight;
  const float var_s = max(fmaf(-mean_s, m.low[0], m.high[0]), 0.0f);
  const float var_d = max(fmaf(-mean_d, m.low[1], m.high[1]), 0.0f);
  const float sum = mean_s + offset_s, difference = mean_d + offset_d;
  const SsimTerms<float> t = ssim_terms(mean_s, mean_d, var_s, var_d, offset_s, offset_d, 0.5f, job.c1, job.c2);
  const float both = __fdividef(1.0f, t.luminance_bottom * t.structure_bottom);
  const float over_luminance = t.structure_bottom * both, over_structure = t.luminance_bottom * both;
  const float luminance = t.luminance_loss * over_luminance, structure = t.structure_loss * over_structure;  // losses
  const float at_luminance = by_index * job.weight * (1 - structure) * over_luminance;
  const float at_structure = fmaf(-by_index, luminance, by_index + by_structure) * over_structure;
  const float by_s = at_structure * structure, by_d = at_structure * (structure - 2);
  return {f32x2{fmaf(at_luminance * luminance, sum, -mean_s * by_s),
                fmaf(at_luminance * (luminance - 2), difference, -mean_d * by_d)},
          f32x2{by_s, by_d}};
}

template <class T>
__device__ __forceinline__ std::uint32_t narrowed(float v) {
  if constexpr (std::is_same_v<T, Half>) {
    return float_to_half(v);
  } else {
    return float_to_bfloat16(v);
  }
}

// Eight numbers side by side; packed: `to` is aligned to 16 bytes. Else the first `count`.
template <class T>
__device__ __forceinline__ void write(const float (&v)[8], char* to, bool packed, int count) {
  if (!packed) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i >= count) break;
      if constexpr (sizeof(T) == 4) {
        store(to + 4 * i, v[i]);
      } else {
        store(to + 2 * i, std::uint16_t(narrowed<T>(v[i])));
      }
    }
  } else if constexpr (sizeof(T) == 4) {
    store(to, f32x4{v[0], v[1], v[2], v[3]});
    store(to + 16, f32x4{v[4], v[5], v[6], v[7]});
  } else {
    u32x4 words;
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = narrowed<T>(v[2 * i]) | narrowed<T>(v[2 * i + 1]) << 16;
    store(to, words);
  }
}

// x, y: contiguous gradients of the type of the pixels, or null. Apart: the loss has a slope by |x - y| too.
template <class T, int Size, bool Packed, bool Apart>
__device__ __forceinline__ void ssim_walk_back(const SsimJob<Size>& job, const SsimSlopes& slopes, char* x, char* y,
                                               unsigned char* shared) {
  using Layout = SsimBackwardLayout<Size>;
  constexpr int kReach = Layout::kReach;
  Strip& strip = *reinterpret_cast<Strip*>(shared);
  if (threadIdx.x == 0) {
    Strip s;
    const int strips = job.batch.strips, each = strips * job.batch.segments, plane = int(blockIdx.x) / each;
    take_plane(job.batch, plane, s);
    const int number = int(blockIdx.x) - plane * each, segment = number / strips;
    s.begin = segment * job.batch.rows;
    s.end = min(s.begin + job.batch.rows, s.height);
    s.top = max(0, s.begin - kReach);
    s.left = (number - segment * strips) * Layout::kColumns - Layout::kBefore;
    s.rows = min(s.end, s.height - kReach) - s.top;
    s.columns = min(kSsimBackwardThreads, s.width - kReach - s.left);
    s.last = s.end - s.top + kReach;
    s.last_whole = slopes.map == nullptr ? s.rows + kReach - kBatch : -1;
    s.by_index = slopes.by_index(s.plane);
    s.by_structure = slopes.by_structure(s.plane);
    if constexpr (Apart) s.by_absolute = slopes.by_absolute(s.plane);
    strip = s;
  }
  __syncthreads();
  Reader<T, Size, Packed, false> reader(strip);
  unsigned char* const moments = shared + Layout::kMoments;
  unsigned char* const column = moments + moment_place(int(threadIdx.x)) * 16;
  Ring<Size> windows, pixels;
  windows.clear();
  pixels.clear();
  reader.ask(0);
  centre<T>(strip, strip.rows + kReach, strip.columns + kReach, job.scale);
  __syncthreads();
  // Whole: each of the eight rows completes a window, and the loss has no slope by the map.
  const auto batch = [&](int first, auto whole) {
    unsigned char* const rows = shared + Layout::kPixels + first % Layout::kRing * Layout::kPixelPitch * 8;
    unsigned char* const from = rows + (reader.row() * Layout::kPixelPitch + pixel_place(8 * reader.group())) * 8;
    reader.put(job.scale, rows, Layout::kPixelPitch, from);
    if constexpr (Apart) {
      const int row = first % Layout::kRing + reader.row();
      put_signs<T, Packed>(reader, strip.shift, shared + Layout::kSigns + row * Layout::kSignPitch * 2);
    }
    __syncthreads();
    if (first + kBatch < strip.last) reader.ask(first + kBatch);
    {
      Sums row[8];
      along_row<Size>(job.taps, from, row);
      unsigned char* const to = moments + (reader.row() * Layout::kMomentPitch + moment_place(8 * reader.group())) * 16;
#pragma unroll
      for (int o = 0; o < 8; ++o) put_sums(to + o * 16, row[o]);
    }
    __syncthreads();
    const float offset_s = strip.s, offset_d = strip.d;
    const bool live = int(threadIdx.x) < strip.columns && strip.left + int(threadIdx.x) >= 0;
    const float by_index = live ? strip.by_index : 0, by_structure = live ? strip.by_structure : 0;
    if constexpr (decltype(whole)::value) {
#pragma unroll
      for (int r = 0; r < kBatch; ++r) {
        unsigned char* const at = column + r * Layout::kMomentPitch * 16;
        const Sums done = windows.add(job.taps, sums_at(at));
        put_sums(at, pixels.add(job.taps, fields(job, done, offset_s, offset_d, by_index, by_structure)));
      }
    } else {
#pragma unroll 1
      for (int r = 0; r < kBatch; ++r) {
        unsigned char* const at = column + r * Layout::kMomentPitch * 16;
        const int row = first + r - kReach;
        const Sums done = windows.add(job.taps, sums_at(at));
        Sums found = {f32x2{0, 0}, f32x2{0, 0}};
        if (live && row >= 0 && row < strip.rows) {
          float upstream = by_index;
          if (slopes.map != nullptr) {
            const int across = strip.width - kReach, down = strip.height - kReach;
            const std::int64_t line = std::int64_t(strip.plane) * down + strip.top + row;
            upstream = fmaf(slopes.map[line * across + strip.left + int(threadIdx.x)], job.scale, upstream);
          }
          found = fields(job, done, offset_s, offset_d, upstream, by_structure);
        }
        put_sums(at, pixels.add(job.taps, found));
      }
    }
    __syncthreads();
    const int row = first + reader.row() - kReach, to = strip.left + Layout::kBefore + 8 * reader.group();
    if (strip.top + row >= strip.begin && strip.top + row < strip.end && 8 * reader.group() < Layout::kColumns &&
        to < strip.width) {
      Sums sums[8];
      const unsigned char* const left =
          moments + (reader.row() * Layout::kMomentPitch + moment_place(8 * reader.group())) * 16;
#pragma unroll
      for (int j = 0; j < Size + 7; ++j) {
        to_windows<Size>(job.taps, j, sums_at(left + moment_place(Layout::kBefore - kReach + j) * 16), sums);
      }
      const unsigned char* const pixel = shared + Layout::kPixels +
                                         (row & (Layout::kRing - 1)) * Layout::kPixelPitch * 8 +
                                         pixel_place(8 * reader.group() + Layout::kBefore) * 8;
      float to_x[8], to_y[8];
#pragma unroll
      for (int o = 0; o < 8; o += 2) {
        const f32x4 two = load<f32x4>(pixel + o * 8);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float by_s = fmaf(two[2 * i], sums[o + i].high[0], sums[o + i].low[0]);
          const float by_d = fmaf(two[2 * i + 1], sums[o + i].high[1], sums[o + i].low[1]);
          to_x[o + i] = by_s + by_d;
          to_y[o + i] = by_s - by_d;
        }
      }
      if constexpr (Apart) {
        const u32x4 signs = load<u32x4>(shared + Layout::kSigns + (row & (Layout::kRing - 1)) * Layout::kSignPitch * 2 +
                                        (8 * reader.group() + Layout::kBefore) * 2);
        const float by = strip.by_absolute;
#pragma unroll
        for (int o = 0; o < 8; ++o) {
          const float sign = __uint_as_float(o % 2 ? signs[o / 2] & 0xffff0000u : signs[o / 2] << 16);
          to_x[o] = fmaf(sign, by, to_x[o]);
          to_y[o] = fmaf(-sign, by, to_y[o]);
        }
      }
      const std::int64_t line = std::int64_t(strip.plane) * strip.height + strip.top + row;
      const std::int64_t at = (line * strip.width + to) * std::int64_t(sizeof(T));
      const bool packed = Packed || strip.width % 8 == 0;
      if (x != nullptr) write<T>(to_x, x + at, packed, strip.width - to);
      if (y != nullptr) write<T>(to_y, y + at, packed, strip.width - to);
    }
  };
  // two loops, so that the one that matters has nothing else in it
  int first = 0;
  while (first < strip.last) {
#pragma unroll 1
    for (; first >= kReach && first <= strip.last_whole; first += kBatch) batch(first, std::true_type());
#pragma unroll 1
    for (; first < strip.last && (first < kReach || first > strip.last_whole); first += kBatch) {
      batch(first, std::false_type());
    }
  }
}

template <class T, int Size, bool Packed>
__global__ void __launch_bounds__(kSsimBackwardThreads, 3)
    ssim_backward(const SsimJob<Size> job, const SsimSlopes slopes, char* x, char* y) {
  SEMNR_SHARED(shared);
  ssim_walk_back<T, Size, Packed, false>(job, slopes, x, y, shared);
}

template <class T, int Size, bool Packed>
__global__ void __launch_bounds__(kSsimBackwardThreads, 3)
    ssim_apart_backward(const SsimJob<Size> job, const SsimSlopes slopes, char* x, char* y) {
  SEMNR_SHARED(shared);
  ssim_walk_back<T, Size, Packed, true>(job, slopes, x, y, shared);
}

}  // namespace semnr

// What the forward and the backward kernel share: a block's strip of windows, its pixels on their way from device
// memory into shared memory, and the filter along rows.
//
// A block walks down a strip of at most 256 columns of windows, eight rows of pixels at a time. Between barriers
//   1. the eight rows lie in shared memory as s = x + y and d = x - y about the strip's mean (`Reader`), while the next
//      eight are on their way from device memory into registers;
//   2. a thread filters one row for eight windows side by side (`along_row`): s, d, s², d², back to shared memory;
//   3. a thread owns a column and walks down it: the sums of the last Size - 1 rows stay in its registers (`Ring`).
#pragma once
#include "../counts.hpp"
#include "../cuda/device.hpp"
#include "../image.hpp"
#include "ssim_cuda.hpp"
#include "ssim_filter.cuh"
#include "ssim_math.hpp"

namespace semnr {

constexpr int kBatch = 8;  // rows of pixels between barriers, and windows that a thread makes side by side

template <int Size>
struct StripLayout {
  static constexpr int kReach = Size - 1;
  static constexpr int kPixelPitch = pixel_place((kSsimThreads + kReach + 7) / 8 * 8);  // pairs of floats
  static constexpr int kMomentPitch = moment_place(kSsimThreads);                       // quadruples
};

template <int Size>
struct SsimJob {
  SsimBatch batch;
  SsimTaps<Size> taps;
  float weight;
  float scale;   // pixels are scaled to about the unit range, by a power of two
  float c1, c2;  // on that scale; c2 over the sample covariance's factor and over `weight`, as the variances
};

// What every thread of a block needs to know of its strip now and then. It lies in shared memory: registers are dear.
struct alignas(16) Strip {
  std::int64_t x, y;                            // addresses of the plane's first pixels
  std::int32_t x_row, x_pixel, y_row, y_pixel;  // steps in bytes
  std::int32_t top, left, height, width;        // the strip's first pixel, maybe outside the image; the image
  std::int32_t rows, columns, plane, shift;     // windows of the strip; 1 << shift threads take a row of pixels
  std::int32_t last, last_whole;   // rows of pixels to walk; where the last batch without a special row begins
  std::int32_t begin, end;         // backward: rows of pixels to write; forward: which part of its column, of how many
  float by_index, by_structure;    // backward: the loss's slopes
  float x_offset, y_offset, s, d;  // scale * v + x_offset is about the strip's mean; s, d undo that
  std::int32_t skip;               // forward: rows at the top that belong to the part above, not read
  float by_absolute;               // backward: the loss's slope by |x - y| of each pixel
};

template <class T>
__device__ __forceinline__ T* pointer_to(std::int64_t address) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

// Tells the strip its plane.
__device__ __forceinline__ void take_plane(const SsimBatch& batch, int plane, Strip& s) {
  const int n = plane / batch.channels, c = plane - n * batch.channels;
  s.plane = plane;
  s.x = batch.x + n * batch.x_image + c * batch.x_channel;
  s.y = batch.y + n * batch.y_image + c * batch.y_channel;
  s.x_row = batch.x_row;
  s.x_pixel = batch.x_pixel;
  s.y_row = batch.y_row;
  s.y_pixel = batch.y_pixel;
  s.height = batch.height;
  s.width = batch.width;
  s.shift = int(blockDim.x) == kSsimThreads ? 5 : 4;
  s.skip = 0;
}

// --- pixels as numbers ----------------------------------------------------------------------------------------

template <class T>
constexpr bool kInteger = std::is_integral_v<T>;

// Integers become floats by their bits: 2²³ + v has v as its last bits.
template <class T>
constexpr float kBias = kInteger<T> ? 8388608.0f : 0.0f;

// kBias + pixel i of a row of them; i is known at compile time.
template <class T>
__device__ __forceinline__ float biased(const std::uint32_t* words, int i) {
  if constexpr (sizeof(T) == 1) {
    return __uint_as_float(__byte_perm(words[i / 4], 0x4b000000u, 0x7440 | (i % 4)));
  } else if constexpr (std::is_same_v<T, std::uint16_t>) {
    return __uint_as_float(__byte_perm(words[i / 2], 0x4b000000u, i % 2 ? 0x7432 : 0x7410));
  } else if constexpr (std::is_same_v<T, Half>) {
    return half_to_float(std::uint16_t(words[i / 2] >> (i % 2 * 16)));
  } else if constexpr (std::is_same_v<T, BFloat>) {
    return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
  } else {
    return __uint_as_float(words[i]);
  }
}

// One pixel as a word by itself.
template <class T>
__device__ __forceinline__ std::uint32_t one_word(const char* p) {
  if constexpr (sizeof(T) == 1) {
    return load_global<std::uint8_t>(p);
  } else if constexpr (sizeof(T) == 2) {
    return load_global<std::uint16_t>(p);
  } else {
    return load_global<std::uint32_t>(p);
  }
}

// The mean of what the lanes of a warp gathered.
__device__ __forceinline__ f32x2 lane_mean(float x, float y, float count) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, by);
    y += __shfl_xor_sync(0xffffffffu, y, by);
    count += __shfl_xor_sync(0xffffffffu, count, by);
  }
  const float over = 1.0f / max(count, 1.0f);
  return f32x2{x * over, y * over};
}

// About the mean of a strip of height x width pixels, from 64 of them: any number is right, a near one is precise.
// pixel(row, column) gives x and y; what is not finite is left out. A warp calls it.
template <class F>
__device__ __forceinline__ f32x2 mean_of(int height, int width, const F& pixel) {
  float x = 0, y = 0, count = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int n = int(threadIdx.x) + 32 * i, row = n / 8;
    // each row starts elsewhere, so that no pattern along the columns is met at one phase only
    const f32x2 v = pixel((2 * row + 1) * height / 16, (8 * (n % 8) + 3 * row % 8) * width / 64);
    if (fabsf(v[0]) + fabsf(v[1]) < 1e30f) {
      x += v[0];
      y += v[1];
      count += 1;
    }
  }
  return lane_mean(x, y, count);
}

template <class T>
__device__ __forceinline__ void to_centre(Strip& strip, const f32x2& mean, float scale) {
  const float x = kInteger<T> ? rintf(mean[0]) : mean[0], y = kInteger<T> ? rintf(mean[1]) : mean[1];
  if (threadIdx.x != 0) return;
  strip.x_offset = -(kBias<T> + x) * scale;
  strip.y_offset = -(kBias<T> + y) * scale;
  strip.s = (x + y) * scale;
  strip.d = (x - y) * scale;
}

// Brings the strip's values to about their mean; integers are shifted by integers. The first warp does it, while the
// first rows are on their way; a barrier follows.
template <class T>
__device__ __forceinline__ void centre(Strip& strip, int height, int width, float scale) {
  if (threadIdx.x >= 32) return;
  const f32x2 mean = mean_of(height, width, [&](int down, int right) {
    const std::int64_t h = mirrored(strip.top + down, strip.height), w = mirrored(strip.left + right, strip.width);
    const std::uint32_t a = one_word<T>(pointer_to<char>(strip.x + h * strip.x_row + w * strip.x_pixel));
    const std::uint32_t b = one_word<T>(pointer_to<char>(strip.y + h * strip.y_row + w * strip.y_pixel));
    return f32x2{biased<T>(&a, 0) - kBias<T>, biased<T>(&b, 0) - kBias<T>};
  });
  to_centre<T>(strip, mean, scale);
}

// The same for a column strip of the whole image, whichever part of it the block walks down: sixteen places far apart,
// of four pixels side by side, so that few sectors are read.
template <class T>
__device__ __forceinline__ void centre_column(Strip& strip, int width, float scale) {
  if (threadIdx.x >= 32) return;
  const int left = max(0, strip.left), wide = min(strip.left + width, strip.width) - left;
  float x = 0, y = 0, count = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int n = int(threadIdx.x) + 32 * i, place = n / 4;
    // 5 and 16 have no common divisor: every place has a column of its own
    const int down = int(std::int64_t(2 * place + 1) * strip.height / 32);
    const int right = left + min(((5 * place) % 16 * wide / 16 & ~3) + n % 4, wide - 1);
    const std::uint32_t a =
        one_word<T>(pointer_to<char>(strip.x + std::int64_t(down) * strip.x_row + std::int64_t(right) * strip.x_pixel));
    const std::uint32_t b =
        one_word<T>(pointer_to<char>(strip.y + std::int64_t(down) * strip.y_row + std::int64_t(right) * strip.y_pixel));
    const float v = biased<T>(&a, 0) - kBias<T>, w = biased<T>(&b, 0) - kBias<T>;
    if (fabsf(v) + fabsf(w) < 1e30f) {
      x += v;
      y += w;
      count += 1;
    }
  }
  to_centre<T>(strip, lane_mean(x, y, count), scale);
}

// Eight rows of pixels from device memory to shared memory. A thread takes eight pixels of one row (Packed: by one load
// an image, two of float32; else one by one), and of the Size - 1 columns beyond the strip one pixel.
// Mirror: pixels outside the image are those inside, else zeros.
template <class T, int Size, bool Packed, bool Mirror>
class Reader {
  static constexpr int kReach = Size - 1;
  static constexpr int kWords = Packed ? 2 * int(sizeof(T)) : 8;

 public:
  __device__ __forceinline__ Reader(const Strip& strip) : strip_(strip) {
    const int column = strip.left + 8 * group();
    x_from_ = strip.x + std::int64_t(strip.top + row()) * strip.x_row + column * int(sizeof(T));
    y_from_ = strip.y + std::int64_t(strip.top + row()) * strip.y_row + column * int(sizeof(T));
  }

  // The row of the eight and the group of eight columns that are this thread's.
  __device__ __forceinline__ int row() const { return int(threadIdx.x) >> strip_.shift; }
  __device__ __forceinline__ int group() const { return int(threadIdx.x) & ((1 << strip_.shift) - 1); }

  // Asks for rows first to first + 7 of the strip's pixels. Top: the first eight, of which some may be skipped.
  template <bool Top = false>
  __device__ __forceinline__ void ask(int first) {
    const int skip = Top ? strip_.skip : 0;  // at compile time but at the top
    const int left = strip_.rows + kReach - first;
    if constexpr (Packed) {
      if ((!Top || row() >= skip) && row() < left && inside(8 * group())) {
        take(x_from_, x_);
        take(y_from_, y_);
      }
      x_from_ += kBatch * std::int64_t(strip_.x_row);
      y_from_ += kBatch * std::int64_t(strip_.y_row);
    } else if ((!Top || row() >= skip) && row() < left) {
      const Line line = line_at(first + row());
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int column = (i << strip_.shift) + group();
        if (inside(column)) one(line, column, x_[i], y_[i]);
      }
    }
    if (in_tail() && (!Top || tail_row() >= skip) && tail_row() < left && inside(tail_column())) {
      one(line_at(first + tail_row()), tail_column(), tail_x_, tail_y_);
    }
  }

  // Writes what was asked for. mine: where this thread's first eight pixels lie.
  __device__ __forceinline__ void put(float scale, unsigned char* pixels, int pitch, unsigned char* mine) const {
    const float x_offset = strip_.x_offset, y_offset = strip_.y_offset;
    const auto pair = [&](float x, float y) {
      const float a = fmaf(x, scale, x_offset), b = fmaf(y, scale, y_offset);
      return f32x2{a + b, a - b};
    };
    if constexpr (Packed) {
#pragma unroll
      for (int i = 0; i < 8; i += 2) {
        const f32x2 p = pair(biased<T>(x_, i), biased<T>(y_, i));
        const f32x2 q = pair(biased<T>(x_, i + 1), biased<T>(y_, i + 1));
        store(mine + i * 8, f32x4{p[0], p[1], q[0], q[1]});
      }
    } else {
      unsigned char* to = pixels + (row() * pitch + pixel_place(group())) * 8;
      const int step = pixel_place(1 << strip_.shift) * 8;  // of a multiple of eight columns
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        store(to + i * step, pair(biased<T>(x_ + i, 0), biased<T>(y_ + i, 0)));
      }
    }
    if (in_tail()) {
      store(pixels + (tail_row() * pitch + pixel_place(tail_column())) * 8,
            pair(biased<T>(&tail_x_, 0), biased<T>(&tail_y_, 0)));
    }
  }

  // What was asked for: packed, eight pixels side by side; else a pixel a word, `group` of each eighth of the strip.
  __device__ __forceinline__ const std::uint32_t* x() const { return x_; }
  __device__ __forceinline__ const std::uint32_t* y() const { return y_; }
  __device__ __forceinline__ std::uint32_t tail_x() const { return tail_x_; }
  __device__ __forceinline__ std::uint32_t tail_y() const { return tail_y_; }

  // The pixel beyond the strip's columns that is this thread's: sixteen threads a row, of which Size - 1 have one.
  __device__ __forceinline__ int tail_row() const { return int(threadIdx.x) / 16; }
  __device__ __forceinline__ int tail_column() const { return (8 << strip_.shift) + int(threadIdx.x) % 16; }
  __device__ __forceinline__ bool in_tail() const { return tail_row() < kBatch && int(threadIdx.x) % 16 < kReach; }

 private:
  __device__ __forceinline__ bool inside(int column) const {
    return column < strip_.columns + kReach && (Mirror || strip_.left + column >= 0);
  }

  static __device__ __forceinline__ void take(std::int64_t from, std::uint32_t (&to)[kWords]) {
    if constexpr (sizeof(T) == 1) {
      const u32x2 v = load_global<u32x2>(pointer_to<char>(from));
      to[0] = v[0];
      to[1] = v[1];
    } else {
#pragma unroll
      for (int i = 0; i < kWords; i += 4) {
        const u32x4 v = load_global<u32x4>(pointer_to<char>(from + 4 * i));
#pragma unroll
        for (int k = 0; k < 4; ++k) to[i + k] = v[k];
      }
    }
  }

  // A row of pixels in both images.
  struct Line {
    const char *x, *y;
  };

  __device__ __forceinline__ Line line_at(int row) const {
    const std::int64_t h = mirrored(strip_.top + row, strip_.height);
    return {pointer_to<char>(strip_.x + h * strip_.x_row), pointer_to<char>(strip_.y + h * strip_.y_row)};
  }

  __device__ __forceinline__ void one(const Line& line, int column, std::uint32_t& x, std::uint32_t& y) const {
    const std::uint32_t w = mirrored(strip_.left + column, strip_.width);
    x = one_word<T>(line.x + w * std::uint32_t(strip_.x_pixel));  // a row is shorter than 2 GiB
    y = one_word<T>(line.y + w * std::uint32_t(strip_.y_pixel));
  }

  const Strip& strip_;
  std::int64_t x_from_, y_from_;
  std::uint32_t x_[kWords] = {}, y_[kWords] = {}, tail_x_ = 0, tail_y_ = 0;
};

}  // namespace semnr

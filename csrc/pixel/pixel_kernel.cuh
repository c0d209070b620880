// Sums of pixel errors: both images read once, a partial sum a part, the parts added up in a fixed order. No atomics.
#pragma once
#include <type_traits>

#include "pack_kernel.cuh"
#include "pixel_cuda.hpp"
#include "pixel_math.hpp"

namespace semnr {

// An image's memory in bytes, and how far a thread's next pack is: kPixelThreads packs on, and more where that runs
// over the end of a line or of a plane.
struct PixelSteps {
  const char* data;
  std::int64_t stride[5];  // image, plane, line, pack, pixel
  std::int64_t ahead, line, plane;
};

struct PixelJob {
  PixelSteps x, y, valid;
  std::int64_t images, height, packs_a_line, packs, parts, packs_a_part;
  std::int64_t across, down;  // kPixelThreads packs are `down` lines and `across` packs
};

template <class T>
struct PixelSums {  // floats: differences and sums in float64
  using Sum = double;
  double square = 0, absolute = 0;
  std::uint32_t count = 0;

  template <bool Masked, int N>
  __device__ __forceinline__ void add(const Words<N * sizeof(T)>& x, const Words<N * sizeof(T)>& y,
                                      const Words<N>& mask) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      double d = real_value<T>(x, k) - real_value<T>(y, k);
      if (Masked && !inside(mask, k)) d = 0;  // a choice, not a product: NaN under the mask must not pass
      square += d * d;
      absolute += fabs(d);
    }
    if (Masked) count += count_inside(mask);
  }
};

// A thread adds at most 2¹⁶ pixels (2³⁴ an image, over 1024 parts of 256 threads): 255² · 2¹⁶ and 65535 · 2¹⁶ fit.
template <>
struct PixelSums<std::uint8_t> {
  using Sum = std::uint64_t;
  std::uint32_t square = 0, absolute = 0, count = 0;

  template <bool Masked, int N>
  __device__ __forceinline__ void add(const Words<N>& x, const Words<N>& y, const Words<N>& mask) {
#pragma unroll
    for (int i = 0; i < Words<N>::kCount; ++i) {
      std::uint32_t d = __vabsdiffu4(x.w[i], y.w[i]);
      if (Masked) d = only_inside<std::uint8_t>(d, mask, i);
      square = __dp4a(d, d, square);
      absolute = __dp4a(d, 0x01010101u, absolute);
    }
    if (Masked) count += count_inside(mask);
  }
};

template <>
struct PixelSums<std::uint16_t> {
  using Sum = std::uint64_t;
  std::uint64_t square = 0;
  std::uint32_t absolute = 0, count = 0;

  template <bool Masked, int N>
  __device__ __forceinline__ void add(const Words<2 * N>& x, const Words<2 * N>& y, const Words<N>& mask) {
#pragma unroll
    for (int i = 0; i < Words<2 * N>::kCount; ++i) {
      std::uint32_t a = x.w[i], b = y.w[i];
      if (Masked) {
        a = only_inside<std::uint16_t>(a, mask, i);
        b = only_inside<std::uint16_t>(b, mask, i);
      }
      const std::uint32_t low = integer_distance(a & 0xffffu, b & 0xffffu);
      square += std::uint64_t(low) * low;
      absolute += low;
      if (N > 1) {
        const std::uint32_t high = integer_distance(a >> 16, b >> 16);
        square += std::uint64_t(high) * high;
        absolute += high;
      }
    }
    if (Masked) count += count_inside(mask);
  }
};

// A warp's sums, to its four places in shared memory.
template <class Sum>
__device__ __forceinline__ void put_warp(std::uint64_t* of_warp, Sum square, Sum absolute, std::uint64_t count) {
  if (threadIdx.x % 32 != 0) return;
  std::uint64_t* const mine = of_warp + threadIdx.x / 32 * 4;
  mine[0] = as_bits(square);
  mine[1] = as_bits(absolute);
  mine[2] = count;
}

// The sums of all warps, to kPixelPartial numbers.
template <class Sum>
__device__ __forceinline__ void fold_warps(const std::uint64_t* of_warp, int warps, std::uint64_t* to) {
  const int thread = int(threadIdx.x);
  if (thread >= kPixelPartial) return;
  Sum sum = 0;
  std::uint64_t pixels = 0;
#pragma unroll
  for (int w = 0; w < warps; ++w) {
    const std::uint64_t bits = of_warp[w * 4 + thread];
    if (thread == 2) {
      pixels += bits;
    } else {
      sum += from_bits<Sum>(bits);
    }
  }
  to[thread] = thread == 2 ? pixels : as_bits(sum);
}

// One part at a time; partial[part] = Σ d², Σ |d|, pixels that count.
template <class T, int N, bool Straight, bool Masked>
__global__ void __launch_bounds__(kPixelThreads, 2) pixel_sums(const PixelJob job, std::uint64_t* partial) {
  constexpr int kBytes = N * int(sizeof(T)), kTogether = kBytes == 16 ? 4 : 8, kWarps = kPixelThreads / 32;
  using Sums = PixelSums<T>;
  using Sum = typename Sums::Sum;
  SEMNR_SHARED(memory);
  std::uint64_t* const of_warp = reinterpret_cast<std::uint64_t*>(memory);  // kWarps × 4
  const int thread = int(threadIdx.x);
  for (std::int64_t task = blockIdx.x; task < job.images * job.parts; task += gridDim.x) {
    const std::int64_t image = task / job.parts, first = task % job.parts * job.packs_a_part;
    std::int64_t left = min(job.packs_a_part, job.packs - first) - thread;
    std::int64_t column = (first + thread) % job.packs_a_line, row = (first + thread) / job.packs_a_line;
    const std::int64_t plane = row / job.height;
    row %= job.height;
    const auto start = [&](const PixelSteps& of) {
      return of.data + image * of.stride[0] + plane * of.stride[1] + row * of.stride[2] + column * of.stride[3];
    };
    const char *x = start(job.x), *y = start(job.y), *valid = Masked ? start(job.valid) : nullptr;
    Sums sums;
    while (left > 0) {
      Words<kBytes> a[kTogether], b[kTogether];
      Words<N> mask[kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        a[j] = b[j] = no_words<kBytes>();
        mask[j] = no_words<N>();
        if (left > j * kPixelThreads) {
          a[j] = load_pixels<T, N, Straight>(x, job.x.stride[4]);
          b[j] = load_pixels<T, N, Straight>(y, job.y.stride[4]);
          if (Masked) mask[j] = load_pixels<std::uint8_t, N, Straight>(valid, job.valid.stride[4]);
        }
        const auto move = [&](std::int64_t PixelSteps::* by) {
          x += job.x.*by;
          y += job.y.*by;
          if (Masked) valid += job.valid.*by;
        };
        move(&PixelSteps::ahead);
        column += job.across;
        row += job.down;
        if (column >= job.packs_a_line) {
          column -= job.packs_a_line;
          ++row;
          move(&PixelSteps::line);
        }
        while (row >= job.height) {
          row -= job.height;
          move(&PixelSteps::plane);
        }
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) sums.template add<Masked, N>(a[j], b[j], mask[j]);
      left -= kTogether * kPixelThreads;
    }
    const Sum square = warp_sum(Sum(sums.square)), absolute = warp_sum(Sum(sums.absolute));
    const std::uint32_t count = warp_sum(sums.count);
    put_warp(of_warp, square, absolute, count);
    __syncthreads();
    fold_warps<Sum>(of_warp, kWarps, partial + task * kPixelPartial);
    __syncthreads();
  }
}

// out[image] = Σ d² / n, out[images + image] = Σ |d| / n. pixels: n where it is known, else 0: the parts' third numbers
// then add up to it; counts[image]: their sum, unless null.
// Sum: what the parts hold; Total: what can hold their sum.
template <class Sum, class Total>
__global__ void __launch_bounds__(kPixelThreads)
    pixel_fold(const std::uint64_t* partial, std::int64_t images, std::int64_t parts, std::int64_t pixels, double* out,
               double* counts) {
  constexpr int kWarps = kPixelThreads / 32;
  SEMNR_SHARED(memory);
  std::uint64_t* const of_warp = reinterpret_cast<std::uint64_t*>(memory);
  const int thread = int(threadIdx.x);
  for (std::int64_t image = blockIdx.x; image < images; image += gridDim.x) {
    Total square = 0, absolute = 0;
    std::uint64_t count = 0;
    for (std::int64_t part = thread; part < parts; part += kPixelThreads) {
      const std::uint64_t* const p = partial + (image * parts + part) * kPixelPartial;
      square += Total(from_bits<Sum>(p[0]));
      absolute += Total(from_bits<Sum>(p[1]));
      count += p[2];
    }
    square = warp_sum(square);
    absolute = warp_sum(absolute);
    count = warp_sum(count);
    put_warp(of_warp, square, absolute, count);
    __syncthreads();
    if (thread < 2) {
      Total sum = 0;
      std::uint64_t all = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        sum += from_bits<Total>(of_warp[w * 4 + thread]);
        all += of_warp[w * 4 + 2];
      }
      out[thread * images + image] = double(sum) / double(pixels > 0 ? std::uint64_t(pixels) : all);
      if (counts != nullptr && thread == 0) counts[image] = double(all);
    }
    __syncthreads();
  }
}

}  // namespace semnr

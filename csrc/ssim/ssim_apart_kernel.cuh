// How far apart the pixels of both images lie, and their extremes, beside SSIM: from the pixels that its walk holds.
//
// A thread's sums lie in shared memory between batches: the walk leaves no registers for them.
#pragma once
#include "ssim_kernel.cuh"

namespace semnr {

template <int Size>
struct SsimApartLayout : SsimForwardLayout<Size> {
  static constexpr int kSums = (SsimForwardLayout<Size>::kBytes + 15) / 16 * 16;  // Σ |x - y|, Σ (x - y)² of a thread
  static constexpr int kEnds = kSums + kSsimThreads * 16;                         // least and greatest of x and of y
  static constexpr int kBytes = kEnds + kSsimThreads * 16;
};

template <class T, int Size, bool Packed>
class ApartTally {
  using Layout = SsimApartLayout<Size>;

 public:
  static constexpr bool kOneLoop = false;

  __device__ __forceinline__ ApartTally(const SsimApart& to, const Strip& strip, unsigned char* shared)
      : to_(to), strip_(strip), own_(strip), shared_(shared) {
    store(sums(threadIdx.x), f64x2{0, 0});
    store(ends(threadIdx.x), f32x4{3e38f, -3e38f, 3e38f, -3e38f});
  }

  template <class Reader>
  __device__ __forceinline__ void ask(const Reader&, int) {}

  // Differences of float32 numbers; eight are added in float32, then in float64.
  template <class Reader>
  __device__ __forceinline__ void take(const Reader& reader, int first) {
    const auto share = own_.share();
    const bool tail = own_.tail(share, reader, first);
    bool mine = own_.row(share, first + reader.row());
    if constexpr (Packed) mine = mine && 8 * reader.group() < share.columns;
    if (!mine && !tail) return;
    float absolute = 0, square = 0;
    f32x4 end = load<f32x4>(ends(threadIdx.x));
    const auto add = [&](float x, float y) {
      const float d = x - y;
      absolute += fabsf(d);
      square = fmaf(d, d, square);
      end[0] = min(end[0], x);
      end[1] = max(end[1], x);
      end[2] = min(end[2], y);
      end[3] = max(end[3], y);
    };
    if (mine) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if constexpr (Packed) {
          add(biased<T>(reader.x(), i), biased<T>(reader.y(), i));
        } else if ((i << strip_.shift) + reader.group() < share.columns) {
          add(biased<T>(reader.x() + i, 0), biased<T>(reader.y() + i, 0));
        }
      }
    }
    if (tail) {
      const std::uint32_t x = reader.tail_x(), y = reader.tail_y();
      add(biased<T>(&x, 0), biased<T>(&y, 0));
    }
    const f64x2 sum = load<f64x2>(sums(threadIdx.x));
    store(sums(threadIdx.x), f64x2{sum[0] + double(absolute), sum[1] + double(square)});
    store(ends(threadIdx.x), end);
  }

  // The block's, to memory: of each warp, then of all, in a fixed order.
  __device__ __forceinline__ void leave() const {
    f64x2 sum = load<f64x2>(sums(threadIdx.x));
    f32x4 end = load<f32x4>(ends(threadIdx.x));
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], by);
        end[2 * k] = min(end[2 * k], __shfl_xor_sync(0xffffffffu, end[2 * k], by));
        end[2 * k + 1] = max(end[2 * k + 1], __shfl_xor_sync(0xffffffffu, end[2 * k + 1], by));
      }
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
      store(sums(threadIdx.x / 32), sum);
      store(ends(threadIdx.x / 32), end);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (unsigned w = 1; w < blockDim.x / 32; ++w) {
      const f64x2 more = load<f64x2>(sums(w));
      const f32x4 other = load<f32x4>(ends(w));
      for (int k = 0; k < 2; ++k) {
        sum[k] += more[k];
        end[2 * k] = min(end[2 * k], other[2 * k]);
        end[2 * k + 1] = max(end[2 * k + 1], other[2 * k + 1]);
      }
    }
    store(to_.partial + 2 * blockIdx.x, sum);
    for (int k = 0; k < 4; ++k) to_.extents[4 * blockIdx.x + k] = end[k] - kBias<T>;
  }

 private:
  __device__ __forceinline__ unsigned char* sums(unsigned thread) const {
    return shared_ + Layout::kSums + thread * 16;
  }
  __device__ __forceinline__ unsigned char* ends(unsigned thread) const {
    return shared_ + Layout::kEnds + thread * 16;
  }

  const SsimApart& to_;
  const Strip& strip_;
  OwnPixels<Size> own_;
  unsigned char* shared_;
};

// As `ssim_forward`, and what `apart` asks for, from the same read.
template <class T, int Size, bool Packed>
__global__ void __launch_bounds__(kSsimThreads, 2)
    ssim_apart_forward(const SsimJob<Size> job, double* partial, float* map, const SsimApart apart) {
  SEMNR_SHARED(shared);
  ssim_walk<T, Size, Packed>(job, partial, map, shared,
                             [&](const Strip& strip) { return ApartTally<T, Size, Packed>(apart, strip, shared); });
}

}  // namespace semnr

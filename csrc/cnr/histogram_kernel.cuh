// Histogram over given edges. Every thread counts in bytes of its own, so that there are no atomics: four warps share
// the words of a bin, a byte each, and a lane has a bank for itself.
#pragma once
#include "../counts.hpp"
#include "../cuda/device.hpp"
#include "histogram_cuda.hpp"

namespace semnr {

// The bin is guessed from the even spacing, then held against the edges: exactly the one that a search would find.
__global__ void __launch_bounds__(kHistogramThreads)
    histogram_parts(const double* values, std::int64_t n, const double* edges, int bins, std::uint32_t* partial) {
  static_assert(kHistogramThreads == 128, "four warps share a word");
  constexpr int kTogether = 5;
  SEMNR_SHARED(counters);  // bins × 32 lanes × 4 warps
  const int thread = int(threadIdx.x);
  unsigned char* const mine = counters + thread % 32 * 4 + thread / 32;
  const double low = load_global<double>(edges), width = load_global<double>(edges + bins) - low;
  const double scale = width > 0 ? double(bins) / width : 0.0;
  for (std::int64_t part = blockIdx.x; part * kHistogramPart < n; part += gridDim.x) {
    for (int i = thread; i < bins * 32; i += kHistogramThreads) store(counters + 4 * i, std::uint32_t(0));
    __syncthreads();
    const std::int64_t stop = min(n, (part + 1) * kHistogramPart);
    for (std::int64_t at = part * kHistogramPart + thread; at < stop; at += kTogether * kHistogramThreads) {
      double v[kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        v[j] = at + j * kHistogramThreads < stop ? load_global<double>(values + at + j * kHistogramThreads) : 0.0;
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        if (at + j * kHistogramThreads >= stop) break;
        const double guess = (v[j] - low) * scale;
        int i = guess > 0 ? int(min(guess, double(bins - 1))) : 0;
        while (i + 1 < bins && v[j] >= load_global<double>(edges + i + 1)) ++i;
        while (i > 0 && v[j] < load_global<double>(edges + i)) --i;
        mine[i * 128] = static_cast<unsigned char>(mine[i * 128] + 1);
      }
    }
    __syncthreads();
    for (int bin = thread; bin < bins; bin += kHistogramThreads) {
      std::uint32_t sum = 0;
      for (int k = 0; k < 32; ++k) {  // from another lane's word each: no bank is asked twice
        sum = __dp4a(load<std::uint32_t>(counters + bin * 128 + (k + thread) % 32 * 4), 0x01010101u, sum);
      }
      partial[part * bins + bin] = sum;
    }
    __syncthreads();
  }
}

// counts[bin] = Σ of its parts: a block takes 32 bins, each of its warps every fourth part.
__global__ void __launch_bounds__(kHistogramThreads)
    histogram_fold(const std::uint32_t* partial, std::int64_t parts, int bins, std::int64_t* counts) {
  constexpr int kWarps = kHistogramThreads / 32;
  SEMNR_SHARED(memory);
  std::int64_t* const found = reinterpret_cast<std::int64_t*>(memory);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, bin = int(blockIdx.x) * 32 + lane;
  std::int64_t sum = 0;
  for (std::int64_t part = warp; bin < bins && part < parts; part += kWarps) sum += partial[part * bins + bin];
  found[threadIdx.x] = sum;
  __syncthreads();
  if (warp == 0 && bin < bins) {
    for (int w = 1; w < kWarps; ++w) sum += found[w * 32 + lane];
    counts[bin] = sum;
  }
}

}  // namespace semnr

// The last stages of SSIM: planes' scores from the blocks' sums, the extent of the pixels, the mean.
#pragma once
#include "ssim_kernel.cuh"

namespace semnr {

// out: two rows of planes, the means of l·c·s and of c·s, from the blocks' sums of what they lack to 1.
// A warp a plane. The sums are whole multiples of kSsimQuantum, added as integers: no order and no grid changes them.
// Those of |x - y| and (x - y)² are float64 in a fixed order, whose last bits the grid may change.
__global__ void __launch_bounds__(32)
    ssim_fold(const SsimBatch batch, const double* partial, double* out, const SsimApart apart) {
  const int plane = int(blockIdx.x), lane = int(threadIdx.x);
  const std::int64_t end = first_block(batch, std::int64_t(plane + 1) * batch.strips);
  long long index = 0, structure = 0;
  double lost_index = 0, lost_structure = 0;  // what is not finite
  const auto add = [](double v, long long& sum, double& lost) {
    if (fabs(v) < 1e9) {
      sum += static_cast<long long>(v * (1 / kSsimQuantum));
    } else {
      lost += v;
    }
  };
  for (std::int64_t i = first_block(batch, std::int64_t(plane) * batch.strips) + lane; i < end; i += 32) {
    add(partial[2 * i], index, lost_index);
    add(partial[2 * i + 1], structure, lost_structure);
  }
#pragma unroll
  for (int by = 16; by > 0; by /= 2) {
    index += __shfl_xor_sync(0xffffffffu, index, by);
    structure += __shfl_xor_sync(0xffffffffu, structure, by);
    lost_index += __shfl_xor_sync(0xffffffffu, lost_index, by);
    lost_structure += __shfl_xor_sync(0xffffffffu, lost_structure, by);
  }
  if (lane == 0) {
    const double windows = double(batch.height - batch.less) * double(batch.width - batch.less);
    out[plane] = 1 - (double(index) * kSsimQuantum + lost_index) / windows;
    out[batch.planes + plane] = 1 - (double(structure) * kSsimQuantum + lost_structure) / windows;
  }
  if (apart.partial == nullptr) return;
  double absolute = 0, square = 0;
  for (std::int64_t i = first_block(batch, std::int64_t(plane) * batch.strips) + lane; i < end; i += 32) {
    absolute += apart.partial[2 * i];
    square += apart.partial[2 * i + 1];
  }
#pragma unroll
  for (int by = 16; by > 0; by /= 2) {
    absolute += __shfl_xor_sync(0xffffffffu, absolute, by);
    square += __shfl_xor_sync(0xffffffffu, square, by);
  }
  if (lane == 0) {
    const double pixels = double(batch.height) * double(batch.width);
    apart.out[plane] = absolute / pixels;
    apart.out[batch.planes + plane] = square / pixels;
  }
}

// extents: 4 x gridDim.x, the least and the greatest of the pixels of x and of y that a block met.
template <class T>
__global__ void __launch_bounds__(256) ssim_extents(const char* x, const char* y, std::int64_t count, float* extents) {
  SEMNR_SHARED(shared);
  float least[2] = {3e38f, 3e38f}, most[2] = {-3e38f, -3e38f};
  const std::int64_t step = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const std::uint32_t a = one_word<T>(x + i * std::int64_t(sizeof(T))),
                        b = one_word<T>(y + i * std::int64_t(sizeof(T)));
    const float v[2] = {biased<T>(&a, 0) - kBias<T>, biased<T>(&b, 0) - kBias<T>};
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      least[k] = min(least[k], v[k]);
      most[k] = max(most[k], v[k]);
    }
  }
  float* const all = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
      least[k] = min(least[k], __shfl_xor_sync(0xffffffffu, least[k], by));
      most[k] = max(most[k], __shfl_xor_sync(0xffffffffu, most[k], by));
    }
    if (threadIdx.x % 32 == 0) {
      all[4 * (threadIdx.x / 32) + 2 * k] = least[k];
      all[4 * (threadIdx.x / 32) + 2 * k + 1] = most[k];
    }
  }
  __syncthreads();
  if (threadIdx.x < 4) {
    float found = all[threadIdx.x];
    for (int w = 1; w < int(blockDim.x) / 32; ++w) {
      const float other = all[4 * w + int(threadIdx.x)];
      found = threadIdx.x % 2 == 0 ? min(found, other) : max(found, other);
    }
    extents[4 * blockIdx.x + threadIdx.x] = found;
  }
}

// One warp: the mean of the planes' scores, in a fixed order, and what else SsimTold asks.
__global__ void __launch_bounds__(32) ssim_told(const double* rows, int planes, const SsimTold to) {
  const int lane = int(threadIdx.x);
  double sum = 0, absolute = 0;
  for (int i = lane; i < planes; i += 32) {
    sum += rows[i];
    if (to.absolute != nullptr) absolute += to.absolute[i];
  }
  float least[2] = {3e38f, 3e38f}, most[2] = {-3e38f, -3e38f};
  for (std::int64_t i = lane; i < to.blocks; i += 32) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      least[k] = min(least[k], to.extents[4 * i + 2 * k]);
      most[k] = max(most[k], to.extents[4 * i + 2 * k + 1]);
    }
  }
#pragma unroll
  for (int by = 16; by > 0; by /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, by);
    absolute += __shfl_xor_sync(0xffffffffu, absolute, by);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      least[k] = min(least[k], __shfl_xor_sync(0xffffffffu, least[k], by));
      most[k] = max(most[k], __shfl_xor_sync(0xffffffffu, most[k], by));
    }
  }
  if (lane != 0) return;
  const double mean = sum / planes;
  to.told[0] = mean;
  to.told[1] = to.blocks == 0 ? 0 : max(double(most[0]) - double(least[0]), double(most[1]) - double(least[1]));
  if (to.extent != nullptr) {
    to.extent[0] = double(min(least[0], least[1]));
    to.extent[1] = double(max(most[0], most[1]));
  }
  if (to.loss == nullptr) return;
  const double loss = to.weights.index * (1 - mean) + to.weights.absolute * (absolute / planes);
  if (to.narrow) {
    *static_cast<float*>(to.loss) = float(loss);
  } else {
    *static_cast<double*>(to.loss) = loss;
  }
}

}  // namespace semnr

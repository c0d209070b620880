#include "cuda/device.hpp"
#include "faults_cuda.hpp"

namespace semnr {
namespace {

constexpr int kThreads = 64;

// out[i] = in[i - 1] + in[i] + in[i + 1], the border repeated; one tile of shared memory a block.
__global__ void blur(const float* in, float* out, int n, Fault fault) {
  SEMNR_SHARED(memory);
  float* const tile = reinterpret_cast<float*>(memory);
  const int t = threadIdx.x, i = blockIdx.x * kThreads + t;
  const int last = fault == Fault::HaloPastTheEnd ? n : n - 1;
  if (fault == Fault::ExitBeforeBarrier && i >= n) return;
  tile[t + 1] = in[min(i, n - 1)];
  if (t == 0 && fault != Fault::SharedNotWritten) tile[0] = in[max(i - 1, 0)];
  if (t == kThreads - 1) tile[kThreads + 1] = in[min(i + 1, last)];
  if (fault == Fault::BarrierElsewhere && t == 5) {
    __syncthreads();
  } else if (fault != Fault::MissingBarrier) {
    __syncthreads();
  }
  const int right = fault == Fault::HaloPastTheTile ? t + 3 : t + 2;
  const float sum = tile[t] + tile[t + 1] + tile[right];
  if (fault == Fault::WriteAfterRead) tile[t + 1] = sum;  // a neighbour may not have read it yet
  if (i < n) out[i] = sum;
}

// partial[block] = Σ in of the block
__global__ void block_sums(const float* in, float* partial, int n, Fault fault) {
  SEMNR_SHARED(memory);
  float* const sums = reinterpret_cast<float*>(memory);
  const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  float sum = i < n ? __ldg(in + i) : 0.0f;
  if (fault == Fault::ReadsLaneOutsideMask) {
    if (t % 32 < 16) sum += __shfl_xor_sync(0xffffu, sum, 16);
  } else if (fault == Fault::LaneNotInMask) {
    sum += __shfl_xor_sync(0xffffu, sum, 1);
  } else if (fault != Fault::LaneLeavesShuffle || t != 40) {
    for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
  }
  if (t % 32 == 0) sums[t / 32] = sum;
  __syncthreads();
  if (t == 0 && !(fault == Fault::OutputNotWritten && blockIdx.x == 1)) {
    for (unsigned w = 1; w < blockDim.x / 32; ++w) sum += sums[w];
    partial[fault == Fault::BlocksWriteOneCell ? 0 : blockIdx.x] = sum;
    if (fault == Fault::BlockReadsAnothers && blockIdx.x == 2) partial[2] += partial[1];
  }
}

// out[0] = Σ partial, in order
__global__ void fold(const float* partial, float* out, int count) {
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += partial[i];
  out[0] = sum;
}

// A 32 x 32 transpose whose lanes meet in shared memory, a row at a time, with nothing but warp barriers.
__global__ void warp_transpose(const float* in, float* out, Fault fault) {
  SEMNR_SHARED(memory);
  float* const row = reinterpret_cast<float*>(memory) + 32 * threadIdx.y;
  const int lane = threadIdx.x;
  for (int r = threadIdx.y; r < 32; r += blockDim.y) {
    row[lane] = in[32 * r + lane];
    if (fault != Fault::NoWarpBarrier) __syncwarp();
    out[32 * (31 - lane) + r] = row[31 - lane];
    __syncwarp();
  }
}

__global__ void copy(const float* in, float* out, int n, Fault fault) {
  const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  if (fault == Fault::CopyPastTheEnd) {
    memcpy(out + i, in + i, 32 * sizeof(float));
  } else {
    store(out + i, load_global<f32x4>(in + i + (fault == Fault::Misaligned ? 1 : 0)));
  }
  if (fault == Fault::WritesInput) const_cast<float*>(in)[i] = 0;
}

__global__ void count(int* out, Fault fault) {
  atomicAdd(out, 1);
  if (fault == Fault::AtomicAndPlain && threadIdx.x == 3) out[0] = 7;
}

// Threads that write neighbouring bytes of one word do not race.
__global__ void bytes(const std::uint8_t* in, std::uint8_t* out) {
  SEMNR_SHARED(memory);
  memory[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = memory[blockDim.x - 1 - threadIdx.x];
}

__global__ void strided(float* out, int stride) {
  SEMNR_SHARED(memory);
  float* const values = reinterpret_cast<float*>(memory);
  const int t = threadIdx.x;
  values[t * stride] = static_cast<float>(t);
  __syncthreads();
  out[t] = values[t * stride];
}

__global__ void strided16(float* out, int stride) {
  SEMNR_SHARED(memory);
  f32x4* const values = reinterpret_cast<f32x4*>(memory);
  const int t = threadIdx.x;
  const float x = static_cast<float>(t);
  store(values + t * stride, f32x4{x, x, x, x});
  __syncthreads();
  const f32x4 v = load<f32x4>(values + t * stride);
  out[t] = v[0] + v[1] + v[2] + v[3];
}

// Half of the lanes pass the store once, the others twice.
__global__ void diverged(float* out) {
  SEMNR_SHARED(memory);
  float* const values = reinterpret_cast<float*>(memory);
  const int t = threadIdx.x;
  for (int i = 0; i < 1 + t % 2; ++i) values[32 * i + t] = static_cast<float>(i);
  __syncthreads();
  out[t] = values[t];
}

__global__ void halves(const std::uint16_t* in, float* wide, std::uint16_t* back, int n, bool bfloat16) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  wide[i] = bfloat16 ? bfloat16_to_float(in[i]) : half_to_float(in[i]);
  // half of a unit beyond the value, so that rounding has something to do
  const float moved = wide[i] * (bfloat16 ? 1.001953125f : 1.000244140625f);
  back[i] = bfloat16 ? float_to_bfloat16(moved) : float_to_half(moved);
}

__global__ void integers(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t a = in[0], b = in[1];
  out[0] = __byte_perm(a, b, 0x7531);
  out[1] = __vabsdiffu4(a, b);
  out[2] = __vsadu4(a, b);
  out[3] = __dp4a(a, b, 5u);
  out[4] = __umulhi(a, b);
  out[5] = __popc(a);
  out[6] = __clz(static_cast<int>(b));
  out[7] = __ffs(static_cast<int>(a));
}

}  // namespace

void blur_cuda(const float* in, float* out, int n, Fault fault, Stream stream) {
  SEMNR_LAUNCH(blur, (n + kThreads - 1) / kThreads, kThreads, (kThreads + 2) * sizeof(float), stream, in, out, n,
               fault);
}

void block_sums_cuda(const float* in, float* partial, float* out, int n, Fault fault, Stream stream) {
  constexpr int threads = 128;
  const int blocks = (n + threads - 1) / threads;
  SEMNR_LAUNCH(block_sums, blocks, threads, threads / 32 * sizeof(float), stream, in, partial, n, fault);
  SEMNR_LAUNCH(fold, 1, 1, 0, stream, partial, out, blocks + (fault == Fault::ScratchNotWritten ? 1 : 0));
}

void warp_transpose_cuda(const float* in, float* out, Fault fault, Stream stream) {
  SEMNR_LAUNCH(warp_transpose, 1, dim3(32, 4), 4 * 32 * sizeof(float), stream, in, out, fault);
}

void copy_cuda(const float* in, float* out, int n, Fault fault, Stream stream) {
  SEMNR_LAUNCH(copy, (n + 127) / 128, 32, 0, stream, in, out, n, fault);
}

void count_cuda(int* out, Fault fault, Stream stream) { SEMNR_LAUNCH(count, 3, 40, 0, stream, out, fault); }

void bytes_cuda(const std::uint8_t* in, std::uint8_t* out, Stream stream) {
  SEMNR_LAUNCH(bytes, 1, 64, 64, stream, in, out);
}

void strided_cuda(float* out, int stride, Stream stream) {
  SEMNR_LAUNCH(strided, 1, 32, 32 * stride * sizeof(float), stream, out, stride);
}

void strided16_cuda(float* out, int stride, Stream stream) {
  SEMNR_LAUNCH(strided16, 1, 32, 32 * stride * sizeof(f32x4), stream, out, stride);
}

void diverged_cuda(float* out, Stream stream) { SEMNR_LAUNCH(diverged, 1, 32, 64 * sizeof(float), stream, out); }

void halves_cuda(const std::uint16_t* in, float* wide, std::uint16_t* back, int n, bool bfloat16, Stream stream) {
  SEMNR_LAUNCH(halves, (n + 255) / 256, 256, 0, stream, in, wide, back, n, bfloat16);
}

void integers_cuda(const std::uint32_t* in, std::uint32_t* out, Stream stream) {
  SEMNR_LAUNCH(integers, 1, 1, 0, stream, in, out);
}

}  // namespace semnr

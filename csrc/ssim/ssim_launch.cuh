// What the launches of csrc/ssim and csrc/profile tell the fast kernels.
#pragma once
#include <cmath>
#include <stdexcept>

#include "ssim_strip.cuh"

namespace semnr {

// A power of two: scaling is exact.
inline double scale_of(const SsimCudaOptions& o) { return std::exp2(-std::ceil(std::log2(o.range))); }

template <int Size>
SsimJob<Size> job_of(const SsimBatch& batch, const SsimCudaOptions& o) {
  SsimJob<Size> job{};
  job.batch = batch;
  const double scale = scale_of(o);
  for (int k = 0; k <= Size / 2; ++k) job.taps.tap[k] = float(o.taps[std::size_t(k)]);
  job.weight = float(o.weight);
  job.scale = float(scale);
  job.c1 = float(o.c1 * scale * scale);
  job.c2 = float(o.c2 * scale * scale / (o.unbiased * o.weight));
  return job;
}

inline SsimBatch batch_of(const Image& x, const Image& y, int bytes, const Shape& shape, const SsimCudaOptions& o) {
  const int size = int(o.taps.size());
  SsimBatch batch{};
  batch.x = std::int64_t(reinterpret_cast<std::uintptr_t>(x.data));
  batch.y = std::int64_t(reinterpret_cast<std::uintptr_t>(y.data));
  batch.x_row = int(x.stride[2] * bytes);
  batch.x_pixel = int(x.stride[3] * bytes);
  batch.y_row = int(y.stride[2] * bytes);
  batch.y_pixel = int(y.stride[3] * bytes);
  batch.height = int(shape.h);
  batch.width = int(shape.w);
  batch.x_image = x.stride[0] * bytes;
  batch.x_channel = x.stride[1] * bytes;
  batch.y_image = y.stride[0] * bytes;
  batch.y_channel = y.stride[1] * bytes;
  batch.planes = int(shape.n * shape.c);
  batch.channels = int(shape.c);
  batch.lead = o.reflect ? size / 2 : 0;
  batch.less = o.reflect ? 0 : size - 1;
  const std::int64_t unit = bytes == 1 ? 8 : 16;
  const auto aligned = [&](std::int64_t address, std::int64_t row, std::int64_t image, std::int64_t channel) {
    return address % unit == 0 && row % unit == 0 && (shape.n == 1 || image % unit == 0) &&
           (shape.c == 1 || channel % unit == 0);
  };
  batch.packed = !o.reflect && shape.w % 8 == 0 && x.stride[3] == 1 && y.stride[3] == 1 &&
                 aligned(batch.x, batch.x_row, batch.x_image, batch.x_channel) &&
                 aligned(batch.y, batch.y_row, batch.y_image, batch.y_channel);
  return batch;
}

inline SsimBatch batch_of(const Image& x, const Image& y, int bytes, const Shape& shape, const SsimCudaOptions& o,
                          const SsimPlan& plan) {
  SsimBatch batch = batch_of(x, y, bytes, shape, o);
  batch.strips = int(plan.strips);
  batch.segments = int(plan.segments);
  batch.rows = int(plan.rows);
  batch.blocks = int(shape.n * shape.c * plan.strips * plan.segments);
  batch.columns = int(plan.threads);
  return batch;
}

inline SsimBatch batch_of(const Image& x, const Image& y, int bytes, const Shape& shape, const SsimCudaOptions& o,
                          const SsimWalk& walk) {
  SsimBatch batch = batch_of(x, y, bytes, shape, o);
  batch.strips = int(walk.strips);
  batch.blocks = int(walk.blocks);
  batch.columns = int(walk.threads);
  if (walk.blocks < batch.planes * walk.strips) throw std::invalid_argument("ssim: a strip without a block");
  return batch;
}

}  // namespace semnr

// Launches of SSIM.
#include <stdexcept>

#include "ssim_apart_kernel.cuh"
#include "ssim_backward_kernel.cuh"
#include "ssim_fold_kernel.cuh"
#include "ssim_general_kernel.cuh"
#include "ssim_kernel.cuh"
#include "ssim_launch.cuh"

namespace semnr {

namespace {

template <class F>
void with_fast_size(const SsimCudaOptions& o, F&& f) {
  switch (o.taps.size()) {
    case 7:
      return f(std::integral_constant<int, 7>());
    case 11:
      return f(std::integral_constant<int, 11>());
    default:
      throw std::invalid_argument("ssim: no fast kernel for this window");
  }
}

template <class T, int Size>
void forward_apart(const SsimJob<Size>& job, int threads, double* partial, float* map, const SsimApart& apart,
                   Stream stream) {
  if constexpr (Size != kSsimApartSize) {
    throw std::invalid_argument("ssim_forward: no fused |x - y| for this window");
  } else {
    if (job.batch.lead != 0) throw std::invalid_argument("ssim_forward: no fused |x - y| with a mirrored border");
    constexpr int kBytes = SsimApartLayout<Size>::kBytes;
    if (job.batch.packed) {
      SEMNR_LAUNCH((ssim_apart_forward<T, Size, true>), job.batch.blocks, threads, kBytes, stream, job, partial, map,
                   apart);
    } else {
      SEMNR_LAUNCH((ssim_apart_forward<T, Size, false>), job.batch.blocks, threads, kBytes, stream, job, partial, map,
                   apart);
    }
  }
}

template <int Size>
void forward(const SsimJob<Size>& job, Dtype dtype, int threads, double* partial, double* out, float* map,
             const SsimApart& apart, Stream stream) {
  if (threads != kSsimThreads && threads != kSsimThreads / 2) throw std::invalid_argument("ssim_forward: threads");
  constexpr int kBytes = SsimForwardLayout<Size>::kBytes;
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (std::is_same_v<T, double>) {
      throw std::invalid_argument("ssim_forward: float64 images take the general kernel");
    } else {
      if (apart.partial != nullptr) {
        forward_apart<T>(job, threads, partial, map, apart, stream);
      } else if (job.batch.packed) {
        SEMNR_LAUNCH((ssim_forward<T, Size, true>), job.batch.blocks, threads, kBytes, stream, job, partial, map);
      } else {
        SEMNR_LAUNCH((ssim_forward<T, Size, false>), job.batch.blocks, threads, kBytes, stream, job, partial, map);
      }
    }
  });
  ssim_fold_cuda(job.batch, partial, out, apart, stream);
}

template <class R>
SsimGeneralJob<R> general_job(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
                              const SsimCudaOptions& o, const SsimPlan& plan) {
  SsimGeneralJob<R> job{};
  job.x = x;
  job.y = y;
  job.valid = valid;
  job.dtype = dtype;
  job.channels = int(shape.c);
  job.height = int(shape.h);
  job.width = int(shape.w);
  job.size = int(o.taps.size());
  if (job.size > kSsimGeneralSize) throw std::invalid_argument("ssim_general: window");
  job.lead = o.reflect ? job.size / 2 : 0;
  job.less = o.reflect ? 0 : job.size - 1;
  job.strips = int(plan.strips);
  job.segments = int(plan.segments);
  job.rows = int(plan.rows);
  const double scale = scale_of(o);
  job.scale = R(scale);
  job.c1 = R(o.c1 * scale * scale);
  job.c2 = R(o.c2 * scale * scale);
  job.spread = R(o.unbiased / 2);
  for (int k = 0; k <= job.size / 2; ++k) job.tap[k] = R(o.taps[std::size_t(k)]);
  return job;
}

}  // namespace

void ssim_fold_cuda(const SsimBatch& batch, const double* partial, double* out, const SsimApart& apart, Stream stream) {
  SEMNR_LAUNCH(ssim_fold, batch.planes, 32, 0, stream, batch, partial, out, apart);
}

bool ssim_has_fast(int size) { return size == 7 || size == 11; }

void ssim_forward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                       const SsimWalk& walk, double* partial, double* out, float* map, const SsimApart& apart,
                       Stream stream) {
  const int bytes = with_type(dtype, [](auto pixel) { return int(sizeof(pixel)); });
  const SsimBatch batch = batch_of(x, y, bytes, shape, options, walk);
  with_fast_size(options, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    forward<kSize>(job_of<kSize>(batch, options), dtype, int(walk.threads), partial, out, map, apart, stream);
  });
}

void ssim_told_cuda(const void* x, const void* y, Dtype dtype, const Shape& shape, const double* rows,
                    const SsimTold& told, Stream stream) {
  const std::int64_t planes = shape.n * shape.c;
  if (told.blocks > 0 && !told.measured) {
    with_type(dtype, [&](auto pixel) {
      using T = decltype(pixel);
      if constexpr (std::is_same_v<T, double>) {
        throw std::invalid_argument("ssim_told: float64 images take the general kernel");
      } else {
        SEMNR_LAUNCH((ssim_extents<T>), unsigned(told.blocks), 256, 8 * 4 * sizeof(float), stream,
                     static_cast<const char*>(x), static_cast<const char*>(y), planes * shape.h * shape.w,
                     told.extents);
      }
    });
  }
  SEMNR_LAUNCH(ssim_told, 1, 32, 0, stream, rows, int(planes), told);
}

namespace {

template <class T, int Size>
void backward_apart(const SsimJob<Size>& job, const SsimSlopes& slopes, char* x, char* y, Stream stream) {
  if constexpr (Size != kSsimApartSize) {
    throw std::invalid_argument("ssim_backward: no fused |x - y| for this window");
  } else {
    constexpr int kBytes = SsimBackwardLayout<Size>::kApartBytes;
    if (job.batch.packed) {
      SEMNR_LAUNCH((ssim_apart_backward<T, Size, true>), job.batch.blocks, kSsimBackwardThreads, kBytes, stream, job,
                   slopes, x, y);
    } else {
      SEMNR_LAUNCH((ssim_apart_backward<T, Size, false>), job.batch.blocks, kSsimBackwardThreads, kBytes, stream, job,
                   slopes, x, y);
    }
  }
}

void backward(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
              const SsimPlan& plan, const SsimSlopes& slopes, void* out_x, void* out_y, Stream stream) {
  if (options.reflect) throw std::invalid_argument("ssim_backward: pad the images first");
  if (plan.threads != kSsimBackwardThreads) throw std::invalid_argument("ssim_backward: threads");
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (std::is_integral_v<T> || std::is_same_v<T, double>) {
      throw std::invalid_argument("ssim_backward: 16-bit or 32-bit floats");
    } else {
      const SsimBatch batch = batch_of(x, y, int(sizeof(T)), shape, options, plan);
      with_fast_size(options, [&](auto size) {
        constexpr int kSize = decltype(size)::value, kBytes = SsimBackwardLayout<kSize>::kBytes;
        const SsimJob<kSize> job = job_of<kSize>(batch, options);
        char *const x_to = static_cast<char*>(out_x), *const y_to = static_cast<char*>(out_y);
        if (slopes.apart()) {
          backward_apart<T>(job, slopes, x_to, y_to, stream);
        } else if (batch.packed) {
          SEMNR_LAUNCH((ssim_backward<T, kSize, true>), batch.blocks, kSsimBackwardThreads, kBytes, stream, job, slopes,
                       x_to, y_to);
        } else {
          SEMNR_LAUNCH((ssim_backward<T, kSize, false>), batch.blocks, kSsimBackwardThreads, kBytes, stream, job,
                       slopes, x_to, y_to);
        }
      });
    }
  });
}

}  // namespace

void ssim_backward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                        const SsimPlan& plan, const double* index, const double* structure, const float* map,
                        const double* absolute, void* out_x, void* out_y, Stream stream) {
  backward(x, y, dtype, shape, options, plan, {index, structure, map, scale_of(options), nullptr, false, absolute, 0},
           out_x, out_y, stream);
}

void ssim_loss_backward_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape,
                             const SsimCudaOptions& options, const SsimPlan& plan, const SsimWeights& weights,
                             const void* slope, bool narrow, void* out_x, void* out_y, Stream stream) {
  const std::int64_t less = std::int64_t(options.taps.size()) - 1;
  const double planes = double(shape.n * shape.c), windows = planes * double(shape.h - less) * double(shape.w - less);
  const double pixels = planes * double(shape.h) * double(shape.w);
  backward(x, y, dtype, shape, options, plan,
           {nullptr, nullptr, nullptr, -weights.index * scale_of(options) / windows, slope, narrow, nullptr,
            weights.absolute / pixels},
           out_x, out_y, stream);
}

void ssim_general_cuda(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
                       const SsimCudaOptions& options, bool float64, const SsimPlan& plan, const double* slopes,
                       const double* slopes_map, const SsimGeneralOutputs& out, Stream stream) {
  const int each = int(plan.strips * plan.segments), blocks = int(shape.n * shape.c) * each;
  const auto launch = [&](auto real, auto all) {
    using R = decltype(real);
    constexpr bool kAll = decltype(all)::value;
    const auto job = general_job<R>(x, y, valid, dtype, shape, options, plan);
    const int bytes = GeneralShared < R, kAll ? 3 : 2, kAll ? 6 : 4 > ::bytes(job.size);
    SEMNR_LAUNCH((ssim_general<R, kAll>), blocks, kGeneralThreads, bytes, stream, job, out.partial,
                 static_cast<R*>(out.map), slopes, slopes_map, out.fields);
  };
  if (out.all) {
    launch(double(), std::true_type());
  } else if (float64) {
    launch(double(), std::false_type());
  } else {
    launch(float(), std::false_type());
  }
  if (out.out != nullptr) {
    SEMNR_LAUNCH(ssim_general_fold, unsigned(shape.n * shape.c), 32, 0, stream, out.partial, each, out.out);
  }
}

void ssim_spread_cuda(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimCudaOptions& options,
                      const SsimPlan& plan, const double* fields, void* out_x, void* out_y, Stream stream) {
  const auto job = general_job<double>(x, y, Mask{}, dtype, shape, options, plan);
  const unsigned blocks = unsigned(shape.n * shape.c * plan.strips * plan.segments);
  SEMNR_LAUNCH(ssim_spread, blocks, kGeneralThreads, (GeneralShared<double, 4, 4>::bytes(job.size)), stream, job,
               fields, static_cast<char*>(out_x), static_cast<char*>(out_y));
}

}  // namespace semnr

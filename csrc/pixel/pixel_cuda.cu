// Launches of the pixel errors.
#include <stdexcept>

#include "pixel_kernel.cuh"

namespace semnr {
namespace {

PixelSteps steps(const char* data, std::int64_t image, std::int64_t plane, std::int64_t line, std::int64_t pixel,
                 std::int64_t pixels_a_pack, const PixelJob& job) {
  const std::int64_t pack = pixel * pixels_a_pack;
  return {data,
          {image, plane, line, pack, pixel},
          job.down * line + job.across * pack,
          line - job.packs_a_line * pack,
          plane - job.height * line};
}

template <class T, int N, bool Straight>
void launch(const PixelJob& job, std::uint64_t* partial, int blocks, Stream stream) {
  constexpr std::size_t kShared = kPixelThreads / 32 * 4 * sizeof(std::uint64_t);
  if (job.valid.data != nullptr) {
    SEMNR_LAUNCH((pixel_sums<T, N, Straight, true>), blocks, kPixelThreads, kShared, stream, job, partial);
  } else {
    SEMNR_LAUNCH((pixel_sums<T, N, Straight, false>), blocks, kPixelThreads, kShared, stream, job, partial);
  }
}

// Integers are summed exactly in any order: what does not lie straight is taken one by one.
template <class T>
void launch(const PixelJob& job, const PixelPlan& plan, std::uint64_t* partial, int blocks, Stream stream) {
  constexpr int kPack = 16 / int(sizeof(T));
  if (plan.pack == 1) return launch<T, 1, true>(job, partial, blocks, stream);
  if (plan.pack == kPack && plan.straight) return launch<T, kPack, true>(job, partial, blocks, stream);
  if constexpr (!std::is_integral_v<T>) {
    if (plan.pack == kPack) return launch<T, kPack, false>(job, partial, blocks, stream);
  } else if (plan.pack * sizeof(T) == 4 && plan.straight) {
    return launch<T, 4 / sizeof(T), true>(job, partial, blocks, stream);
  }
  throw std::invalid_argument("pixel_errors_cuda: no kernel for this pack");
}

}  // namespace

void pixel_errors_cuda(const Image& x, const Image& y, const Mask& valid, Dtype dtype, std::int64_t images,
                       const PixelPlan& plan, std::uint64_t* partial, double* out, Stream stream) {
  PixelJob job{};
  job.images = images;
  job.height = plan.height;
  job.packs_a_line = plan.length / plan.pack;
  job.packs = plan.planes * plan.height * job.packs_a_line;
  job.packs_a_part = plan.packs_a_part;
  job.parts = (job.packs + plan.packs_a_part - 1) / plan.packs_a_part;
  job.across = kPixelThreads % job.packs_a_line;
  job.down = kPixelThreads / job.packs_a_line;
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    const auto image = [&](const Image& v) {
      const std::int64_t size = sizeof(T);
      return steps(static_cast<const char*>(v.data), v.stride[0] * size, v.stride[1] * size, v.stride[2] * size,
                   v.stride[3] * size, plan.pack, job);
    };
    job.x = image(x);
    job.y = image(y);
    if (valid.data != nullptr) {
      job.valid = steps(reinterpret_cast<const char*>(valid.data), valid.stride[0], 0, valid.stride[1], valid.stride[2],
                        plan.pack, job);
    }
    const std::int64_t tasks = images * job.parts;
    launch<T>(job, plan, partial, int(tasks < plan.blocks ? tasks : plan.blocks), stream);
  });
  pixel_fold_cuda(dtype, images, job.parts, plan.planes * plan.height * plan.length, valid.data == nullptr, partial,
                  out, nullptr, stream);
}

void pixel_fold_cuda(Dtype dtype, std::int64_t images, std::int64_t parts, std::int64_t pixels, bool all,
                     const std::uint64_t* partial, double* out, double* counts, Stream stream) {
  constexpr std::size_t kShared = kPixelThreads / 32 * 4 * sizeof(std::uint64_t);
  const int blocks = int(images < (1 << 16) ? images : 1 << 16);
  const std::int64_t known = all ? pixels : 0;
  if (dtype != Dtype::u8 && dtype != Dtype::u16) {
    SEMNR_LAUNCH((pixel_fold<double, double>), blocks, kPixelThreads, kShared, stream, partial, images, parts, known,
                 out, counts);
  } else if (pixels < std::int64_t(1) << 32) {
    SEMNR_LAUNCH((pixel_fold<std::uint64_t, std::uint64_t>), blocks, kPixelThreads, kShared, stream, partial, images,
                 parts, known, out, counts);
  } else {  // 65535² · 2³² is below 2⁶⁴: more pixels than that are added up in float64
    SEMNR_LAUNCH((pixel_fold<std::uint64_t, double>), blocks, kPixelThreads, kShared, stream, partial, images, parts,
                 known, out, counts);
  }
}

}  // namespace semnr

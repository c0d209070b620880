#include "planes_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "../pool.hpp"
#include "rows.hpp"
#include "transform.hpp"

namespace semnr {
namespace {

// A row of pixels, channels averaged.
template <class T>
struct Lines {
  const Image& image;
  const Shape& shape;

  void read(std::int64_t k, std::int64_t y, double* to) const {
    const T* const from = static_cast<const T*>(image.data) + k * image.stride[0] + y * image.stride[2];
    for (std::int64_t c = 0; c < shape.c; ++c) {
      const T* const line = from + c * image.stride[1];
      const std::int64_t step = image.stride[3];
      if (c == 0 && step == 1) {
        for (std::int64_t x = 0; x < shape.w; ++x) to[x] = real<double>(line[x]);
      } else {
        for (std::int64_t x = 0; x < shape.w; ++x) to[x] = (c == 0 ? 0.0 : to[x]) + real<double>(line[x * step]);
      }
    }
    if (shape.c > 1) {
      for (std::int64_t x = 0; x < shape.w; ++x) to[x] /= double(shape.c);
    }
  }
};

// One channel of 8 or 16 bits, pixels of a row side by side: sums of integers, which the compiler takes by vectors. The
// same numbers as `plane` gives.
template <class T>
void plane_of_integers(const Lines<T>& lines, std::int64_t k, float* out, double* stats) {
  const Shape& shape = lines.shape;
  const auto row = [&](std::int64_t y) {
    return static_cast<const T*>(lines.image.data) + k * lines.image.stride[0] + y * lines.image.stride[2];
  };
  constexpr std::int64_t kExact = 1 << 16;  // pixels whose sum fits in 32 bits
  std::uint64_t sum = 0;
  T least = std::numeric_limits<T>::max(), largest = 0;
  for (std::int64_t y = 0; y < shape.h; ++y) {
    const T* const line = row(y);
    for (std::int64_t from = 0; from < shape.w; from += kExact) {
      std::uint32_t part = 0;
      for (std::int64_t x = from; x < std::min(shape.w, from + kExact); ++x) {
        part += line[x];
        least = std::min(least, line[x]);
        largest = std::max(largest, line[x]);
      }
      sum += part;
    }
  }
  const double count = double(shape.h * shape.w), base = std::round(double(sum) / count);
  const float level = float(base);
  for (std::int64_t y = 0; y < shape.h; ++y) {
    const T* const line = row(y);
    float* const to = out + y * pitch_of(shape.w);
    for (std::int64_t x = 0; x < shape.w; ++x) to[x] = float(line[x]) - level;
    std::fill(to + shape.w, to + pitch_of(shape.w), 0.0f);
  }
  const double found[kPlaneStats] = {base, double(sum) - base * count, double(least) - base, double(largest) - base, 0};
  std::copy_n(found, kPlaneStats, stats);
}

template <class T>
void plane(const Lines<T>& lines, std::int64_t k, float* out, double* stats) {
  if constexpr (sizeof(T) <= 2 && std::is_integral_v<T>) {
    if (lines.shape.c == 1 && lines.image.stride[3] == 1) return plane_of_integers(lines, k, out, stats);
  }
  constexpr bool whole = sizeof(T) <= 2 && std::is_integral_v<T>;
  const Shape& shape = lines.shape;
  std::vector<double> line(std::size_t(shape.w));
  double sum = 0;
  std::int64_t finite = 0;
  for (std::int64_t y = 0; y < shape.h; ++y) {
    lines.read(k, y, line.data());
    for (const double v : line) {
      const bool good = whole || std::isfinite(v);
      sum += good ? v : 0.0;
      finite += good;
    }
  }
  double base = finite > 0 ? sum / double(finite) : 0;
  if (whole) base = std::round(base);  // what is left of integers is exact
  double left = 0, least = std::numeric_limits<double>::infinity(), largest = -least;
  for (std::int64_t y = 0; y < shape.h; ++y) {
    lines.read(k, y, line.data());
    float* const to = out + y * pitch_of(shape.w);
    for (std::int64_t x = 0; x < shape.w; ++x) {
      const double v = whole || std::isfinite(line[std::size_t(x)]) ? line[std::size_t(x)] - base : 0.0;
      to[x] = float(v);
      left += v;
      least = std::min(least, v);
      largest = std::max(largest, v);
    }
    std::fill(to + shape.w, to + pitch_of(shape.w), 0.0f);
  }
  const double found[kPlaneStats] = {base, left, least, largest, double(shape.h * shape.w - finite)};
  std::copy_n(found, kPlaneStats, stats);
}

}  // namespace

void evidence_planes(const Image& image, Dtype dtype, const Shape& shape, int threads, float* planes, double* stats) {
  with_type(dtype, [&](auto pixel) {
    const Lines<decltype(pixel)> lines{image, shape};
    parallel(threads, shape.n, [&](std::int64_t k) {
      plane(lines, k, planes + k * shape.h * pitch_of(shape.w), stats + k * kPlaneStats);
    });
  });
}

template <class R>
std::shared_ptr<const PlaneTransform<R>> transform_of(std::int64_t rows, std::int64_t columns) {
  constexpr std::size_t kKept = 16;
  // of each thread: nothing to wait for, also in a forked child
  thread_local std::map<std::pair<std::int64_t, std::int64_t>, std::shared_ptr<const PlaneTransform<R>>> kept;
  if (kept.size() > kKept) kept.clear();
  auto& found = kept[{rows, columns}];
  if (found == nullptr) found = std::make_shared<const PlaneTransform<R>>(rows, columns);
  return found;
}

template std::shared_ptr<const PlaneTransform<float>> transform_of<float>(std::int64_t, std::int64_t);

}  // namespace semnr

// From images to planes, for float32 and float64.
#include "../counts.hpp"
#include "plane.hpp"

namespace semnr {
namespace {

template <class T, class Wide>
void add_line(const char* data, std::int64_t stride, std::int64_t count, Wide black, bool first, Wide* line) {
  const T* const from = reinterpret_cast<const T*>(data);
  if (stride == 1 && first) {
    for (std::int64_t i = 0; i < count; ++i) line[i] = real<Wide>(from[i]) - black;
  } else if (stride == 1) {
    for (std::int64_t i = 0; i < count; ++i) line[i] += real<Wide>(from[i]) - black;
  } else {
    for (std::int64_t i = 0; i < count; ++i)
      line[i] = (first ? Wide(0) : line[i]) + (real<Wide>(from[i * stride]) - black);
  }
}

}  // namespace

// Adds a line of pixels less `black` to `line`, or begins it with them.
template <class R>
template <class Wide>
struct PlaneReader<R>::Lines {
  void (*add)(const char* from, std::int64_t stride, std::int64_t count, Wide black, bool first, Wide* line);
  std::int64_t bytes;  // of a pixel
};

template <class R>
template <class Wide>
double PlaneReader<R>::read_by(Lines<Wide> lines, std::int64_t k, const Plane<R>& plane, R* chroma, int threads) const {
  const Image& image = in_.images[std::size_t(k / in_.shape.n)];
  const char* const from = static_cast<const char*>(image.data) + k % in_.shape.n * image.stride[0] * lines.bytes;
  const double each = in_.scale / double(in_.factor * in_.factor);
  const std::int64_t channels = in_.shape.c;
  Wide black[3];
  double base = 0;
  for (std::int64_t c = 0; c < channels; ++c) {
    lines.add(from + c * image.stride[1] * lines.bytes, 1, 1, Wide(0), true, black + c);
    base += double(black[c]) * in_.scale * (channels == 1 ? 1 : kYiq[0][c]);
  }
  plane.ring(R(-base));
  const std::int64_t tasks = pieces(h, kPlaneRows);
  std::vector<double> sums(std::size_t(tasks), 0.0);
  parallel(threads, tasks, [&](std::int64_t task) {
    Wide* const line = static_cast<Wide*>(scratch(in_.shape.w * std::int64_t(sizeof(Wide))));
    for (std::int64_t u = task * kPlaneRows; u < std::min(h, (task + 1) * kPlaneRows); ++u) {
      R* const row = plane.row(u);
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t top = u * in_.factor - before_;
        const std::int64_t start = std::max<std::int64_t>(top, 0), stop = std::min(top + in_.factor, in_.shape.h);
        for (std::int64_t i = start; i < stop; ++i) {
          lines.add(from + (c * image.stride[1] + i * image.stride[2]) * lines.bytes, image.stride[3], in_.shape.w,
                    black[c], i == start, line);
        }
        const auto put = [&](std::int64_t v, double value) {
          if (channels == 1) {
            row[v] = R(value);
            return;
          }
          row[v] = (c == 0 ? R(0) : row[v]) + R(kYiq[0][c] * value);
          for (int q = 0; chroma != nullptr && q < 2; ++q) {
            R& to = chroma[(q * h + u) * w + v];
            to = (c == 0 ? R(0) : to) + R(kYiq[q + 1][c] * (value + double(black[c]) * in_.scale));
          }
        };
        if (in_.factor == 1 && channels == 1) {
          for (std::int64_t v = 0; v < w; ++v) row[v] = R(line[v] * Wide(in_.scale));
          continue;
        }
        for (std::int64_t v = 0; v < w; ++v) {
          const std::int64_t left = v * in_.factor - before_;
          const std::int64_t first = std::max<std::int64_t>(left, 0), last = std::min(left + in_.factor, in_.shape.w);
          Wide sum = 0;
          for (std::int64_t i = first; i < last; ++i) sum += line[i];
          const std::int64_t beyond = in_.factor * in_.factor - (stop - start) * (last - first);
          put(v, (double(sum) - double(beyond) * double(black[c])) * each);
        }
      }
      Vec<double> sum = {};
      std::int64_t v = 0;
      for (; v + kLanes<R> <= w; v += kLanes<R>) sum = sum + widened_sum(load(row + v));
      for (; v < w; ++v) sums[std::size_t(task)] += double(row[v]);
      sums[std::size_t(task)] += semnr::sum<double>(sum);
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / (double(h) * double(w));
}

template <class R>
double PlaneReader<R>::read(std::int64_t k, const Plane<R>& plane, R* chroma, int threads) const {
  return with_type(in_.dtype, [&](auto pixel) {
    using T = decltype(pixel);
    using Wide = std::conditional_t<std::is_same_v<T, double>, double, R>;
    return read_by<Wide>({&add_line<T, Wide>, std::int64_t(sizeof(T))}, k, plane, chroma, threads);
  });
}

template class PlaneReader<float>;
template class PlaneReader<double>;

}  // namespace semnr

// From images of any type and layout to the plane that FSIM looks at: averaged over squares, luminance on the 0-255
// scale, less the image's first pixel (so that float32 keeps the contrast on a pedestal, and a flat image is exact 0).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "fsim_cpu.hpp"
#include "lanes.hpp"

namespace semnr {

// h rows of w values with a ring of one pixel around them that holds the value of black.
template <class R>
struct Plane {
  std::int64_t h, w, pitch;
  R* first;  // row 0, column 0

  static std::int64_t pitch_of(std::int64_t w) { return round_up(w, kLanes<R>) + kLanes<R>; }
  static std::int64_t values(std::int64_t h, std::int64_t w) { return (h + 2) * pitch_of(w) + kLanes<R>; }
  Plane(std::int64_t height, std::int64_t width, R* memory)
      : h(height), w(width), pitch(pitch_of(width)), first(memory + pitch + 1) {}

  R* row(std::int64_t u) const { return first + u * pitch; }

  void ring(R value) const {
    std::fill_n(row(-1) - 1, w + 2, value);
    std::fill_n(row(h) - 1, w + 2, value);
    for (std::int64_t u = 0; u < h; ++u) row(u)[-1] = row(u)[w] = value;
  }
};

constexpr std::int64_t kPlaneRows = 32;  // of a task

inline std::int64_t pooled_size(std::int64_t size, std::int64_t factor, bool authors) {
  return authors ? pieces(size, factor) : size / factor;
}

template <class R>
class PlaneReader {
 public:
  PlaneReader(const FsimImages& in)
      : in_(in),
        h(pooled_size(in.shape.h, in.factor, in.authors)),
        w(pooled_size(in.shape.w, in.factor, in.authors)),
        before_(in.authors ? in.factor - 1 - in.factor / 2 : 0) {}

 private:
  const FsimImages& in_;

 public:
  const std::int64_t h, w;

  // Image k of all (those of in.images[0] first). chroma: I and Q as they are, or nullptr. Returns the plane's mean.
  double read(std::int64_t k, const Plane<R>& plane, R* chroma, int threads) const;

 private:
  template <class Wide>
  struct Lines;

  template <class Wide>
  double read_by(Lines<Wide> lines, std::int64_t k, const Plane<R>& plane, R* chroma, int threads) const;

  const std::int64_t before_;
};

// Compiled once, in plane_cpu.cpp.
extern template class PlaneReader<float>;
extern template class PlaneReader<double>;

// f(first row, end) for pieces of the plane.
template <class R, class F>
void over_rows(const Plane<R>& plane, int threads, F&& f) {
  parallel(threads, pieces(plane.h, kPlaneRows), [&](std::int64_t task) {
    for (std::int64_t u = task * kPlaneRows; u < std::min(plane.h, (task + 1) * kPlaneRows); ++u) f(u);
  });
}

template <class R>
struct Slope {
  R across, down;
};

// Scharr's filters at column v.
template <class R>
inline Slope<R> scharr_at(const R* above, const R* at, const R* below, std::int64_t v) {
  const R side = R(3.0 / 16), middle = R(10.0 / 16);
  const R a = below[v + 1] - above[v - 1], b = above[v + 1] - below[v - 1];
  return {side * (a + b) + middle * (at[v + 1] - at[v - 1]), side * (a - b) + middle * (below[v] - above[v])};
}

// The modulus of the gradient, rows of w values.
template <class R>
void scharr(const Plane<R>& plane, R* out, int threads) {
  over_rows(plane, threads, [&](std::int64_t u) {
    const R *const above = plane.row(u - 1), *const at = plane.row(u), *const below = plane.row(u + 1);
    R* const to = out + u * plane.w;
    for (std::int64_t v = 0; v < plane.w; ++v) {
      const Slope<R> g = scharr_at(above, at, below, v);
      to[v] = std::sqrt(g.across * g.across + g.down * g.down);
    }
  });
}

// Adds the derivative by the plane of Σ by · modulus to `out`; that of a modulus of 0 is 0. Two planes to work in.
template <class R>
void add_scharr(const Plane<R>& plane, const Plane<R>& across, const Plane<R>& down, const R* by, R* out, int threads) {
  across.ring(R(0));
  down.ring(R(0));
  over_rows(plane, threads, [&](std::int64_t u) {
    const R *const above = plane.row(u - 1), *const at = plane.row(u), *const below = plane.row(u + 1);
    const R* const from = by + u * plane.w;
    R *const to_across = across.row(u), *const to_down = down.row(u);
    for (std::int64_t v = 0; v < plane.w; ++v) {
      const Slope<R> g = scharr_at(above, at, below, v);
      const R modulus = std::sqrt(g.across * g.across + g.down * g.down);
      const R each = modulus == 0 ? R(0) : from[v] / (modulus == 0 ? R(1) : modulus);
      to_across[v] = each * g.across;
      to_down[v] = each * g.down;
    }
  });
  // the filters turned by 180°: what was a difference to the right comes from the left
  over_rows(plane, threads, [&](std::int64_t u) {
    R* const to = out + u * plane.w;
    for (std::int64_t v = 0; v < plane.w; ++v) {
      const Slope<R> x = scharr_at(across.row(u - 1), across.row(u), across.row(u + 1), v);
      const Slope<R> y = scharr_at(down.row(u - 1), down.row(u), down.row(u + 1), v);
      to[v] -= x.across + y.down;
    }
  });
}

}  // namespace semnr

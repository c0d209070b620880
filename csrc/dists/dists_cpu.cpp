// What follows the convolutions of a stage, in one pass over them: ReLU, sums of both images, L2 pooling, a copy to
// keep.
#include "dists_cpu.hpp"

#include <algorithm>

#include "../counts.hpp"
#include "../pool.hpp"
#include "dists_sums.hpp"
#include "dists_values.hpp"

namespace semnr {
namespace {

constexpr std::int64_t kChannels = 64;  // of a task
constexpr std::int64_t kColumns = 32;   // read for all channels of a task before the next

template <class R>
inline Vec<R> rectified(Vec<R> v) {
  return v < Vec<R>{} ? Vec<R>{} : v;  // NaN passes
}

// Values of the other map: of the first one's type T, or of one that is known at run time.
template <class R, class T>
inline Vec<R> values_of(const void* data, Dtype dtype, std::int64_t index) {
  if constexpr (std::is_same_v<R, double>) {
    return values(static_cast<const double*>(data) + index);
  } else if (dtype == Dtype::bf16) {
    return values(static_cast<const BFloat*>(data) + index);
  } else if (dtype == Dtype::f32) {
    return values(static_cast<const float*>(data) + index);
  } else {
    return values(static_cast<const Half*>(data) + index);
  }
}

template <class R>
inline void put_of(void* data, Dtype dtype, std::int64_t index, Vec<R> v) {
  if constexpr (std::is_same_v<R, double>) {
    put(static_cast<double*>(data) + index, v);
  } else if (dtype == Dtype::f32) {
    put(static_cast<float*>(data) + index, v);
  } else if (dtype == Dtype::bf16) {
    put(static_cast<BFloat*>(data) + index, v);
  } else {
    put(static_cast<Half*>(data) + index, v);
  }
}

// Sums over a few positions of as many channels as a vector of R holds. Values of 16 bits are added up in float32,
// whose rounding is far below theirs; all others in float64.
template <class R, class A>
struct Sums {
  static constexpr int parts = kLanes<R> / kLanes<A>;
  Vec<A> sum[5][parts] = {};
  double weight = 0;

  void add(Vec<R> x, Vec<R> y, const Lanes<R, A>& near_x, const Lanes<R, A>& near_y, double w) {
    const Lanes<R, A> wide_x = lanes<A>(x), wide_y = lanes<A>(y);
    for (int i = 0; i < parts; ++i) {
      const Vec<A> a = wide_x.part[i] - near_x.part[i], b = wide_y.part[i] - near_y.part[i];
      const Vec<A> wa = A(w) * a, wb = A(w) * b;
      sum[0][i] += wa;
      sum[1][i] += wb;
      sum[2][i] += wa * a;
      sum[3][i] += wb * b;
      sum[4][i] += wa * b;
    }
    weight += w;
  }

  // Channels [c, c + lanes) of sums that lie channel by channel.
  void flush(double* to, std::int64_t channels, std::int64_t c) const {
    for (int k = 0; k < kDistsSums; ++k) {
      double* p = to + k * channels + c;
      for (int i = 0; i < parts; ++i) {
        const Lanes<A, double> wide = lanes<double>(k == 0 ? splat<A>(A(0)) : sum[k == 0 ? 0 : k - 1][i]);
        for (const Vec<double>& part : wide.part) {
          store(p, load(p) + (k == 0 ? splat(weight) : part));
          p += kLanes<double>;
        }
      }
    }
  }
};

// A block of rows of one image or pair, and a group of its channels.
template <class R, class T, bool kPair, int kPooled>
struct Task {
  static constexpr int L = kLanes<R>;
  using A = std::conditional_t<sizeof(T) == 2, float, double>;

  const DistsStage& s;
  DistsGrid& grid;
  std::int64_t n, from, to;  // image, channels
  R* lines[2];               // of each image, what the rows so far add to the pooled row in the making
  R* left[2];                // and the square before the next position

  Vec<R> value(const Image& v, std::int64_t c, std::int64_t h, std::int64_t w) const {
    return rectified<R>(values(at<T>(v, n, c, h, w)));
  }

  // Row `h` of those that count; the one before the block where `before`.
  void row(std::int64_t h, bool before) {
    const Image* const images[2] = {&s.x, &s.y};
    for (int i = 0; i < kPooled; ++i) {
      for (std::int64_t c = from; c < to; c += L) {
        const Vec<R> v = s.column > 0 ? value(*images[i], c, s.row + h, s.column - 1) : Vec<R>{};
        store(left[i] + c - from, v * v);
      }
    }
    if (!kPair || before) {
      columns<false>(h, 0, s.columns, before);
      return;
    }
    columns<false>(h, 0, s.from, before);
    const std::int64_t side = s.cell > 0 ? s.cell : kColumns;
    for (std::int64_t start = s.from; start < s.to; start += side) {
      columns<true>(h, start, std::min(start + side, s.to), before);
    }
    columns<false>(h, s.to, s.columns, before);
  }

  // Columns [start, stop), start even where there is pooling: few enough to be read again for each block of channels
  // from the first cache, where a line of memory holds more than one.
  template <bool kCounts>
  void columns(std::int64_t h, std::int64_t start, std::int64_t stop, bool before) {
    if (start < stop) {
      for (std::int64_t c = from; c < to; c += L) block<kCounts>(h, start, stop, before, c);
    }
  }

  template <bool kCounts>
  void block(std::int64_t h, std::int64_t start, std::int64_t stop, bool before, std::int64_t c) {
    const std::int64_t begin = s.row + h;
    Sums<R, A> sums;
    Lanes<R, A> near_x, near_y;
    if (kCounts) {
      near_x = near<R, A>(s.near + 2 * n * s.shape.c + c);
      near_y = near<R, A>(s.near + (2 * n + 1) * s.shape.c + c);
    }
    const T* px = at<T>(s.x, n, c, begin, s.column + start);
    const std::int64_t step_x = s.x.stride[3], step_y = s.y.stride[3], step_kept = s.kept.stride[3];
    std::int64_t at_y = offset(s.y, n, c, begin, s.column + start);
    std::int64_t at_kept = offset(s.kept, n, c, h, start);
    const bool keeps = s.kept.data != nullptr && !before;
    const bool weighted = s.share.data != nullptr;  // else each position's share is one: a product that changes nothing
    const double one = 1, *share = weighted ? at<double>(s.share, n, 0, h, start) : &one;
    const std::int64_t step_share = weighted ? s.share.stride[3] : 0;
    // Reads a position; square: of what is pooled.
    const auto position = [&](Vec<R>* square) __attribute__((always_inline)) {
      const Vec<R> x = rectified<R>(values(px));
      px += step_x;
      if (kPooled > 0) square[0] = x * x;
      if (keeps) put_of<R>(const_cast<void*>(s.kept.data), s.kept_dtype, at_kept, x);
      at_kept += step_kept;
      if (kPair) {
        const Vec<R> y = rectified<R>(values_of<R, T>(s.y.data, s.y_dtype, at_y));
        at_y += step_y;
        if (kPooled > 1) square[1] = y * y;
        if (kCounts) sums.add(x, y, near_x, near_y, *share);
        share += step_share;
      }
    };
    if (kPooled == 0) {
      for (std::int64_t j = start; j < stop; ++j) position(nullptr);
    } else {
      const bool centre = !before && h % 2 == 0, writes = !before && (!centre || h == s.rows - 1);
      const R weight = centre ? R(0.5) : R(0.25);
      const Vec<R> eps = splat<R>(R(s.eps));
      const std::int64_t channels = to - from;
      const Image* const pooled[2] = {&s.pooled_x, &s.pooled_y};
      T* out[2] = {};
      for (int i = 0; writes && i < kPooled; ++i) {
        out[i] = const_cast<T*>(at<T>(*pooled[i], n, c, h / 2, start / 2));
      }
      Vec<R> before_it[2] = {}, here[2] = {}, after[2] = {};
      for (int i = 0; i < kPooled; ++i) before_it[i] = load(left[i] + c - from);
      std::int64_t line = start / 2 * channels + c - from;
      for (std::int64_t j = start; j < stop; j += 2, line += channels) {
        position(here);
        if (j + 1 < stop) {
          position(after);
        } else {
          for (int i = 0; i < kPooled; ++i) after[i] = Vec<R>{};
        }
        for (int i = 0; i < kPooled; ++i) {
          const Vec<R> mine = weight * (R(0.25) * (before_it[i] + after[i]) + R(0.5) * here[i]);
          const Vec<R> total = load(lines[i] + line) + mine;
          before_it[i] = after[i];
          if (writes) {
            put(out[i], root<R>(total + eps));
            out[i] += pooled[i]->stride[3];
          }
          store(lines[i] + line, centre ? total : mine);
        }
      }
      for (int i = 0; i < kPooled; ++i) store(left[i] + c - from, before_it[i]);
    }
    if (kCounts) sums.flush(grid.part(n, h, start - s.from), s.shape.c, c);
  }
};

// Sets `near` to the channels' values in the middle of what counts: a point near their means, also on flat images,
// whose border differs.
template <class R, class T>
void set_near(const DistsStage& s) {
  constexpr int L = kLanes<R>;
  const std::int64_t h = s.row + s.rows / 2, w = s.column + (s.from + s.to) / 2;
  for (std::int64_t n = 0; n < s.shape.n; ++n) {
    for (std::int64_t c = 0; c < s.shape.c; c += L) {
      const Vec<R> x = rectified<R>(values(at<T>(s.x, n, c, h, w)));
      const Vec<R> y = rectified<R>(values_of<R, T>(s.y.data, s.y_dtype, offset(s.y, n, c, h, w)));
      for (int i = 0; i < L; ++i) {
        s.near[2 * n * s.shape.c + c + i] = x[i];
        s.near[(2 * n + 1) * s.shape.c + c + i] = y[i];
      }
    }
  }
}

template <class R, class T, bool kPair, int kPooled>
void run(const DistsStage& s) {
  constexpr int L = kLanes<R>;
  const Shape& shape = s.shape;
  if (shape.c % L != 0) throw std::invalid_argument("dists_stage: the channels do not fill vectors");
  const std::int64_t tall = pieces(s.rows, kDistsRows), groups = pieces(shape.c, kChannels),
                     wide = pieces(s.columns, 2);
  DistsGrid grid(kPair ? shape.n : 0, shape.c, s.rows, s.to - s.from, s.cell);
  if (kPair && s.fresh) set_near<R, T>(s);
  parallel(s.threads, shape.n * tall * groups, [&](std::int64_t task) {
    const std::int64_t group = task % groups, block = task / groups % tall, n = task / groups / tall;
    const std::int64_t from = group * kChannels, to = std::min(from + kChannels, shape.c),
                       size = (wide + 1) * (to - from);
    R* const memory = static_cast<R*>(scratch((kPooled * size + L) * std::int64_t(sizeof(R))));
    if (kPooled > 0) std::fill_n(memory, kPooled * size, R(0));
    Task<R, T, kPair, kPooled> work{
        s, grid, n, from, to, {memory, memory + size}, {memory + size - (to - from), memory + 2 * size - (to - from)}};
    const std::int64_t first = block * kDistsRows, last = std::min(first + kDistsRows, s.rows);
    if (kPooled > 0 && (first > 0 || s.row > 0)) work.row(first - 1, true);
    for (std::int64_t h = first; h < last; ++h) work.row(h, false);
  });
  if (kPair) {
    parallel(s.threads, shape.n, [&](std::int64_t n) { grid.fold(n, s.sums, s.cells, s.cell_image, s.cell_row); });
  }
}

template <class T>
void of_type(const DistsStage& s) {
  using R = typename Computed<T>::type;
  const bool x = s.pooled_x.data != nullptr, y = s.pooled_y.data != nullptr;
  if (s.y.data == nullptr) return x ? run<R, T, false, 1>(s) : run<R, T, false, 0>(s);
  if (y) return run<R, T, true, 2>(s);
  return x ? run<R, T, true, 1>(s) : run<R, T, true, 0>(s);
}

}  // namespace

void dists_stage(const DistsStage& s) {
  const bool wide = s.x_dtype == Dtype::f64;
  if (s.y.data != nullptr && (s.y_dtype == Dtype::f64) != wide) {
    throw std::invalid_argument("dists_stage: float64 maps are compared with float64 maps only");
  }
  if (s.pooled_y.data != nullptr && s.y_dtype != s.x_dtype) {
    throw std::invalid_argument("dists_stage: both maps are pooled, so both have one dtype");
  }
  const bool pooled = s.pooled_x.data != nullptr || s.pooled_y.data != nullptr;
  if (pooled && (s.from | s.cell | (s.to < s.columns ? s.to : 0)) % 2 != 0) {
    throw std::invalid_argument("dists_stage: odd cells or columns");
  }
  if (s.cell > 0 && kDistsRows % s.cell != 0)
    throw std::invalid_argument("dists_stage: cells of 1, 2, 4, 8 or 16 only");
  for (const Image* v : {&s.x, &s.y, &s.pooled_x, &s.pooled_y, &s.kept}) {
    if (v->data != nullptr && v->stride[1] != 1) throw std::invalid_argument("dists_stage: channels-last maps only");
  }
  switch (s.x_dtype) {
    case Dtype::f16:
      return of_type<Half>(s);
    case Dtype::bf16:
      return of_type<BFloat>(s);
    case Dtype::f32:
      return of_type<float>(s);
    case Dtype::f64:
      return of_type<double>(s);
    default:
      throw std::invalid_argument("dists_stage: floating maps only");
  }
}

}  // namespace semnr

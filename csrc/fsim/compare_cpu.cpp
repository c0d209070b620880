// The similarity of two images' features, pooled by the larger phase congruency, and its derivatives.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "../simd.hpp"
#include "fsim_cpu.hpp"

namespace semnr {
namespace {

constexpr std::int64_t kPixels = 1 << 14;  // of a task
constexpr std::int64_t kRun = 1 << 9;      // summed in R before the sum goes to float64

// a^exponent for 0 <= a; 0 at 0.
inline Vec<double> power(Vec<double> a, double exponent) {
  for (int i = 0; i < kLanes<double>; ++i) a[i] = std::pow(a[i], exponent);
  return a;
}
inline Vec<float> power(Vec<float> a, float exponent) {
  typedef std::int32_t Bits __attribute__((vector_size(kVectorBytes)));
  // a = 2^whole · part, √½ <= part < √2; log2 part by the series of artanh((part - 1) / (part + 1))
  const Bits bits = (Bits)a - 0x3f3504f3, whole = bits >> 23;
  const Vec<float> part = (Vec<float>)((bits & 0x7fffff) + 0x3f3504f3);
  const Vec<float> t = (part - 1) / (part + 1), t2 = t * t;
  const Vec<float> log2 =
      t * (2.8853900818f + t2 * (0.9617966939f + t2 * (0.5770780164f + t2 * (0.4121985831f + t2 * 0.3205988980f))));
  const Vec<float> y = exponent * (__builtin_convertvector(whole, Vec<float>) + log2);
  // 2^y = 2^near · 2^rest, |rest| <= ½
  const Vec<float> shifted = y + 12582912.0f, rest = y - (shifted - 12582912.0f);
  const Bits near = (Bits)shifted - 0x4b400000;
  const Vec<float> power2 =
      1 + rest * (0.6931471806f +
                  rest * (0.2402265070f +
                          rest * (0.05550410866f +
                                  rest * (0.009618129108f + rest * (0.001333355815f + rest * 0.0001540353039f)))));
  const Vec<float> found = power2 * (Vec<float>)((near + 127) << 23);
  return a == Vec<float>{} ? Vec<float>{} : a != a ? a : found;
}

template <class R>
struct Factors {
  Similarity<Vec<R>> phase, gradient, i, q;
  Vec<R> chroma, local, weight, chroma_base;  // chroma_base: |S_I S_Q|
};

template <class R>
class Planes {
 public:
  using V = Vec<R>;
  static constexpr int L = kLanes<R>;

  Planes(const FsimPair& pair, std::int64_t image)
      : chromatic(pair.x.chroma != nullptr),
        x_(side(pair.x, image, pair.pixels)),
        y_(side(pair.y, image, pair.pixels)),
        share_(pair.share == nullptr
                   ? nullptr
                   : static_cast<const R*>(pair.share) + (pair.single_share ? 0 : image) * pair.pixels),
        pixels_(pair.pixels) {}

  const bool chromatic;

  struct Point {
    V phase[2], gradient[2], i[2], q[2], share;
  };

  // Pixels p ..; beyond `stop` the last one again.
  Point at(std::int64_t p, std::int64_t stop) const {
    const auto value = [&](const R* from) {
      if (p + L <= stop) return load(from + p);
      alignas(kVectorBytes) R lanes[L];
      for (int k = 0; k < L; ++k) lanes[k] = from[std::min(p + k, stop - 1)];
      return load<R>(lanes);
    };
    Point found;
    for (int k = 0; k < 2; ++k) {
      const Side& s = k == 0 ? x_ : y_;
      found.phase[k] = value(s.phase);
      found.gradient[k] = value(s.gradient);
      if (chromatic) {
        found.i[k] = value(s.chroma);
        found.q[k] = value(s.chroma + pixels_);
      }
    }
    found.share = share_ == nullptr ? splat<R>(1) : value(share_);
    return found;
  }

  Factors<R> factors(const Point& p) const {
    Factors<R> f;
    f.phase = similarity_of<V>(p.phase[0], p.phase[1], splat<R>(R(kT1)));
    f.gradient = similarity_of<V>(p.gradient[0], p.gradient[1], splat<R>(R(kT2)));
    f.local = f.phase.value * f.gradient.value;
    if (chromatic) {
      f.i = similarity_of<V>(p.i[0], p.i[1], splat<R>(R(kT3)));
      f.q = similarity_of<V>(p.q[0], p.q[1], splat<R>(R(kT4)));
      const V both = f.i.value * f.q.value;
      f.chroma_base = both < V{} ? -both : both;
      f.chroma = power(f.chroma_base, R(kLambda));
      f.local = f.local * f.chroma;
    }
    f.weight = (p.phase[0] > p.phase[1] ? p.phase[0] : p.phase[1]) * p.share;
    return f;
  }

 private:
  struct Side {
    const R *phase, *gradient, *chroma;
  };
  static Side side(const FsimSide& s, std::int64_t image, std::int64_t pixels) {
    const std::int64_t at = (s.single ? 0 : image) * pixels;
    return {static_cast<const R*>(s.phase) + at, static_cast<const R*>(s.gradient) + at,
            s.chroma == nullptr ? nullptr : static_cast<const R*>(s.chroma) + 2 * at};
  }

  const Side x_, y_;
  const R* share_;
  const std::int64_t pixels_;
};

template <class R>
void put(R* to, Vec<R> v, std::int64_t count) {
  if (count >= kLanes<R>) {
    store<R>(to, v);
    return;
  }
  alignas(kVectorBytes) R lanes[kLanes<R>];
  store<R>(lanes, v);
  std::copy_n(lanes, count, to);
}

struct Sums {
  double local = 0, weight = 0;
};

// f(image, task's first pixel, end) for pieces of every image; the pieces of an image follow each other.
template <class F>
void over_pieces(const FsimPair& pair, int threads, F&& f) {
  const std::int64_t parts = pieces(pair.pixels, kPixels);
  parallel(threads, pair.n * parts, [&](std::int64_t task) {
    const std::int64_t start = task % parts * kPixels;
    f(task, task / parts, start, std::min(start + kPixels, pair.pixels));
  });
}

template <class R>
std::vector<Sums> compare(const FsimPair& pair, int threads, void* const (&maps)[5]) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  const std::int64_t parts = pieces(pair.pixels, kPixels);
  std::vector<Sums> partial(std::size_t(pair.n * parts)), sums(std::size_t(pair.n));
  over_pieces(pair, threads, [&](std::int64_t task, std::int64_t image, std::int64_t start, std::int64_t stop) {
    const Planes<R> planes(pair, image);
    Vec<double> local = {}, weight = {};
    for (std::int64_t run = start; run < stop; run += kRun) {
      const std::int64_t end = std::min(run + kRun, stop);
      V run_local = {}, run_weight = {};
      for (std::int64_t p = run; p < end; p += L) {
        const Factors<R> f = planes.factors(planes.at(p, end));
        const V weighted = f.local * f.weight;
        run_local = run_local + (end - p >= L ? weighted : first<R>(weighted, end - p));
        run_weight = run_weight + (end - p >= L ? f.weight : first<R>(f.weight, end - p));
        const V all[5] = {f.local, f.weight, f.phase.value, f.gradient.value, f.chroma};
        for (int m = 0; m < 5; ++m) {
          if (maps[m] != nullptr) put<R>(static_cast<R*>(maps[m]) + image * pair.pixels + p, all[m], end - p);
        }
      }
      local = local + widened_sum(run_local);
      weight = weight + widened_sum(run_weight);
    }
    partial[std::size_t(task)] = {sum<double>(local), sum<double>(weight)};
  });
  for (std::int64_t k = 0; k < pair.n * parts; ++k) {
    sums[std::size_t(k / parts)].local += partial[std::size_t(k)].local;
    sums[std::size_t(k / parts)].weight += partial[std::size_t(k)].weight;
  }
  return sums;
}

// With score = Σ l w / Σ w: ∂/∂l = w / Σ w, ∂/∂w = (l - score) / Σ w. Equal phase congruencies share the weight's.
template <class R>
void backward(const FsimPair& pair, int threads, const double* by, void* const (&out)[6]) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  void* const none[5] = {nullptr, nullptr, nullptr, nullptr, nullptr};
  const std::vector<Sums> sums = compare<R>(pair, threads, none);
  over_pieces(pair, threads, [&](std::int64_t, std::int64_t image, std::int64_t start, std::int64_t stop) {
    const Planes<R> planes(pair, image);
    const Sums& whole = sums[std::size_t(image)];
    const R scale = R(by[image] / whole.weight), score = R(whole.local / whole.weight);
    for (std::int64_t p = start; p < stop; p += L) {
      const typename Planes<R>::Point point = planes.at(p, stop);
      const Factors<R> f = planes.factors(point);
      const V by_local = f.weight * scale, by_weight = (f.local - score) * scale * point.share;
      const V others = planes.chromatic ? f.chroma : splat<R>(1);
      const V by_phase = by_local * f.gradient.value * others, by_gradient = by_local * f.phase.value * others;
      V by_chroma = {};
      if (planes.chromatic) {  // of S_I S_Q: λ |S_I S_Q|^(λ - 1)
                               // with its sign; 0 at 0
        const V zero = {}, both = f.i.value * f.q.value;
        const V slope = R(kLambda) * f.chroma / (f.chroma_base == zero ? splat<R>(1) : f.chroma_base);
        by_chroma = by_local * f.phase.value * f.gradient.value * (both < zero ? -slope : slope);
      }
      for (int k = 0; k < 2; ++k) {
        const V a = point.phase[k], b = point.phase[1 - k];
        const std::int64_t to = image * pair.pixels + p, count = stop - p;
        if (out[3 * k] != nullptr) {
          const V half = by_weight * R(0.5);
          const V larger = a > b ? by_weight : a < b ? V{} : half;
          put<R>(static_cast<R*>(out[3 * k]) + to, by_phase * f.phase.slope(a, b) + larger, count);
        }
        if (out[3 * k + 1] != nullptr) {
          const V g = by_gradient * f.gradient.slope(point.gradient[k], point.gradient[1 - k]);
          put<R>(static_cast<R*>(out[3 * k + 1]) + to, g, count);
        }
        if (planes.chromatic && out[3 * k + 2] != nullptr) {
          R* const chroma = static_cast<R*>(out[3 * k + 2]) + 2 * image * pair.pixels + p;
          put<R>(chroma, by_chroma * f.q.value * f.i.slope(point.i[k], point.i[1 - k]), count);
          put<R>(chroma + pair.pixels, by_chroma * f.i.value * f.q.slope(point.q[k], point.q[1 - k]), count);
        }
      }
    }
  });
}

}  // namespace

void fsim_compare(const FsimPair& pair, int threads, double* rows, void* const (&maps)[5]) {
  const std::vector<Sums> sums =
      pair.doubled ? compare<double>(pair, threads, maps) : compare<float>(pair, threads, maps);
  for (std::int64_t n = 0; n < pair.n; ++n) {
    const Sums& found = sums[std::size_t(n)];
    rows[n] = found.local / found.weight;
  }
}

void fsim_compare_backward(const FsimPair& pair, int threads, const double* by, void* const (&out)[6]) {
  if (pair.doubled) {
    backward<double>(pair, threads, by, out);
  } else {
    backward<float>(pair, threads, by, out);
  }
}

}  // namespace semnr

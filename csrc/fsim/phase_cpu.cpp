// Phase congruency and gradient of images: what FSIM compares.
#include <cmath>

#include "memory.hpp"
#include "phase.hpp"
#include "plane.hpp"

namespace semnr {

namespace {

// At column v of a group of rows: energy before the threshold, sum of amplitudes, squared amplitude at the finest
// scale.
template <class R>
struct PhaseTerms {
  Vec<R> energy, amplitude, finest;
};

// `responses` of `count` scales `apart` values from each other. Count: their number where the compiler knows it, else
// 0.
template <int Count, class R>
inline PhaseTerms<R> phase_terms(const R* responses, std::int64_t apart, std::int64_t count) {
  const std::int64_t scales = Count == 0 ? count : Count;
  Complex<R> sum = {};
  PhaseTerms<R> found = {};
  for (std::int64_t s = 0; s < scales; ++s) {
    const Complex<R> r = load_point(responses + s * apart);
    const Vec<R> square = r.re * r.re + r.im * r.im, amplitude = roots<R>(square).root;
    if (s == 0) found.finest = square;
    found.amplitude = found.amplitude + amplitude;
    sum = sum + r;
  }
  // E = |S| - Σ |Im(r_s S̄)| / |S|
  const Vec<R> square = sum.re * sum.re + sum.im * sum.im, inverse = roots<R>(square).inverse;
  Vec<R> across = {};
  for (std::int64_t s = 0; s < scales; ++s) {
    const Complex<R> r = load_point(responses + s * apart);
    const Vec<R> turned = r.re * sum.im - r.im * sum.re;
    across = across + (turned < Vec<R>{} ? -turned : turned);
  }
  found.energy = (square - across) * inverse;
  return found;
}

template <class R>
class Features {
 public:
  static constexpr std::int64_t L = kLanes<R>;

  Features(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains, const FsimFeatures& out)
      : reader_(in), phase_(filters), at_(phase_.at), gains_(gains), out_(out) {}

  std::int64_t memory() const {
    return rounded<R>(Plane<R>::values(at_.h, at_.w)) + rounded<R>(at_.spectrum()) +
           rounded<R>(at_.mixed(at_.scales, 0, 0)) + (at_.orientations + 2) * rounded<R>(at_.plane());
  }

  // Image k of all, in memory() values of working memory.
  void image(std::int64_t k, R* memory, int threads) const {
    const auto take = [&memory](std::int64_t values) {
      R* const found = memory;
      memory += rounded<R>(values);
      return found;
    };
    const Plane<R> plane(at_.h, at_.w, take(Plane<R>::values(at_.h, at_.w)));
    const std::int64_t pixels = at_.h * at_.w;
    R* const chroma = out_.chroma == nullptr ? nullptr : static_cast<R*>(out_.chroma) + 2 * k * pixels;
    const double mean = reader_.read(k, plane, chroma, threads);
    scharr(plane, static_cast<R*>(out_.gradient) + k * pixels, threads);

    R *const spectrum = take(at_.spectrum()), *const mixed = take(at_.mixed(at_.scales, 0, 0));
    R *const finest = take(at_.plane()), *const amplitude = take(at_.plane()), *const energy = memory;
    phase_.to_spectrum(plane.first, plane.pitch, R(mean), spectrum, threads);
    std::vector<R> thresholds;
    for (std::int64_t o = 0; o < at_.orientations; ++o) {
      phase_.columns(spectrum, o, at_.scales, mixed, threads);
      with_scales(at_.scales, [&](auto scales) {
        parallel(threads, at_.groups, [&](std::int64_t group) {
          rows<scales>(mixed, group, o == 0, energy + o * rounded<R>(at_.plane()), amplitude, finest);
        });
      });
      const double square = median_square(at_, finest, mixed, threads);
      thresholds.push_back(R(gains_[std::size_t(o)] * std::sqrt(square)));
    }
    if (out_.amplitude != nullptr) put_amplitude(amplitude, static_cast<R*>(out_.amplitude) + k * pixels, threads);
    congruency(thresholds, energy, amplitude, static_cast<R*>(out_.phase) + k * pixels, threads);
  }

 private:
  template <class F>
  static void with_scales(std::int64_t scales, F&& f) {
    if (scales == 4) return f(std::integral_constant<int, 4>{});
    f(std::integral_constant<int, 0>{});
  }

  template <int Scales>
  void rows(const R* mixed, std::int64_t group, bool first, R* energy, R* amplitude, R* finest) const {
    R* const responses = static_cast<R*>(scratch(phase_.response_values(at_.scales) * std::int64_t(sizeof(R))));
    phase_.responses(mixed, group, at_.scales, responses);
    for (std::int64_t v = 0; v < at_.w; ++v) {
      const PhaseTerms<R> found = phase_terms<Scales>(responses + v * kPoint<R>, at_.w * kPoint<R>, at_.scales);
      const std::int64_t to = (group * at_.w + v) * L;
      store<R>(energy + to, found.energy);
      store<R>(finest + to, found.finest);
      store<R>(amplitude + to, first ? found.amplitude : load(amplitude + to) + found.amplitude);
    }
  }

  void put_amplitude(const R* amplitude, R* out, int threads) const {
    parallel(threads, at_.groups, [&](std::int64_t group) {
      for (std::int64_t v = 0; v < at_.w; v += L) {
        Vec<R> block[L];
        for (std::int64_t i = 0; i < L; ++i)
          block[i] = load(amplitude + (group * at_.w + std::min(v + i, at_.w - 1)) * L);
        at_.to_rows(block, group, v, out);
      }
    });
  }

  void congruency(const std::vector<R>& thresholds, const R* energy, const R* amplitude, R* out, int threads) const {
    const R tiny = R(kEpsilon);
    parallel(threads, at_.groups, [&](std::int64_t group) {
      for (std::int64_t v = 0; v < at_.w; v += L) {
        Vec<R> block[L];
        for (std::int64_t i = 0; i < L; ++i) {
          const std::int64_t from = (group * at_.w + std::min(v + i, at_.w - 1)) * L;
          Vec<R> sum = {};
          for (std::size_t o = 0; o < thresholds.size(); ++o) {
            const Vec<R> above = load(energy + std::int64_t(o) * rounded<R>(at_.plane()) + from) - thresholds[o];
            sum = sum + not_negative<R>(above);
          }
          block[i] = (sum + tiny) / (load(amplitude + from) + tiny);
        }
        at_.to_rows(block, group, v, out);
      }
    });
  }

  const PlaneReader<R> reader_;
  const Phase<R> phase_;
  const Layout<R>& at_;
  const std::vector<double>& gains_;
  const FsimFeatures& out_;
};

template <class R>
void features(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains, int threads,
              const FsimFeatures& out) {
  const Features<R> all(in, filters, gains, out);
  over_images<R>(std::int64_t(in.images.size()) * in.shape.n, all.memory(), threads,
                 [&](std::int64_t k, R* memory, int each) { all.image(k, memory, each); });
}

}  // namespace

void fsim_features(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains, int threads,
                   const FsimFeatures& out) {
  if (filters.doubled) {
    features<double>(in, filters, gains, threads, out);
  } else {
    features<float>(in, filters, gains, threads, out);
  }
}

}  // namespace semnr

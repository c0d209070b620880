// The gradient of phase congruency and of the Scharr modulus. Responses are computed again, one orientation at a time;
// their derivatives go back the way the image came: over v, over u, through the same filters (which are real, so their
// own adjoints), added up in one spectrum, and through one inverse transform.
#include <cmath>

#include "memory.hpp"
#include "phase.hpp"
#include "plane.hpp"

namespace semnr {
namespace {

using R = double;

class Backward : public Phase<R> {
 public:
  Backward(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains,
           const FsimDerivatives& d)
      : Phase<R>(filters), reader_(in), gains_(gains), d_(d) {}

  std::int64_t memory() const {
    return 3 * rounded<R>(Plane<R>::values(at.h, at.w)) + 2 * rounded<R>(at.spectrum()) +
           rounded<R>(at.mixed(at.scales, 0, 0)) + 4 * rounded<R>(at.plane());
  }

  // Image k of all, in memory() values of working memory.
  void image(std::int64_t k, R* memory, int threads) const {
    const auto take = [&memory](std::int64_t values) {
      R* const found = memory;
      memory += rounded<R>(values);
      return found;
    };
    const auto take_plane = [&] { return Plane<R>(at.h, at.w, take(Plane<R>::values(at.h, at.w))); };
    const Plane<R> plane = take_plane(), across = take_plane(), down = take_plane();
    R *const spectrum = take(at.spectrum()), *const derivative = take(at.spectrum());
    R *const mixed = take(at.mixed(at.scales, 0, 0)), *const by_energy = take(at.plane()),
             *const by_amplitude = take(at.plane());
    R *const finest = take(at.plane()), *const room = take(at.plane());
    const std::int64_t pixels = at.h * at.w;
    R* const out = d_.out + k * pixels;
    to_spectrum(plane.first, plane.pitch, R(reader_.read(k, plane, nullptr, threads)), spectrum, threads);
    upstream(k, by_energy, by_amplitude, threads);
    std::fill_n(derivative, at.spectrum(), R(0));
    for (std::int64_t o = 0; o < at.orientations; ++o) {
      columns(spectrum, o, at.scales, mixed, threads);
      orientation(o, by_energy, by_amplitude, mixed, finest, room, threads);
      gather(o, mixed, derivative, threads);
    }
    invert(derivative, mixed, out, threads);
    add_scharr(plane, across, down, d_.by_gradient + k * pixels, out, threads);
  }

 private:
  // PC = (Σ max(E - t, 0) + ε) / (A + ε): derivatives by the E above their t, and by A, in lane layout.
  void upstream(std::int64_t k, R* by_energy, R* by_amplitude, int threads) const {
    const std::int64_t first = k * at.h * at.w;
    parallel(threads, at.groups, [&](std::int64_t group) {
      for (std::int64_t v = 0; v < at.w; v += L) {
        Vec<R> pc[L], a[L], g[L];
        at.to_lanes(d_.phase + first, group, v, pc);
        at.to_lanes(d_.amplitude + first, group, v, a);
        at.to_lanes(d_.by_phase + first, group, v, g);
        for (std::int64_t i = 0; i < std::min(L, at.w - v); ++i) {
          const std::int64_t to = (group * at.w + v + i) * L;
          const Vec<R> each = g[i] / (a[i] + kEpsilon);
          store<R>(by_energy + to, each);
          store<R>(by_amplitude + to, -each * pc[i]);
        }
      }
    });
  }

  // From the filtered spectra in `mixed` to the derivatives by the responses, transformed over v, in the same places.
  void orientation(std::int64_t o, const R* by_energy, const R* by_amplitude, R* mixed, R* finest, R* room,
                   int threads) const {
    const std::int64_t size = at.scales * at.w * kPoint<R>;
    parallel(threads, at.groups, [&](std::int64_t group) {
      R* const response = static_cast<R*>(scratch(response_values(1) * std::int64_t(sizeof(R))));
      responses(mixed, group, 1, response);
      for (std::int64_t v = 0; v < at.w; ++v) {
        const Complex<R> r = load_point(response + v * kPoint<R>);
        store<R>(finest + (group * at.w + v) * L, r.re * r.re + r.im * r.im);
      }
    });
    const R square = median_square(at, finest, room, threads), gain = gains_[std::size_t(o)];
    Median median = place_of(square, finest);
    std::vector<double> energies(std::size_t(at.groups), 0.0);
    parallel(threads, at.groups, [&](std::int64_t group) {
      R* const found = static_cast<R*>(scratch((response_values(at.scales) + size) * std::int64_t(sizeof(R))));
      R *const work = found + size, *const derived = found + response_values(at.scales);
      responses(mixed, group, at.scales, found);
      if (group == median.group) {
        median.im = found[median.column * kPoint<R> + median.lane];
        median.re = found[median.column * kPoint<R> + L + median.lane];
      }
      double energy = 0;
      for (std::int64_t v = 0; v < at.w; ++v) {
        const std::int64_t place = (group * at.w + v) * L;
        energy += column(found + v * kPoint<R>, gain * std::sqrt(square), load(by_energy + place),
                         load(by_amplitude + place), derived + v * kPoint<R>);
      }
      energies[std::size_t(group)] = energy;
      for (std::int64_t s = 0; s < at.scales; ++s) {
        const R* const from = derived + s * at.w * kPoint<R>;
        rows_.run(found, work, Points<R>{from});
        R *const front = mixed + at.mixed(s, group, 0), *const back = mixed + at.mixed(s, group, 1);
        for (std::int64_t v = 0; v < at.strips * L; ++v) {
          Complex<R> here = {}, other = {};
          if (v < at.half) here = load_point(found + v * kPoint<R>);
          if (at.has_back(v)) other = load_point(found + (at.w - v) * kPoint<R>);
          store_point(front + v * kPoint<R>, here);
          store_point<R>(back + v * kPoint<R>, {other.re, -other.im});
        }
      }
    });
    double total = 0;
    for (const double energy : energies) total += energy;
    if (square > 0) add_median(median, -total * gain / std::sqrt(square), mixed);
  }

  // The response whose amplitude is the median.
  struct Median {
    std::int64_t group, column, lane;
    R re, im;
  };

  Median place_of(R square, const R* finest) const {
    const std::int64_t place = std::find(finest, finest + at.plane() - 1, square) - finest;
    return {place / (at.w * L), place / L % at.w, place % L, 0, 0};
  }

  // Its derivative, `by` times itself, is one pixel's: added to its row of `mixed`, which is transformed over v.
  void add_median(const Median& m, R by, R* mixed) const {
    R *const front = mixed + at.mixed(0, m.group, 0) + m.lane, *const back = mixed + at.mixed(0, m.group, 1) + m.lane;
    const R re = by * m.re, im = by * m.im;
    for (std::int64_t v = 0; v < at.half; ++v) {
      const R turn = 2 * kPi * R(v * m.column % at.w) / R(at.w), c = std::cos(turn), s = std::sin(turn);
      front[v * kPoint<R>] += re * c + im * s;
      front[v * kPoint<R> + L] += im * c - re * s;
      if (!at.has_back(v)) continue;  // the conjugate, at -v
      back[v * kPoint<R>] += re * c - im * s;
      back[v * kPoint<R> + L] -= im * c + re * s;
    }
  }

  // At one column of a group: derivatives by the responses, re and im in this order. Returns the derivative by the
  // energy, summed over the rows.
  double column(const R* responses, R threshold, Vec<R> by_energy, Vec<R> by_amplitude, R* out) const {
    const std::int64_t apart = at.w * kPoint<R>;
    const Vec<R> zero = {}, one = splat<R>(1);
    Complex<R> sum = {};
    for (std::int64_t s = 0; s < at.scales; ++s) sum = sum + load_point(responses + s * apart);
    const Vec<R> square = sum.re * sum.re + sum.im * sum.im, inverse = roots<R>(square).inverse;
    Vec<R> across = {};
    Complex<R> signed_sum = {};
    for (std::int64_t s = 0; s < at.scales; ++s) {
      const Complex<R> r = load_point(responses + s * apart);
      const Vec<R> turned = r.re * sum.im - r.im * sum.re;
      const Vec<R> sign = turned > zero ? one : turned < zero ? -one : zero;
      across = across + turned * sign;
      signed_sum = {signed_sum.re + sign * r.re, signed_sum.im + sign * r.im};
    }
    const Vec<R> energy = (square - across) * inverse;
    const Vec<R> by = energy > threshold ? by_energy : energy != energy ? energy : zero;
    const Vec<R> each = by * inverse, along = each * (1 + across * inverse * inverse);
    const Complex<R> common = {along * sum.re + each * signed_sum.im, along * sum.im - each * signed_sum.re};
    for (std::int64_t s = 0; s < at.scales; ++s) {
      const Complex<R> r = load_point(responses + s * apart);
      const Vec<R> turned = r.re * sum.im - r.im * sum.re;
      const Vec<R> sign = turned > zero ? one : turned < zero ? -one : zero;
      const Vec<R> amplitude = by_amplitude * roots<R>(r.re * r.re + r.im * r.im).inverse;
      // the responses' part 0 is the imaginary one
      store_point<R>(out + s * apart, {common.im + each * sign * sum.re + amplitude * r.im,
                                       common.re - each * sign * sum.im + amplitude * r.re});
    }
    return semnr::sum<double>(widened_sum(by));
  }

  // Transforms `mixed` over u and adds it, filtered, to the derivative by the spectrum. Columns that stand for two get
  // half of each, the others the front alone.
  void gather(std::int64_t o, const R* mixed, R* derivative, int threads) const {
    parallel(threads, at.strips, [&](std::int64_t strip) {
      R* const lines = static_cast<R*>(scratch((2 * at.strip() + columns_.work()) * std::int64_t(sizeof(R))));
      R *const data = lines + at.strip(), *const to = derivative + strip * at.strip();
      Vec<R> share = {};
      for (std::int64_t i = 0; i < L; ++i) share[i] = at.has_back(strip * L + i) ? R(0.5) : R(1);
      for (std::int64_t s = 0; s < at.scales; ++s) {
        for (int side = 0; side < 2; ++side) {
          if (side == 1 && strip * L > (at.w - 1) / 2) break;
          for (std::int64_t group = 0; group < at.groups; ++group) {
            for (int part = 0; part < 2; ++part) {
              const R* const from = mixed + at.mixed(s, group, side) + strip * L * kPoint<R> + part * L;
              Vec<R> block[L];
              for (std::int64_t i = 0; i < L; ++i) block[i] = load(from + i * kPoint<R>);
              put_rows(block, group, part, lines);
            }
          }
          columns_.run(data, data + at.strip(), Points<R>{lines});
          const R *const angular = table_ + at.angular(o, side, strip), *const radial = table_ + at.radial(s, strip);
          for (std::int64_t u = 0; u < at.h; ++u) {
            const Vec<R> value = share * load(angular + u * L) * load(radial + std::min(u, at.h - u) * L);
            const Complex<R> sum = load_point(to + u * kPoint<R>), more = load_point(data + u * kPoint<R>);
            store_point<R>(to + u * kPoint<R>, {sum.re + value * more.re, sum.im + value * more.im});
          }
        }
      }
    });
  }

  // The real image whose spectrum's columns 0 .. w / 2 are given (of columns 0 and w / 2 the part that makes it real).
  void invert(const R* spectrum, R* mixed, R* out, int threads) const {
    parallel(threads, at.strips, [&](std::int64_t strip) {
      R* const data = static_cast<R*>(scratch((at.strip() + columns_.work()) * std::int64_t(sizeof(R))));
      const R* const from = spectrum + strip * at.strip();
      columns_.run(data, data + at.strip(), [&](std::int64_t u) { return swapped(load_point(from + u * kPoint<R>)); });
      put_groups(data, mixed + strip * L * kPoint<R>, at.side());
    });
    // two groups at once, as the real and the imaginary part
    parallel(threads, (at.groups + 1) / 2, [&](std::int64_t pair) {
      R* const data = static_cast<R*>(scratch((at.w * kPoint<R> + rows_.work()) * std::int64_t(sizeof(R))));
      const R *const first = mixed + 2 * pair * at.side(), *const second = first + at.side();
      const bool both = 2 * pair + 1 < at.groups;
      const auto point = [&](const R* group,
                             std::int64_t v) {  // its parts are exchanged
        Complex<R> found = swapped(load_point(group + v * kPoint<R>));
        if (!at.has_back(v)) found.im = Vec<R>{};
        return found;
      };
      rows_.run(data, data + at.w * kPoint<R>, [&](std::int64_t v) {
        const bool upper = v >= at.half;
        Complex<R> a = point(first, upper ? at.w - v : v), b = {};
        if (both) b = point(second, upper ? at.w - v : v);
        if (upper) a.im = -a.im, b.im = -b.im;
        return Complex<R>{a.im + b.re, a.re - b.im};
      });
      for (std::int64_t v = 0; v < at.w; v += L) {
        for (int part = 0; part < (both ? 2 : 1); ++part) {
          Vec<R> block[L];
          for (std::int64_t i = 0; i < L; ++i) {
            block[i] = load(data + std::min(v + i, at.w - 1) * kPoint<R> + (1 - part) * L);
          }
          at.to_rows(block, 2 * pair + part, v, out);
        }
      }
    });
  }

  const PlaneReader<R> reader_;
  const std::vector<double>& gains_;
  const FsimDerivatives& d_;
};

}  // namespace

void fsim_features_backward(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains,
                            int threads, const FsimDerivatives& d) {
  const Backward all(in, filters, gains, d);
  over_images<R>(std::int64_t(in.images.size()) * in.shape.n, all.memory(), threads,
                 [&](std::int64_t k, R* memory, int each) { all.image(k, memory, each); });
}

}  // namespace semnr

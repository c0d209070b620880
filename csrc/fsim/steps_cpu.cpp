// What Phase does, for float32 and float64: the transforms are most of FSIM's time, and of its compilation.
#include "phase.hpp"

namespace semnr {

template <class R>
void Phase<R>::to_spectrum(const R* image, std::int64_t pitch, R mean, R* out, int threads) const {
  parallel(threads, (at.groups + 1) / 2, [&](std::int64_t pair) { two_groups(image, pitch, mean, 2 * pair, out); });
  parallel(threads, at.strips, [&](std::int64_t strip) {
    R* const data = static_cast<R*>(scratch((at.strip() + columns_.work()) * std::int64_t(sizeof(R))));
    R* const to = out + strip * at.strip();
    columns_.run(data, data + at.strip(), Points<R>{to});
    std::copy_n(data, at.strip(), to);
  });
}

template <class R>
void Phase<R>::columns(const R* spectrum, std::int64_t orientation, std::int64_t scales, R* mixed, int threads) const {
  parallel(threads, scales * at.strips, [&](std::int64_t task) {
    const std::int64_t scale = task % scales, strip = task / scales;
    R* const data = static_cast<R*>(scratch((at.strip() + columns_.work()) * std::int64_t(sizeof(R))));
    for (int side = 0; side < 2; ++side) {
      if (side == 1 && strip * L > (at.w - 1) / 2) break;
      const R *from = spectrum + strip * at.strip(), *angular = table_ + at.angular(orientation, side, strip),
              *radial = table_ + at.radial(scale, strip);
      // parts exchanged: what follows is the inverse transform
      columns_.run(data, data + at.strip(), [=, h = at.h](std::int64_t u) {
        const Vec<R> value = load(angular + u * L) * load(radial + std::min(u, h - u) * L);
        const Complex<R> point = load_point(from + u * kPoint<R>);
        return Complex<R>{point.im * value, point.re * value};
      });
      put_groups(data, mixed + at.mixed(scale, 0, side) + strip * L * kPoint<R>, 2 * at.side());
    }
  });
}

template <class R>
void Phase<R>::responses(const R* mixed, std::int64_t group, std::int64_t scales, R* out) const {
  for (std::int64_t s = 0; s < scales; ++s) {
    const R *front = mixed + at.mixed(s, group, 0), *back = mixed + at.mixed(s, group, 1);
    R* const data = out + s * at.w * kPoint<R>;
    rows_.run(data, out + scales * at.w * kPoint<R>, [=, half = at.half, w = at.w](std::int64_t v) {
      if (v < half) return load_point(front + v * kPoint<R>);
      const Complex<R> other = load_point(back + (w - v) * kPoint<R>);
      return Complex<R>{-other.re, other.im};
    });
  }
}

template <class R>
void Phase<R>::two_groups(const R* image, std::int64_t pitch, R mean, std::int64_t group, R* out) const {
  R* const lines = static_cast<R*>(scratch((2 * at.w * kPoint<R> + rows_.work()) * std::int64_t(sizeof(R))));
  R* const data = lines + at.w * kPoint<R>;
  for (std::int64_t v = 0; v < at.w; v += L) {
    for (int part = 0; part < 2; ++part) {
      Vec<R> block[L];
      for (std::int64_t i = 0; i < L; ++i) {
        const std::int64_t u = (group + part) * L + i;
        block[i] = u < at.h ? load(image + u * pitch + v) - mean : Vec<R>{};
      }
      transpose<R>(block);
      for (std::int64_t i = 0; i < std::min(L, at.w - v); ++i)
        store<R>(lines + (v + i) * kPoint<R> + part * L, block[i]);
    }
  }
  rows_.run(data, data + at.w * kPoint<R>, Points<R>{lines});
  for (std::int64_t strip = 0; strip < at.strips; ++strip) {
    Vec<R> first_re[L], first_im[L], second_re[L], second_im[L];
    for (std::int64_t i = 0; i < L; ++i) {
      const std::int64_t v = strip * L + i;
      if (v >= at.half) {
        first_re[i] = first_im[i] = second_re[i] = second_im[i] = Vec<R>{};
        continue;
      }
      const Complex<R> a = load_point(data + v * kPoint<R>), b = load_point(data + (at.w - v) % at.w * kPoint<R>);
      const R half = R(0.5);
      first_re[i] = (a.re + b.re) * half;
      first_im[i] = (a.im - b.im) * half;
      second_re[i] = (a.im + b.im) * half;
      second_im[i] = (b.re - a.re) * half;
    }
    R* const to = out + strip * at.strip();
    put_rows(first_re, group, 0, to);
    put_rows(first_im, group, 1, to);
    put_rows(second_re, group + 1, 0, to);
    put_rows(second_im, group + 1, 1, to);
  }
}

template <class R>
void Phase<R>::put_rows(Vec<R> (&block)[kLanes<R>], std::int64_t group, int part, R* strip) const {
  transpose<R>(block);
  for (std::int64_t i = 0; i < std::min(L, at.h - group * L); ++i) {
    store<R>(strip + (group * L + i) * kPoint<R> + part * L, block[i]);
  }
}

template <class R>
void Phase<R>::put_groups(const R* strip, R* out, std::int64_t group_stride) const {
  for (std::int64_t group = 0; group < at.groups; ++group) {
    if (group + 1 < at.groups) {  // the next place is out of reach of the processor's own guesses
      for (std::int64_t i = 0; i < 2 * L; ++i) __builtin_prefetch(out + group_stride + i * L, 1, 2);
    }
    for (int part = 0; part < 2; ++part) {
      Vec<R> block[L];
      for (std::int64_t i = 0; i < L; ++i) {
        const std::int64_t u = group * L + i;
        block[i] = u < at.h ? load(strip + u * kPoint<R> + part * L) : Vec<R>{};
      }
      transpose<R>(block);
      for (std::int64_t i = 0; i < L; ++i) store<R>(out + i * kPoint<R> + part * L, block[i]);
    }
    out += group_stride;
  }
}

template class Phase<float>;
template class Phase<double>;

}  // namespace semnr

// Discrete Fourier transforms of as many sequences as a vector has lanes, side by side, of any length.
//
// A point is two vectors, the real parts and the imaginary parts: data[(2 k + part) · lanes + lane]. The caller hands
// in a function from k to point k, which the first stage calls (decimation in time: no pass that only moves data);
// points come out in their order. The inverse is the same transform with the two parts exchanged on the way in and out;
// nothing is scaled.
//
// Lengths go into radices 8, 4, 2 and odd primes; a length with a prime above kLargestRadix becomes a convolution with
// a chirp at a smooth length (Bluestein 1970).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "../simd.hpp"
#include "fsim_math.hpp"

namespace semnr {

template <class R>
constexpr std::int64_t kPoint = 2 * kLanes<R>;

template <class R>
struct Complex {
  Vec<R> re, im;
};
template <class R>
inline Complex<R> operator+(const Complex<R>& a, const Complex<R>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <class R>
inline Complex<R> operator-(const Complex<R>& a, const Complex<R>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <class R>
inline Complex<R> times(const Complex<R>& a, R re, R im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}
template <class R>
inline Complex<R> times_minus_i(const Complex<R>& a) {
  return {a.im, -a.re};
}
template <class R>
inline Complex<R> swapped(const Complex<R>& a) {
  return {a.im, a.re};
}
template <class R>
inline Complex<R> load_point(const R* at) {
  return {load(at), load(at + kLanes<R>)};
}
template <class R>
inline void store_point(R* at, const Complex<R>& v) {
  store<R>(at, v.re);
  store<R>(at + kLanes<R>, v.im);
}

// The usual input: points that lie one after the other.
template <class R>
struct Points {
  const R* from;
  Complex<R> operator()(std::int64_t k) const { return load_point(from + k * kPoint<R>); }
};

// 2, 4 or 8 points, in place, in their order.
template <int P, class R>
[[gnu::always_inline]] inline void small_transform(Complex<R>* a) {
  if constexpr (P == 2) {
    const Complex<R> b = a[1];
    a[1] = a[0] - b;
    a[0] = a[0] + b;
  } else if constexpr (P == 4) {
    const Complex<R> even = a[0] + a[2], odd = a[1] + a[3], apart = a[0] - a[2], turned = times_minus_i(a[1] - a[3]);
    a[0] = even + odd;
    a[1] = apart + turned;
    a[2] = even - odd;
    a[3] = apart - turned;
  } else if constexpr (P == 8) {
    Complex<R> even[4] = {a[0], a[2], a[4], a[6]}, odd[4] = {a[1], a[3], a[5], a[7]};
    small_transform<4>(even);
    small_transform<4>(odd);
    const R half = R(0.70710678118654752440);
    odd[1] = {(odd[1].re + odd[1].im) * half, (odd[1].im - odd[1].re) * half};
    odd[2] = times_minus_i(odd[2]);
    odd[3] = {(odd[3].im - odd[3].re) * half, (odd[3].re + odd[3].im) * -half};
    for (int k = 0; k < 4; ++k) {
      a[k] = even[k] + odd[k];
      a[k + 4] = even[k] - odd[k];
    }
  }
}

// An odd number of points, P or where that is 0 `any`; `wave` holds cos and -sin of 2πk / p. Points k and p - k share
// their products.
template <int P, class R>
[[gnu::always_inline]] inline void odd_transform(Complex<R>* a, int any, const R* wave) {
  constexpr int kMost = P == 0 ? 24 : P / 2 + 1;
  const int p = P == 0 ? any : P;
  Complex<R> sum[kMost], apart[kMost];
  const Complex<R> first = a[0];
  for (int k = 1; k <= p / 2; ++k) {
    sum[k] = a[k] + a[p - k];
    apart[k] = a[k] - a[p - k];
    a[0] = a[0] + sum[k];
  }
  for (int t = 1; t <= p / 2; ++t) {
    Complex<R> even = first, odd = {};
    for (int k = 1; k <= p / 2; ++k) {
      const R cosine = wave[2 * (k * t % p)], sine = wave[2 * (k * t % p) + 1];
      even = {even.re + sum[k].re * cosine, even.im + sum[k].im * cosine};
      odd = {odd.re - apart[k].im * sine, odd.im + apart[k].re * sine};
    }
    a[t] = even + odd;
    a[p - t] = even - odd;
  }
}

template <class R>
class Fourier {
 public:
  static constexpr std::int64_t kLargestRadix = 43, kTogether = 64;

  explicit Fourier(std::int64_t n) : n_(n) {
    if (largest_prime(n) > kLargestRadix) {
      make_chirp();
    } else {
      make_stages();
    }
  }

  // Values of working memory that `run` needs beside the data.
  std::int64_t work() const { return smooth_ == nullptr ? 0 : 2 * smooth_->n_ * kPoint<R>; }

  // input(k): point k, a Complex<R>; copied, so it captures by value what it reads in a loop. It must not read `data`.
  template <class Input>
  void run(R* data, R* work, Input input) const {
    if (smooth_ == nullptr) {
      run_stages(data, input);
    } else {
      run_chirp(data, work, input);
    }
  }

 private:
  struct Stage {
    int radix;
    std::int64_t stride;
    std::size_t twiddles, wave;  // where they start in factors_
  };

  static std::int64_t largest_prime(std::int64_t n) {
    std::int64_t largest = 1;
    for (std::int64_t p = 2; p * p <= n; ++p) {
      for (; n % p == 0; n /= p) largest = p;
    }
    return std::max(largest, n);
  }

  // A power of two times 1, 3, 5, 9 or 15.
  static bool few_odd_factors(std::int64_t n) {
    while (n % 2 == 0) n /= 2;
    return n == 1 || n == 3 || n == 5 || n == 9 || n == 15;
  }

  void make_stages() {
    std::int64_t rest = n_, size = 1;
    while (rest > 1) {
      // 8 · 2 is slower than 4 · 4
      int radix = rest % 8 == 0 && rest != 16 ? 8 : rest % 4 == 0 ? 4 : rest % 2 == 0 ? 2 : 3;
      while (rest % radix != 0) radix += 2;
      rest /= radix;
      Stage stage{radix, size, factors_.size(), 0};
      size *= radix;
      for (std::int64_t j = 0; j < stage.stride; ++j) {
        for (int r = 1; r < radix; ++r) push(double(r * j) / double(size));
      }
      stage.wave = factors_.size();
      for (int k = 0; k < radix; ++k) push(double(k) / radix);
      stages_.push_back(stage);
    }
    // where the first stage's group of points k, k + n / radix, ... lies
    const std::int64_t groups = stages_.empty() ? 0 : n_ / stages_[0].radix;
    for (std::int64_t k = 0; k < groups; ++k) {
      std::int64_t at = 0, digits = k;
      for (std::size_t s = stages_.size(); s-- > 1;) {
        at += digits % stages_[s].radix * stages_[s].stride;
        digits /= stages_[s].radix;
      }
      group_.push_back(at);
    }
  }

  void push(double turns) {
    factors_.push_back(R(std::cos(2 * kPi * turns)));
    factors_.push_back(R(-std::sin(2 * kPi * turns)));
  }

  template <class Input>
  void run_stages(R* data, Input input) const {
    if (stages_.empty()) {
      store_point(data, input(0));
    } else {
      run_part(data, stages_.size(), n_, 0, 1, input);
    }
  }

  // The stages 1 .. depth of `size` points: those that the input's points first, first + step, ... make. Depth first: a
  // few points go through several stages while they are in the first cache.
  template <class Input>
  void run_part(R* data, std::size_t depth, std::int64_t size, std::int64_t first, std::int64_t step,
                Input input) const {
    const Stage& last = stages_[depth - 1];
    if (depth > 1 && size > kTogether) {
      R* part = data;
      for (int r = 0; r < last.radix; ++r, part += last.stride * kPoint<R>) {
        run_part(part, depth - 1, last.stride, first + r * step, step * last.radix, input);
      }
      run_stage(last, data, size);
      return;
    }
    first_stage(data, size, first, step, input);
    for (std::size_t d = 1; d < depth; ++d) run_stage(stages_[d], data, size);
  }

  void run_stage(const Stage& s, R* data, std::int64_t size) const {
    with_radix(s.radix, [&](auto radix) {
      for (std::int64_t base = 0; base < size; base += s.stride * s.radix)
        butterflies<radix>(data + base * kPoint<R>, s);
    });
  }

  // 0: any other odd one
  template <class F>
  static void with_radix(int radix, F&& f) {
    switch (radix) {
      case 2:
        return f(std::integral_constant<int, 2>{});
      case 4:
        return f(std::integral_constant<int, 4>{});
      case 8:
        return f(std::integral_constant<int, 8>{});
      case 3:
        return f(std::integral_constant<int, 3>{});
      case 5:
        return f(std::integral_constant<int, 5>{});
      case 7:
        return f(std::integral_constant<int, 7>{});
      default:
        return f(std::integral_constant<int, 0>{});
    }
  }

  template <int P>
  [[gnu::always_inline]] void transform(Complex<R>* a, const Stage& s) const {
    if constexpr (P % 2 != 0 || P == 0) {
      odd_transform<P>(a, s.radix, factors_.data() + s.wave);
    } else {
      small_transform<P>(a);
    }
  }

  template <class Input>
  void first_stage(R* data, std::int64_t size, std::int64_t first, std::int64_t step, Input input) const {
    switch (stages_[0].radix) {
      case 2:
        return first_stage_of<2>(data, size, first, step, input);
      case 4:
        return first_stage_of<4>(data, size, first, step, input);
      case 8:
        return first_stage_of<8>(data, size, first, step, input);
      default:  // odd lengths alone: their points go into their places first
        first_stage_of<0>(data, size, first, step, input);
        run_stage(stages_[0], data, size);
    }
  }

  // 0: any radix, points are only put into their places.
  template <int P, class Input>
  void first_stage_of(R* data, std::int64_t size, std::int64_t first, std::int64_t step, Input input) const {
    const int p = P == 0 ? stages_[0].radix : P;
    const std::int64_t apart = n_ / p, origin = group_[std::size_t(first)];
    for (std::int64_t k = first; k < first + size / p * step; k += step) {
      R* const at = data + (group_[std::size_t(k)] - origin) * kPoint<R>;
      if constexpr (P == 0) {
        for (int r = 0; r < p; ++r) store_point(at + r * kPoint<R>, input(k + r * apart));
      } else {
        Complex<R> a[P];
        for (int r = 0; r < P; ++r) a[r] = input(k + r * apart);
        small_transform<P>(a);
        for (int r = 0; r < P; ++r) store_point(at + r * kPoint<R>, a[r]);
      }
    }
  }

  template <int P>
  void butterflies(R* at, const Stage& s) const {
    const int p = P == 0 ? s.radix : P;
    const R* w = factors_.data() + s.twiddles;
    const std::int64_t step = s.stride * kPoint<R>;
    Complex<R> a[P == 0 ? kLargestRadix : P];
    for (std::int64_t j = 0; j < s.stride; ++j, at += kPoint<R>, w += 2 * (p - 1)) {
      a[0] = load_point(at);
      for (int r = 1; r < p; ++r) a[r] = times(load_point(at + r * step), w[2 * r - 2], w[2 * r - 1]);
      transform<P>(a, s);
      for (int r = 0; r < p; ++r) store_point(at + r * step, a[r]);
    }
  }

  void make_chirp() {
    std::int64_t m = 2 * n_ - 1;
    while (!few_odd_factors(m)) ++m;
    smooth_ = std::make_unique<Fourier>(m);
    std::vector<R> chirp(std::size_t(m * kPoint<R>), R(0)), data(std::size_t(m * kPoint<R>));
    for (std::int64_t k = 0; k < n_; ++k) {
      push(double(k * k % (2 * n_)) / double(2 * n_));
      for (const std::int64_t at : {k, (m - k) % m}) {
        for (int part = 0; part < 2; ++part) {
          const R factor = factors_[std::size_t(2 * k + part)];
          store<R>(chirp.data() + at * kPoint<R> + part * kLanes<R>, splat<R>(part == 0 ? factor : -factor));
        }
      }
    }
    smooth_->run_stages(data.data(), Points<R>{chirp.data()});
    for (std::int64_t k = 0; k < 2 * m; ++k) spectrum_.push_back(data[std::size_t(k * kLanes<R>)] / R(m));
  }

  // Each kind of input is compiled into first stages of its own: here it goes to working memory first, as points.
  template <class Input>
  void run_chirp(R* data, R* work, Input input) const {
    R* const chirped = work + smooth_->n_ * kPoint<R>;
    const R* const factor = factors_.data();
    for (std::int64_t k = 0; k < n_; ++k) {
      store_point(chirped + k * kPoint<R>, times(input(k), factor[2 * k], factor[2 * k + 1]));
    }
    convolve(data, work, chirped);
  }

  void convolve(R* data, R* one, R* other) const {
    const std::int64_t m = smooth_->n_;
    const R *const factor = factors_.data(), *const filter = spectrum_.data();
    std::fill(other + n_ * kPoint<R>, other + m * kPoint<R>, R(0));
    smooth_->run_stages(one, Points<R>{other});
    for (std::int64_t k = 0; k < m; ++k) {
      const Complex<R> point = load_point(one + k * kPoint<R>);
      store_point(one + k * kPoint<R>, swapped(times(point, filter[2 * k], filter[2 * k + 1])));
    }
    smooth_->run_stages(other, Points<R>{one});
    for (std::int64_t k = 0; k < n_; ++k) {
      const Complex<R> point = swapped(load_point(other + k * kPoint<R>));
      store_point(data + k * kPoint<R>, times(point, factor[2 * k], factor[2 * k + 1]));
    }
  }

  std::int64_t n_;
  std::vector<Stage> stages_;
  std::vector<std::int64_t> group_;
  std::vector<R> factors_;           // the stages' twiddles and waves, or the chirp
  std::vector<R> spectrum_;          // of the chirp's conjugate, over its length
  std::unique_ptr<Fourier> smooth_;  // of a smooth length, where n_ is not
};

}  // namespace semnr

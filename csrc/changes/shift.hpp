// The peak of a cross-correlation: whole pixels, then Newton's steps on the phase of its spectrum.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "spectra.hpp"

namespace semnr {

class Shift {
 public:
  static constexpr std::int64_t L = kLanes<float>;
  static constexpr std::int64_t kReach = 8;  // px: a denoiser that moves the image further is no denoiser

  // cross: a spectrum's points, block by block, each of `rows` points.
  Shift(const PlaneTransform<float>& t, const float* cross, double inflation) : t_(t), cross_(cross) {
    for (std::int64_t y = 0; y < t.rows; ++y)
      turn_.push_back(2 * kPi * double(y <= (t.rows - 1) / 2 ? y : y - t.rows) / double(t.rows));
    whole_pixels();
    newton(inflation);
  }

  double delta[2];    // down, right
  double hessian[3];  // yy, yx, xx
  double spread[3];

 private:
  static constexpr std::int64_t kSide = 2 * kReach + 1;

  Complex<float> point(std::int64_t block, std::int64_t y) const {
    return load_point(cross_ + (block * t_.rows + y) * kPoint<float>);
  }

  void whole_pixels() {
    std::vector<double> sums(std::size_t(kSide * kSide), 0.0);
    std::vector<float> cosine(static_cast<std::size_t>(t_.rows)), sine(static_cast<std::size_t>(t_.rows));
    std::array<std::vector<std::complex<double>>, kSide> along;  // transformed down, by columns
    for (auto& line : along) line.assign(std::size_t(t_.blocks * L), 0.0);
    for (std::int64_t down = 0; down <= kReach; ++down) {
      for (std::int64_t y = 0; y < t_.rows; ++y) {
        const double angle = 2 * kPi * double(y * down % t_.rows) / double(t_.rows);
        cosine[std::size_t(y)] = float(std::cos(angle));
        sine[std::size_t(y)] = float(std::sin(angle));
      }
      for (std::int64_t block = 0; block < t_.blocks; ++block) {
        Complex<float> even = {}, odd = {};
        for (std::int64_t y = 0; y < t_.rows; ++y) {
          const Complex<float> c = point(block, y);
          even = {even.re + cosine[std::size_t(y)] * c.re, even.im + cosine[std::size_t(y)] * c.im};
          odd = {odd.re + sine[std::size_t(y)] * c.re, odd.im + sine[std::size_t(y)] * c.im};
        }
        for (std::int64_t i = 0; i < L; ++i) {
          const std::complex<double> a(even.re[i], even.im[i]), b(-odd.im[i], odd.re[i]);  // b: i times the odd part
          along[std::size_t(kReach + down)][std::size_t(block * L + i)] = a + b;
          along[std::size_t(kReach - down)][std::size_t(block * L + i)] = a - b;
        }
      }
    }
    for (std::int64_t x = 0; x < kSide; ++x) {
      for (std::int64_t k = 0; k < t_.half; ++k) {
        const double once = k == 0 || 2 * k == t_.columns ? 1 : 2;
        const std::complex<double> w = wave(k * (x - kReach));
        for (std::int64_t y = 0; y < kSide; ++y) {
          const std::complex<double> v = along[std::size_t(y)][std::size_t(k)];
          sums[std::size_t(y * kSide + x)] += once * (v.real() * w.real() - v.imag() * w.imag());
        }
      }
    }
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t y = 0; y < kSide; ++y) {
      for (std::int64_t x = 0; x < kSide; ++x) {
        if (sums[std::size_t(y * kSide + x)] > largest) {
          largest = sums[std::size_t(y * kSide + x)];
          delta[0] = double(y - kReach);
          delta[1] = double(x - kReach);
        }
      }
    }
  }

  std::complex<double> wave(std::int64_t turns) {
    if (waves_.empty()) {
      for (std::int64_t k = 0; k < t_.columns; ++k)
        waves_.push_back(std::polar(1.0, 2 * kPi * double(k) / double(t_.columns)));
    }
    return waves_[std::size_t((turns % t_.columns + t_.columns) % t_.columns)];
  }

  // The spectrum turned by the shift, and what a block's columns add to sums.
  struct Phases {
    std::vector<float> down_re, down_im;
    std::vector<std::complex<double>> right;
  };
  Phases phases() const {
    Phases found;
    for (std::int64_t y = 0; y < t_.rows; ++y) {
      found.down_re.push_back(float(std::cos(turn_[std::size_t(y)] * delta[0])));
      found.down_im.push_back(float(std::sin(turn_[std::size_t(y)] * delta[0])));
    }
    for (std::int64_t x = 0; x < t_.half; ++x) found.right.push_back(std::polar(1.0, right(x) * delta[1]));
    return found;
  }
  double right(std::int64_t x) const { return 2 * kPi * double(x) / double(t_.columns); }
  double once(std::int64_t x) const { return x == 0 || 2 * x == t_.columns ? 1 : 2; }

  void newton(double inflation) {
    Phases last;
    for (int turn = 0; turn < 6; ++turn) {
      last = phases();
      double score[2] = {0, 0}, h[3] = {0, 0, 0};
      for (std::int64_t block = 0; block < t_.blocks; ++block) sums_of(last, block, score, h);
      std::copy_n(h, 3, hessian);
      const double determinant = h[0] * h[2] - h[1] * h[1], trace = std::max(h[0] + h[2], 1e-300);
      if (!(determinant > 1e-9 * trace * trace)) break;
      const double step[2] = {-(h[2] * score[0] - h[1] * score[1]) / determinant,
                              -(h[0] * score[1] - h[1] * score[0]) / determinant};
      for (int i = 0; i < 2; ++i) delta[i] += std::min(std::max(step[i], -0.5), 0.5);
      if (std::max(std::abs(step[0]), std::abs(step[1])) < 1e-4) break;
    }
    std::fill_n(spread, 3, 0.0);
    for (std::int64_t block = 0; block < t_.blocks; ++block) add_spread(last, block, inflation);
  }

  void sums_of(const Phases& p, std::int64_t block, double* score, double* h) const {
    Complex<float> sums[3] = {};  // of the turned spectrum times 1, the turn down, its square
    for (std::int64_t y = 0; y < t_.rows; ++y) {
      const Complex<float> v = times(point(block, y), p.down_re[std::size_t(y)], p.down_im[std::size_t(y)]);
      const float w = float(turn_[std::size_t(y)]);
      sums[0] = sums[0] + v;
      sums[1] = {sums[1].re + w * v.re, sums[1].im + w * v.im};
      sums[2] = {sums[2].re + w * w * v.re, sums[2].im + w * w * v.im};
    }
    for (std::int64_t i = 0; i < std::min(L, t_.half - block * L); ++i) {
      const std::int64_t x = block * L + i;
      const auto turned = [&](int k) {
        return std::complex<double>(sums[k].re[i], sums[k].im[i]) * p.right[std::size_t(x)] * once(x);
      };
      const std::complex<double> zero = turned(0), first = turned(1), second = turned(2);
      const double w = right(x);
      score[0] += first.imag();
      score[1] += w * zero.imag();
      h[0] += second.real();
      h[1] += w * first.real();
      h[2] += w * w * zero.real();
    }
  }

  void add_spread(const Phases& p, std::int64_t block, double inflation) {
    Vec<float> re = {}, im = {}, sums[3] = {};
    for (std::int64_t i = 0; i < std::min(L, t_.half - block * L); ++i) {
      re[i] = float(p.right[std::size_t(block * L + i)].real() * once(block * L + i));
      im[i] = float(p.right[std::size_t(block * L + i)].imag() * once(block * L + i));
    }
    for (std::int64_t y = 0; y < t_.rows; ++y) {
      const Complex<float> v = times(point(block, y), p.down_re[std::size_t(y)], p.down_im[std::size_t(y)]);
      const Vec<float> turned = v.re * im + v.im * re, square = turned * turned;
      const float w = float(turn_[std::size_t(y)]);
      sums[0] += square;
      sums[1] += w * square;
      sums[2] += w * w * square;
    }
    for (std::int64_t i = 0; i < std::min(L, t_.half - block * L); ++i) {
      const double w = right(block * L + i);
      spread[0] += inflation * double(sums[2][i]);
      spread[1] += inflation * w * double(sums[1][i]);
      spread[2] += inflation * w * w * double(sums[0][i]);
    }
  }

  const PlaneTransform<float>& t_;
  const float* const cross_;
  std::vector<double> turn_;
  std::vector<std::complex<double>> waves_;
};

}  // namespace semnr

// Where an image lies against another: the peak of their cross-correlation at half their resolution, then at whole
// pixels around it, then of a parabola.
#pragma once
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "../evidence/transform.hpp"
#include "likeness_cpu.hpp"
#include "lines.hpp"

namespace semnr {

struct Place {
  double down, right;
  bool sure;
};

class Placing {
 public:
  static constexpr std::int64_t L = kLanes<float>;

  explicit Placing(const LikenessPlan& plan)
      : plan_(plan),
        transform(std::int64_t(plan.taper_down.size()), std::int64_t(plan.taper_right.size())),
        taper_(plan.taper_right) {
    taper_.resize(std::size_t(transform.pitch), 0.0f);
    for (int i = 0; i < 2; ++i) {
      right_[i] = plan.band.right[i];
      right_[i].resize(std::size_t(transform.blocks * L), 0.0f);
    }
  }

  std::int64_t values() const {
    return 2 * transform.spectrum() + cross_values() + transform.lines() + transform.work();
  }

  // `from` and `to` are image k of their planes, times their scales.
  Place find(const Planes& from, float from_scale, const Planes& to, float to_scale, std::int64_t k,
             float* memory) const {
    const PlaneTransform<float>& t = transform;
    float *const a = memory, *const b = a + t.spectrum(), *const cross = b + t.spectrum();
    float *const lines = cross + cross_values(), *const work = lines + t.lines();
    spectrum(from, k, from_scale, a, work);
    spectrum(to, k, to_scale, b, work);
    for (std::int64_t block = 0; block < t.blocks; ++block) {
      float* const kept = cross + block * t.rows * kPoint<float>;
      std::copy_n(t.column_there(a, block, work), t.rows * kPoint<float>, kept);
      const float* const other = t.column_there(b, block, work);
      const Vec<float> fine = load(right_[0].data() + block * L), coarse = load(right_[1].data() + block * L);
      for (std::int64_t y = 0; y < t.rows; ++y) {
        const Vec<float> response =
            plan_.band.down[0][std::size_t(y)] * fine - plan_.band.down[1][std::size_t(y)] * coarse;
        const Complex<float> p = load_point(kept + y * kPoint<float>), q = load_point(other + y * kPoint<float>);
        const Vec<float> weight = response * response;
        store_point<float>(kept + y * kPoint<float>,
                           {weight * (q.re * p.re + q.im * p.im), weight * (q.im * p.re - q.re * p.im)});
      }
      t.column_back([=](std::int64_t y) { return load_point(kept + y * kPoint<float>); }, block, a, work);
    }
    return around(cross, peak(a, lines, work));
  }

 private:
  struct Start {
    std::int64_t row, column;  // px
  };

  std::int64_t cross_values() const { return transform.blocks * transform.rows * kPoint<float>; }

  // Pooled by two, less its mean, under the taper, along its rows.
  void spectrum(const Planes& p, std::int64_t k, float scale, float* out, float* work) const {
    const PlaneTransform<float>& t = transform;
    const std::int64_t width = 2 * t.columns;
    double sum = 0;
    for (std::int64_t y = 0; y < 2 * t.rows; ++y) {
      const float* const row = p.row(k, y);
      sum += total(p.w, [=](std::int64_t x) { return load(row + x); }) - (width < p.w ? double(row[width]) : 0.0);
    }
    const float mean = float(sum / (4.0 * double(t.rows * t.columns))) * 4.0f;
    const auto put = [&](std::int64_t y, float* to) {
      const float own = plan_.taper_down[std::size_t(y)] * 0.25f * scale;
      by_twos(p.row(k, 2 * y), p.row(k, 2 * y + 1), 1.0f, t.columns, to);
      for (std::int64_t x = 0; x < t.columns; x += L)
        store<float>(to + x, (load(to + x) - mean) * (own * load(taper_.data() + x)));
    };
    t.rows_there(t.rows, t.columns, put, out, work);
  }

  // The largest value of the correlation at every second pixel; the first of equal ones.
  Start peak(const float* spectrum, float* lines, float* work) const {
    const PlaneTransform<float>& t = transform;
    float largest = -std::numeric_limits<float>::infinity();
    Start found = {0, 0};
    for (std::int64_t y = 0; y < t.rows; y += 2 * L) {
      t.rows_back(t.row(spectrum, y), t.row(spectrum, y + L), lines, work);
      for (std::int64_t i = 0; i < std::min(2 * L, t.rows - y); ++i) {
        const float* const line = lines + i * t.pitch;
        const float most = largest_of(line, t.columns);
        if (most > largest) {
          largest = most;
          found = {y + i, std::find(line, line + t.columns, most) - line};
        }
      }
    }
    const auto turned = [](std::int64_t at, std::int64_t size) { return 2 * (at <= size / 2 ? at : at - size); };
    return {turned(found.row, t.rows), turned(found.column, t.columns)};
  }

  // The correlation at whole pixels around a place, and the parabola through its largest value and the neighbours.
  Place around(const float* cross, const Start& start) const {
    const PlaneTransform<float>& t = transform;
    const std::int64_t near = plan_.near, side = 2 * near + 1;
    std::vector<std::complex<double>> along(std::size_t(side * t.half));
    for (std::int64_t i = 0; i < side; ++i) {
      std::vector<float> turn(std::size_t(2 * t.rows));
      for (std::int64_t y = 0; y < t.rows; ++y) {
        const std::int64_t signed_y = y <= (t.rows - 1) / 2 ? y : y - t.rows;
        const double angle = kPi * double((start.row + i - near) * signed_y) / double(t.rows);
        turn[std::size_t(2 * y)] = float(std::cos(angle));
        turn[std::size_t(2 * y + 1)] = float(std::sin(angle));
      }
      for (std::int64_t block = 0; block < t.blocks; ++block) {
        Complex<float> sum = {};
        for (std::int64_t y = 0; y < t.rows; ++y) {
          const Complex<float> c = load_point(cross + (block * t.rows + y) * kPoint<float>);
          sum = sum + times(c, turn[std::size_t(2 * y)], turn[std::size_t(2 * y + 1)]);
        }
        for (std::int64_t lane = 0; lane < std::min(L, t.half - block * L); ++lane) {
          const double once = block * L + lane == 0 || 2 * (block * L + lane) == t.columns ? 1 : 2;
          along[std::size_t(i * t.half + block * L + lane)] =
              once * std::complex<double>(double(sum.re[lane]), double(sum.im[lane]));
        }
      }
    }
    std::vector<double> value(std::size_t(side * side), 0.0);
    for (std::int64_t j = 0; j < side; ++j) {
      for (std::int64_t x = 0; x < t.half; ++x) {
        const double angle = kPi * double((start.column + j - near) * x) / double(t.columns);
        const double re = std::cos(angle), im = std::sin(angle);
        for (std::int64_t i = 0; i < side; ++i) {
          const std::complex<double> v = along[std::size_t(i * t.half + x)];
          value[std::size_t(i * side + j)] += v.real() * re - v.imag() * im;
        }
      }
    }
    const auto at = [&](std::int64_t i, std::int64_t j) { return value[std::size_t(i * side + j)]; };
    std::int64_t row = 1, column = 1;
    for (std::int64_t i = 1; i + 1 < side; ++i) {
      for (std::int64_t j = 1; j + 1 < side; ++j) {
        if (at(i, j) > at(row, column)) {
          row = i;
          column = j;
        }
      }
    }
    Place found = {double(start.row + row - near), double(start.column + column - near), true};
    const double middle = at(row, column);
    const auto step = [&](double before, double after, double& to) {
      const double bend = before - 2 * middle + after;
      found.sure &= -bend > 1e-3 * middle;  // along straight lines the peak is a ridge
      if (bend < 0) to += 0.5 * (before - after) / bend;
    };
    step(at(row - 1, column), at(row + 1, column), found.down);
    step(at(row, column - 1), at(row, column + 1), found.right);
    return found;
  }

  const LikenessPlan& plan_;

 public:
  const PlaneTransform<float> transform;

 private:
  std::vector<float> taper_, right_[2];
};

}  // namespace semnr

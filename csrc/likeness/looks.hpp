// Two looks at one scene: cosine transforms of lines that lie side by side, and the sums of their products.
//
// A cosine transform of a row is a Fourier transform of the same row in another order: even places upwards, then odd
// ones downwards (Makhoul 1980). Of a column that has been turned by its phase, the real and the imaginary part are the
// columns k and columns - k of the cosine transform along the rows, so one transform down answers for both.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../evidence/transform.hpp"
#include "likeness_cpu.hpp"

namespace semnr {

class Looks {
 public:
  static constexpr std::int64_t L = kLanes<float>;
  static constexpr int kMost = 4;

  explicit Looks(const LikenessPlan& plan) : plan_(plan), transform(plan.rows, plan.columns) {
    for (std::int64_t k = 0; k < plan.rows; ++k) down_.push_back(phase(k, plan.rows));
    // of each column and of its mirror image: how it is weighed, 0 where there is none
    for (int side = 0; side < 2; ++side) {
      for (int i = 0; i < 2; ++i) right_[side][i].assign(std::size_t(transform.blocks * L), 0.0f);
    }
    turn_re_.assign(std::size_t(transform.blocks * L), 0.0f);
    turn_im_.assign(std::size_t(transform.blocks * L), 0.0f);
    for (std::int64_t k = 0; k < transform.half; ++k) {
      const auto [re, im] = phase(k, plan.columns);
      turn_re_[std::size_t(k)] = re;
      turn_im_[std::size_t(k)] = im;
      for (int i = 0; i < 2; ++i) {
        right_[0][i][std::size_t(k)] = plan.cosine.right[i][std::size_t(k)];
        if (k > 0 && 2 * k < plan.columns)
          right_[1][i][std::size_t(k)] = plan.cosine.right[i][std::size_t(plan.columns - k)];
      }
    }
  }

  // Values of working memory for `count` looks.
  std::int64_t values(int count) const { return count * (transform.spectrum() + coefficients()) + transform.work(); }

  // put(i, y, line) writes line y of look i, its places in the order of `ordered`. sums[i][j]: of the products.
  template <class Put>
  void products(int count, Put put, float* memory, double (&sums)[kMost][kMost]) const {
    const PlaneTransform<float>& t = transform;
    float* const work = memory + count * (t.spectrum() + coefficients());
    float* const found = memory + count * t.spectrum();
    for (int i = 0; i < count; ++i) {
      const auto ordered = [&](std::int64_t y, float* to) {
        const std::int64_t up = (t.rows + 1) / 2;
        put(i, y < up ? 2 * y : 2 * (t.rows - 1 - y) + 1, to);
      };
      t.rows_there(t.rows, t.columns, ordered, memory + i * t.spectrum(), work);
    }
    for (auto& row : sums) std::fill_n(row, kMost, 0.0);
    for (std::int64_t block = 0; block < t.blocks; ++block) {
      for (int i = 0; i < count; ++i) {
        cosines(block, t.column_there(memory + i * t.spectrum(), block, work), found + i * coefficients());
      }
      for (int i = 0; i < count; ++i) {
        for (int j = 0; j <= i; ++j) {
          const float *const a = found + i * coefficients(), *const b = found + j * coefficients();
          sums[i][j] += total(coefficients(), [=](std::int64_t k) { return load(a + k) * load(b + k); });
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      for (int j = i + 1; j < count; ++j) sums[i][j] = sums[j][i];
    }
  }

 private:
  std::int64_t coefficients() const { return 2 * plan_.rows * L; }

  static std::array<float, 2> phase(std::int64_t k, std::int64_t size) {
    const double angle = -kPi * double(k) / double(2 * size);
    return {float(std::cos(angle)), float(std::sin(angle))};
  }

  // The weighed coefficients of a block of columns and of their mirror images.
  void cosines(std::int64_t block, const float* points, float* to) const {
    const std::int64_t at = block * L, rows = plan_.rows;
    const Vec<float> re = load(turn_re_.data() + at), im = load(turn_im_.data() + at);
    Vec<float> fine[2], coarse[2];
    for (int side = 0; side < 2; ++side) {
      fine[side] = load(right_[side][0].data() + at);
      coarse[side] = load(right_[side][1].data() + at);
    }
    for (std::int64_t k = 0; k < rows; ++k) {
      const Complex<float> here = load_point(points + k * kPoint<float>);
      const Complex<float> there = load_point(points + (k == 0 ? 0 : rows - k) * kPoint<float>);
      const Complex<float> a = {here.re * re - here.im * im, here.re * im + here.im * re};
      const Complex<float> b = {there.re * re - there.im * im, there.re * im + there.im * re};
      // spectra of the real part of the column and of the imaginary one, turned by the phase of row k: their real parts
      const auto [down_re, down_im] = down_[std::size_t(k)];
      const Vec<float> own = (a.re + b.re) * down_re - (a.im - b.im) * down_im;
      const Vec<float> mirror = (a.im + b.im) * down_re + (a.re - b.re) * down_im;
      const float f = plan_.cosine.down[0][std::size_t(k)], c = plan_.cosine.down[1][std::size_t(k)];
      store<float>(to + 2 * k * L, own * (f * fine[0] - c * coarse[0]));
      store<float>(to + (2 * k + 1) * L, mirror * (f * fine[1] - c * coarse[1]));
    }
  }

  const LikenessPlan& plan_;
  std::vector<std::array<float, 2>> down_;
  std::vector<float> turn_re_, turn_im_, right_[2][2];

 public:
  const PlaneTransform<float> transform;
};

}  // namespace semnr

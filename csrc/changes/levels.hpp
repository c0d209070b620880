// Gain and offset from the means of blocks on plateaus.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace semnr {

// Means of near-square blocks, `columns` of them side by side.
struct BlockMeans {
  std::int64_t rows, columns;
  std::vector<double> values;
};

inline double middle_of(std::vector<double> v) {
  const auto middle = v.begin() + std::ptrdiff_t(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return v.size() % 2 != 0 ? *middle : 0.5 * (*middle + *std::max_element(v.begin(), middle));
}

// The largest step to any neighbour of a block.
inline std::vector<double> steps_of(const BlockMeans& m) {
  std::vector<double> steps(m.values.size(), 0.0);
  const auto meet = [&](std::int64_t a, std::int64_t b) {
    const double step = std::abs(m.values[std::size_t(a)] - m.values[std::size_t(b)]);
    for (const std::int64_t i : {a, b}) steps[std::size_t(i)] = std::max(steps[std::size_t(i)], step);
  };
  for (std::int64_t y = 0; y < m.rows; ++y) {
    for (std::int64_t x = 0; x < m.columns; ++x) {
      if (x + 1 < m.columns) meet(y * m.columns + x, y * m.columns + x + 1);
      if (y + 1 < m.rows) meet(y * m.columns + x, (y + 1) * m.columns + x);
    }
  }
  return steps;
}

// Levels of d over those of t; `witness` tells structure from noise. out: gain - 1, its error; offset, its error, both
// in grey levels. NaN where the gain is not known.
class Levels {
 public:
  Levels(const BlockMeans& t, const BlockMeans& d, const BlockMeans& witness, double least_z) {
    const std::vector<double> steps = steps_of(witness);
    const double middle = middle_of(steps);
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (steps[i] <= middle) kept.push_back(i);
    }
    // the fit, then twice without what lies far off it: a lost defect is no change of brightness
    for (int turn = 0; turn < 3; ++turn) {
      fit(t.values, d.values, witness.values, kept);
      const double centre = middle_of(rest_);
      std::vector<double> apart = rest_;
      for (double& v : apart) v = std::abs(v - centre);
      const double spread = 1.4826 * middle_of(apart);
      if (turn == 2 || !(spread > 0)) break;
      std::vector<std::size_t> inside;
      for (std::size_t i = 0; i < kept.size(); ++i) {
        if (apart[i] <= 3.5 * spread) inside.push_back(kept[i]);
      }
      if (inside.size() < 16) break;
      kept = inside;
    }
    finish(t.values, d.values, kept, least_z);
  }

  double row[4];

 private:
  void fit(const std::vector<double>& t, const std::vector<double>& d, const std::vector<double>& w,
           const std::vector<std::size_t>& kept) {
    const auto centred = [&](const std::vector<double>& from, std::vector<double>& to) {
      to.clear();
      double mean = 0;
      for (const std::size_t i : kept) mean += from[i];
      mean /= double(kept.size());
      for (const std::size_t i : kept) to.push_back(from[i] - mean);
    };
    centred(t, u_);
    centred(d, v_);
    centred(w, z_);
    double above = 0;
    below_ = square_ = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      below_ += z_[i] * u_[i];
      above += z_[i] * v_[i];
      square_ += z_[i] * z_[i];
    }
    gain_ = below_ != 0 ? above / below_ : std::numeric_limits<double>::quiet_NaN();
    rest_.clear();
    for (std::size_t i = 0; i < kept.size(); ++i) rest_.push_back(v_[i] - (std::isfinite(gain_) ? gain_ : 1.0) * u_[i]);
  }

  void finish(const std::vector<double>& t, const std::vector<double>& d, const std::vector<std::size_t>& kept,
              double least_z) {
    const double none = std::numeric_limits<double>::quiet_NaN(), n = double(kept.size());
    double spread = 0, noise = 0, offset = 0, square = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const double z = z_[i] * z_[i], apart = u_[i] - z_[i] * below_ / square_;
      spread += z * rest_[i] * rest_[i];
      noise += z * apart * apart;
      offset += (d[kept[i]] - t[kept[i]]) / n;
    }
    for (const std::size_t i : kept) square += (d[i] - t[i] - offset) * (d[i] - t[i] - offset);
    const double error = below_ != 0 ? std::sqrt(spread) / std::abs(below_) : none;
    const bool known = std::isfinite(gain_) && below_ > least_z * std::sqrt(noise) && error < 0.25;
    row[0] = known ? gain_ - 1 : none;
    row[1] = known ? error : none;
    row[2] = offset;
    row[3] = std::sqrt(square / (n - 1)) / std::sqrt(n);
  }

  std::vector<double> u_, v_, z_, rest_;
  double below_ = 0, square_ = 0, gain_ = 0;
};

}  // namespace semnr

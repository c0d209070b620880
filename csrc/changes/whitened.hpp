// Sums over rings of frequency of |D|², |X|² and Re⟨D, X⟩, each frequency over its noise: what bounds the transfer.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "spectra.hpp"

namespace semnr {

class WhitenedSums {
 public:
  static constexpr std::int64_t L = kLanes<float>;

  // The weights of one tile.
  WhitenedSums(const ChangesTables& tables, const float* down, const float* right)
      : tables_(tables), down_(down), right_(std::size_t(tables.transform.blocks * L), 0.0f) {
    std::copy_n(right, tables.transform.half, right_.begin());
    known_ = std::any_of(right_.begin(), right_.end(), [](float v) { return v != 0; });
  }

  // The points of a block of columns of both spectra.
  void add(std::int64_t block, const float* d, const float* x) {
    if (!known_) return;
    Vec<float> sums[kGroups][kSums] = {};
    for (std::int64_t y = 0; y < tables_.transform.rows; ++y) {
      const Complex<float> a = load_point(d + y * kPoint<float>), b = load_point(x + y * kPoint<float>);
      const Vec<float> weight = splat(down_[y]);
      const Vec<float> terms[kSums] = {weight * (a.re * a.re + a.im * a.im), weight * (b.re * b.re + b.im * b.im),
                                       weight * (a.re * b.re + a.im * b.im)};
      tables_.groups.each(block, y, [&](int group, GroupMap::Lanes lanes, std::int64_t) {
        for (int i = 0; i < kSums; ++i) sums[group][i] += (Vec<float>)((GroupMap::Lanes)terms[i] & lanes);
      });
    }
    const Vec<float> weight = load(right_.data() + block * L) * counts_of(tables_.transform, block);
    for (int g = 1; g <= kChangesRings; ++g) {
      for (int i = 0; i < kSums; ++i) sums_[i][g - 1] += sum<double>(widened_sum(sums[g][i] * weight));
    }
  }

  // (kSums, rings), times `factor`.
  void put(double factor, double* to) const {
    for (int i = 0; i < kSums; ++i) {
      for (int g = 0; g < kChangesRings; ++g) *to++ = sums_[i][g] * factor;
    }
  }

 private:
  static constexpr int kSums = 3;

  const ChangesTables& tables_;
  const float* const down_;
  std::vector<float> right_;
  bool known_ = false;
  double sums_[kSums][kChangesRings] = {};
};

}  // namespace semnr

// The regression of the residual's energy on the strength of edges, from sums over blocks of the tile.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

class EdgeEnergy {
 public:
  EdgeEnergy(std::int64_t h, std::int64_t w, std::int64_t block)
      : h_(h),
        w_(w),
        rows_(std::max<std::int64_t>(1, h / block)),
        columns_(std::max<std::int64_t>(1, w / block)),
        blocks_(std::size_t(rows_ * columns_)),
        length_(span_of(w) + kLanes<float>),
        lines_(std::size_t(kSums * length_), 0.0f) {}

  // Energy and strength of a vector of pixels from column x on, where `weight` is not 0.
  void add(std::int64_t x, Vec<float> energy, Vec<float> strength, Vec<float> weight) {
    const Vec<float> e = energy * weight, g = strength * weight,
                     terms[kSums] = {weight, e, g, e * strength, g * strength};
    float* at = lines_.data() + x;
    for (const Vec<float>& term : terms) {
      store<float>(at, load(at) + term);
      at += length_;
    }
  }

  // To be called after each row, also of a part of the tile: [left, right).
  void end_row(std::int64_t y, std::int64_t last, std::int64_t left, std::int64_t right) {
    if (y + 1 != last && (y + 1) * rows_ / h_ == y * rows_ / h_) return;
    for (std::int64_t x = left; x < right; ++x) {
      double* const to = blocks_[std::size_t(y * rows_ / h_ * columns_ + x * columns_ / w_)].data();
      for (int i = 0; i < kSums; ++i) to[i] += double(lines_[std::size_t(i * length_ + x)]);
    }
    std::fill(lines_.begin(), lines_.end(), 0.0f);
  }

  // The slope over its standard error.
  double z() const {
    if (blocks_.size() < 4) return std::numeric_limits<double>::quiet_NaN();
    Sums all = {};
    for (const Sums& b : blocks_) {
      for (int i = 0; i < kSums; ++i) all[std::size_t(i)] += b[std::size_t(i)];
    }
    const double count = std::max(all[0], 1.0), e = all[1] / count, g = all[2] / count;
    const auto centred = [e, g](const Sums& b) -> std::pair<double, double> {
      return {b[3] - e * b[2] - g * b[1] + e * g * b[0], b[4] - 2 * g * b[2] + g * g * b[0]};
    };
    const auto [product, square] = centred(all);
    const double slope = product / std::max(square, 1e-12);
    double spread = 0;
    for (const Sums& b : blocks_) {
      const auto [eg, gg] = centred(b);
      spread += (eg - slope * gg) * (eg - slope * gg);
    }
    const double k = double(blocks_.size()), error = std::sqrt(spread * k / (k - 1));
    return error > 0 ? product / error : 0;
  }

 private:
  static constexpr int kSums = 5;  // of 1, e, g, e g, g g
  using Sums = std::array<double, kSums>;

  const std::int64_t h_, w_, rows_, columns_;
  std::vector<Sums> blocks_;
  const std::int64_t length_;  // of a line: a window may begin anywhere, and its last vector reaches beyond the tile
  std::vector<float> lines_;
};

}  // namespace semnr

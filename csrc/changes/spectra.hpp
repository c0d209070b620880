// Tables over the frequencies of a tile: responses of bands, and rings.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../evidence/transform.hpp"
#include "changes_cpu.hpp"

namespace semnr {

constexpr int kGroups = kChangesRings + 2;

// The difference of two Gaussians at each frequency, from tables along the two axes.
class BandResponse {
 public:
  BandResponse(const double (&sigmas)[2], const PlaneTransform<float>& t) {
    for (int i = 0; i < 2; ++i) {
      const auto at = [&](double f) { return float(std::exp(-2 * (kPi * sigmas[i] * f) * (kPi * sigmas[i] * f))); };
      for (std::int64_t y = 0; y < t.rows; ++y)
        down_[i].push_back(at(double(std::min(y, t.rows - y)) / double(t.rows)));
      right_[i].assign(std::size_t(t.blocks * kLanes<float>), 0.0f);
      for (std::int64_t x = 0; x < t.half; ++x) right_[i][std::size_t(x)] = at(double(x) / double(t.columns));
    }
  }

  // Of a block of columns: response(y).
  auto column(std::int64_t block) const {
    const std::int64_t at = block * kLanes<float>;
    return [fine = down_[0].data(), coarse = down_[1].data(), right = load(right_[0].data() + at),
            other = load(right_[1].data() + at)](std::int64_t y) { return fine[y] * right - coarse[y] * other; };
  }

 private:
  std::vector<float> down_[2], right_[2];
};

// How often each column of a block stands for a frequency: twice, but once the first one and the last of an even
// number; never beyond the spectrum.
inline Vec<float> counts_of(const PlaneTransform<float>& t, std::int64_t block) {
  Vec<float> found = {};
  for (std::int64_t i = 0; i < kLanes<float>; ++i) {
    const std::int64_t x = block * kLanes<float> + i;
    found[i] = x >= t.half ? 0.0f : x == 0 || 2 * x == t.columns ? 1.0f : 2.0f;
  }
  return found;
}

// Which ring the frequencies of a vector lie in.
class GroupMap {
 public:
  static constexpr std::int64_t L = kLanes<float>;
  using Lanes = Vec<std::int32_t>;

  GroupMap(const std::vector<std::uint8_t>& groups, const PlaneTransform<float>& t)
      : rows_(t.rows), map_(std::size_t(t.blocks * t.rows * L), kNone) {
    for (std::int64_t y = 0; y < t.rows; ++y) {
      for (std::int64_t x = 0; x < t.half; ++x) {
        const std::uint8_t group = groups[std::size_t(y * t.half + x)];
        map_[std::size_t((x / L * t.rows + y) * L + x % L)] = group;
        ++sizes[group];
      }
    }
  }

  std::array<std::int64_t, kGroups> sizes = {};  // frequencies of each

  // f(group, lanes that belong to it: all bits or none, how many) for each group of a vector in row y of a block.
  template <class F>
  [[gnu::always_inline]] void each(std::int64_t block, std::int64_t y, F&& f) const {
    const std::uint8_t* const at = map_.data() + (block * rows_ + y) * L;
    if (std::equal(at + 1, at + L, at)) return f(int(at[0]), Lanes{} == Lanes{}, L);
    for (std::int64_t i = 0; i < L;) {  // along a row of frequencies the group never falls
      Lanes inside = {};
      const std::int64_t start = i;
      const std::uint8_t group = at[start];
      for (; i < L && at[i] == group; ++i) inside[i] = -1;
      if (group != kNone) f(int(group), inside, i - start);
    }
  }

 private:
  static constexpr std::uint8_t kNone = 255;
  const std::int64_t rows_;
  std::vector<std::uint8_t> map_;
};

struct ChangesTables {
  explicit ChangesTables(const ChangesPlan& plan)
      : transform(std::int64_t(plan.taper_down.size()), std::int64_t(plan.taper_right.size())),
        groups(plan.groups, transform),
        band(plan.band, transform),
        high(plan.high, transform),
        texture(plan.texture, transform) {}

  const PlaneTransform<float> transform;
  const GroupMap groups;
  const BandResponse band, high, texture;
};

}  // namespace semnr

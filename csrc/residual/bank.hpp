// All shapes of the scan at once: templates that are the same turned by 90° and mirrored are sums over orbits.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

// A plane with `radius` more rows and columns on each side of what is answered for.
struct Framed {
  std::int64_t h, w, radius, pitch;
  float* data;

  static std::int64_t pitch_for(std::int64_t w, std::int64_t radius) { return pitch_of(w + 2 * radius) + kSpan; }
  static std::int64_t values(std::int64_t h, std::int64_t w, std::int64_t radius) {
    return (h + 2 * radius) * pitch_for(w, radius);
  }
  const float* row(std::int64_t y) const { return data + (y + radius) * pitch; }  // its column 0 is `radius` values on
};

class Bank {
 public:
  static constexpr std::int64_t kValues = 64;  // responses that are made at a time

  // quarters: (shapes, radius + 1, radius + 1)
  Bank(std::int64_t shapes, std::int64_t radius, const float* quarters) : radius_(radius), terms_(std::size_t(shapes)) {
    for (int count = 1; count <= 4; ++count) {  // sums of as many places lie side by side
      for (std::int64_t down = 0; down <= radius; ++down) {
        for (std::int64_t right = 0; right <= down; ++right) {
          const Orbit orbit = {down, right};
          if (orbit.places() == count) add(orbit, quarters);
        }
      }
      ends_[count] = orbits_.size();
    }
  }

  std::int64_t shapes() const { return std::int64_t(terms_.size()); }
  std::int64_t radius() const { return radius_; }

  // Values of working memory for rows of w values.
  std::int64_t work(std::int64_t w) const {
    return (radius_ + 1) * Framed::pitch_for(w, radius_) + std::int64_t(orbits_.size()) * kValues + shapes() * kValues;
  }

  // The templates' products with `plane`, each times its `factor`, at row y and every kStep-th column from `first` on:
  // take(j, values) gets those of the columns first + kStep (j, j + 1, ...), kValues of them for each shape.
  template <int kStep, class Take>
  void responses(const Framed& plane, std::int64_t y, std::int64_t first, const std::vector<float>& factors,
                 float* work, Take take) const {
    const std::int64_t count = (plane.w - first + kStep - 1) / kStep, pitch = plane.pitch;
    float *const folds = work, *const sums = folds + (radius_ + 1) * pitch;
    float* const out = sums + std::int64_t(orbits_.size()) * kValues;
    for (std::int64_t down = 0; down <= radius_; ++down) fold<kStep>(plane, y, down, folds + down * pitch);
    std::vector<std::array<const float*, 4>> from;
    from.reserve(orbits_.size());
    for (const Orbit& o : orbits_) {
      const auto at = [&](std::int64_t down, std::int64_t right) -> const float* {
        const std::int64_t place = first + plane.radius + right;
        return folds + down * pitch + (kStep == 1 ? place : place % 2 * (pitch / 2) + place / 2);
      };
      // the last ones are left out where the orbit has fewer places
      from.push_back(o.right == 0 ? std::array{at(o.down, 0), at(0, o.down), at(0, -o.down), at(0, 0)}
                                  : std::array{at(o.down, o.right), at(o.down, -o.right), at(o.right, o.down),
                                               at(o.right, -o.down)});
    }
    for (std::int64_t j = 0; j < count; j += kValues) {
      add_places<1>(from, j, sums);
      add_places<2>(from, j, sums);
      add_places<3>(from, j, sums);
      add_places<4>(from, j, sums);
      for (std::size_t k = 0; k < terms_.size(); ++k)
        weigh(terms_[k], sums, factors[k], out + std::int64_t(k) * kValues);
      take(j, out);
    }
  }

 private:
  static constexpr int kVectors = int(kValues / kLanes<float>);

  // The places that a turn by 90° and a mirror make of one; rows come in pairs already.
  struct Orbit {
    std::int64_t down, right;  // down >= right
    int places() const { return down == 0 ? 1 : right == 0 ? 3 : right == down ? 2 : 4; }
  };
  struct Term {
    std::int64_t at;
    float factor;
  };

  void add(const Orbit& o, const float* quarters) {
    bool some = false;
    for (std::size_t k = 0; k < terms_.size(); ++k) {
      const float value = quarters[(std::int64_t(k) * (radius_ + 1) + o.down) * (radius_ + 1) + o.right];
      if (value == 0) continue;
      terms_[k].push_back({std::int64_t(orbits_.size()) * kValues, value});
      some = true;
    }
    if (some) orbits_.push_back(o);
  }

  // Rows y + down and y - down together; for every second column those of even and those of odd places apart.
  template <int kStep>
  static void fold(const Framed& plane, std::int64_t y, std::int64_t down, float* out) {
    const float *const above = plane.row(y - down), *const below = plane.row(y + down);
    const float half = down == 0 ? 0.5f : 1.0f;
    if constexpr (kStep == 1) {
      for (std::int64_t i = 0; i < plane.pitch; ++i) out[i] = half * (above[i] + below[i]);
    } else {
      float* const odd = out + plane.pitch / 2;
      for (std::int64_t i = 0; i < plane.pitch / 2; ++i) {
        out[i] = half * (above[2 * i] + below[2 * i]);
        odd[i] = half * (above[2 * i + 1] + below[2 * i + 1]);
      }
    }
  }

  template <int kPlaces>
  void add_places(const std::vector<std::array<const float*, 4>>& from, std::int64_t j, float* sums) const {
    for (std::size_t o = ends_[kPlaces - 1]; o < ends_[kPlaces]; ++o) {
      float* const to = sums + std::int64_t(o) * kValues;
      for (std::int64_t i = 0; i < kValues; i += kLanes<float>) {
        Vec<float> sum = load(from[o][0] + j + i);
        for (int p = 1; p < kPlaces; ++p) sum += load(from[o][std::size_t(p)] + j + i);
        store<float>(to + i, sum);
      }
    }
  }

  static void weigh(const std::vector<Term>& terms, const float* sums, float factor, float* out) {
    Vec<float> value[kVectors] = {};
    for (const Term& term : terms) {
      const float* const from = sums + term.at;
#pragma GCC unroll 16
      for (int b = 0; b < kVectors; ++b) value[b] += term.factor * load(from + b * kLanes<float>);
    }
#pragma GCC unroll 16
    for (int b = 0; b < kVectors; ++b) store<float>(out + b * kLanes<float>, value[b] * factor);
  }

  std::int64_t radius_;
  std::vector<Orbit> orbits_;
  std::size_t ends_[5] = {};
  std::vector<std::vector<Term>> terms_;
};

}  // namespace semnr

// Ratios of products of spectra, ⟨D, R⟩ / ⟨X, R⟩, by rings of frequency and in a band, with the noise that they carry.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../evidence/ranks.hpp"
#include "../fsim/memory.hpp"
#include "spectra.hpp"

namespace semnr {

struct Measured {
  double value = std::numeric_limits<double>::quiet_NaN(), error = std::numeric_limits<double>::quiet_NaN();
};

class Rings {
 public:
  static constexpr std::int64_t L = kLanes<float>;

  // noisy: X is there; else the ratio is over ⟨R, R⟩.
  Rings(const ChangesPlan& plan, const ChangesTables& tables, bool noisy)
      : plan_(plan), tables_(tables), noisy_(noisy) {}

  // The points of a block of columns of each spectrum; x and r are the same where X is not there.
  void add(std::int64_t block, const float* d, const float* x, const float* r) {
    Vec<float> sums[kGroups][kSums] = {}, band[3] = {};
    const auto high = tables_.high.column(block);
    for (std::int64_t y = 0; y < tables_.transform.rows; ++y) {
      const Complex<float> a = load_point(d + y * kPoint<float>), b = load_point(x + y * kPoint<float>),
                           c = load_point(r + y * kPoint<float>);
      const Vec<float> dr = a.re * c.re + a.im * c.im, xr = b.re * c.re + b.im * c.im, rr = c.re * c.re + c.im * c.im;
      const Vec<float> root = high(y), weight = root * root, weighted = weight * rr;
      band[0] += weight * dr;
      band[1] += weight * xr;
      band[2] += weighted;
      const Vec<float> terms[kSums] = {dr, xr, rr, weight * weighted};
      tables_.groups.each(block, y, [&](int group, GroupMap::Lanes lanes, std::int64_t) {
        for (int i = 0; i < kSums; ++i) sums[group][i] += (Vec<float>)((GroupMap::Lanes)terms[i] & lanes);
      });
    }
    const Vec<float> once = counts_of(tables_.transform, block), twice = once * once;
    for (int i = 0; i < 3; ++i) band_[i] += sum<double>(widened_sum(band[i] * once));
    for (int g = 0; g < kGroups; ++g) {
      for (int i = 0; i < 3; ++i) sums_[g][i] += sum<double>(widened_sum(sums[g][i] * once));
      power_[g] += sum<double>(widened_sum(sums[g][2] * twice));
      band_power_[g] += sum<double>(widened_sum(sums[g][3] * twice));
    }
  }

  // points(spectrum, block, y): a vector of D (0), X (1), R (2).
  template <class Point>
  void finish(Point points) {
    const Memory<float> memory(kRests * capacity_);
    room_ = memory.get();
    fill(points);
    for (int g = 1; g <= kChangesRings; ++g) {
      rings[std::size_t(g - 1)] = ratio(sums_[g], [&](int which) { return median_of(which, g) * power_[g]; });
    }
    high = ratio(band_, [&](int which) {
      double total = 0;
      for (int g = 0; g < kGroups; ++g) total += band_power_[g] != 0 ? median_of(2 + which, g) * band_power_[g] : 0.0;
      return total;
    });
  }

  std::array<Measured, kChangesRings> rings;
  Measured high;

 private:
  static constexpr int kSums = 4;
  static constexpr int kRests = 4;  // X - c R and D - T X in the rings, then in the band

  std::int64_t capacity() const {
    std::int64_t total = 0;
    for (const std::int64_t size : tables_.groups.sizes) total += size + L;
    return total;
  }

  // Coefficients of a ratio's rests.
  struct Factors {
    float back, through;  // c, T
  };
  Factors factors(const double* sums) const {
    const double below = noisy_ ? sums[1] : sums[2];
    return {float(below / std::max(sums[2], 1e-300)), float(below != 0 ? sums[0] / below : 0)};
  }

  // |X - c R|² and |D - T X|² of every frequency, by groups.
  template <class Point>
  void fill(Point points) {
    std::array<Factors, kGroups> by_group;
    std::int64_t start = 0;
    for (int g = 0; g < kGroups; ++g) {
      by_group[std::size_t(g)] = factors(sums_[g]);
      starts_[std::size_t(g)] = start;
      start += tables_.groups.sizes[std::size_t(g)] + L;
    }
    const Factors band = factors(band_);
    std::array<std::int64_t, kGroups> next = starts_;
    const PlaneTransform<float>& t = tables_.transform;
    for (std::int64_t block = 0; block < t.blocks; ++block) {
      for (std::int64_t y = 0; y < t.rows; ++y) {
        const Complex<float> d = points(0, block, y), x = points(1, block, y), r = points(2, block, y);
        tables_.groups.each(block, y, [&](int g, GroupMap::Lanes lanes, std::int64_t count) {
          const Factors& own = by_group[std::size_t(g)];
          const Vec<float> rests[kRests] = {rest(x, r, own.back), rest(d, x, own.through), rest(x, r, band.back),
                                            rest(d, x, band.through)};
          float* const to = room_ + next[std::size_t(g)];
          for (int i = 0; i < kRests; ++i) put(to + i * capacity_, rests[i], lanes, count);
          next[std::size_t(g)] += count;
        });
      }
    }
  }

  static Vec<float> rest(const Complex<float>& a, const Complex<float>& b, float factor) {
    const Vec<float> re = a.re - factor * b.re, im = a.im - factor * b.im;
    return re * re + im * im;
  }

  static void put(float* to, Vec<float> v, GroupMap::Lanes lanes, std::int64_t count) {
    if (count == L) return store<float>(to, v);
    if constexpr (kPacks<float>) {
      store<float>(to, packed<float>(v, lanes_of<float>(lanes)));
    } else {
      for (std::int64_t i = 0; i < L; ++i) {
        if (lanes[i] != 0) *to++ = v[i];
      }
    }
  }

  double median_of(int which, int group) {
    const std::int64_t count = tables_.groups.sizes[std::size_t(group)];
    if (count == 0) return 0;
    spare_.resize(std::size_t(count + L));
    return median(room_ + which * capacity_ + starts_[std::size_t(group)], count, spare_.data());
  }

  // spread(0): of X - c R, spread(1): of D - T X, noise power times the power of R under the weight.
  template <class Spread>
  Measured ratio(const double* sums, Spread spread) const {
    const auto sigma = [&](int which) { return std::sqrt(plan_.inflation * spread(which) / (2 * std::log(2.0))); };
    const double below = noisy_ ? sums[1] : sums[2], noise = noisy_ ? sigma(0) : 0;
    if (!(below > plan_.least_z * noise) || !(below > 0)) return {};
    return {sums[0] / below, sigma(1) / below};
  }

  const ChangesPlan& plan_;
  const ChangesTables& tables_;
  const bool noisy_;
  const std::int64_t capacity_ = capacity();
  double sums_[kGroups][3] = {}, band_[3] = {};            // of D R, X R and R R
  double power_[kGroups] = {}, band_power_[kGroups] = {};  // of R R under the squared weight
  std::array<std::int64_t, kGroups> starts_ = {};
  float* room_ = nullptr;
  std::vector<float> spare_;
};

}  // namespace semnr

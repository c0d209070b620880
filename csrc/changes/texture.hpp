// Transfer between the edges: over the pixels that lie far from what is steep in the reference.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../evidence/ranks.hpp"
#include "../evidence/rows.hpp"
#include "../fsim/memory.hpp"
#include "rings.hpp"
#include "spectra.hpp"

namespace semnr {

constexpr std::int64_t kChangesBlock = 8;  // px

// Where the reference is calm: bytes of 1 and 0, rows of span_of(w).
class CalmPixels {
 public:
  CalmPixels(const Planes& r, std::int64_t k, const ChangesPlan& plan)
      : r_(r), k_(k), plan_(plan), span_(r.span), bytes_(std::size_t(r.h * r.span), 0) {
    const std::int64_t pixels = r.h * r.w, values = rounded<float>(pixels + r.span);
    const Memory<float> memory(2 * values);
    float *const steep = memory.get(), *const room = steep + values;
    for (std::int64_t y = 0; y < r.h; ++y) slope(y, steep + y * r.w);
    const double most = double(largest_of(steep, pixels));
    const float limit = float(std::max(0.25 * most, median(steep, pixels, room)));
    spread_from(steep, limit);
  }

  const std::uint8_t* row(std::int64_t y) const { return bytes_.data() + y * span_; }

 private:
  // Gradient under a Gaussian; the image goes on beyond its border as in a mirror.
  void slope(std::int64_t y, float* out) {
    const std::int64_t radius = std::int64_t(plan_.smooth.size()) - 1, margin = span_of(radius);
    if (lines_.empty()) lines_.assign(std::size_t(4 * (span_ + 2 * margin)), 0.0f);
    float *const level = lines_.data() + margin, *const down = level + span_ + 2 * margin;
    float *const along = down + span_ + 2 * margin, *const across = along + span_ + 2 * margin;
    const auto row = [&](std::int64_t i) { return r_.row(k_, reflected(y + i, r_.h)); };
    folded<false>(plan_.smooth.data(), int(radius), row, span_, level);
    folded<true>(plan_.slope.data(), int(radius), row, span_, down);
    for (float* const line : {level, down}) {
      for (std::int64_t i = 1; i <= radius; ++i) {
        line[-i] = line[reflected(-i, r_.w)];
        line[r_.w - 1 + i] = line[reflected(r_.w - 1 + i, r_.w)];
      }
    }
    folded<true>(plan_.slope.data(), int(radius), [=](std::int64_t i) { return level + i; }, span_, across);
    folded<false>(plan_.smooth.data(), int(radius), [=](std::int64_t i) { return down + i; }, span_, along);
    for (std::int64_t i = 0; i < span_; i += kLanes<float>) {
      const Vec<float> a = load(along + i), b = load(across + i);
      store<float>(along + i, root<float>(a * a + b * b));
    }
    std::copy_n(along, r_.w, out);
  }

  static std::int64_t reflected(std::int64_t i, std::int64_t size) {
    const std::int64_t at = (i % (2 * size) + 2 * size) % (2 * size);
    return at < size ? at : 2 * size - 1 - at;
  }

  // 0 within `calm` px, along both axes, of what is steeper than the limit.
  void spread_from(const float* steep, float limit) {
    const std::int64_t reach = plan_.calm, w = r_.w, h = r_.h;
    std::vector<std::uint8_t> wide(std::size_t(h * span_), 0), line(std::size_t(span_ + 2 * reach), 0);
    for (std::int64_t y = 0; y < h; ++y) {
      for (std::int64_t x = 0; x < w; ++x) line[std::size_t(x + reach)] = steep[y * w + x] > limit;
      std::uint8_t* const to = wide.data() + y * span_;
      for (std::int64_t i = 0; i <= 2 * reach; ++i) {
        for (std::int64_t x = 0; x < span_; ++x) to[x] |= line[std::size_t(x + i)];
      }
    }
    for (std::int64_t y = 0; y < h; ++y) {
      std::uint8_t* const to = bytes_.data() + y * span_;
      for (std::int64_t i = std::max<std::int64_t>(0, y - reach); i <= std::min(h - 1, y + reach); ++i) {
        const std::uint8_t* const from = wide.data() + i * span_;
        for (std::int64_t x = 0; x < span_; ++x) to[x] |= from[x];
      }
      for (std::int64_t x = 0; x < span_; ++x) to[x] = x < w && to[x] == 0 ? 1 : 0;
    }
  }

  const Planes& r_;
  const std::int64_t k_;
  const ChangesPlan& plan_;
  const std::int64_t span_;
  std::vector<std::uint8_t> bytes_;
  std::vector<float> lines_;
};

// Sums over blocks of products of band-passed rows on calm pixels, and their ratio.
class TextureSums {
 public:
  TextureSums(std::int64_t h, std::int64_t w)
      : rows_(h / kChangesBlock),
        columns_(w / kChangesBlock),
        above_(std::size_t(rows_ * columns_), 0.0),
        below_(above_) {}

  void add(std::int64_t y, const float* d, const float* x, const float* r, const std::uint8_t* calm) {
    if (y >= rows_ * kChangesBlock) return;
    for (std::int64_t b = 0; b < columns_; ++b) {
      float above = 0, below = 0;
      for (std::int64_t i = b * kChangesBlock; i < (b + 1) * kChangesBlock; ++i) {
        const float kept = calm[i] != 0 ? r[i] : 0.0f;
        above += d[i] * kept;
        below += x[i] * kept;
      }
      const std::size_t to = std::size_t(y / kChangesBlock * columns_ + b);
      above_[to] += double(above);
      below_[to] += double(below);
    }
  }

  Measured ratio(double least_z) const {
    double a = 0, b = 0, noise = 0, spread = 0;
    for (std::size_t i = 0; i < above_.size(); ++i) {
      a += above_[i];
      b += below_[i];
    }
    for (const double v : below_) noise += (v - b / double(below_.size())) * (v - b / double(below_.size()));
    if (!(b > least_z * std::sqrt(noise))) return {};
    for (std::size_t i = 0; i < above_.size(); ++i)
      spread += (above_[i] - a / b * below_[i]) * (above_[i] - a / b * below_[i]);
    return {a / b, std::sqrt(spread) / b};
  }

 private:
  const std::int64_t rows_, columns_;
  std::vector<double> above_, below_;
};

}  // namespace semnr

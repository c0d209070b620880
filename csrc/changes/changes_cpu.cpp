// The changes beside noise, a tile a task.
#include "changes_cpu.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "../fsim/memory.hpp"
#include "levels.hpp"
#include "rings.hpp"
#include "shift.hpp"
#include "texture.hpp"
#include "whitened.hpp"

namespace semnr {
namespace {

constexpr std::int64_t L = kLanes<float>;
enum Image { kDenoised = 0, kAgainst = 1, kReference = 2, kImages = 3 };

class Tile {
 public:
  Tile(const ChangesInput& in, const ChangesPlan& plan, std::int64_t k)
      : in_(in),
        plan_(plan),
        tables_(*static_cast<const ChangesTables*>(plan.tables.get())),
        t_(tables_.transform),
        k_(k),
        h_(in.d.h),
        w_(in.d.w),
        count_(in.reference && in.noisy ? 3 : 2),
        memory_(count_ * rounded<float>(t_.spectrum()) + cross_values() + work_values()) {
    for (int i = 0; i < count_; ++i) spectra_[i] = memory_.get() + i * rounded<float>(t_.spectrum());
    if (count_ == 2) spectra_[kReference] = spectra_[kAgainst];
    cross_ = memory_.get() + count_ * rounded<float>(t_.spectrum());
    work_ = cross_ + cross_values();
  }

  void run(double* row, double* lines) {
    std::fill_n(row, kChangesRow, std::numeric_limits<double>::quiet_NaN());
    levels(row);
    line_means(lines);
    const double scale = transform();
    Rings rings(plan_, tables_, in_.noisy);
    WhitenedSums whitened(tables_, in_.weight_down + k_ * h_, in_.weight_right + k_ * t_.half);
    products(rings, whitened);
    whitened.put(1 / (scale * scale), row + kChangesFigures);
    const Shift shift(t_, cross_, plan_.inflation);
    double* to = std::copy_n(shift.delta, 2, row + 4);
    to = std::copy_n(shift.hessian, 3, to);
    to = std::copy_n(shift.spread, 3, to);
    if (!in_.reference) return;
    rings.finish([&](int image, std::int64_t block, std::int64_t y) { return load_point(at(image, block, y)); });
    to = put(rings.high, to);
    for (const Measured& ring : rings.rings) to = put(ring, to);
    put(texture(), to);
  }

 private:
  std::int64_t cross_values() const { return rounded<float>(t_.blocks * t_.rows * kPoint<float>); }
  std::int64_t work_values() const {
    return std::max(kImages * 2 * t_.rows * kPoint<float> + t_.work(), 2 * kImages * t_.lines() + t_.work());
  }
  const Planes& image(int i) const { return i == kDenoised ? in_.d : i == kAgainst ? in_.against : in_.r; }
  const Planes& witness() const { return in_.reference ? image(count_ == 3 ? kReference : kAgainst) : in_.d; }
  const float* at(int i, std::int64_t block, std::int64_t y) const {
    return spectra_[i] + (y * t_.blocks + block) * kPoint<float>;
  }
  static double* put(const Measured& v, double* to) {
    to[0] = v.value;
    to[1] = v.error;
    return to + 2;
  }

  // --- levels and lines ---

  BlockMeans means(const Planes& p) const {
    constexpr std::int64_t B = kChangesBlock;
    BlockMeans found = {h_ / B, w_ / B, {}};
    found.values.assign(std::size_t(found.rows * found.columns), 0.0);
    std::vector<float> sums(static_cast<std::size_t>(p.span));
    for (std::int64_t y = 0; y < found.rows; ++y) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (std::int64_t i = 0; i < B; ++i) {
        const float* const row = p.row(k_, y * B + i);
        for (std::int64_t x = 0; x < p.span; x += L)
          store<float>(&sums[std::size_t(x)], load(&sums[std::size_t(x)]) + load(row + x));
      }
      for (std::int64_t x = 0; x < found.columns; ++x) {
        double total = 0;
        for (std::int64_t i = 0; i < B; ++i) total += double(sums[std::size_t(x * B + i)]);
        found.values[std::size_t(y * found.columns + x)] = p.base(k_) + total / double(B * B);
      }
    }
    return found;
  }

  void levels(double* row) const {
    const BlockMeans t = means(in_.against), d = means(in_.d);
    const Levels found(t, d, !in_.reference ? d : count_ == 2 ? t : means(in_.r), plan_.least_z);
    std::copy_n(found.row, 4, row);
    for (int i = 2; i < 4; ++i) row[i] /= in_.span[k_];
  }

  // The mean of every scan line of the images that are there.
  void line_means(double* lines) const {
    const std::int64_t count = in_.lines_down ? w_ : h_;
    for (int i = 0; i < (in_.reference ? 3 : 2); ++i) {
      const Planes& p = i == 0 ? in_.against : i == 1 ? in_.d : witness();
      double* const to = lines + (k_ * 3 + i) * count;
      std::fill_n(to, count, 0.0);
      for (std::int64_t y = 0; y < h_; ++y) {
        const float* const row = p.row(k_, y);
        if (in_.lines_down) {
          for (std::int64_t x = 0; x < w_; ++x) to[x] += double(row[x]) / double(h_);
        } else {
          to[y] = total(w_, [&](std::int64_t x) { return load(row + x); }) / double(w_);
        }
      }
      for (std::int64_t y = 0; y < count; ++y) to[y] += p.base(k_);
    }
  }

  // --- spectra ---

  // Along the rows, under the taper, each image less its mean there, all on one scale, which it returns.
  double transform() {
    double largest = 0;
    for (int i = 0; i < count_; ++i) largest = std::max({largest, image(i).largest(k_), -image(i).least(k_)});
    const double scale = largest > 0 ? std::exp2(-std::ceil(std::log2(largest))) : 1;
    double down = 0, right = 0;
    for (const float v : plan_.taper_down) down += double(v);
    for (const float v : plan_.taper_right) right += double(v);
    std::vector<float> taper(std::size_t(in_.d.span), 0.0f);
    std::copy(plan_.taper_right.begin(), plan_.taper_right.end(), taper.begin());
    for (int i = 0; i < count_; ++i) {
      double sum = 0;
      for (std::int64_t y = 0; y < h_; ++y) {
        const float* const row = image(i).row(k_, y);
        const double along = total(w_, [&](std::int64_t x) { return load(row + x) * load(&taper[std::size_t(x)]); });
        sum += along * double(plan_.taper_down[std::size_t(y)]);
      }
      const float mean = float(sum / (down * right));
      const auto put = [&](std::int64_t y, float* to) {
        const float* const row = image(i).row(k_, y);
        const float own = float(double(plan_.taper_down[std::size_t(y)]) * scale);
        for (std::int64_t x = 0; x < w_; ++x) to[x] = (row[x] - mean) * (own * taper[std::size_t(x)]);
      };
      t_.rows_there(h_, w_, put, spectra_[i], work_);
    }
    return scale;
  }

  // Along the columns, with the sums of their products while they are at hand, and the cross-power in the band.
  void products(Rings& rings, WhitenedSums& whitened) {
    const std::int64_t room = 2 * t_.rows * kPoint<float>;
    for (std::int64_t block = 0; block < t_.blocks; ++block) {
      const float* points[kImages] = {};
      for (int i = 0; i < count_; ++i) {
        float* const found = t_.column_there(spectra_[i], block, work_ + i * room);
        for (std::int64_t y = 0; y < t_.rows; ++y) {
          std::copy_n(found + y * kPoint<float>, kPoint<float>, spectra_[i] + (y * t_.blocks + block) * kPoint<float>);
        }
        points[i] = found;
      }
      if (count_ == 2) points[kReference] = points[kAgainst];
      const auto band = tables_.band.column(block);
      for (std::int64_t y = 0; y < t_.rows; ++y) {
        const Complex<float> d = load_point(points[kDenoised] + y * kPoint<float>);
        const Complex<float> x = load_point(points[kAgainst] + y * kPoint<float>);
        const Vec<float> response = band(y), weight = response * response;
        store_point<float>(cross_ + (block * t_.rows + y) * kPoint<float>,
                           {weight * (d.re * x.re + d.im * x.im), weight * (d.im * x.re - d.re * x.im)});
      }
      whitened.add(block, points[kDenoised], points[kAgainst]);
      if (in_.reference) rings.add(block, points[kDenoised], points[kAgainst], points[kReference]);
    }
  }

  // --- texture ---

  Measured texture() {
    for (int i = 0; i < count_; ++i) {
      for (std::int64_t block = 0; block < t_.blocks; ++block) {
        const auto band = tables_.texture.column(block);
        const auto input = [&](std::int64_t y) {
          const Complex<float> v = load_point(at(i, block, y));
          const Vec<float> response = band(y);
          return Complex<float>{v.re * response, v.im * response};
        };
        t_.column_back(input, block, spectra_[i], work_);
      }
    }
    const CalmPixels calm(witness(), k_, plan_);
    TextureSums sums(h_, w_);
    float *const pair = work_, *const more = pair + 2 * t_.lines(), *const rest = more + t_.lines();
    for (std::int64_t y = 0; y < h_; y += 2 * L) {
      if (count_ == 3) back(kAgainst, kAgainst, y, y + L, more, rest);
      for (std::int64_t half = 0; half < 2; ++half) {
        float* const lines = pair + half * t_.lines();
        back(kDenoised, kReference, y + half * L, y + half * L, lines, rest);
        for (std::int64_t i = 0; i < std::min(L, h_ - y - half * L); ++i) {
          const float *const d = lines + i * t_.pitch, *const r = lines + (L + i) * t_.pitch;
          const float* const x = count_ == 3 ? more + (half * L + i) * t_.pitch : r;
          sums.add(y + half * L + i, d, x, r, calm.row(y + half * L + i));
        }
      }
    }
    return sums.ratio(plan_.least_z);
  }

  void back(int a, int b, std::int64_t y, std::int64_t other, float* lines, float* work) {
    t_.rows_back(t_.row(spectra_[a], y), t_.row(spectra_[b], other), lines, work);
  }

  const ChangesInput& in_;
  const ChangesPlan& plan_;
  const ChangesTables& tables_;
  const PlaneTransform<float>& t_;
  const std::int64_t k_, h_, w_;
  const int count_;  // spectra: the reference's is that of `against` where there is no noisy image
  const Memory<float> memory_;
  float *spectra_[kImages], *cross_, *work_;
};

}  // namespace

void changes_prepare(ChangesPlan& plan) { plan.tables = std::make_shared<const ChangesTables>(plan); }

void changes_rows(const ChangesInput& in, const ChangesPlan& plan, int threads, double* rows, double* lines) {
  parallel(threads, in.d.n, [&](std::int64_t k) { Tile(in, plan, k).run(rows + k * kChangesRow, lines); });
}

}  // namespace semnr

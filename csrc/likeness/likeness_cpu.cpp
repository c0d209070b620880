// How images lie against a noisy one, a tile a task.
#include "likeness_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../evidence/ranks.hpp"
#include "../fsim/memory.hpp"
#include "blocks.hpp"
#include "lines.hpp"
#include "looks.hpp"
#include "place.hpp"

namespace semnr {
namespace {

constexpr std::int64_t L = kLanes<float>;
constexpr std::int64_t kLeastSide = 32;  // px: smaller images hold neither their noise nor a band of structure
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Tables {
  explicit Tables(const LikenessPlan& given) : plan(given), looks(plan), placing(plan) {}

  const LikenessPlan plan;  // the others read it
  const Looks looks;
  const Placing placing;
  const BlockDetail detail;
};

class Tile {
 public:
  Tile(const LikenessInput& in, const LikenessPlan& plan, std::int64_t k)
      : in_(in),
        plan_(plan),
        tables_(*static_cast<const Tables*>(plan.tables.get())),
        k_(k),
        h_(in.x.h),
        w_(in.x.w),
        memory_(values()) {}

  void run(double* row) {
    std::fill_n(row, kLikenessRow, kNone);
    double *const d = row + 3, *const r = row + 12;
    const bool x_known = known(in_.x), d_known = in_.denoised && known(in_.d), r_known = in_.reference && known(in_.r);
    if (x_known) {
      row[0] = mean(in_.x);
      row[1] = span(in_.x);
    }
    if (d_known) {
      d[0] = mean(in_.d);
      d[1] = deviation(in_.d);
      d[2] = span(in_.d);
    }
    if (r_known) r[0] = span(in_.r);
    if (!x_known || std::min(h_, w_) < kLeastSide) return;
    row[2] = roughness(in_.x);
    if (d_known) {
      d[3] = roughness(in_.d);
      notes(d + 6);
    }
    if (row[1] > 0) {
      correlate(d_known && d[2] > 0 ? d + 4 : nullptr, r_known && r[0] > 0 ? r + 1 : nullptr);
    }
    if (row[1] > 0 && r_known && r[0] > 0) {
      const Place found = tables_.placing.find(in_.x, scale(in_.x), in_.r, scale(in_.r), k_, memory_.get());
      r[3] = found.down;
      r[4] = found.right;
      r[5] = found.sure;
    }
  }

 private:
  std::int64_t values() const {
    const std::int64_t blocks = plan_.blocks.empty() ? 0 : std::int64_t(plan_.blocks[0].size());
    return std::max({tables_.looks.values(Looks::kMost) + line(), tables_.placing.values(), 2 * (blocks + L),
                     2 * (rough_rows() + 1) * (rough_columns() + L)});
  }
  std::int64_t line() const { return in_.x.span + kSpan; }

  bool known(const Planes& p) const { return p.stats[k_ * kPlaneStats + 4] == 0; }
  double span(const Planes& p) const { return p.largest(k_) - p.least(k_); }

  // A power of two that brings the image within 1.
  float scale(const Planes& p) const {
    const double largest = std::max(p.largest(k_), -p.least(k_));
    return largest > 0 ? float(std::exp2(-std::ceil(std::log2(largest)))) : 1.0f;
  }

  double mean(const Planes& p) const { return p.base(k_) + p.sum(k_) / double(h_ * w_); }

  double deviation(const Planes& p) const {
    if (span(p) == 0) return 0;
    const double count = double(h_ * w_), mean = p.sum(k_) / count;
    double square = 0;
    for (std::int64_t y = 0; y < h_; ++y) {
      const float* const row = p.row(k_, y);
      square += total(w_, [=](std::int64_t x) { return load(row + x) * load(row + x); });
    }
    return std::sqrt(std::max(square / count - mean * mean, 0.0));
  }

  // --- correlation of structure ---

  // Of the denoised image and of the reference, where they are asked for: correlation and contrast.
  void correlate(double* denoised, double* reference) {
    struct Look {
      const Planes* image;
      double* to;
    };
    std::vector<Look> others;
    if (denoised != nullptr) others.push_back({&in_.d, denoised});
    if (reference != nullptr) others.push_back({&in_.r, reference});
    const Looks& looks = tables_.looks;
    float* const line = memory_.get() + looks.values(Looks::kMost);
    const auto put = [&](int i, std::int64_t y, float* to) {
      const Planes& p = i < 2 ? in_.x : *others[std::size_t(i - 2)].image;
      const float *const above = p.row(k_, i == 1 ? 2 * y : 2 * y + 1), *const below =
                                                                            i == 1 ? p.row(k_, 2 * y + 2) : above;
      by_twos(above, below, scale(p), plan_.columns, line);
      ordered(line, plan_.columns, to);
    };
    double sums[Looks::kMost][Looks::kMost];
    looks.products(2 + int(others.size()), put, memory_.get(), sums);
    const double signal = sums[0][1], power = std::sqrt(sums[0][0] * sums[1][1]);
    if (!(power > 0) || signal < plan_.seen * power) return;
    for (std::size_t i = 0; i < others.size(); ++i) {
      const double shown = sums[i + 2][i + 2];
      if (!(shown > 0)) continue;
      others[i].to[0] = sums[i + 2][1] / std::sqrt(signal * shown);
      others[i].to[1] = std::sqrt(shown / signal) * double(scale(in_.x)) / double(scale(*others[i].image));
    }
  }

  // --- noise ---

  std::int64_t rough_step() const { return std::max<std::int64_t>(1, h_ / 128); }
  std::int64_t rough_part() const { return std::max<std::int64_t>(1, w_ / 256); }
  std::int64_t rough_rows() const { return (h_ - 2 + rough_step() - 1) / rough_step(); }
  std::int64_t rough_columns() const { return (w_ + rough_part() - 1) / rough_part(); }

  // Median second difference across lines; a sample of large images.
  double roughness(const Planes& p) {
    float* const values = memory_.get();
    float* to = values;
    const std::int64_t part = rough_part();
    for (std::int64_t y = 0; y + 2 < h_; y += rough_step()) {
      const float *const above = p.row(k_, y), *const line = p.row(k_, y + 1), *const below = p.row(k_, y + 2);
      for (std::int64_t x = 0; x < w_; x += part) *to++ = std::abs(above[x] - 2 * line[x] + below[x]);
    }
    return median(values, to - values, to);
  }

  // --- what a reader should know ---

  // Of the denoised image, where the noisy one has them not: JPEG's grid, few grey levels, an empty border.
  void notes(double* to) {
    to[0] = on_jpeg_grid(in_.d) && !on_jpeg_grid(in_.x);
    const std::int64_t levels = grey_levels(in_.d);
    to[1] = levels <= plan_.few && grey_levels(in_.x) > plan_.few ? double(levels) : 0.0;
    const std::int64_t border = border_of(in_.d);
    to[2] = border > 0 && border_of(in_.x) == 0 ? double(border) : 0.0;
  }

  bool on_jpeg_grid(const Planes& p) {
    const auto detail = [&](std::size_t i) { return tables_.detail.median_of(p, k_, plan_.blocks[i], memory_.get()); };
    const double own = detail(0);
    for (std::size_t i = 1; i < plan_.blocks.size(); ++i) {
      if (!(own < plan_.jpeg * detail(i))) return false;
    }
    return true;
  }

  // In about 128 rows; one more than `few` stands for all larger numbers.
  std::int64_t grey_levels(const Planes& p) const {
    std::vector<float> seen;
    const auto look = [&](std::int64_t rows, std::int64_t columns) {
      for (std::int64_t y = 0; y < h_; y += rows) {
        const float* const row = p.row(k_, y);
        for (std::int64_t x = 0; x < w_; x += columns) {
          if (std::find(seen.begin(), seen.end(), row[x]) == seen.end()) seen.push_back(row[x]);
          if (std::int64_t(seen.size()) > plan_.few) return;
        }
      }
    };
    const std::int64_t step = std::max<std::int64_t>(1, h_ / 128);
    look(4 * step, 8);
    look(step, 1);
    return std::int64_t(seen.size());
  }

  // Rows and columns of one grey level that lie around the image, the fewest of the four sides.
  std::int64_t border_of(const Planes& p) const {
    const auto flat = [&](std::int64_t y, std::int64_t x, std::int64_t down, std::int64_t right, std::int64_t count) {
      const float first = p.row(k_, y)[x];
      for (std::int64_t i = 1; i < count; ++i) {
        if (p.row(k_, y + i * down)[x + i * right] != first) return false;
      }
      return true;
    };
    std::int64_t width = 0;
    while (width < std::min(h_, w_) && flat(width, 0, 0, 1, w_) && flat(h_ - 1 - width, 0, 0, 1, w_) &&
           flat(0, width, 1, 0, h_) && flat(0, w_ - 1 - width, 1, 0, h_)) {
      ++width;
    }
    return width;
  }

  const LikenessInput& in_;
  const LikenessPlan& plan_;
  const Tables& tables_;
  const std::int64_t k_, h_, w_;
  const Memory<float> memory_;
};

}  // namespace

void likeness_prepare(LikenessPlan& plan) { plan.tables = std::make_shared<const Tables>(plan); }

void likeness_rows(const LikenessInput& in, const LikenessPlan& plan, int threads, double* rows) {
  parallel(threads, in.x.n, [&](std::int64_t k) { Tile(in, plan, k).run(rows + k * kLikenessRow); });
}

}  // namespace semnr

// The transfer of a band, a tile a task.
#include "transfer_cpu.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "../evidence/transform.hpp"
#include "../fsim/memory.hpp"

namespace semnr {
namespace {

constexpr std::int64_t L = kLanes<float>;
constexpr int kImages = 3;

// How much of a Gaussian's weight falls inside at each of `size` places; taps from the middle on.
std::vector<double> reach(const std::vector<float>& taps, std::int64_t size) {
  const std::int64_t radius = std::int64_t(taps.size()) - 1;
  std::vector<double> found(static_cast<std::size_t>(size));
  for (std::int64_t at = 0; at < size; ++at) {
    for (std::int64_t i = -radius; i <= radius; ++i) {
      if (at + i >= 0 && at + i < size) found[std::size_t(at)] += double(taps[std::size_t(std::abs(i))]);
    }
  }
  return found;
}

// The band pass of one image, row by row: zeros beyond the border, over the weight that falls inside.
class Band {
 public:
  Band(const TransferPlan& plan, const Planes& like) : plan_(plan), h_(like.h), w_(like.w), span_(like.span) {
    for (const std::vector<float>* taps : {&plan.fine, &plan.coarse}) {
      down_.push_back(reach(*taps, h_));
      std::vector<float> along(std::size_t(span_), 0.0f);
      const std::vector<double> right = reach(*taps, w_);
      for (std::int64_t x = 0; x < w_; ++x) along[std::size_t(x)] = float(1 / right[std::size_t(x)]);
      right_.push_back(std::move(along));
    }
    margin_ = span_of(std::int64_t(std::max(plan.fine.size(), plan.coarse.size())));
    zeros_.assign(std::size_t(span_), 0.0f);
    filtered_.assign(std::size_t(span_ + 2 * margin_), 0.0f);
    second_.assign(std::size_t(span_), 0.0f);
  }

  // row(y) gives a row of the image. `totals`, where there is a mask: the same of the mask, for fine and coarse.
  template <class Row>
  void run(Row row, std::int64_t y, const std::array<const float*, 2>& totals, float* out) {
    smooth(row, y, 0, totals[0], out);
    smooth(row, y, 1, totals[1], second_.data());
    for (std::int64_t x = 0; x < span_; x += L) store<float>(out + x, load(out + x) - load(second_.data() + x));
  }

  // One of the two Gaussians; over the weight inside where `total` is nullptr, and as it is where it is `raw`.
  template <class Row>
  void smooth(Row row, std::int64_t y, int which, const float* total, float* out, bool raw = false) {
    const std::vector<float>& taps = which == 0 ? plan_.fine : plan_.coarse;
    const int radius = int(taps.size()) - 1;
    const auto at = [&](std::int64_t i) { return y + i < 0 || y + i >= h_ ? zeros_.data() : row(y + i); };
    float* const middle = filtered_.data() + margin_;
    folded<false>(taps.data(), radius, at, span_, middle);
    std::fill(middle + w_, middle + span_, 0.0f);
    folded<false>(taps.data(), radius, [=](std::int64_t i) { return middle + i; }, span_, out);
    if (raw) return;
    const float scale = float(1 / down_[std::size_t(which)][std::size_t(y)]);
    const float* const along = right_[std::size_t(which)].data();
    for (std::int64_t x = 0; x < span_; x += L) {
      const Vec<float> v = load(out + x);
      store<float>(out + x, total == nullptr ? v * (load(along + x) * scale) : v / load(total + x));
    }
  }

 private:
  const TransferPlan& plan_;
  const std::int64_t h_, w_, span_;
  std::int64_t margin_;
  std::vector<std::vector<double>> down_;
  std::vector<std::vector<float>> right_;  // 1 over the weight inside
  std::vector<float> zeros_, filtered_, second_;
};

// Sums over a grid of near-equal blocks, from sums of columns.
class Blocks {
 public:
  Blocks(std::int64_t h, std::int64_t w, std::int64_t side)
      : h_(h),
        w_(w),
        rows_(std::max<std::int64_t>(1, h / side)),
        columns_(std::max<std::int64_t>(1, w / side)),
        lines_(std::size_t(span_of(w)), 0.0f),
        sums(std::size_t(rows_ * columns_), 0.0) {}

  void add(std::int64_t x, Vec<float> v) { store<float>(lines_.data() + x, load(lines_.data() + x) + v); }
  void end_row(std::int64_t y) {
    if (y + 1 != h_ && (y + 1) * rows_ / h_ == y * rows_ / h_) return;
    double* const to = sums.data() + y * rows_ / h_ * columns_;
    for (std::int64_t x = 0; x < w_; ++x) to[x * columns_ / w_] += double(lines_[std::size_t(x)]);
    std::fill(lines_.begin(), lines_.end(), 0.0f);
  }

 private:
  const std::int64_t h_, w_, rows_, columns_;
  std::vector<float> lines_;

 public:
  std::vector<double> sums;
};

double sum_of(const std::vector<double>& v) {
  double total = 0;
  for (const double one : v) total += one;
  return total;
}

class Tile {
 public:
  Tile(const TransferInput& in, const TransferPlan& plan, std::int64_t k)
      : in_(in), plan_(plan), k_(k), h_(in.x.h), w_(in.x.w), pitch_(in.x.pitch), band_(plan, in.x) {}

  void run(double* row) {
    Blocks upper(h_, w_, plan_.block), lower(h_, w_, plan_.block);
    double denoised = 0, reference = 0;
    each_row(nullptr, [&](std::int64_t y, const float* x, const float* d, const float* r) {
      for (std::int64_t i = 0; i < w_; i += L) {
        upper.add(i, load(d + i) * load(r + i));
        lower.add(i, load(x + i) * load(r + i));
      }
      upper.end_row(y);
      lower.end_row(y);
      denoised += total(w_, [&](std::int64_t i) { return load(d + i) * load(d + i); });
      reference += total(w_, [&](std::int64_t i) { return load(r + i) * load(r + i); });
    });
    ratio(upper.sums, lower.sums, row);
    if (!(row[2] >= plan_.least_z)) isolated(row);
    const double cross = sum_of(lower.sums);
    row[3] = denoised / (plan_.noisy_reference ? cross : cross * cross / reference);
    row[4] = plan_.with_drop ? mse_drop() : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  const Planes& image(int i) const { return i == 0 ? in_.x : i == 1 ? in_.d : in_.r; }

  // take(y, x, d, r) with the band-passed rows; also to `planes`, one after the other, where that is not nullptr.
  template <class Take>
  void each_row(float* planes, Take take) {
    std::vector<float> memory(std::size_t((kImages + 2) * pitch_));
    mask_images();
    for (std::int64_t y = 0; y < h_; ++y) {
      float* out[kImages];
      std::array<const float*, 2> totals = {nullptr, nullptr};
      if (in_.valid != nullptr) {
        for (int which = 0; which < 2; ++which) {
          float* const to = memory.data() + (kImages + which) * pitch_;
          band_.smooth([&](std::int64_t i) { return weight_.data() + i * pitch_; }, y, which, nullptr, to, true);
          for (std::int64_t x = 0; x < pitch_; ++x) to[x] = to[x] > 1e-9f ? to[x] : 1.0f;
          totals[std::size_t(which)] = to;
        }
      }
      for (int i = 0; i < kImages; ++i) {
        out[i] = planes == nullptr ? memory.data() + i * pitch_ : planes + (i * h_ + y) * pitch_;
        const auto row = [&](std::int64_t j) {
          return in_.valid == nullptr ? image(i).row(k_, j) : masked_[i].data() + j * pitch_;
        };
        band_.run(row, y, totals, out[i]);
        if (in_.valid == nullptr) continue;
        for (std::int64_t x = 0; x < pitch_; ++x) out[i][x] *= weight_[std::size_t(y * pitch_ + x)];
      }
      take(y, out[0], out[1], out[2]);
    }
  }

  // Where there is a mask: the images with zeros where a pixel is not valid, less the mean of the others.
  void mask_images() {
    if (in_.valid == nullptr || !weight_.empty()) return;
    weight_.assign(std::size_t(h_ * pitch_), 0.0f);
    for (std::int64_t y = 0; y < h_; ++y) {
      const std::uint8_t* const mask = in_.valid + (k_ * h_ + y) * w_;
      for (std::int64_t x = 0; x < w_; ++x) weight_[std::size_t(y * pitch_ + x)] = mask[x] != 0 ? 1.0f : 0.0f;
    }
    for (int i = 0; i < kImages; ++i) {
      const float mean = float(mean_of(image(i)));
      masked_[i].assign(std::size_t(h_ * pitch_), 0.0f);
      for (std::int64_t y = 0; y < h_; ++y) {
        const float* const from = image(i).row(k_, y);
        for (std::int64_t x = 0; x < w_; ++x) {
          const std::size_t at = std::size_t(y * pitch_ + x);
          masked_[i][at] = (from[x] - mean) * weight_[at];
        }
      }
    }
  }

  Vec<float> weight(std::int64_t y, std::int64_t x) const {
    if (!weight_.empty()) return load(weight_.data() + y * pitch_ + x);
    return x + L <= w_ ? splat(1.0f) : first<float>(splat(1.0f), w_ - x);
  }

  double count() const {
    if (weight_.empty()) return double(h_ * w_);
    double found = 0;
    for (const float v : weight_) found += double(v);
    return found;
  }

  double mean_of(const Planes& p) const {
    double sum = 0;
    for (std::int64_t y = 0; y < h_; ++y) {
      const float* const row = p.row(k_, y);
      sum += total(w_, [&](std::int64_t x) { return load(row + x) * weight(y, x); });
    }
    return sum / std::max(count(), 1.0);
  }

  // T, its standard error and z, from the spread over the blocks.
  static void ratio(const std::vector<double>& a, const std::vector<double>& b, double* row) {
    const double k = double(a.size()), below = sum_of(b), t = sum_of(a) / below;
    const double scale = k > 1 ? k / (k - 1) : std::numeric_limits<double>::quiet_NaN();
    double spread = 0, spread_b = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      spread += (a[i] - t * b[i]) * (a[i] - t * b[i]);
      spread_b += (b[i] - below / k) * (b[i] - below / k);
    }
    row[0] = t;
    row[1] = std::sqrt(scale * spread) / std::abs(below);
    row[2] = below / std::sqrt(scale * spread_b);
  }

  // Standard error of T and z for structure that lies in too few blocks for their spread to tell: from the spectra, as
  // if what is left after regression were stationary and independent.
  void isolated(double* row) {
    const std::int64_t size = h_ * pitch_;
    const auto transform = transform_of<float>(h_, w_);
    const std::int64_t spectrum = rounded<float>(transform->spectrum());
    const Memory<float> memory(kImages * rounded<float>(size) + 2 * spectrum + transform->work());
    float *const planes = memory.get(), *const spectra = planes + kImages * rounded<float>(size);
    const Products of{*transform, h_, w_, pitch_, spectra, spectra + spectrum, spectra + 2 * spectrum};
    double xr = 0, xx = 0, rr = 0;
    each_row(planes, [&](std::int64_t, const float* x, const float*, const float* r) {
      xr += total(w_, [&](std::int64_t i) { return load(x + i) * load(r + i); });
      xx += total(w_, [&](std::int64_t i) { return load(x + i) * load(x + i); });
      rr += total(w_, [&](std::int64_t i) { return load(r + i) * load(r + i); });
    });
    const float *const x = planes, *const d = planes + size, *const r = planes + 2 * size;
    row[2] = xr / of.sigma({x, r, float(xr / rr)}, {r, x, float(xr / xx)});
    row[1] = of.sigma({d, x, float(row[0])}, {r, r, 0.0f}) / std::abs(xr);
  }

  struct Rest {  // one - factor · other
    const float *one, *other;
    float factor;
  };

  struct Products {
    const PlaneTransform<float>& t;
    std::int64_t h, w, pitch;
    float *first, *second, *work;

    // Standard deviation of ⟨u, v⟩ for independent stationary fields: √(Σ |U|² |V|²) / pixels.
    double sigma(const Rest& u, const Rest& v) const {
      for (const auto& [rest, to] : {std::pair{u, first}, std::pair{v, second}}) {
        const Rest& from = rest;
        const auto put = [&](std::int64_t y, float* out) {
          for (std::int64_t x = 0; x < w; ++x) {
            out[x] = from.one[y * pitch + x] - from.factor * from.other[y * pitch + x];
          }
        };
        t.rows_there(h, w, put, to, work);
      }
      double sum = 0;
      std::vector<float> power(std::size_t(t.rows * L));
      for (std::int64_t block = 0; block < t.blocks; ++block) {
        const float* points = t.column_there(first, block, work);
        for (std::int64_t y = 0; y < t.rows; ++y)
          store<float>(power.data() + y * L, square(points + y * kPoint<float>));
        points = t.column_there(second, block, work);
        Vec<double> low = {}, high = {};
        for (std::int64_t y = 0; y < t.rows; ++y) {
          float both[L];
          store<float>(both, load(power.data() + y * L) * square(points + y * kPoint<float>));
          low += widened(both);
          high += widened(both + kLanes<double>);
        }
        for (std::int64_t i = 0; i < std::min(L, t.half - block * L); ++i) {
          const std::int64_t column = block * L + i;
          const double once = column == 0 || 2 * column == t.columns ? 1.0 : 2.0;
          sum += once * (i < kLanes<double> ? low[i] : high[i - kLanes<double>]);
        }
      }
      return std::sqrt(sum) / double(h * w);
    }

    static Vec<float> square(const float* point) {
      const Complex<float> v = load_point(point);
      return v.re * v.re + v.im * v.im;
    }
  };

  // MSE(x) - MSE(d) against a·r + b. A clean r is fitted by least squares; the noise of a second frame would pull that
  // slope towards 0, so there the ratio of the standard deviations is the gain (equal doses).
  double mse_drop() {
    mask_images();
    const float mean_x = float(mean_of(in_.x)), mean_r = float(mean_of(in_.r));
    const float apart = float(in_.d.base(k_) - in_.x.base(k_)) - mean_x;
    double xx = 0, xr = 0, rr = 0, drop = 0;
    const auto each = [&](auto&& f) {
      for (std::int64_t y = 0; y < h_; ++y) {
        const float *const x = in_.x.row(k_, y), *const d = in_.d.row(k_, y), *const r = in_.r.row(k_, y);
        f([=](std::int64_t i) { return (load(x + i) - mean_x) * weight(y, i); },
          [=](std::int64_t i) { return (load(d + i) + apart) * weight(y, i); },
          [=](std::int64_t i) { return (load(r + i) - mean_r) * weight(y, i); });
      }
    };
    each([&](auto x, auto, auto r) {
      xx += total(w_, [&](std::int64_t i) { return x(i) * x(i); });
      xr += total(w_, [&](std::int64_t i) { return x(i) * r(i); });
      rr += total(w_, [&](std::int64_t i) { return r(i) * r(i); });
    });
    const float slope = rr > 0 ? float(plan_.noisy_reference ? std::sqrt(xx / rr) : xr / rr) : 0.0f;
    each([&](auto x, auto d, auto r) {
      drop += total(w_, [&](std::int64_t i) { return (x(i) - d(i)) * (x(i) + d(i) - 2 * slope * r(i)); });
    });
    return drop / count();
  }

  const TransferInput& in_;
  const TransferPlan& plan_;
  const std::int64_t k_, h_, w_, pitch_;
  Band band_;
  std::vector<float> weight_, masked_[kImages];  // where there is a mask
};

}  // namespace

void transfer_rows(const TransferInput& in, const TransferPlan& plan, int threads, double* rows) {
  parallel(threads, in.x.n, [&](std::int64_t k) { Tile(in, plan, k).run(rows + k * kTransferRow); });
}

}  // namespace semnr

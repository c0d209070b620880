// The fit of the noise law: fields of windows, sorted by level once, then four rounds.
#include "noise_cpu.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "../evidence/ranks.hpp"
#include "../evidence/rows.hpp"
#include "../fsim/memory.hpp"
#include "line.hpp"

namespace semnr {
namespace {

constexpr std::int64_t L = kLanes<float>;
constexpr double kTruncated = 0.97334;    // variance left of a normal distribution cut at 3 sigma
constexpr double kMedianSquare = 0.4549;  // of a normal distribution of variance 1
constexpr float kTie = 4e-4f;             // of a bin: edges lie off the levels that whole grey levels make
constexpr double kSure = 4;               // standard errors from which a gain counts
constexpr double kMuchClipped = 0.05;  // share of clipped pixels from which these, and their neighbours, take no part
constexpr std::int64_t kLeastFree = 2000;  // pixels that a law can be taken from, where many are clipped
constexpr float kKept = 3.5f;              // times the ratio of the flattest fifth, up to which pixels are kept
constexpr float kCut = 16;                 // of squared differences over the law's variance
constexpr double kLeastFlat = 500;         // pixels that the spacing is taken from

// Of the inner pixels of a window: mean over 3 lines of 5 pixels, difference across the lines (scaled to the noise's
// variance), squared structure (a fifth of it in noise alone).
struct Fields {
  float *level, *difference, *structure;
};

// Lanes 0 .. count - 1 of v, then `other`.
template <class R>
Vec<R> first_or(Vec<R> v, std::int64_t count, R other) {
  for (std::int64_t i = count; i < kLanes<R>; ++i) v[i] = other;
  return v;
}

std::int64_t pixels_of(const NoiseWindow& w) { return (w.h - 2) * (w.w - 4); }

void make_fields(const NoiseWindow& window, float apart, const Fields& out) {
  constexpr std::int64_t kReach = 7;  // of the bend along the line
  const std::int64_t w = window.w, room = w + 2 * kReach + 1 + 2 * L;
  std::vector<float> memory(std::size_t(4 * room));
  float *const three = memory.data(), *const five = three + room, *const bend = five + room + kReach,
               *const fives = bend + room;
  const auto row = [&](std::int64_t y) {
    return window.data + std::min(std::max<std::int64_t>(y, 0), window.h - 1) * window.pitch;
  };
  for (std::int64_t y = 1; y + 1 < window.h; ++y) {
    const float *const a = row(y - 1), *const b = row(y), *const c = row(y + 1), *const d = row(y - 2),
                       *const e = row(y + 2);
    for (std::int64_t x = 0; x < w; x += L) {
      const Vec<float> middle = load(b + x), before = load(a + x), after = load(c + x), sum = before + middle + after;
      store<float>(three + x, sum);
      store<float>(five + x, sum + load(d + x) + load(e + x));
      store<float>(bend + x, before - 2 * middle + after);
    }
    std::fill(bend - kReach, bend, bend[0]);
    std::fill(bend + w, bend + w + kReach, bend[w - 1]);
    const auto of_five = [](auto at) { return at(-2) + at(-1) + at(0) + at(1) + at(2); };
    for (std::int64_t x = -5; x < w + 5; x += L) {
      store<float>(fives + x, of_five([=](std::int64_t i) { return load(bend + x + i); }));
    }
    // whole vectors: what lies beyond the row is written again by the next one, and beyond the last there is room
    const std::int64_t to = (y - 1) * (w - 4) - 2;
    for (std::int64_t x = 2; x < w - 2; x += L) {
      const Vec<float> sum = of_five([=](std::int64_t i) { return load(three + x + i); });
      const Vec<float> across = of_five([=](std::int64_t i) { return load(c + x + i) - load(a + x + i); });
      const Vec<float> along = load(five + x + 1) + load(five + x + 2) - load(five + x - 1) - load(five + x - 2);
      const Vec<float> curve = load(fives + x - 5) + load(fives + x + 5);
      const Vec<float> first = across * across * (1 / 50.0f), second = along * along * (1 / 100.0f);
      const Vec<float> third = curve * curve * (1 / 300.0f), most = first > second ? first : second;
      store<float>(out.level + to + x, sum * (1 / 15.0f) + apart);
      store<float>(out.difference + to + x, load(bend + x) * 0.40824829046386302f);
      store<float>(out.structure + to + x, most > third ? most : third);
    }
  }
}

class Fit {
 public:
  Fit(const std::vector<NoiseWindow>& windows, const NoiseLimits& limits) : windows_(windows), limits_(limits) {
    for (const NoiseWindow& w : windows) count_ += pixels_of(w);
  }

  void run(double* row) {
    const std::int64_t room = rounded<float>(count_ + kSpan);
    const Memory<float> memory(9 * room);
    float* next = memory.get();
    for (float** to : {&fields_.level, &fields_.difference, &fields_.structure, &level_, &square_, &structure_, &ratio_,
                       &kept_, &room_}) {
      *to = next;
      next += room;
    }
    count_clipped(row);
    make();
    row[6] = find_free(row[3] + row[4] > kMuchClipped);
    sort();
    rounds();
    finish(row);
  }

 private:
  void count_clipped(double* row) {
    double low = 0, high = 0, all = 0;
    for (const NoiseWindow& w : windows_) {
      const float first = float(limits_.low - w.base), last = float(limits_.high - w.base);
      for (std::int64_t y = 0; y < w.h; ++y) {
        const float* const line = w.data + y * w.pitch;
        std::int32_t below = 0, above = 0;
        for (std::int64_t x = 0; x < w.w; ++x) {
          below += line[x] <= first;
          above += line[x] >= last;
        }
        low += below;
        high += above;
      }
      all += double(w.h * w.w);
    }
    row[3] = low / all;
    row[4] = high / all;
    ends_[0] = row[3] > limits_.piled ? limits_.low : -std::numeric_limits<double>::infinity();
    ends_[1] = row[4] > limits_.piled ? limits_.high : std::numeric_limits<double>::infinity();
  }

  // Levels are kept less the least one of all, `base_`.
  void make() {
    Fields to = fields_;
    for (const NoiseWindow& w : windows_) {
      make_fields(w, float(w.base - windows_[0].base), to);
      to = {to.level + pixels_of(w), to.difference + pixels_of(w), to.structure + pixels_of(w)};
    }
    const float least = *std::min_element(fields_.level, fields_.level + count_);
    for (std::int64_t i = 0; i < count_; ++i) fields_.level[i] -= least;
    base_ = windows_[0].base + double(least);
  }

  // Where many pixels are clipped: those that enter neither level nor difference of a clipped one. Returns their share,
  // 0 where they are too few; then all take part.
  double find_free(bool clipped) {
    if (!clipped) return 1;
    free_.clear();
    for (const NoiseWindow& w : windows_) {
      const float first = float(ends_[0] - w.base), last = float(ends_[1] - w.base);
      for (std::int64_t y = 1; y + 1 < w.h; ++y) {
        for (std::int64_t x = 2; x + 2 < w.w; ++x) {
          bool inside = true;
          for (std::int64_t i = (y - 1) * w.pitch; i <= (y + 1) * w.pitch; i += w.pitch) {
            for (std::int64_t j = x - 2; j <= x + 2; ++j) inside &= w.data[i + j] > first && w.data[i + j] < last;
          }
          free_.push_back(inside ? 1 : 0);
        }
      }
    }
    const std::int64_t found = std::count(free_.begin(), free_.end(), 1);
    if (found < kLeastFree) free_.clear();
    return found < kLeastFree ? 0 : double(found) / double(count_);
  }

  bool is_free(std::int64_t i) const { return free_.empty() || free_[std::size_t(i)] != 0; }

  // Pixels by bins of level, in each in their order. From here on `count_` are those that take part.
  void sort() {
    const std::int64_t all = count_;
    count_ = 0;
    if (free_.empty()) {
      std::copy_n(fields_.level, count_ = all, kept_);
    } else {
      for (std::int64_t i = 0; i < all; ++i) {
        kept_[count_] = fields_.level[i];
        count_ += is_free(i);
      }
    }
    const double low = quantile(kept_, count_, 0.001, room_), high = quantile(kept_, count_, 0.999, room_);
    const float first = float(low), scale = high > low ? float(kNoiseBins / (high - low)) : 0.0f;
    std::vector<std::uint8_t> bin(static_cast<std::size_t>(all));
    for (std::int64_t i = 0; i < all; ++i) {
      const float at = scale > 0 ? (fields_.level[i] - first) * scale + kTie
                                 : (fields_.level[i] >= first ? float(kNoiseBins) : 0.0f);
      bin[std::size_t(i)] = std::uint8_t(std::min(std::max(at, 0.0f), float(kNoiseBins - 1)));
    }
    std::array<std::int64_t, kNoiseBins> sizes = {};
    for (std::int64_t i = 0; i < all; ++i) sizes[bin[std::size_t(i)]] += is_free(i);
    std::array<std::int64_t, kNoiseBins> next;
    for (int b = 0; b < kNoiseBins; ++b) {
      next[std::size_t(b)] = bounds_[std::size_t(b)];
      bounds_[std::size_t(b) + 1] = bounds_[std::size_t(b)] + sizes[std::size_t(b)];
    }
    for (std::int64_t i = 0; i < all; ++i) {
      if (!is_free(i)) continue;
      const std::int64_t to = next[bin[std::size_t(i)]]++;
      level_[to] = fields_.level[i];
      square_[to] = fields_.difference[i] * fields_.difference[i];
      structure_[to] = fields_.structure[i];
    }
  }

  // Reject structure, measure the variance by level, fit the line; each round with the last one's line.
  void rounds() {
    most_ = float(quantile(structure_, count_, 0.25, room_) * (1 + 1e-5));
    std::copy_n(structure_, count_, ratio_);
    for (int round = 0; round < 4; ++round) {
      measure();
      inside_.clear();
      for (const NoisePoint& p : points_) {
        const double reach = 2.5 * std::sqrt(std::max(p.variance, 0.0));
        if (p.level - reach > ends_[0] && p.level + reach < ends_[1]) inside_.push_back(p);
      }
      line_ = line_through(inside_.size() >= 2 ? inside_ : points_);
      floor_ = 0.25 * lower_quarter();
      for (std::int64_t i = 0; i < count_; i += L) {
        store<float>(ratio_ + i, load(structure_ + i) / expected(load(level_ + i)));
      }
      // in noise alone structure / variance has the same law everywhere; its lowest fifth says what is usual
      flattest_ = float(quantile(ratio_, count_, 0.2, room_));
      most_ = kKept * flattest_;
    }
  }

  // The variance that the line gives at levels less base_; 1 where it is 0.
  Vec<float> expected(Vec<float> level) const {
    const float gain = float(line_.gain), offset = float(line_.offset + line_.gain * base_), floor = float(floor_);
    const Vec<float> straight = gain * level + offset, found = straight > floor ? straight : floor - Vec<float>{};
    return found > Vec<float>{} ? found : splat(1.0f);
  }

  double lower_quarter() const {
    std::vector<double> v;
    for (const NoisePoint& p : points_) v.push_back(p.variance);
    std::sort(v.begin(), v.end());
    const double at = 0.25 * double(v.size() - 1);
    const std::size_t k = std::size_t(at);
    return v[k] + (at - double(k)) * (v[std::min(k + 1, v.size() - 1)] - v[k]);
  }

  // Mean level, robust variance and count of every bin that holds enough of the pixels whose ratio is small.
  void measure() {
    std::array<std::int64_t, kNoiseBins + 1> ends = {};
    std::array<double, kNoiseBins> levels = {};
    std::int64_t kept = 0;
    for (std::size_t b = 0; b < kNoiseBins; ++b) {
      Vec<double> level = {};
      for (std::int64_t i = bounds_[b]; i < bounds_[b + 1]; i += L) {
        const std::int64_t left = std::min(L, bounds_[b + 1] - i);
        const Vec<float> ratio = left == L ? load(ratio_ + i) : first_or<float>(load(ratio_ + i), left, most_ * 2 + 1);
        const auto keep = ratio <= most_;
        level += widened_sum(keep ? load(level_ + i) : Vec<float>{});
        std::uint32_t bits = lanes_of<float>(keep);
        if constexpr (kPacks<float>) {
          store<float>(kept_ + kept, packed<float>(load(square_ + i), bits));
          kept += __builtin_popcount(bits);
        } else {
          for (; bits != 0; bits &= bits - 1) kept_[kept++] = square_[i + __builtin_ctz(bits)];
        }
      }
      levels[b] = sum<double>(level);
      ends[b + 1] = kept;
    }
    points_.clear();
    const double enough = std::max(50.0, 0.002 * double(kept));
    double all = 0;
    for (std::size_t b = 0; b < kNoiseBins; ++b) {
      const std::int64_t count = ends[b + 1] - ends[b];
      all += levels[b];
      if (double(count) >= enough) {
        points_.push_back({base_ + levels[b] / double(count), variance(kept_ + ends[b], count), double(count)});
      }
    }
    if (points_.empty()) points_ = {{base_ + all / double(kept), variance(kept_, kept), double(kept)}};
  }

  // Variance about zero of the core of a distribution: cut at 3 sigma, corrected for the cut.
  double variance(const float* squares, std::int64_t count) {
    double found = median(squares, count, room_) / kMedianSquare;
    if (!(found > 0)) found = mean_up_to(squares, count, std::numeric_limits<float>::infinity(), 0);
    for (int turn = 0; turn < 6; ++turn) {
      const double next = mean_up_to(squares, count, float(9 * found), found * kTruncated) / kTruncated;
      if (next == found) break;
      found = next;
    }
    return found;
  }

  static double mean_up_to(const float* squares, std::int64_t count, float most, double none) {
    Vec<double> whole = {};
    Vec<std::int32_t> held = {};
    std::int64_t i = 0;
    for (; i + L <= count; i += 8 * L) {
      Vec<float> some = {};
      for (std::int64_t j = i; j < std::min(i + 8 * L, count - L + 1); j += L) {
        const Vec<float> v = load(squares + j);
        const auto inside = v <= most;
        some += inside ? v : Vec<float>{};
        held += inside;  // -1 where it holds
      }
      whole += widened_sum(some);
    }
    double total = sum<double>(whole);
    std::int64_t kept = -std::int64_t(sum<std::int32_t>(held));
    for (i = count / L * L; i < count; ++i) {
      if (squares[i] <= most) {
        total += double(squares[i]);
        ++kept;
      }
    }
    return kept > 0 ? total / double(kept) : none;
  }

  void finish(double* row) {
    const std::vector<NoisePoint>& points = inside_.empty() ? points_ : inside_;
    row[2] = line_.error;
    NoiseLine law = line_;
    if (!(std::abs(law.gain) > kSure * law.error)) law = {0, mean_variance(points), law.error};
    double least = points[0].variance;
    for (const NoisePoint& p : points) least = std::min(least, p.variance);
    row[0] = law.gain;
    row[1] = law.offset;
    row[5] = double(points.size());
    double* const to = row + 7;
    for (std::size_t i = 0; i < points.size(); ++i) {
      to[i] = points[i].level;
      to[kNoiseBins + i] = points[i].variance;
      to[2 * kNoiseBins + i] = points[i].count;
    }
    correlate(law, 0.5 * least, to + 3 * kNoiseBins);
    space(law, 0.5 * least, to + 3 * kNoiseBins + 2 * kNoiseLags);
  }

  // Mean squares of second differences over the law's variance between lines 1 and 2 apart, then pixels 1 and 2 apart
  // on a line, in the flattest fifth; then the share of the first that lines owe to being even or odd.
  void space(const NoiseLine& law, double floor, double* found) {
    const float gain = float(law.gain), offset = float(law.offset + law.gain * base_), least = float(floor);
    std::array<double, kNoiseSpacing - 1> sums = {};
    double count = 0, alternate = 0;
    std::int64_t start = 0;
    std::vector<float> weight;
    for (const NoiseWindow& window : windows_) {
      const std::int64_t width = window.w - 4;
      double signs = 0, here = 0;
      weight.resize(std::size_t(width));
      for (std::int64_t y = 2; y + 2 < window.h - 2; ++y) {  // of the inner pixels, whose first line is the second
        const std::int64_t at = start + y * width;
        for (std::int64_t x = 0; x < width; ++x) {  // one over the law's variance where the pixel is flat
          const float level = fields_.level[at + x], straight = gain * level + offset;
          const float variance = std::max(straight, least), over = fields_.structure[at + x] / expected_at(level);
          weight[std::size_t(x)] = over <= flattest_ ? 1 / (6 * (variance > 0 ? variance : 1.0f)) : 0.0f;
        }
        for (std::int64_t x = 0; x < width && !free_.empty(); ++x) {
          if (!is_free(at + x)) weight[std::size_t(x)] = 0.0f;
        }
        const float* const line = window.data + (y + 1) * window.pitch + 2;
        const std::array<std::int64_t, kNoiseSpacing - 1> steps = {window.pitch, 2 * window.pitch, 3 * window.pitch, 1,
                                                                   2};
        for (std::size_t k = 0; k < steps.size(); ++k) sums[k] += cut_squares(line, steps[k], weight.data(), width);
        const double sign = bends(line, window.pitch, weight.data(), width);
        signs += y % 2 == 0 ? sign : -sign;
        for (const float w : weight) here += w > 0 ? 1 : 0;
      }
      start += (window.h - 2) * width;
      count += here;
      if (here > 0) alternate += signs * signs / here;
    }
    const bool enough = count >= kLeastFlat;
    for (std::size_t k = 0; k < sums.size(); ++k) found[k] = sums[k] / count;
    found[sums.size()] = alternate / std::max(sums[0], 1e-300);
    if (!enough) std::fill_n(found, kNoiseSpacing, std::numeric_limits<double>::quiet_NaN());
  }

  static double cut_squares(const float* line, std::int64_t step, const float* weight, std::int64_t width) {
    Vec<float> sum_of = {};
    std::int64_t x = 0;
    for (; x + L <= width; x += L) {
      const Vec<float> bend = load(line + x - step) - 2 * load(line + x) + load(line + x + step);
      const Vec<float> square = bend * bend * load(weight + x);
      sum_of += square < kCut ? square : kCut - Vec<float>{};
    }
    double all = double(sum<float>(sum_of));
    for (; x < width; ++x) {
      const float bend = line[x - step] - 2 * line[x] + line[x + step];
      all += double(std::min(bend * bend * weight[x], kCut));
    }
    return all;
  }

  // Sum of the differences across lines over the law's σ.
  static double bends(const float* line, std::int64_t pitch, const float* weight, std::int64_t width) {
    Vec<float> sum_of = {};
    std::int64_t x = 0;
    for (; x + L <= width; x += L) {
      sum_of += (load(line + x - pitch) - 2 * load(line + x) + load(line + x + pitch)) * root<float>(load(weight + x));
    }
    double all = double(sum<float>(sum_of));
    for (; x < width; ++x) {
      all += double((line[x - pitch] - 2 * line[x] + line[x + pitch]) * std::sqrt(weight[x]));
    }
    return all;
  }

  float expected_at(float level) const {
    const float straight = float(line_.gain) * level + float(line_.offset + line_.gain * base_);
    const float found = std::max(straight, float(floor_));
    return found > 0 ? found : 1.0f;
  }

  // Products of the differences, over the law's σ, of neighbours along the line that are both kept.
  void correlate(const NoiseLine& law, double floor, double* products) {
    std::fill_n(products, 2 * kNoiseLags, 0.0);
    const float gain = float(law.gain), offset = float(law.offset + law.gain * base_), least = float(floor);
    std::int64_t start = 0;
    for (const NoiseWindow& window : windows_) {
      const std::int64_t width = window.w - 4, room = rounded<float>(width + kSpan);
      std::vector<float> memory(std::size_t(2 * room), 0.0f);
      float *const unit = memory.data(), *const good = unit + room;
      for (std::int64_t y = 0; y < window.h - 2; ++y, start += width) {
        for (std::int64_t x = 0; x < width; x += L) {
          const Vec<float> level = load(fields_.level + start + x), straight = gain * level + offset;
          const Vec<float> sigma = root<float>(straight > least ? straight : least - Vec<float>{});
          const Vec<float> value = load(fields_.difference + start + x) / (sigma > Vec<float>{} ? sigma : splat(1.0f));
          const Vec<float> over = load(fields_.structure + start + x) / expected(level);
          const auto keep = (over <= most_) & (value < 4.0f) & (value > -4.0f);
          store<float>(good + x, keep ? splat(1.0f) : Vec<float>{});
          store<float>(unit + x, keep ? value : Vec<float>{});
        }
        for (std::int64_t x = 0; x < width && !free_.empty(); ++x) {
          if (!is_free(start + x)) good[x] = unit[x] = 0.0f;
        }
        std::fill(good + width, good + room, 0.0f);
        std::fill(unit + width, unit + room, 0.0f);
        for (std::int64_t lag = 1; lag <= std::min<std::int64_t>(kNoiseLags, width - 1); ++lag) {
          products[2 * lag - 2] += total(width, [&](std::int64_t x) { return load(unit + x) * load(unit + x + lag); });
          products[2 * lag - 1] += 0.5 * total(width, [&](std::int64_t x) {
                                     const Vec<float> a = load(unit + x), b = load(unit + x + lag);
                                     return a * a * load(good + x + lag) + b * b * load(good + x);
                                   });
        }
      }
    }
  }

  const std::vector<NoiseWindow>& windows_;
  const NoiseLimits& limits_;
  std::int64_t count_ = 0;
  Fields fields_ = {};                                                 // in the order of the pixels
  float *level_ = nullptr, *square_ = nullptr, *structure_ = nullptr;  // by bins
  float *ratio_ = nullptr, *kept_ = nullptr, *room_ = nullptr;
  std::array<std::int64_t, kNoiseBins + 1> bounds_ = {};
  double base_ = 0, ends_[2] = {}, floor_ = 0;
  float most_ = 0, flattest_ = 0;  // ratio up to which a pixel is kept; that of the flattest fifth
  NoiseLine line_;
  std::vector<NoisePoint> points_, inside_;
  std::vector<std::uint8_t> free_;  // of each pixel, whether it takes part; empty: all do
};

}  // namespace

void noise_fit(const std::vector<NoiseWindow>& windows, const NoiseLimits& limits, double* row) {
  Fit(windows, limits).run(row);
}

}  // namespace semnr

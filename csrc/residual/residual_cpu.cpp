// The scan of the residual, a tile a task.
#include "residual_cpu.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../evidence/ranks.hpp"
#include "../evidence/transform.hpp"
#include "../fsim/memory.hpp"
#include "bank.hpp"
#include "edges.hpp"
#include "marks.hpp"

namespace semnr {
namespace {

constexpr std::int64_t L = kLanes<float>;

inline Vec<float> magnitude(Vec<float> v) { return v < Vec<float>{} ? -v : v; }
inline Vec<float> larger(Vec<float> a, Vec<float> b) { return a > b ? a : b; }
inline Vec<float> smaller(Vec<float> a, Vec<float> b) { return a < b ? a : b; }

// A part of the tile with its whitened residual.
struct Window {
  Cut down, right;
  Framed plane;
};

// Rounds up, as the ranks of the definition do, and counts from 0.
inline std::int64_t rank_of(double share, std::int64_t count) {
  return std::max<std::int64_t>(1, std::int64_t(std::ceil(share * double(count)))) - 1;
}

class Tile {
 public:
  Tile(const ResidualInput& in, const ResidualPlan& plan, const Bank& bank, std::int64_t k)
      : in_(in),
        plan_(plan),
        bank_(bank),
        k_(k),
        h_(in.x.h),
        w_(in.x.w),
        pitch_(in.x.pitch),
        span_(in.x.span),
        sampled_h_((h_ + plan.step - 1) / plan.step),
        sampled_w_((w_ + plan.step - 1) / plan.step),
        samples_(sampled_h_ * sampled_w_),
        transform_(transform_of<float>(plan.rows, plan.columns)),
        memory_(values()),
        edges_(h_, w_, plan.block) {
    float* next = memory_.get();
    const auto take = [&next](std::int64_t count) {
      float* const found = next;
      next += rounded<float>(count);
      return found;
    };
    residual_ = take(h_ * pitch_);
    strength_ = take(h_ * pitch_);
    best_ = take(h_ * pitch_);
    spectrum_ = take(transform_->spectrum());
    sample_ = take(bank.shapes() * samples_);
    for (const Cut& down : plan.down) {
      for (const Cut& right : plan.right) {
        const std::int64_t h = down.stop - down.start, w = right.stop - right.start;
        windows_.push_back({down, right, {h, w, bank.radius(), Framed::pitch_for(w, bank.radius()), nullptr}});
        windows_.back().plane.data = take(Framed::values(h, w, bank.radius()));
      }
    }
    work_ = next;
  }

  void run(double* row, double* marks, float* map) {
    row[0] = normalise();
    std::fill_n(row + 3, kResidualBands * kResidualBands, 0.0);
    for (Window& window : windows_) whiten(window, row + 3);
    find_usual();
    std::vector<Candidate> found = scan(map);
    row[1] = edges_.z();
    row[2] = double(mark(found, marks));
  }

 private:
  std::int64_t values() const {
    std::int64_t total = 3 * rounded<float>(h_ * pitch_) + rounded<float>(transform_->spectrum()) +
                         rounded<float>(bank_.shapes() * samples_);
    std::int64_t widest = 0;
    for (const Cut& down : plan_.down) {
      for (const Cut& right : plan_.right) {
        total += rounded<float>(Framed::values(down.stop - down.start, right.stop - right.start, bank_.radius()));
        widest = std::max(widest, right.stop - right.start);
      }
    }
    const std::int64_t filters = 4 * room(), ranks = std::max(3 * samples_, h_ * w_);
    return total + std::max({transform_->work(), bank_.work(widest), filters, ranks});
  }

  std::int64_t room() const { return span_ + 4 * kSpan; }  // a row with what filters see beyond it
  const std::uint8_t* valid(std::int64_t y) const {
    return in_.valid == nullptr ? nullptr : in_.valid + (k_ * h_ + y) * w_;
  }

  // The noise's variance as a line in the denoised image less its base, and the least it can be.
  struct Law {
    float gain, offset, least;
    Vec<float> variance(Vec<float> level) const { return larger(gain * level + offset, splat(least)); }
  };
  Law law() const {
    const double *const given = in_.law + 3 * k_, base = in_.d.base(k_);
    const double largest = std::max(std::abs(base + in_.d.least(k_)), std::abs(base + in_.d.largest(k_)));
    const double none = 1e-12 + 1e-12 * largest * largest;  // of a frame without any noise
    return {float(given[0]), float(given[1] + given[0] * base), float(std::max(given[2], none))};
  }

  // --- the residual in units of the noise, and the strength of edges ---

  // Returns the residual's mean square; takes the tile's offset and each line's own out of it.
  double normalise() {
    law_ = law();
    const float apart = float(in_.x.base(k_) - in_.d.base(k_));
    double sum = 0, count = 0, square = 0;
    for (std::int64_t y = 0; y < h_; ++y) {
      const float *const x = in_.x.row(k_, y), *const d = in_.d.row(k_, y);
      float *const u = residual_ + y * pitch_, *const strength = strength_ + y * pitch_;
      slope(y, strength);
      for (std::int64_t i = 0; i < span_; i += L) {
        const Vec<float> level = load(d + i), inverse = 1.0f / root<float>(law_.variance(level));
        store<float>(u + i, (load(x + i) - level + apart) * inverse);
        store<float>(strength + i, load(strength + i) * inverse);
      }
      count += keep_valid(y, u);
      sum += total(w_, [&](std::int64_t i) { return load(u + i); });
    }
    const float mean = float(sum / std::max(count, 1.0));
    for (std::int64_t y = 0; y < h_; ++y) {
      float* const u = residual_ + y * pitch_;
      const double inside = less(y, u, mean);
      square += total(w_, [&](std::int64_t i) { return load(u + i) * load(u + i); });
      // each scan line's own offset is noise of the tool: taken out, outliers turned down
      const double core =
          total(w_, [&](std::int64_t i) { return smaller(larger(load(u + i), splat(-3.0f)), splat(3.0f)); });
      less(y, u, float(core / std::max(inside, 1.0)));
    }
    return square / std::max(count, 1.0);
  }

  double less(std::int64_t y, float* u, float offset) const {
    for (std::int64_t i = 0; i < w_; i += L) store<float>(u + i, load(u + i) - offset);
    return keep_valid(y, u);
  }

  // Zeros where a pixel is not valid and beyond the row; returns how many are valid.
  double keep_valid(std::int64_t y, float* u) const {
    std::fill(u + w_, u + span_, 0.0f);
    const std::uint8_t* const mask = valid(y);
    if (mask == nullptr) return double(w_);
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < w_; ++i) {
      u[i] = mask[i] != 0 ? u[i] : 0.0f;
      count += mask[i] != 0;
    }
    return double(count);
  }

  // The gradient under a Gaussian along row y; the image goes on beyond its border as it ends there.
  void slope(std::int64_t y, float* out) {
    const std::int64_t radius = std::int64_t(plan_.smooth.size()) - 1;
    float *const level = work_ + kSpan, *const down = level + room(), *const right = down + room();
    const auto row = [&](std::int64_t i) { return in_.d.row(k_, std::min(std::max<std::int64_t>(y + i, 0), h_ - 1)); };
    folded<false>(plan_.smooth.data(), int(radius), row, span_, level);
    folded<true>(plan_.slope.data(), int(radius), row, span_, down);
    for (float* const line : {level, down}) {
      std::fill(line - radius, line, line[0]);
      std::fill(line + w_, line + span_ + radius, line[w_ - 1]);
    }
    folded<true>(plan_.slope.data(), int(radius), [&](std::int64_t i) { return level + i; }, span_, right);
    folded<false>(plan_.smooth.data(), int(radius), [&](std::int64_t i) { return down + i; }, span_, out);
    for (std::int64_t i = 0; i < span_; i += L) {
      const Vec<float> a = load(out + i), b = load(right + i);
      store<float>(out + i, root<float>(a * a + b * b));
    }
  }

  // --- the whitened residual ---

  // Adds the power of the window by bands of frequency to `power`.
  void whiten(Window& window, double* power) {
    const PlaneTransform<float>& t = *transform_;
    const Cut &down = window.down, &right = window.right;
    const std::int64_t height = down.last - down.first, width = right.last - right.first;
    const auto put = [&](std::int64_t y, float* to) {
      std::copy_n(residual_ + (down.first + y) * pitch_ + right.first, width, to);
    };
    t.rows_there(height, width, put, spectrum_, work_);
    const double norm = 1 / (double(t.rows) * double(t.columns));
    for (std::int64_t block = 0; block < t.blocks; ++block) {
      float* const points = t.column_there(spectrum_, block, work_);
      const std::int64_t count = std::min(L, t.half - block * L);
      Vec<float> low = {}, filter = {}, sums[kResidualBands] = {};
      for (std::int64_t i = 0; i < count; ++i) {
        low[i] = plan_.surroundings_right[std::size_t(block * L + i)];
        filter[i] = in_.white[k_ * t.half + block * L + i];
      }
      const Vec<float> scaled = filter * float(norm);
      for (std::int64_t y = 0; y < t.rows; ++y) {
        const Complex<float> point = load_point(points + y * kPoint<float>);
        const Vec<float> high = 1.0f - plan_.surroundings_down[std::size_t(y)] * low, factor = high * scaled;
        const std::int64_t band = std::min(2 * kResidualBands * std::min(y, t.rows - y) / t.rows, kResidualBands - 1);
        sums[band] += (point.re * point.re + point.im * point.im) * high;
        store_point<float>(points + y * kPoint<float>, {point.re * factor, point.im * factor});
      }
      for (std::int64_t i = 0; i < count; ++i) {
        double* const to = power + (block * L + i) * kResidualBands / t.half;
        for (int b = 0; b < kResidualBands; ++b) {
          to[b * kResidualBands] += double(sums[b][i]) * double(filter[i]) / double(height * width);
        }
      }
      t.column_back([=](std::int64_t y) { return load_point(points + y * kPoint<float>); }, block, spectrum_, work_);
    }
    frame(window.plane, down.start - down.first, right.start - right.first);
  }

  // The rows and columns of the transform from (top, left) on, and a frame around them, to a plane.
  void frame(Framed& plane, std::int64_t top, std::int64_t left) {
    const PlaneTransform<float>& t = *transform_;
    const std::int64_t rows = plane.h + 2 * plane.radius, columns = plane.w + 2 * plane.radius;
    const std::int64_t first = (left - plane.radius + t.columns) % t.columns;
    const std::int64_t whole = std::min(columns, t.columns - first);
    for (std::int64_t y = 0; y < t.rows; y += 2 * L) {
      float *const lines = work_, *const rest = lines + t.lines();
      t.rows_back(t.row(spectrum_, y), t.row(spectrum_, y + L), lines, rest);
      for (std::int64_t i = 0; i < std::min(2 * L, t.rows - y); ++i) {
        const std::int64_t row = (y + i - top + plane.radius + t.rows) % t.rows;
        if (row >= rows) continue;
        const float* const line = lines + i * t.pitch;
        float* const to = plane.data + row * plane.pitch;
        std::copy_n(line + first, whole, to);
        std::copy_n(line, columns - whole, to + whole);
        std::fill(to + columns, to + plane.pitch, 0.0f);
      }
    }
  }

  // --- how large |z| usually is ---

  void find_usual() {
    for (std::int64_t k = 0; k < bank_.shapes(); ++k) units_.push_back(float(1 / in_.gain[k_ * bank_.shapes() + k]));
    for (const Window& window : windows_) sample(window);
    const double side = std::sqrt(double(h_) * double(w_));
    for (std::int64_t k = 0; k < bank_.shapes(); ++k) {
      const float own = kth(sample_ + k * samples_, samples_, rank_of(plan_.within, samples_), work_);
      // few independent places say little of a large size: only what is clearly below 1 counts
      const float calm = own * float(1 + 2 * plan_.size[std::size_t(k)] / side);
      own_.push_back(own > 1 ? own : std::min(std::max(calm, float(plan_.calmest)), 1.0f));
    }
    by_strength();
  }

  // |z| of every shape at every step-th row and column.
  void sample(const Window& window) {
    const std::int64_t step = plan_.step;
    const std::int64_t top = (window.down.start + step - 1) / step, left = (window.right.start + step - 1) / step;
    const std::int64_t width = (window.right.stop - left * step + step - 1) / step;
    for (std::int64_t y = top; y * step < window.down.stop; ++y) {
      const auto take = [&](std::int64_t j, const float* values) {
        for (std::int64_t k = 0; k < bank_.shapes(); ++k) {
          float* const to = sample_ + k * samples_ + y * sampled_w_ + left + j;
          const float* const from = values + k * Bank::kValues;
          for (std::int64_t i = 0; i < std::min(Bank::kValues, width - j); ++i) to[i] = std::abs(from[i]);
        }
      };
      const std::int64_t row = y * step - window.down.start, first = left * step - window.right.start;
      if (step == 1) {
        bank_.responses<1>(window.plane, row, first, units_, work_, take);
      } else {
        bank_.responses<2>(window.plane, row, first, units_, work_, take);
      }
    }
  }

  // For small and for large shapes the size, at least 1, that |z| has at edges of each level of strength.
  void by_strength() {
    const std::size_t levels = plan_.bounds.size() - 1;
    float *const strength = work_, *const grouped = strength + samples_, *const rest = grouped + samples_;
    for (std::int64_t y = 0; y < sampled_h_; ++y) {
      const float* const row = strength_ + y * plan_.step * pitch_;
      for (std::int64_t x = 0; x < sampled_w_; ++x) strength[y * sampled_w_ + x] = row[x * plan_.step];
    }
    std::vector<std::int64_t> ties;  // of the samples as strong as a limit, how many count below it
    for (std::size_t i = 1; i < levels; ++i) {
      const float limit = kth(strength, samples_, plan_.bounds[i], grouped);
      ties.push_back(plan_.bounds[i] - std::count_if(strength, grouped, [=](float v) { return v < limit; }));
      limits_.push_back(limit);
    }
    std::vector<std::uint8_t> level(std::size_t(samples_), 0);
    for (std::size_t i = 0; i < limits_.size(); ++i) {
      const float limit = limits_[i];
      for (std::int64_t j = 0; j < samples_; ++j) level[std::size_t(j)] += strength[j] > limit;
      for (std::int64_t j = 0; ties[i] < samples_ && j < samples_; ++j) {
        if (strength[j] == limit && --ties[i] < 0) ++level[std::size_t(j)];
      }
    }
    for (int which = 0; which < 2; ++which) {
      const float* const sizes = sample_ + plan_.middle[which] * samples_;
      std::vector<std::int64_t> next = plan_.bounds;
      for (std::int64_t j = 0; j < samples_; ++j) grouped[next[level[std::size_t(j)]]++] = sizes[j];
      for (std::size_t i = 0; i < levels; ++i) {
        const std::int64_t count = plan_.bounds[i + 1] - plan_.bounds[i];
        const float size = kth(grouped + plan_.bounds[i], count, rank_of(plan_.share, count), rest);
        const double over = double(size / own_[std::size_t(plan_.middle[which])]) / plan_.quantile;
        steps_[which].push_back(float(1 / std::max(1.0, over)));
      }
    }
  }

  // --- the scan ---

  // The peaks beyond the limit, strongest first, or the strongest place.
  std::vector<Candidate> scan(float* map) {
    for (std::int64_t y = 0; y < h_; ++y) std::copy_n(strength_ + y * pitch_, w_, work_ + y * w_);
    const float middle = kth(work_, h_ * w_, (h_ * w_ - 1) / 2, best_);  // torch's median
    Found found;
    std::vector<float> factors = units_;
    for (std::size_t k = 0; k < factors.size(); ++k) factors[k] /= own_[k];
    for (const Window& window : windows_) {
      for (std::int64_t y = window.down.start; y < window.down.stop; ++y) {
        const auto take = [&](std::int64_t j, const float* values) { look(window, y, j, values, middle, found, map); };
        bank_.responses<1>(window.plane, y - window.down.start, 0, factors, work_, take);
        edges_.end_row(y, window.down.stop, window.right.start, window.right.stop);
      }
    }
    if (found.beyond.empty()) return {found.strongest};
    return peaks(std::move(found.beyond), best_, h_, w_, pitch_);
  }

  struct Found {
    std::vector<Candidate> beyond;  // the limit
    Candidate strongest = {0, 0, -1.0f, 0.0f, 0};
  };

  // Some of the responses in row y, over what is usual in the tile, from column j of the window on.
  void look(const Window& window, std::int64_t y, std::int64_t j, const float* values, float middle, Found& found,
            float* map) {
    const float limit = float(in_.limit[k_]), own = own_[std::size_t(plan_.middle[0])];
    for (std::int64_t i = 0; i < std::min(Bank::kValues, window.plane.w - j); i += L) {
      const std::int64_t x = window.right.start + j + i, count = std::min(L, window.right.stop - x);
      const Vec<float> strength = load(strength_ + y * pitch_ + x);
      const Vec<float> calm[2] = {step_of(0, strength), step_of(1, strength)};
      const Vec<float> best = larger(largest(0, values + i) * calm[0], largest(1, values + i) * calm[1]);
      put(best_ + y * pitch_ + x, best, count);
      const Vec<float> z = load(values + plan_.middle[0] * Bank::kValues + i) * own;
      edges_.add(x, smaller(z * z, splat(16.0f)), strength / (strength + (middle + 1e-3f)), weight(y, x, count));
      if (map != nullptr) put(map + y * w_ + x, undivided(values + i), count);
      if (lanes_of<float>(best > std::min(limit, found.strongest.size)) == 0) continue;
      for (std::int64_t lane = 0; lane < count; ++lane) {
        if (!(best[lane] > std::min(limit, found.strongest.size))) continue;
        const Candidate here = candidate(y, x + lane, values + i + lane, {calm[0][lane], calm[1][lane]});
        if (here.size > limit) found.beyond.push_back(here);
        if (here.size > found.strongest.size) found.strongest = here;
      }
    }
  }

  // Of the responses of the small shapes, or of the large ones.
  Vec<float> largest(int which, const float* values) const {
    Vec<float> found = {};
    for (std::int64_t k = 0; k < bank_.shapes(); ++k) {
      if (plan_.level[std::size_t(k)] == which) found = larger(found, magnitude(load(values + k * Bank::kValues)));
    }
    return found;
  }

  // The shape that fits best, of the responses at one place.
  Candidate candidate(std::int64_t y, std::int64_t x, const float* values, const std::array<float, 2>& calm) const {
    Candidate found = {y, x, 0.0f, 0.0f, 0};
    for (std::int64_t k = 0; k < bank_.shapes(); ++k) {
      const float over = values[k * Bank::kValues];
      const float size = std::abs(over) * calm[std::size_t(plan_.level[std::size_t(k)])];
      if (size > found.size) found = {y, x, size, over * own_[std::size_t(k)], k};
    }
    return found;
  }

  // The largest |z| of any shape.
  Vec<float> undivided(const float* values) const {
    Vec<float> found = {};
    for (std::int64_t k = 0; k < bank_.shapes(); ++k) {
      found = larger(found, magnitude(load(values + k * Bank::kValues)) * own_[std::size_t(k)]);
    }
    return found;
  }

  static void put(float* to, Vec<float> v, std::int64_t count) {
    if (count == L) return store<float>(to, v);
    for (std::int64_t i = 0; i < count; ++i) to[i] = v[i];
  }

  Vec<float> weight(std::int64_t y, std::int64_t x, std::int64_t count) const {
    Vec<float> found = splat(1.0f);
    const std::uint8_t* const mask = valid(y);
    for (std::int64_t i = 0; mask != nullptr && i < count; ++i) found[i] = mask[x + i] != 0 ? 1.0f : 0.0f;
    return count == L ? found : first<float>(found, count);
  }

  // Over what is usual at edges of that strength.
  Vec<float> step_of(int which, Vec<float> strength) const {
    Vec<float> found = splat(steps_[which][0]);
    for (std::size_t i = 0; i < limits_.size(); ++i)
      found = strength > limits_[i] ? splat(steps_[which][i + 1]) : found;
    return found;
  }

  // --- marks ---

  // Writes the places, strongest first; one region, one mark. Returns how many.
  std::int64_t mark(const std::vector<Candidate>& found, double* marks) {
    std::int64_t count = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 4 * kResidualMarks); ++i) {
      const Candidate& c = found[i];
      const auto size = [&](double shape) { return plan_.size[std::size_t(shape)]; };
      // weaker places that the stronger one's template reaches are its flanks
      bool flank = false;
      for (std::int64_t m = 0; m < count && !flank; ++m) {
        const double* const other = marks + m * kResidualMark;
        // the sizes that are told, to a tenth of a pixel
        const double told = std::round(size(other[2]) * 10) / 10;
        flank =
            std::hypot(double(c.row) - other[0], double(c.column) - other[1]) < (size(double(c.shape)) + told) / 2 + 2;
      }
      if (flank) continue;
      const double values[kResidualMark] = {double(c.row), double(c.column), double(c.shape),
                                            std::copysign(double(c.size), double(c.z)), invented(c) ? 1.0 : 0.0};
      std::copy_n(values, kResidualMark, marks + count * kResidualMark);
      if (++count == kResidualMarks) break;
    }
    return count;
  }

  // Whether the denoiser made the bump: given back, it vanishes.
  bool invented(const Candidate& c) const {
    const float level = in_.d.row(k_, c.row)[c.column];
    const float height = c.z * units_[std::size_t(c.shape)] * std::sqrt(law_.variance(splat(level))[0]);
    const std::int64_t radius = bank_.radius(), own = plan_.reach[std::size_t(c.shape)], reach = own + 1;
    const float* const quarter = plan_.bumps.data() + c.shape * (radius + 1) * (radius + 1);
    std::vector<float> bump(std::size_t((2 * reach + 1) * (2 * reach + 1)), 0.0f);
    for (std::int64_t y = -own; y <= own; ++y) {
      for (std::int64_t x = -own; x <= own; ++x) {
        bump[std::size_t((y + reach) * (2 * reach + 1) + x + reach)] =
            height * quarter[std::abs(y) * (radius + 1) + std::abs(x)];
      }
    }
    return Surroundings(in_.d, k_, plan_.around)
        .more_alike_with(bump, reach, c.row, c.column, plan_.size[std::size_t(c.shape)]);
  }

  const ResidualInput& in_;
  const ResidualPlan& plan_;
  const Bank& bank_;
  const std::int64_t k_, h_, w_, pitch_, span_, sampled_h_, sampled_w_, samples_;
  const std::shared_ptr<const PlaneTransform<float>> transform_;
  const Memory<float> memory_;
  EdgeEnergy edges_;
  float *residual_, *strength_, *best_, *spectrum_, *sample_, *work_;
  std::vector<Window> windows_;
  Law law_ = {};
  std::vector<float> units_, own_;  // of the shapes: 1 over the z of a bump of height 1, the usual size of |z|
  std::vector<float> limits_,
      steps_[2];  // levels of strength; 1 over the size at each level, by small and large shapes
};

}  // namespace

void residual_scan(const ResidualInput& in, const ResidualPlan& plan, int threads, double* rows, double* marks,
                   float* map) {
  const Bank bank(std::int64_t(plan.size.size()), plan.radius, plan.bumps.data());
  parallel(threads, in.x.n, [&](std::int64_t k) {
    Tile tile(in, plan, bank, k);
    tile.run(rows + k * kResidualRow, marks + k * kResidualMarks * kResidualMark,
             map == nullptr ? nullptr : map + k * in.x.h * in.x.w);
  });
}

}  // namespace semnr

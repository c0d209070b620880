// From places of large |z| to marks, and whether structure was removed there or invented.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

struct Candidate {
  std::int64_t row, column;
  float size, z;  // |z| over what is usual; z as it is
  std::int64_t shape;
};

// One image and a template with its frame of one pixel: is the image with the bump given back more like its
// surroundings than without? The smallest squared distance to any patch within `around` px decides.
class Surroundings {
 public:
  Surroundings(const Planes& d, std::int64_t k, std::int64_t around) : d_(d), k_(k), around_(around) {}

  // bump: (2 reach + 1)², of the height that is given back; `size` of the shape in px.
  bool more_alike_with(const std::vector<float>& bump, std::int64_t reach, std::int64_t row, std::int64_t column,
                       double size) const {
    const Span rows = span(row, reach, d_.h), columns = span(column, reach, d_.w);
    const std::int64_t side = 2 * reach + 1;
    std::vector<float> patch(bump.size()), with(bump.size());
    for (std::int64_t i = 0; i < side; ++i) {
      const float* const line = d_.row(k_, inside(row + i - reach, rows));
      for (std::int64_t j = 0; j < side; ++j) {
        const std::size_t at = std::size_t(i * side + j);
        patch[at] = line[inside(column + j - reach, columns)];
        with[at] = patch[at] + bump[at];
      }
    }
    float least[2] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()};
    const std::int64_t width = columns.stop - columns.start - side + 1;
    std::vector<float> apart(std::size_t(2 * span_of(std::max<std::int64_t>(width, 1))));
    for (std::int64_t y = 0; y <= rows.stop - rows.start - side; ++y) {
      float* const sums[2] = {apart.data(), apart.data() + span_of(width)};
      distances(rows.start + y, columns.start, width, side, patch, with, sums);
      for (std::int64_t x = 0; x < width; ++x) {
        const double down = double(y - (row - rows.start - reach)),
                     right = double(x - (column - columns.start - reach));
        if (!(std::hypot(down, right) > size + 3)) continue;
        for (int i = 0; i < 2; ++i) least[i] = std::min(least[i], sums[i][x]);
      }
    }
    return least[1] < least[0];
  }

 private:
  struct Span {
    std::int64_t start, stop;
  };

  Span span(std::int64_t at, std::int64_t reach, std::int64_t length) const {
    const std::int64_t whole = 2 * (reach + around_) + 1;
    const std::int64_t start = std::max<std::int64_t>(0, std::min(at - reach - around_, length - whole));
    return {start, std::min(start + whole, length)};
  }
  static std::int64_t inside(std::int64_t i, const Span& s) { return std::min(std::max(i, s.start), s.stop - 1); }

  // Squared distances of two patches to those of the image whose corners lie in one row, from `left` on.
  void distances(std::int64_t top, std::int64_t left, std::int64_t width, std::int64_t side,
                 const std::vector<float>& a, const std::vector<float>& b, float* const (&sums)[2]) const {
    for (float* const sum : sums) std::fill_n(sum, width, 0.0f);
    for (std::int64_t i = 0; i < side; ++i) {
      const float* const line = d_.row(k_, top + i) + left;
      for (std::int64_t j = 0; j < side; ++j) {
        const float one = a[std::size_t(i * side + j)], other = b[std::size_t(i * side + j)];
        for (std::int64_t x = 0; x < width; ++x) {
          const float first = line[x + j] - one, second = line[x + j] - other;
          sums[0][x] += first * first;
          sums[1][x] += second * second;
        }
      }
    }
  }

  const Planes& d_;
  const std::int64_t k_, around_;
};

// Of places beyond the limit those that are the largest within 3 px, strongest first; `best` is the map of sizes.
inline std::vector<Candidate> peaks(std::vector<Candidate> found, const float* best, std::int64_t h, std::int64_t w,
                                    std::int64_t pitch) {
  constexpr std::int64_t kNear = 3;
  const auto beaten = [&](const Candidate& c) {
    for (std::int64_t y = std::max<std::int64_t>(0, c.row - kNear); y <= std::min(h - 1, c.row + kNear); ++y) {
      for (std::int64_t x = std::max<std::int64_t>(0, c.column - kNear); x <= std::min(w - 1, c.column + kNear); ++x) {
        if (best[y * pitch + x] > c.size) return true;
      }
    }
    return false;
  };
  found.erase(std::remove_if(found.begin(), found.end(), beaten), found.end());
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.size != b.size ? a.size > b.size : a.row != b.row ? a.row < b.row : a.column < b.column;
  });
  return found;
}

}  // namespace semnr

// Histogram over given edges: the bin is guessed from the even spacing, then held against the edges themselves, so that
// it is exactly the one that a search would find.
#include "histogram_cpu.hpp"

#include <algorithm>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"

namespace semnr {

void histogram(const double* values, std::int64_t n, const double* edges, std::int64_t bins, int threads,
               std::int64_t* counts) {
  constexpr std::int64_t kStrip = std::int64_t(1) << 17;
  const std::int64_t strips = pieces(n, kStrip);
  const double low = edges[0], width = edges[bins] - edges[0];
  const double scale = width > 0 ? double(bins) / width : 0.0;
  std::vector<std::int64_t> of_strip(std::size_t(strips * bins), 0);
  parallel(threads, strips, [&](std::int64_t strip) {
    std::int64_t* count = of_strip.data() + strip * bins;
    const std::int64_t stop = std::min(n, (strip + 1) * kStrip);
    for (std::int64_t k = strip * kStrip; k < stop; ++k) {
      const double v = values[k], guess = (v - low) * scale;
      std::int64_t i = guess > 0 ? std::int64_t(std::min(guess, double(bins - 1))) : 0;
      while (i + 1 < bins && v >= edges[i + 1]) ++i;
      while (i > 0 && v < edges[i]) --i;
      ++count[i];
    }
  });
  std::fill(counts, counts + bins, 0);
  for (std::int64_t strip = 0; strip < strips; ++strip) {
    for (std::int64_t i = 0; i < bins; ++i) counts[i] += of_strip[std::size_t(strip * bins + i)];
  }
}

}  // namespace semnr

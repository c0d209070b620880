// The log-Gabor filters of one size as tables, computed in float64.
#include <cmath>
#include <vector>

#include "../pool.hpp"
#include "phase.hpp"

namespace semnr {
namespace {

// One strip of columns; adds to the sums that the noise thresholds rest on.
template <class R>
void make_strip(const FilterTables& f, const Layout<R>& at, std::int64_t strip, double* even, double* finest) {
  constexpr std::int64_t L = kLanes<R>;
  const LogGabor& kind = f.kind;
  R* const table = static_cast<R*>(f.tables);
  const double norm = 1 / (double(f.h) * double(f.w));  // the inverse transform's
  std::vector<double> radial(std::size_t(kind.scales));
  for (std::int64_t u = 0; u < f.h; ++u) {
    for (std::int64_t lane = 0; lane < L; ++lane) {
      const std::int64_t v = strip * L + lane;
      const bool inside = v < at.half;
      double whole = 0;
      if (inside) {
        const double across = LogGabor::frequency(v, f.w), down = LogGabor::frequency(u, f.h);
        const double radius = std::hypot(down, across);
        for (int s = 0; s < kind.scales; ++s) {
          radial[std::size_t(s)] = radius == 0 ? 0 : kind.radial(radius, s);
          whole += radial[std::size_t(s)];
        }
      }
      for (int s = 0; s < kind.scales && u <= f.h / 2; ++s) {
        table[at.radial(s, strip) + u * L + lane] = inside ? R(radial[std::size_t(s)]) : R(0);
      }
      for (int o = 0; o < kind.orientations; ++o) {
        double side[2] = {0, 0};
        for (int back = 0; back < 2 && inside; ++back) {
          const std::int64_t row = back == 0 ? u : (f.h - u) % f.h, column = back == 0 ? v : (f.w - v) % f.w;
          side[back] = kind.angular(std::atan2(-LogGabor::frequency(column, f.w), LogGabor::frequency(row, f.h)), o);
          table[at.angular(o, back, strip) + u * L + lane] = R(side[back] * norm);
        }
        if (!inside) {
          table[at.angular(o, 0, strip) + u * L + lane] = table[at.angular(o, 1, strip) + u * L + lane] = R(0);
          continue;
        }
        const bool both = at.has_back(v);
        const double mean = whole * (side[0] + side[1]) / 2;
        even[o] += (both ? 2 : 1) * mean * mean;
        finest[o] += radial[0] * radial[0] * (side[0] * side[0] + (both ? side[1] * side[1] : 0));
      }
    }
  }
}

template <class R>
std::vector<double> make(const FilterTables& f, int threads) {
  const Layout<R> at(f.kind, f.h, f.w);
  const std::int64_t o = f.kind.orientations;
  std::vector<double> sums(std::size_t(2 * o * at.strips), 0.0), ratios;
  parallel(threads, at.strips, [&](std::int64_t strip) {
    double* const sum = sums.data() + 2 * o * strip;
    make_strip<R>(f, at, strip, sum, sum + o);
  });
  for (std::int64_t k = 0; k < o; ++k) {
    double even = 0, finest = 0;
    for (std::int64_t strip = 0; strip < at.strips; ++strip) {
      even += sums[std::size_t(2 * o * strip + k)];
      finest += sums[std::size_t(2 * o * strip + o + k)];
    }
    ratios.push_back(even / finest);
  }
  return ratios;
}

}  // namespace

std::int64_t filter_bytes(const LogGabor& kind, std::int64_t h, std::int64_t w, bool doubled) {
  return doubled ? Layout<double>(kind, h, w).tables() * 8 : Layout<float>(kind, h, w).tables() * 4;
}

std::vector<double> make_filters(const FilterTables& f, int threads) {
  return f.doubled ? make<double>(f, threads) : make<float>(f, threads);
}

}  // namespace semnr

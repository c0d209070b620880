// The amplitudes on which the noise thresholds of an image too large for one transform rest, counted part by part.
#include <cstring>

#include "memory.hpp"
#include "phase.hpp"
#include "plane.hpp"

namespace semnr {
namespace {

template <class R>
void count(const FsimImages& in, const FilterTables& filters, const std::int64_t (&window)[4], int threads,
           std::int64_t* counts) {
  constexpr std::int64_t L = kLanes<R>;
  const Phase<R> phase(filters);
  const Layout<R>& at = phase.at;
  const std::int64_t sizes[2] = {rounded<R>(Plane<R>::values(at.h, at.w)), rounded<R>(at.spectrum())};
  const Memory<R> memory(sizes[0] + sizes[1] + at.mixed(1, 0, 0));
  R *const spectrum = memory.get() + sizes[0], *const mixed = spectrum + sizes[1];
  const Plane<R> plane(at.h, at.w, memory.get());
  const double mean = PlaneReader<R>(in).read(0, plane, nullptr, threads);
  phase.to_spectrum(plane.first, plane.pitch, R(mean), spectrum, threads);
  for (std::int64_t o = 0; o < at.orientations; ++o) {
    phase.columns(spectrum, o, 1, mixed, threads);
    std::int64_t* const bins = counts + o * kBins;
    parallel(threads, at.groups, [&](std::int64_t group) {
      const std::int64_t first = std::max(window[0] - group * L, std::int64_t(0)),
                         stop = std::min(window[1] - group * L, L);
      if (first >= stop) return;
      R* const response = static_cast<R*>(scratch(phase.response_values(1) * std::int64_t(sizeof(R))));
      phase.responses(mixed, group, 1, response);
      for (std::int64_t v = window[2]; v < window[3]; ++v) {
        const R* const point = response + v * kPoint<R>;
        for (std::int64_t lane = first; lane < stop; ++lane) {
          const float square = float(point[lane] * point[lane] + point[lane + L] * point[lane + L]);
          std::uint32_t bits;
          std::memcpy(&bits, &square, sizeof bits);
          // whole numbers: the order in which threads add does not matter
          __atomic_fetch_add(bins + ((bits & 0x7fffffffu) >> kBinShift), 1, __ATOMIC_RELAXED);
        }
      }
    });
  }
}

}  // namespace

void fsim_histogram(const FsimImages& in, const FilterTables& filters, const std::int64_t (&window)[4], int threads,
                    std::int64_t* counts) {
  if (filters.doubled) {
    count<double>(in, filters, window, threads, counts);
  } else {
    count<float>(in, filters, window, threads, counts);
  }
}

}  // namespace semnr

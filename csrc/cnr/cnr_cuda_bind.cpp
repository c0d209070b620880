// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "cnr_cuda.hpp"
#include "histogram_cuda.hpp"

namespace semnr {
namespace {

using AxisArgument = std::array<std::int64_t, 7>;

CnrAxis axis(const AxisArgument& v) { return {v[0], v[1], v[2], v[3], v[4], v[5], v[6]}; }

void moments(const ImageArgument& x, int dtype, const ShapeArgument& shape, const std::vector<ImageArgument>& regions,
             const AxisArgument& down, const AxisArgument& across, const std::array<std::int64_t, 4>& band,
             const std::array<std::int64_t, 6>& way, const std::array<std::int64_t, 2>& scratch, std::int64_t out,
             std::int64_t stream) {
  std::vector<Image> of;
  for (const ImageArgument& region : regions) of.push_back(image(region));
  const CnrPlan plan{axis(down),  axis(across), {band[0], band[1], band[2], band[3]},
                     way[0],      way[1],       way[2] != 0,
                     way[3] != 0, int(way[4]),  int(way[5])};
  cnr_moments_cuda(image(x), Dtype(dtype), sizes(shape), of.data(), int(of.size()), plan,
                   pointer<std::uint64_t>(scratch[0]), pointer<std::uint64_t>(scratch[1]), pointer<double>(out),
                   as_stream(stream));
}

// From a table of cells that is there.
void merged(int dtype, const ShapeArgument& shape, int regions, const AxisArgument& down, const AxisArgument& across,
            const std::array<std::int64_t, 2>& table, const std::array<std::int64_t, 4>& band,
            const std::array<std::int64_t, 3>& way, const std::array<std::int64_t, 2>& scratch, std::int64_t out,
            std::int64_t stream) {
  CnrPlan plan{axis(down),  axis(across), {band[0], band[1], band[2], band[3]}, 1, 1, true, way[0] != 0,
               int(way[1]), int(way[2])};
  cnr_windows_cuda(Dtype(dtype), sizes(shape), regions, plan, table[0], table[1], pointer<std::uint64_t>(scratch[0]),
                   pointer<std::uint64_t>(scratch[1]), pointer<double>(out), as_stream(stream));
}

void count(std::int64_t values, std::int64_t n, std::int64_t edges, int bins, int blocks, std::int64_t partial,
           std::int64_t out, std::int64_t stream) {
  histogram_cuda(pointer<const double>(values), n, pointer<const double>(edges), bins, blocks,
                 pointer<std::uint32_t>(partial), pointer<std::int64_t>(out), as_stream(stream));
}

}  // namespace
}  // namespace semnr

void bind_cnr_cuda(py::module_& m) {
  m.def("cnr_moments", &semnr::moments, semnr::WhileLaunching(),
        "Pixels, mean and variance of one or two regions in the windows of a band: regions x 3 x N x C x rows x "
        "columns float64.");
  m.def("cnr_windows", &semnr::merged, semnr::WhileLaunching(), "The same from a table of cells.");
  m.def("histogram", &semnr::count, semnr::WhileLaunching(),
        "Counts of n float64 values between bins + 1 float64 edges, int64.");
}

// Launches of the moments of regions by windows.
#include <stdexcept>

#include "../counts.hpp"
#include "cnr_kernel.cuh"

namespace semnr {
namespace {

std::int64_t cells_of(const CnrAxis& axis, std::int64_t windows) { return (windows - 1) * axis.step + axis.length; }

int grid(std::int64_t tasks, const CnrPlan& plan) { return int(tasks < plan.blocks ? tasks : plan.blocks); }

// table_rows, wide: of the table of cells.
template <class V>
void windows(const CnrPlan& plan, const Shape& shape, int regions, std::int64_t table_rows, std::int64_t wide,
             const std::uint64_t* cells, std::uint64_t* across, double* out, Stream stream) {
  const CnrBand& band = plan.band;
  const std::int64_t map = plan.down.windows * plan.across.windows, all = shape.n * shape.c * map;
  const std::int64_t maps = regions * band.planes;
  double* const corner = out + band.plane * map + band.row * plan.across.windows;
  if (plan.direct) {
    CnrDirectJob job{};
    job.down = plan.down;
    job.across = plan.across;
    job.planes = band.planes;
    job.rows = table_rows;
    job.wide = wide;
    job.windows_down = band.rows;
    job.maps = maps;
    job.together = plan.together;
    job.plane_apart = map;
    job.quantity_apart = all;
    job.region_apart = 3 * all;
    const std::int64_t tasks = pieces(maps * band.rows * plan.across.windows * plan.together, kCnrThreads);
    SEMNR_LAUNCH((cnr_direct<V>), grid(tasks, plan), kCnrThreads, 3 * kCnrThreads * sizeof(V), stream, job, cells,
                 corner);
    return;
  }
  const std::int64_t columns = plan.across.windows, rows = cells_of(plan.down, band.rows), reduced = rows * columns;
  CnrSlideJob along{};  // rows of cells to rows of windows
  along.windows = columns;
  along.step = plan.across.step;
  along.length = plan.across.length;
  along.lines = rows;
  along.planes = band.planes;
  along.maps = maps;
  along.in_cell = 1;
  along.in_line = wide;
  along.in_quantity = table_rows * wide;
  along.out_window = 1;
  along.out_line = columns;
  along.out_quantity = reduced;
  along.out_plane = 3 * reduced;
  along.out_region = 3 * reduced * band.planes;
  CnrSlideJob down{};  // those to windows
  down.windows = band.rows;
  down.step = plan.down.step;
  down.length = plan.down.length;
  down.lines = columns;
  down.planes = band.planes;
  down.maps = maps;
  down.in_cell = columns;
  down.in_line = 1;
  down.in_quantity = reduced;
  down.out_window = columns;
  down.out_line = 1;
  down.out_plane = map;
  down.out_quantity = all;
  down.out_region = 3 * all;
  const auto threads = [](const CnrSlideJob& job) {
    return job.maps * job.lines * ((job.windows - 1) * job.step / job.length + 1);
  };
  SEMNR_LAUNCH((cnr_slide<V, false>), grid(pieces(threads(along), kCnrThreads), plan), kCnrThreads, 0, stream, along,
               cells, across);
  SEMNR_LAUNCH((cnr_slide<V, true>), grid(pieces(threads(down), kCnrThreads), plan), kCnrThreads, 0, stream, down,
               across, reinterpret_cast<std::uint64_t*>(corner));
}

template <class T, int N, bool Straight>
void cells_of_pixels(CnrCellsJob job, const CnrPlan& plan, std::uint64_t* cells, Stream stream) {
  using V = typename CnrSumsOf<T>::Value;
  job.packs_first = pieces(plan.across.rest, N);
  job.packs_second = plan.across.step > plan.across.first ? pieces(plan.across.stride - plan.across.rest, N) : 0;
  const std::int64_t period = job.packs_first + job.packs_second;
  job.periods = plan.packs / period;  // 0: wider than a block
  job.groups = job.periods == 0 ? job.wide : pieces(pieces(job.wide, plan.across.step), job.periods);
  const int blocks = grid(job.planes * job.rows * job.groups, plan);
  constexpr std::size_t kShared = kCnrRegions * 3 * kCnrThreads * sizeof(V);
  SEMNR_LAUNCH((cnr_cells<T, N, Straight>), blocks, kCnrThreads, kShared, stream, job, cells);
}

}  // namespace

void cnr_moments_cuda(const Image& x, Dtype dtype, const Shape& shape, const Image* regions, int count,
                      const CnrPlan& plan, std::uint64_t* cells, std::uint64_t* across, double* out, Stream stream) {
  if (count < 1 || count > kCnrRegions) throw std::invalid_argument("cnr_moments_cuda: one or two regions");
  CnrCellsJob job{};
  job.x = static_cast<const char*>(x.data);
  job.regions = count;
  for (int r = 0; r < kCnrRegions; ++r) {
    const Image& of = regions[r < count ? r : 0];
    job.region[r] = static_cast<const char*>(of.data);
    for (int k = 0; k < 4; ++k) job.region_stride[r][k] = of.stride[k];
  }
  job.down = plan.down;
  job.across = plan.across;
  job.channels = shape.c;
  job.first_plane = plan.band.plane;
  job.planes = plan.band.planes;
  job.first_row = plan.band.row * plan.down.step;
  job.rows = cells_of(plan.down, plan.band.rows);
  job.wide = cells_of(plan.across, plan.across.windows);
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    for (int k = 0; k < 4; ++k) job.stride[k] = x.stride[k] * std::int64_t(sizeof(T));
    const auto run = [&](auto pack, auto straight) {
      cells_of_pixels<T, decltype(pack)::value, decltype(straight)::value>(job, plan, cells, stream);
    };
    // Integers are summed exactly in any order: what does not lie straight is taken one by one.
    constexpr int kPack = 16 / int(sizeof(T));
    if (plan.pack == 1) return run(std::integral_constant<int, 1>{}, std::true_type{});
    if (plan.pack == kPack && plan.straight) return run(std::integral_constant<int, kPack>{}, std::true_type{});
    if constexpr (!std::is_integral_v<T>) {
      if (plan.pack == kPack) return run(std::integral_constant<int, kPack>{}, std::false_type{});
    } else if (plan.pack * sizeof(T) == 4 && plan.straight) {
      return run(std::integral_constant<int, 4 / sizeof(T)>{}, std::true_type{});
    }
    throw std::invalid_argument("cnr_moments_cuda: no kernel for this pack");
  });
  cnr_windows_cuda(dtype, shape, count, plan, job.rows, job.wide, cells, across, out, stream);
}

void cnr_windows_cuda(Dtype dtype, const Shape& shape, int regions, const CnrPlan& plan, std::int64_t rows,
                      std::int64_t wide, const std::uint64_t* cells, std::uint64_t* across, double* out,
                      Stream stream) {
  if (dtype == Dtype::u8 || dtype == Dtype::u16) {
    windows<std::uint64_t>(plan, shape, regions, rows, wide, cells, across, out, stream);
  } else {
    windows<double>(plan, shape, regions, rows, wide, cells, across, out, stream);
  }
}

}  // namespace semnr

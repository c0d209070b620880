// Moments of regions by windows. Rows of cells are reduced along the row to
// windows, then down the columns.
#include "cnr_cpu.hpp"

#include <limits>
#include <memory>

#include "../counts.hpp"
#include "../pool.hpp"
#include "cnr_cells.hpp"

namespace semnr {
namespace {

constexpr std::int64_t kBlock = 64;                          // columns of windows that one task takes down
constexpr std::int64_t kTableBytes = std::int64_t(8) << 20;  // of reduced rows, held at once
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Job {
  const Image& x;
  const Shape& shape;
  const std::vector<Image>& regions;
  Axis down, across;
  int threads;
  double* out;
  double (*value)(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w);  // of a pixel

  std::int64_t wide() const { return std::int64_t(across.cells.size()); }
  std::int64_t row_doubles() const { return 3 * wide(); }
};

// A pixel of the plane near which means are kept; any finite number is right.
double origin(const Job& job, std::int64_t n, std::int64_t c) {
  const double first = job.value(job.x, n, c, 0, 0);
  return std::isfinite(first) ? first : 0;
}

inline bool any(const std::uint8_t* p, std::int64_t step, std::int64_t count) {
  std::int64_t i = 0;
  if (step == 1) {
    for (std::uint64_t eight; i + 8 <= count; i += 8) {
      std::memcpy(&eight, p + i, 8);
      if (eight != 0) return true;
    }
  }
  for (; i < count; ++i) {
    if (p[i * step] != 0) return true;
  }
  return false;
}

// The first pixel of the region in a cell, in reading order; 0 where there is
// none.
double first_inside(const Job& job, const Image& region, std::int64_t n, std::int64_t c, const Span& rows,
                    const Span& columns) {
  const std::int64_t count = columns.stop - columns.start, step = region.stride[3];
  for (std::int64_t h = rows.start; h < rows.stop; ++h) {
    const std::uint8_t* inside = address<std::uint8_t>(region, n, c, h, columns.start);
    if (!any(inside, step, count)) continue;
    std::int64_t w = 0;
    while (inside[w * step] == 0) ++w;
    return job.value(job.x, n, c, h, columns.start + w);
  }
  return 0;
}

// Pixels of a row as G: where they lie, or in `line`.
template <class G>
using Load = const G* (*)(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w,
                          std::int64_t count, G* line);

template <class T>
const Loaded<T>* load_pixels(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w,
                             std::int64_t count, Loaded<T>* line) {
  return side_by_side(address<T>(v, n, c, h, w), v.stride[3], count, line);
}

template <class T>
double value_of(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return real<double>(*address<T>(v, n, c, h, w));
}

// The moments of one row of cells: 3 lines for each region, `pitch` doubles
// apart.
template <class G>
void row_of_cells(const Job& job, Load<G> load_row, std::int64_t n, std::int64_t c, const Span& rows, double* out,
                  std::int64_t pitch) {
  struct Work {
    G pixels[kCellColumns];
    std::uint8_t inside[kCellColumns];
    Columns<G> columns;
  };
  const std::vector<Span>& cells = job.across.cells;
  const std::int64_t count = std::int64_t(job.regions.size()), wide = job.wide();
  auto* const work = static_cast<Work*>(scratch(count * std::int64_t(sizeof(Work))));
  const double from = origin(job, n, c);
  for (std::int64_t first = 0, stop; first < wide; first = stop) {
    const std::int64_t left = cells[std::size_t(first)].start;
    for (stop = first + 1; stop < wide && cells[std::size_t(stop)].stop - left <= kCellColumns;) ++stop;
    const std::int64_t columns = cells[std::size_t(stop - 1)].stop - left;
    for (std::int64_t r = 0; r < count; ++r) {
      work[r].columns.clear(columns);
      if constexpr (!Columns<G>::kExact) {
        for (std::int64_t i = first; i < stop; ++i) {
          const Span& cell = cells[std::size_t(i)];
          const double pivot = first_inside(job, job.regions[std::size_t(r)], n, c, rows, cell);
          std::fill(work[r].columns.pivot + (cell.start - left), work[r].columns.pivot + (cell.stop - left), pivot);
          const std::int64_t next = i + 1 < stop ? cells[std::size_t(i + 1)].start : cell.stop;
          std::fill(work[r].columns.pivot + (cell.stop - left), work[r].columns.pivot + (next - left), 0.0);
        }
      }
    }
    for (std::int64_t h = rows.start; h < rows.stop; ++h) {
      const G* p = load_row(job.x, n, c, h, left, columns, work->pixels);
      for (std::int64_t r = 0; r < count; ++r) {
        const Image& region = job.regions[std::size_t(r)];
        const std::uint8_t* inside =
            side_by_side(address<std::uint8_t>(region, n, c, h, left), region.stride[3], columns, work[r].inside);
        work[r].columns.add(p, inside, columns);
      }
    }
    for (std::int64_t r = 0; r < count; ++r) {
      double* line = out + r * pitch;
      for (std::int64_t i = first; i < stop; ++i) {
        const Span& at = cells[std::size_t(i)];
        const auto found = cell<G>(work[r].columns, at.start - left, at.stop - at.start, from);
        for (int k = 0; k < 3; ++k) line[k * wide + i] = found[std::size_t(k)];
      }
    }
  }
}

// Cells to windows, in place. Blocks as long as a window: a window is the end
// of one block and the start of the next, so each cell is merged three times
// however long the window is (van Herk 1992).
void along_row(const Axis& axis, double* line, std::int64_t wide) {
  double *n = line, *mean = line + wide, *square = line + 2 * wide;
  if (axis.length == 1) return;  // a cell is a window; then step is 1 as well
  double* ends = static_cast<double*>(scratch(6 * wide * std::int64_t(sizeof(double))));
  double* starts = ends + 3 * wide;
  for (std::int64_t block = 0; block < wide; block += axis.length) {
    const std::int64_t stop = std::min(wide, block + axis.length);
    const auto take = [&](double* into, std::int64_t i, std::int64_t before, bool fresh) {
      double a = n[i], b = mean[i], c = square[i];
      if (!fresh) merge(a, b, c, into[before], into[wide + before], into[2 * wide + before]);
      into[i] = a;
      into[wide + i] = b;
      into[2 * wide + i] = c;
    };
    for (std::int64_t i = block; i < stop; ++i) take(starts, i, i - 1, i == block);
    for (std::int64_t i = stop - 1; i >= block; --i) take(ends, i, i + 1, i == stop - 1);
  }
  for (std::int64_t k = 0; k < axis.windows; ++k) {
    const std::int64_t i = k * axis.step, last = i + axis.length - 1;
    double a = ends[i], b = ends[wide + i], c = ends[2 * wide + i];
    if (i % axis.length != 0) merge(a, b, c, starts[last], starts[wide + last], starts[2 * wide + last]);
    n[k] = a;
    mean[k] = b;
    square[k] = c;
  }
}

// A window that holds a NaN or an infinity: its mean as the definition's sums
// around the lowest pixel leave it.
double mean_of_nonfinite(const Job& job, const Image& region, std::int64_t n, std::int64_t c, const Span& rows,
                         const Span& columns, double otherwise) {
  bool infinite = false, finite = false;
  for (std::int64_t h = rows.start; h < rows.stop; ++h) {
    for (std::int64_t w = columns.start; w < columns.stop; ++w) {
      if (*address<std::uint8_t>(region, n, c, h, w) == 0) continue;
      const double v = job.value(job.x, n, c, h, w);
      if (std::isnan(v) || v == -std::numeric_limits<double>::infinity()) return kNaN;
      (std::isinf(v) ? infinite : finite) = true;
    }
  }
  return !infinite ? otherwise : finite ? std::numeric_limits<double>::infinity() : kNaN;
}

struct Band {  // rows of windows of some planes
  std::int64_t plane, planes, row, rows;
};

// Columns [column, column + columns) of windows, from reduced rows `pitch`
// doubles apart, by the same blocks.
void down_columns(const Job& job, const double* table, std::int64_t pitch, std::int64_t region, std::int64_t plane,
                  const Band& band, std::int64_t column, std::int64_t columns) {
  const Axis& axis = job.down;
  const std::int64_t wide = job.wide(), length = axis.length, rows = (band.rows - 1) * axis.step + length;
  const std::int64_t n = plane / job.shape.c, c = plane % job.shape.c;
  const std::int64_t map = axis.windows * job.across.windows, all = job.shape.n * job.shape.c * map;
  double* const out = job.out + region * 3 * all + plane * map + column;
  const double from = origin(job, n, c);
  double* const ends = static_cast<double*>(scratch((length + 2) * 3 * kBlock * std::int64_t(sizeof(double))));
  double* const start = ends + length * 3 * kBlock;
  double* const window = start + 3 * kBlock;
  const auto copy = [&](double* into, const double* line) {
    for (int k = 0; k < 3; ++k) std::copy_n(line + k * wide + column, columns, into + k * kBlock);
  };
  const auto merge_lines = [&](double* __restrict into, const double* __restrict other, std::int64_t step) {
    for (std::int64_t i = 0; i < columns; ++i) {
      merge(into[i], into[kBlock + i], into[2 * kBlock + i], other[i], other[step + i], other[2 * step + i]);
    }
  };
  const auto emit = [&](std::int64_t at, const double* line) {
    const std::int64_t row = band.row + at / axis.step;
    double* const to = out + row * job.across.windows;
    for (std::int64_t i = 0; i < columns; ++i) {
      const double count = line[i];
      double mean = count > 0 ? from + line[kBlock + i] : kNaN, variance = line[2 * kBlock + i] / count;
      if (count > 0 && !(std::isfinite(mean) && std::isfinite(variance))) {
        const std::int64_t first = (column + i) * job.across.step, top = row * axis.step;
        const Span high{axis.cells[std::size_t(top)].start, axis.cells[std::size_t(top + length - 1)].stop};
        const Span broad{job.across.cells[std::size_t(first)].start,
                         job.across.cells[std::size_t(first + job.across.length - 1)].stop};
        mean = mean_of_nonfinite(job, job.regions[std::size_t(region)], n, c, high, broad, mean);
      }
      to[i] = count;
      to[all + i] = mean;
      to[2 * all + i] = variance;
    }
  };
  for (std::int64_t block = 0; block < rows; block += length) {
    const std::int64_t stop = std::min(rows, block + length);
    for (std::int64_t i = block; i < stop; ++i) {  // windows that began in the block before and end at row i
      const double* line = table + i * pitch;
      if (i == block) {
        copy(start, line);
      } else {
        merge_lines(start, line + column, wide);
      }
      const std::int64_t began = i + 1 - length;
      if (i + 1 == block + length || began < 0 || began % axis.step != 0) continue;
      std::copy_n(ends + (began % length) * 3 * kBlock, 3 * kBlock, window);
      merge_lines(window, start, kBlock);
      emit(began, window);
    }
    if (stop < block + length) break;
    for (std::int64_t i = length - 1; i >= 0; --i) {
      double* line = ends + i * 3 * kBlock;
      copy(line, table + (block + i) * pitch);
      if (i < length - 1) merge_lines(line, line + 3 * kBlock, kBlock);
    }
    if (block % axis.step == 0) emit(block, ends);
  }
}

template <class G>
void run_band(const Job& job, Load<G> load_row, const Band& band, double* table) {
  const std::int64_t cells = (band.rows - 1) * job.down.step + job.down.length, first = band.row * job.down.step;
  const std::int64_t regions = std::int64_t(job.regions.size()), line = job.row_doubles(), plane = cells * line;
  const auto at = [&](std::int64_t region, std::int64_t p) { return table + (region * band.planes + p) * plane; };
  parallel(job.threads, band.planes * cells, [&](std::int64_t task) {
    const std::int64_t p = task / cells, row = task % cells, which = band.plane + p;
    row_of_cells<G>(job, load_row, which / job.shape.c, which % job.shape.c, job.down.cells[std::size_t(first + row)],
                    at(0, p) + row * line, band.planes * plane);
    for (std::int64_t r = 0; r < regions; ++r) along_row(job.across, at(r, p) + row * line, job.wide());
  });
  const std::int64_t blocks = pieces(job.across.windows, kBlock);
  parallel(job.threads, regions * band.planes * blocks, [&](std::int64_t task) {
    const std::int64_t column = task % blocks * kBlock, p = task / blocks % band.planes,
                       r = task / blocks / band.planes;
    down_columns(job, at(r, p), line, r, band.plane + p, band, column, std::min(kBlock, job.across.windows - column));
  });
}

}  // namespace

void cnr_moments(const Image& x, Dtype dtype, const Shape& shape, const std::vector<Image>& regions,
                 const WindowGrid& grid, int threads, double* out) {
  const Job job{x,
                shape,
                regions,
                Axis(shape.h, grid.window[0], grid.stride[0], kCellRows),
                Axis(shape.w, grid.window[1], grid.stride[1], kCellColumns),
                threads,
                out,
                with_type(dtype, [](auto pixel) { return &value_of<decltype(pixel)>; })};
  // Bands of rows where a plane's table is large: at least as many windows as
  // share a row of pixels, so that no more than half is computed twice. Several
  // planes at once where tables are small.
  const std::int64_t line = std::int64_t(regions.size()) * job.row_doubles();
  const std::int64_t budget = kTableBytes / std::int64_t(sizeof(double)), cells = budget / line;
  const std::int64_t least = (job.down.length + job.down.step - 1) / job.down.step;
  const std::int64_t rows = std::min(job.down.windows, std::max(least, (cells - job.down.length) / job.down.step + 1));
  const std::int64_t table = ((rows - 1) * job.down.step + job.down.length) * line, all = shape.n * shape.c;
  const std::int64_t planes = rows < job.down.windows ? 1 : std::min(all, std::max<std::int64_t>(1, budget / table));
  const std::unique_ptr<double[]> memory(new double[std::size_t(planes * table)]);
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    for (std::int64_t plane = 0; plane < all; plane += planes) {
      for (std::int64_t row = 0; row < job.down.windows; row += rows) {
        run_band<Loaded<T>>(job, &load_pixels<T>,
                            {plane, std::min(planes, all - plane), row, std::min(rows, job.down.windows - row)},
                            memory.get());
      }
    }
  });
}

}  // namespace semnr

// Moments of regions by windows: pixels to cells in one read, cells to windows by merging. No atomics, a fixed order.
//
// Integers: a cell is the exact sums n, Σv, Σv², which add up. Floats: n, mean and the sum of squared deviations,
// merged by Chan's formula, all terms of which are positive: nothing is ever subtracted, so a constant region has
// variance exactly 0. Means are kept from a pixel of their own cell, so a pedestal costs no digit, and no pixel outside
// a region has a say.
#pragma once
#include <type_traits>

#include "../pixel/pack_kernel.cuh"
#include "cnr_cuda.hpp"

namespace semnr {

// --- cells ----------------------------------------------------------------------------------------------------

// Three numbers of 64 bits in memory, all zeros where there is no pixel. V: 64-bit integers for exact sums, double for
// moments.
template <class V>
struct CnrCell;

template <>
struct CnrCell<std::uint64_t> {
  std::uint64_t n = 0, sum = 0, square = 0;
};

template <>
struct CnrCell<double> {
  std::uint32_t n = 0;
  float pivot = 0;              // about a pixel of the cell
  double mean = 0, square = 0;  // from the pivot; of deviations from the mean
};

__device__ __forceinline__ bool finite(double v) { return v - v == 0; }

__device__ __forceinline__ double infinity() { return from_bits<double>(0x7ff0000000000000u); }
__device__ __forceinline__ double not_a_number() { return from_bits<double>(0x7ff8000000000000u); }

__device__ __forceinline__ void merge(CnrCell<std::uint64_t>& into, const CnrCell<std::uint64_t>& other) {
  into.n += other.n;
  into.sum += other.sum;
  into.square += other.square;
}

// A mean that is not finite says what a cell holds besides numbers: -inf only pixels of +inf, +inf those and finite
// ones, NaN anything else. The definition's sums around the lowest pixel then make of a mean NaN, +inf and NaN.
__device__ __forceinline__ void merge(CnrCell<double>& into, const CnrCell<double>& other) {
  if (other.n == 0) return;
  if (into.n == 0) {
    into = other;
    return;
  }
  const double apart = (double(other.pivot) - double(into.pivot)) + (other.mean - into.mean);
  if (finite(apart)) {
    const double share = double(other.n) / (double(into.n) + double(other.n));
    into.square += other.square + apart * apart * double(into.n) * share;
    into.mean += apart * share;
  } else {
    const bool nothing = into.mean != into.mean || other.mean != other.mean;
    const bool alike = into.mean == other.mean && into.mean < 0;
    into.mean = nothing ? not_a_number() : alike ? -infinity() : infinity();
    into.square = not_a_number();
  }
  into.n += other.n;
}

// Reads and writes a cell's numbers, `apart` of them from each other.
template <class V>
__device__ __forceinline__ CnrCell<V> get_cell(const std::uint64_t* at, std::int64_t apart) {
  CnrCell<V> cell;
  if constexpr (std::is_integral_v<V>) {
    cell.n = at[0];
    cell.sum = at[apart];
  } else {
    cell.n = std::uint32_t(at[0]);
    cell.pivot = __uint_as_float(std::uint32_t(at[0] >> 32));
    cell.mean = from_bits<double>(at[apart]);
  }
  cell.square = from_bits<V>(at[2 * apart]);
  return cell;
}
template <class V>
__device__ __forceinline__ void put_cell(std::uint64_t* at, std::int64_t apart, const CnrCell<V>& cell) {
  if constexpr (std::is_integral_v<V>) {
    at[0] = cell.n;
    at[apart] = cell.sum;
  } else {
    at[0] = std::uint64_t(__float_as_uint(cell.pivot)) << 32 | cell.n;
    at[apart] = as_bits(cell.mean);
  }
  at[2 * apart] = as_bits(cell.square);
}

// Pixels, mean and variance, `apart` numbers from each other.
//
// Around the integer nearest to the mean the squares are exact in 64 bits whatever wrapped on the way, and what is left
// of the mean takes at most a quarter of a pixel from them.
__device__ __forceinline__ void finish(const CnrCell<std::uint64_t>& of, double* out, std::int64_t apart) {
  const double n = double(of.n);
  const std::uint64_t near = of.n == 0 ? 0 : (of.sum + of.n / 2) / of.n;
  const double rest = double(std::int64_t(of.sum - of.n * near));
  const double square = double(of.square - 2 * near * of.sum + of.n * near * near);
  out[0] = n;
  out[apart] = of.n == 0 ? not_a_number() : double(near) + rest / n;
  out[2 * apart] = of.n == 0 ? not_a_number() : (square - rest * rest / n) / n;
}
__device__ __forceinline__ void finish(const CnrCell<double>& of, double* out, std::int64_t apart) {
  const bool bad = of.n == 0 || !finite(of.mean);
  out[0] = double(of.n);
  out[apart] = bad ? (of.mean == infinity() ? infinity() : not_a_number()) : double(of.pivot) + of.mean;
  out[2 * apart] = bad ? not_a_number() : of.square / double(of.n);
}

// --- the pixels of a thread -----------------------------------------------------------------------------------

// Integers: exact. At most 32 rows of 16 bytes a thread, so that 32 bits hold all but the squares of 16-bit pixels.
template <class T>
struct CnrSums {
  using Value = std::uint64_t;
  using Square = std::conditional_t<sizeof(T) == 1, std::uint32_t, std::uint64_t>;
  std::uint32_t n = 0, sum = 0;
  Square square = 0;

  template <int N>
  __device__ __forceinline__ void add(const Words<N * sizeof(T)>& pixels, const Words<N>& mask) {
#pragma unroll
    for (int i = 0; i < Words<N * sizeof(T)>::kCount; ++i) {
      const std::uint32_t v = only_inside<T>(pixels.w[i], mask, i);
      if constexpr (sizeof(T) == 1) {
        sum = __dp4a(v, 0x01010101u, sum);
        square = __dp4a(v, v, square);
      } else {
        const std::uint32_t low = v & 0xffffu, high = v >> 16;
        sum += low + high;
        square += std::uint64_t(low) * low;
        if (N > 1) square += std::uint64_t(high) * high;
      }
    }
    n += count_inside(mask);
  }

  __device__ __forceinline__ CnrCell<Value> cell() const { return {n, sum, square}; }
  __device__ __forceinline__ bool holds_all() const { return true; }
};

// Floats: in float64 around the first pixel of the region that the thread meets.
struct CnrRealSums {
  using Value = double;
  std::uint32_t n = 0;
  double pivot = 0, sum = 0, square = 0;

  template <int N>
  __device__ __forceinline__ void add(const double (&v)[N], const Words<N>& mask) {
    const std::uint32_t more = count_inside(mask);
    if (more == 0) return;
    if (n == 0) {
#pragma unroll
      for (int k = N - 1; k >= 0; --k) pivot = inside(mask, k) ? v[k] : pivot;
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const double z = inside(mask, k) ? v[k] - pivot : 0.0;  // a choice: NaN outside the region must not pass
      sum += z;
      square += z * z;
    }
    n += more;
  }

  __device__ __forceinline__ CnrCell<Value> cell() const {
    if (n == 0) return {};
    const float near = finite(double(float(pivot))) ? float(pivot) : 0.0f;
    const double apart = sum / double(n), deviation = square - sum * apart;
    return {n, near, (pivot - double(near)) + apart, deviation < 0 ? 0.0 : deviation};
  }
  __device__ __forceinline__ bool holds_all() const { return finite(sum) && finite(square); }
};

template <class T>
using CnrSumsOf = std::conditional_t<std::is_integral_v<T>, CnrSums<T>, CnrRealSums>;

// --- pixels to cells ------------------------------------------------------------------------------------------

struct CnrCellsJob {
  const char* x;
  const char* region[kCnrRegions];
  std::int64_t stride[4], region_stride[kCnrRegions][4];  // bytes: image, channel, row, pixel
  int regions;
  CnrAxis down, across;
  std::int64_t channels, first_plane, planes, first_row, rows, wide;  // rows and wide count cells
  // Columns of cells that a block takes: `periods` strides, of packs_first + packs_second packs each, or one cell where
  // a stride is wider than a block.
  std::int64_t groups, packs_first, packs_second, periods;
};

__device__ __forceinline__ std::int64_t cell_start(const CnrAxis& of, std::int64_t i) {
  const std::int64_t at = i / of.step * of.stride, j = i % of.step;
  return at + (j < of.first ? j * of.longest : of.rest + (j - of.first) * of.longest);
}
__device__ __forceinline__ std::int64_t cell_stop(const CnrAxis& of, std::int64_t i) {
  const std::int64_t at = i / of.step * of.stride, j = i % of.step;
  return min(cell_start(of, i) + of.longest, at + (j < of.first ? of.rest : of.stride));
}

// Where a thread's pack is: in which cell, its first column, its place among the cell's packs.
struct CnrPlace {
  std::int64_t cell, column;
  int pack, packs;
};

template <int N>
__device__ __forceinline__ int packs_of_group(const CnrCellsJob& job, std::int64_t group) {
  if (job.periods == 0) return int((cell_stop(job.across, group) - cell_start(job.across, group)) / N);
  const std::int64_t period = job.packs_first + job.packs_second, whole = job.wide / job.across.step;
  const std::int64_t all = whole * period + (job.wide % job.across.step != 0 ? job.packs_first : 0);
  return int(min(job.periods * period, all - group * job.periods * period));
}

template <int N>
__device__ __forceinline__ CnrPlace place(const CnrCellsJob& job, std::int64_t group, int pack, int packs) {
  if (job.periods == 0) return {group, cell_start(job.across, group) + pack * N, pack, packs};
  const int first = int(job.packs_first), second = int(job.packs_second), period = first + second;
  const std::int64_t k = group * job.periods + pack / period;
  const int at = pack % period;
  const std::int64_t column = k * job.across.stride, cell = k * job.across.step;
  if (at < first) return {cell, column + at * N, at, first};
  return {cell + job.across.first, column + job.across.rest + (at - first) * N, at - first, second};
}

// What a thread's pixels hold that its sums cannot: see `merge`. Reads them again.
template <class T, int N>
__device__ __forceinline__ CnrCell<double> nonfinite_cell(const char* x, std::int64_t down, std::int64_t across,
                                                          const char* mask, std::int64_t mask_down,
                                                          std::int64_t mask_across, int rows,
                                                          CnrCell<double> otherwise) {
  bool infinite = false, number = false, nothing = false;
#pragma unroll 1
  for (int row = 0; row < rows; ++row) {
#pragma unroll 1
    for (int k = 0; k < N; ++k) {
      if (load_words<1>(mask + row * mask_down + k * mask_across).w[0] == 0) continue;
      const double v = real_value<T>(load_words<sizeof(T)>(x + row * down + k * across), 0);
      infinite = infinite || v == infinity();
      nothing = nothing || v != v || v == -infinity();
      number = number || finite(v);
    }
  }
  if (!infinite && !nothing) return otherwise;  // squares beyond float64
  otherwise.mean = nothing ? not_a_number() : number ? infinity() : -infinity();
  otherwise.square = not_a_number();
  return otherwise;
}

// Where a thread of a block stands among those that share its cell: `phases` rows of threads, `across` apart, and of
// each row `packs` threads side by side. most: of any cell of the block.
struct CnrSeat {
  int thread, phase, phases, across, pack, packs, most;
};

// Merges the cells that the threads left in `found` (regions × 3 × kCnrThreads) into that of phase 0, pack 0 of each
// cell, in halves that lie side by side: first the phases, then the packs. All threads of the block call it.
template <class V, int Most = kCnrRegions>
__device__ __forceinline__ void fold_cells(std::uint64_t* found, int regions, const CnrSeat& seat) {
  const auto take = [&](int further) {
#pragma unroll
    for (int r = 0; r < Most; ++r) {
      if (r >= regions) break;
      std::uint64_t* const into = found + r * 3 * kCnrThreads + seat.thread;
      CnrCell<V> sum = get_cell<V>(into, kCnrThreads);
      merge(sum, get_cell<V>(into + further, kCnrThreads));
      put_cell(into, kCnrThreads, sum);
    }
  };
  int reach = 1;
  while (reach < seat.phases) reach *= 2;
  for (reach /= 2; reach > 0; reach /= 2) {
    __syncthreads();
    if (seat.phase < reach && seat.phase + reach < seat.phases) take(reach * seat.across);
  }
  reach = 1;
  while (reach < seat.most) reach *= 2;
  for (reach /= 2; reach > 0; reach /= 2) {
    __syncthreads();
    if (seat.phase == 0 && seat.pack < reach && seat.pack + reach < seat.packs) take(reach);
  }
}

// cells[region][plane][3][row][column].
template <class T, int N, bool Straight>
__global__ void __launch_bounds__(kCnrThreads, 2) cnr_cells(const CnrCellsJob job, std::uint64_t* cells) {
  constexpr int kBytes = N * int(sizeof(T)), kTogether = N == 1 ? 8 : 4;
  constexpr bool kExact = std::is_integral_v<T>;
  using Sums = CnrSumsOf<T>;
  using V = typename Sums::Value;
  SEMNR_SHARED(memory);
  std::uint64_t* const found = reinterpret_cast<std::uint64_t*>(memory);  // regions × 3 × kCnrThreads
  const int thread = int(threadIdx.x);
  const std::int64_t plane_tasks = job.rows * job.groups;
  for (std::int64_t task = blockIdx.x; task < job.planes * plane_tasks; task += gridDim.x) {
    const std::int64_t plane = task / plane_tasks, row = task % plane_tasks / job.groups,
                       group = task % plane_tasks % job.groups;
    const std::int64_t image = (job.first_plane + plane) / job.channels,
                       channel = (job.first_plane + plane) % job.channels;
    const int packs = packs_of_group<N>(job, group), phases = kCnrThreads / packs;
    const int phase = thread / packs, pack = thread % packs;
    const CnrPlace at = place<N>(job, group, pack, packs);
    const std::int64_t top = cell_start(job.down, job.first_row + row) + phase,
                       bottom = cell_stop(job.down, job.first_row + row);
    const int rows = phase < phases && top < bottom ? int((bottom - top + phases - 1) / phases) : 0;

    const std::int64_t down = phases * job.stride[2];
    const char* x =
        job.x + image * job.stride[0] + channel * job.stride[1] + top * job.stride[2] + at.column * job.stride[3];
    const char* mask[kCnrRegions];
    std::int64_t mask_down[kCnrRegions];
#pragma unroll
    for (int r = 0; r < kCnrRegions; ++r) {
      const std::int64_t* const by = job.region_stride[r];
      mask[r] = job.region[r] + image * by[0] + channel * by[1] + top * by[2] + at.column * by[3];
      mask_down[r] = phases * by[2];
    }
    Sums sums[kCnrRegions];
    for (int done = 0; done < rows; done += kTogether) {
      Words<kBytes> pixels[kTogether];
      Words<N> inside[kCnrRegions][kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        pixels[j] = no_words<kBytes>();
#pragma unroll
        for (int r = 0; r < kCnrRegions; ++r) inside[r][j] = no_words<N>();
        if (done + j < rows) {
          pixels[j] = load_pixels<T, N, Straight>(x, job.stride[3]);
#pragma unroll
          for (int r = 0; r < kCnrRegions; ++r) {
            if (r < job.regions) {
              inside[r][j] = load_pixels<std::uint8_t, N, Straight>(mask[r], job.region_stride[r][3]);
            }
            mask[r] += mask_down[r];
          }
          x += down;
        }
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        if constexpr (kExact) {
#pragma unroll
          for (int r = 0; r < kCnrRegions; ++r) sums[r].template add<N>(pixels[j], inside[r][j]);
        } else {
          double v[N];
#pragma unroll
          for (int k = 0; k < N; ++k) v[k] = real_value<T>(pixels[j], k);
#pragma unroll
          for (int r = 0; r < kCnrRegions; ++r) sums[r].template add<N>(v, inside[r][j]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kCnrRegions; ++r) {
      if (r >= job.regions) break;
      CnrCell<V> mine = sums[r].cell();
      if constexpr (!kExact) {
        if (!sums[r].holds_all()) {
          mine = nonfinite_cell<T, N>(x - rows * down, down, job.stride[3], mask[r] - rows * mask_down[r], mask_down[r],
                                      job.region_stride[r][3], rows, mine);
        }
      }
      put_cell(found + r * 3 * kCnrThreads + thread, kCnrThreads, mine);
    }

    const int most = job.periods == 0 ? packs : int(max(job.packs_first, job.packs_second));
    fold_cells<V>(found, job.regions, {thread, phase, phases, packs, at.pack, at.packs, most});
    if (phase == 0 && at.pack == 0) {
      const std::int64_t apart = job.rows * job.wide;
#pragma unroll
      for (int r = 0; r < kCnrRegions; ++r) {
        if (r >= job.regions) break;
        put_cell(cells + (r * job.planes + plane) * 3 * apart + row * job.wide + at.cell, apart,
                 get_cell<V>(found + r * 3 * kCnrThreads + thread, kCnrThreads));
      }
    }
    __syncthreads();
  }
}

// --- cells to windows -----------------------------------------------------------------------------------------

struct CnrDirectJob {
  CnrAxis down, across;
  std::int64_t planes, rows, wide;  // of cells
  std::int64_t windows_down;        // of the band
  std::int64_t maps;                // regions × planes
  int together;
  // out: where the band's first window is, and how far planes, quantities and regions are apart
  std::int64_t plane_apart, quantity_apart, region_apart;
};

// A window from its cells: `together` threads take every so-many-th of them, then fold in halves.
template <class V>
__global__ void __launch_bounds__(kCnrThreads)
    cnr_direct(const CnrDirectJob job, const std::uint64_t* cells, double* out) {
  SEMNR_SHARED(memory);
  std::uint64_t* const found = reinterpret_cast<std::uint64_t*>(memory);  // 3 × kCnrThreads
  const int thread = int(threadIdx.x), lane = thread % job.together;
  const std::int64_t map = job.windows_down * job.across.windows, all = job.maps * map;
  const std::int64_t a_block = kCnrThreads / job.together, apart = job.rows * job.wide;
  for (std::int64_t first = blockIdx.x * a_block; first < all; first += gridDim.x * a_block) {
    const std::int64_t window = first + thread / job.together, which = window / map;
    const std::int64_t row = window % map / job.across.windows, column = window % map % job.across.windows;
    CnrCell<V> sum;
    if (window < all) {
      const std::uint64_t* const corner =
          cells + which * 3 * apart + row * job.down.step * job.wide + column * job.across.step;
      const int length = int(job.across.length), count = int(job.down.length) * length;
      for (int i = lane; i < count; i += job.together) {
        merge(sum, get_cell<V>(corner + i / length * job.wide + i % length, apart));
      }
    }
    if (job.together > 1) {
      put_cell(found + thread, kCnrThreads, sum);
      __syncthreads();
      for (int reach = job.together / 2; reach > 0; reach /= 2) {
        if (lane < reach) {
          merge(sum, get_cell<V>(found + thread + reach, kCnrThreads));
          put_cell(found + thread, kCnrThreads, sum);
        }
        __syncthreads();
      }
    }
    if (window < all && lane == 0) {
      const std::int64_t plane = which % job.planes, region = which / job.planes;
      finish(sum, out + region * job.region_apart + plane * job.plane_apart + row * job.across.windows + column,
             job.quantity_apart);
    }
  }
}

struct CnrSlideJob {
  std::int64_t windows, step, length;  // along the axis
  std::int64_t lines, planes, maps;    // maps: regions × planes
  std::int64_t in_cell, in_line, in_quantity;
  std::int64_t out_window, out_line, out_plane, out_quantity, out_region;
};

// Runs of `length` cells along one axis, one every `step`. The axis is cut into blocks of `length`: a run is the end of
// one block and the start of the next, so each cell is merged three times however long the run is (van Herk 1992).
// A thread takes the runs that begin in one block of one line; `out` holds their ends until their starts are merged.
template <class V, bool Last>
__global__ void __launch_bounds__(kCnrThreads, 2)
    cnr_slide(const CnrSlideJob job, const std::uint64_t* in, std::uint64_t* out) {
  const std::int64_t blocks = (job.windows - 1) * job.step / job.length + 1, all = job.maps * blocks * job.lines;
  for (std::int64_t task = std::int64_t(blockIdx.x) * kCnrThreads + threadIdx.x; task < all;
       task += std::int64_t(gridDim.x) * kCnrThreads) {
    const std::int64_t line = task % job.lines, block = task / job.lines % blocks, which = task / job.lines / blocks;
    const std::int64_t plane = which % job.planes, region = which / job.planes;
    const std::uint64_t* const from = in + which * 3 * job.in_quantity + line * job.in_line;
    std::uint64_t* const to = out + region * job.out_region + plane * job.out_plane + line * job.out_line;
    const std::int64_t start = block * job.length, stop = start + job.length;
    const std::int64_t first = (start + job.step - 1) / job.step, end = min(job.windows, (stop - 1) / job.step + 1);
    CnrCell<V> sum;
    std::int64_t cell = stop;
    for (std::int64_t window = end - 1; window >= first; --window) {
#pragma unroll 2
      while (cell > window * job.step) {
        --cell;
        CnrCell<V> ends = get_cell<V>(from + cell * job.in_cell, job.in_quantity);
        merge(ends, sum);
        sum = ends;
      }
      put_cell(to + window * job.out_window, job.out_quantity, sum);
    }
    sum = CnrCell<V>{};
    cell = stop;
    for (std::int64_t window = first; window < end; ++window) {
#pragma unroll 2
      for (; cell < window * job.step + job.length; ++cell) {
        merge(sum, get_cell<V>(from + cell * job.in_cell, job.in_quantity));
      }
      std::uint64_t* const at = to + window * job.out_window;
      CnrCell<V> run = get_cell<V>(at, job.out_quantity);
      merge(run, sum);
      if constexpr (Last) {
        finish(run, reinterpret_cast<double*>(at), job.out_quantity);
      } else {
        put_cell(at, job.out_quantity, run);
      }
    }
  }
}

}  // namespace semnr

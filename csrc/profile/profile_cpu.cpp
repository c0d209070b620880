// PSNR, SSIM and CNR together: what each adds to a tile of SSIM is done while the tile's pixels are in the cache.
#include "profile_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../cnr/cnr_math.hpp"
#include "../counts.hpp"
#include "../pixel/pixel_sums.hpp"
#include "../pool.hpp"
#include "profile_cells.hpp"

namespace semnr {
namespace {

struct Tally {
  Partial errors, noisy;
  double shared = 0;  // pixels in both regions
  Moments region[kProfileRegions], reference;
  std::vector<CellMoments> cells;  // with a noisy image: of each cell that the tile holds a part of
};

struct Work {
  const Image& x;
  const Image& y;
  const Mask (&regions)[kProfileRegions];
  const Image* noisy;
  std::vector<Tally> tally;
};

template <class T>
const T* pixel_of(const Image& v, const PixelTile& t, std::int64_t row, std::int64_t column) {
  return static_cast<const T*>(v.data) + t.n * v.stride[0] + row * v.stride[2] + column;
}

// Cells of the whole image that a tile holds a part of.
struct CellsOf {
  std::int64_t top, left, rows, columns;
  explicit CellsOf(const PixelTile& t)
      : top(t.row / kProfileCell),
        left(t.column / kProfileCell),
        rows(pieces(t.row + t.rows, kProfileCell) - top),
        columns(pieces(t.column + t.columns, kProfileCell) - left) {}
};

// The tile's share of each cell: moments of x, y and the noisy image in the two regions.
template <class T>
void tally_cells(const Work& work, const PixelTile& t, Tally& found) {
  const CellsOf cells(t);
  found.cells.assign(std::size_t(cells.rows * cells.columns), {});
  CellMoments* into = found.cells.data();
  const Image* const images[kProfileImages] = {&work.x, &work.y, work.noisy};
  for (std::int64_t i = cells.top; i < cells.top + cells.rows; ++i) {
    const std::int64_t top = std::max(t.row, i * kProfileCell);
    const std::int64_t bottom = std::min(t.row + t.rows, (i + 1) * kProfileCell);
    for (std::int64_t j = cells.left; j < cells.left + cells.columns; ++j) {
      const std::int64_t left = std::max(t.column, j * kProfileCell);
      const std::int64_t right = std::min(t.column + t.columns, (j + 1) * kProfileCell);
      Lines<T> pixels[kProfileImages];
      Lines<std::uint8_t> inside[kProfileRegions];
      for (int k = 0; k < kProfileImages; ++k) {
        pixels[k] = {pixel_of<T>(*images[k], t, top, left), images[k]->stride[2]};
      }
      for (int r = 0; r < kProfileRegions; ++r) {
        inside[r] = {work.regions[r].row(t.n, top) + left, work.regions[r].stride[1]};
      }
      cell_moments(pixels, inside, bottom - top, right - left, *into++);
    }
  }
}

// Of x, over the noise of the noisy image, and as a share of the contrast of y.
struct Contrast {
  double ratio = std::numeric_limits<double>::quiet_NaN(), retention = ratio;

  // NaN where a region has fewer than `least` pixels.
  static Contrast of(const CellMoments& m, double least) {
    constexpr int y = kProfileRegions, noisy = 2 * kProfileRegions;
    if (m.count[0] < least || m.count[1] < least) return {};
    const double contrast = m.mean[0] - m.mean[1],
                 variance[] = {m.square[noisy] / m.count[0], m.square[noisy + 1] / m.count[1]};
    return {fixed_noise_ratio(contrast, (variance[0] + variance[1]) / 2),
            contrast_retention(contrast, m.mean[y] - m.mean[y + 1])};
  }

  void lower(const Contrast& o) {
    ratio = std::fmin(ratio, o.ratio);  // the other one, where one is NaN
    retention = std::fmin(retention, o.retention);
  }
};

// Part of a tile, side by side in the first-level cache: the sums below then run over thousands of pixels at once.
constexpr std::int64_t kBlock = 2048;
constexpr int kLargestWindow = 33;  // a row of a border tile must fit a block
template <class T>
struct Block {
  alignas(64) T x[kBlock], y[kBlock], kept[kBlock], zero[kBlock];
  alignas(64) std::uint8_t inside[kProfileRegions][kBlock];
};

// Bytes of 0 and 1 that are set in both: lanes of bytes count up to 255 vectors, more than a block holds.
inline std::int64_t both(const std::uint8_t* a, const std::uint8_t* b, std::int64_t n) {
  static_assert(kBlock / kVectorBytes <= 255);
  Vec<std::uint8_t> lanes = {};
  std::int64_t i = 0, count = 0;
  for (; i + kVectorBytes <= n; i += kVectorBytes) lanes += load(a + i) & load(b + i);
  for (; i < n; ++i) count += a[i] & b[i];
  alignas(kVectorBytes) std::uint8_t each[kVectorBytes];
  store(each, lanes);
  for (int k = 0; k < kVectorBytes; ++k) count += each[k];
  return count;
}

// Exact: the sums of the pixel errors, to an image of zeros. At most 2048 pixels, so that every product fits.
template <class T>
void add_exact(const T* pixels, const Block<T>& block, std::int64_t n, std::int64_t count, Moments& into) {
  if (count == 0) return;
  Partial sums;
  add<true>(pixels, block.zero, n, sums);
  const std::uint64_t sum = sums.exact_absolute, deviation = std::uint64_t(count) * sums.exact_square - sum * sum;
  into.merge({double(count), double(sum) / double(count), double(deviation) / double(count)});
}

template <class T>
void add_region(Block<T>& block, int r, std::int64_t n, Moments& into) {
  const std::uint8_t* in = block.inside[r];
  for (std::int64_t i = 0; i < n; ++i) block.kept[i] = T(block.x[i] & T(-in[i]));
  add_exact(block.kept, block, n, both(in, in, n), into);
}

// Float64, around a pixel of the region: a constant region has a variance of exactly zero, a pedestal leaves no trace.
// Regions: not where their moments are taken by cells.
template <bool Regions, class T>
void add_all(const Block<T>& block, std::int64_t n, Tally& tally) {
  constexpr int L = kLanes<double>;
  double pivot[kProfileRegions] = {};
  std::int64_t count[kProfileRegions] = {};
  for (int r = 0; Regions && r < kProfileRegions; ++r) {
    const std::uint8_t* in = block.inside[r];
    count[r] = both(in, in, n);
    if (count[r] != 0) pivot[r] = double(block.x[std::find_if(in, in + n, [](std::uint8_t m) { return m != 0; }) - in]);
  }
  const double near = double(block.y[0]);
  const Vec<double> from[kProfileRegions] = {splat(pivot[0]), splat(pivot[1])}, apart_y = splat(near);
  Vec<double> total_y[2] = {}, square_y[2] = {};
  Vec<double> error[2] = {}, distance[2] = {}, sum[kProfileRegions][2] = {}, square[kProfileRegions][2] = {};
  std::int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const Vec<double> v = widened(block.x + i + k * L), u = widened(block.y + i + k * L), d = v - u;
      error[k] += d * d;
      distance[k] += magnitude(d);
      const Vec<double> e = u - apart_y;
      total_y[k] += e;
      square_y[k] += e * e;
#pragma GCC unroll 2
      for (int r = 0; Regions && r < kProfileRegions; ++r) {
        const Vec<double> z = apart_inside(v, from[r], block.inside[r] + i + k * L);
        sum[r][k] += z;
        square[r][k] += z * z;
      }
    }
  }
  tally.errors.square += semnr::sum<double>(error[0] + error[1]);
  tally.errors.absolute += semnr::sum<double>(distance[0] + distance[1]);
  add<true>(block.x + i, block.y + i, n - i, tally.errors);
  double sum_y = semnr::sum<double>(total_y[0] + total_y[1]), squares_y = semnr::sum<double>(square_y[0] + square_y[1]);
  for (std::int64_t j = i; j < n; ++j) {
    const double e = double(block.y[j]) - near;
    sum_y += e;
    squares_y += e * e;
  }
  tally.reference.merge(around(near, double(n), sum_y, squares_y));
  for (int r = 0; r < kProfileRegions; ++r) {
    if (count[r] == 0) continue;
    double total = semnr::sum<double>(sum[r][0] + sum[r][1]), squares = semnr::sum<double>(square[r][0] + square[r][1]);
    for (std::int64_t j = i; j < n; ++j) {
      const double z = block.inside[r][j] != 0 ? double(block.x[j]) - pivot[r] : 0.0;
      total += z;
      squares += z * z;
    }
    tally.region[r].merge(around(pivot[r], double(count[r]), total, squares));
  }
}

// Rows of a tile as blocks. The pixels are in the second-level cache; the masks come from memory, asked for ahead.
template <class T>
void tally_tile(void* context, const PixelTile& t) {
  constexpr std::int64_t kAhead = 16;
  Work& work = *static_cast<Work*>(context);
  Tally found;
  Block<T>& block = *static_cast<Block<T>*>(scratch(sizeof(Block<T>)));
  if constexpr (std::is_integral_v<T>) std::fill_n(block.zero, kBlock, T(0));
  const std::int64_t together = kBlock / t.columns;
  const auto copy = [&](T* to, const Image& v, std::int64_t h) {
    std::copy_n(pixel_of<T>(v, t, t.row + h, t.column), t.columns, to);
  };
  for (std::int64_t top = 0; top < t.rows; top += together) {
    const std::int64_t rows = std::min(together, t.rows - top);
    for (std::int64_t i = 0; i < rows; ++i) {
      if (work.noisy != nullptr && top + i + kAhead < t.rows) {  // read here first
        const T* from = pixel_of<T>(*work.noisy, t, t.row + top + i + kAhead, t.column);
        for (std::int64_t at = 0; at < t.columns; at += 64 / std::int64_t(sizeof(T))) __builtin_prefetch(from + at);
      }
      copy(block.x + i * t.columns, work.x, top + i);
      copy(block.y + i * t.columns, work.y, top + i);
      for (int r = 0; r < kProfileRegions; ++r) {
        const Mask& mask = work.regions[r];
        const std::uint8_t* from = mask.row(t.n, t.row + top + i) + t.column;
        if (top + i + kAhead < t.rows) {
          for (std::int64_t at = 0; at < t.columns; at += 64) __builtin_prefetch(from + kAhead * mask.stride[1] + at);
        }
        std::copy_n(from, t.columns, block.inside[r] + i * t.columns);
      }
    }
    const std::int64_t n = rows * t.columns;
    found.shared += double(both(block.inside[0], block.inside[1], n));
    if constexpr (std::is_integral_v<T>) {
      add<true>(block.x, block.y, n, found.errors);
      add_exact(block.y, block, n, n, found.reference);
      for (int r = 0; r < kProfileRegions && work.noisy == nullptr; ++r) add_region(block, r, n, found.region[r]);
    } else {
      work.noisy == nullptr ? add_all<true>(block, n, found) : add_all<false>(block, n, found);
    }
    for (std::int64_t i = 0; i < rows && work.noisy != nullptr; ++i) {
      add<false>(pixel_of<T>(*work.noisy, t, t.row + top + i, t.column), block.y + i * t.columns, t.columns,
                 found.noisy);
    }
  }
  if (work.noisy != nullptr) tally_cells<T>(work, t, found);
  work.tally[std::size_t(t.task)] = std::move(found);
}

}  // namespace

void profile_scores(const Image& x, const Image& y, const Mask (&regions)[kProfileRegions], Dtype dtype,
                    const Shape& shape, const SsimOptions& options, double* out, const NoisyProfile* noisy) {
  if (options.size > kLargestWindow) throw std::invalid_argument("profile_scores: windows of up to 33 pixels");
  Work work{x, y, regions, noisy == nullptr ? nullptr : &noisy->image,
            std::vector<Tally>(std::size_t(ssim_tasks(shape, options)))};
  std::vector<PixelTile> places(work.tally.size());
  struct Context {
    Work& work;
    std::vector<PixelTile>& places;
    void (*run)(void*, const PixelTile&);
  } context{work, places, nullptr};
  Beside beside{[](void* at, const PixelTile& t) {
                  Context& c = *static_cast<Context*>(at);
                  c.places[std::size_t(t.task)] = t;
                  c.run(&c.work, t);
                },
                &context};
  bool integer = false;
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (std::is_arithmetic_v<T>) {
      context.run = &tally_tile<T>;
      integer = std::is_integral_v<T>;
    } else {
      throw std::invalid_argument("profile_scores: 16-bit floats are scored one metric at a time");
    }
  });
  std::vector<double> score(std::size_t(2 * shape.n));
  ssim_forward(x, y, {}, dtype, shape, options,
               {score.data(), score.data() + shape.n, nullptr, nullptr, nullptr, nullptr, nullptr}, &beside);
  const std::size_t tiles = work.tally.size() / std::size_t(shape.n);
  const double count = double(shape.h) * double(shape.w);
  const auto mean_square = [&](const Partial& p) { return (integer ? double(p.exact_square) : p.square) / count; };
  const std::int64_t down = pieces(shape.h, kProfileCell), across = pieces(shape.w, kProfileCell);
  std::vector<CellMoments> cells(noisy == nullptr ? 0 : std::size_t(down * across)),
      pairs(cells.empty() ? 0 : std::size_t(across));
  for (std::int64_t n = 0; n < shape.n; ++n, out += kProfileRow) {
    Tally total;
    std::fill(cells.begin(), cells.end(), CellMoments{});
    for (std::size_t i = 0; i < tiles; ++i) {
      const std::size_t task = std::size_t(n) * tiles + i;
      const Tally& part = work.tally[task];
      total.shared += part.shared;
      for (auto [sum, more] : {std::pair{&total.errors, &part.errors}, std::pair{&total.noisy, &part.noisy}}) {
        sum->square += more->square;
        sum->absolute += more->absolute;
        sum->exact_square += more->exact_square;
        sum->exact_absolute += more->exact_absolute;
      }
      total.reference.merge(part.reference);
      for (int r = 0; r < kProfileRegions; ++r) total.region[r].merge(part.region[r]);
      if (noisy == nullptr) continue;
      const CellsOf held(places[task]);
      const CellMoments* from = part.cells.data();
      for (std::int64_t row = held.top; row < held.top + held.rows; ++row) {
        CellMoments* to = &cells[std::size_t(row * across + held.left)];
        for (std::int64_t k = 0; k < held.columns; ++k) to[k].merge(*from++);
      }
    }
    if (noisy != nullptr) {
      CellMoments whole;
      for (const CellMoments& cell : cells) whole.merge(cell);
      for (int r = 0; r < kProfileRegions; ++r) total.region[r] = whole.of(r);
      Contrast lowest;
      const std::int64_t rows = shape.h / kProfileCell - 1, columns = shape.w / kProfileCell - 1;
      for (std::int64_t row = 0; row <= rows; ++row) {  // two cells side by side, then two such rows
        for (std::int64_t column = 0; column < columns; ++column) {
          CellMoments window = cells[std::size_t(row * across + column)];
          window.merge(cells[std::size_t(row * across + column + 1)]);
          CellMoments& above = pairs[std::size_t(column)];
          if (row > 0) {
            above.merge(window);
            lowest.lower(Contrast::of(above, noisy->least));
          }
          above = window;
        }
      }
      const Contrast all = Contrast::of(whole, 1);
      double* const to = noisy->out + n * kProfileNoisyRow;
      to[0] = mean_square(total.noisy);
      to[1] = all.ratio, to[2] = all.retention, to[3] = lowest.ratio, to[4] = lowest.retention;
    }
    out[0] = mean_square(total.errors);
    out[1] = (integer ? double(total.errors.exact_absolute) : total.errors.absolute) / count;
    out[2] = score[std::size_t(n)];
    out[3] = total.shared;
    out[4] = total.reference.mean;
    out[5] = total.reference.square / total.reference.count;
    for (int r = 0; r < kProfileRegions; ++r) total.region[r].put(out + 6 + 3 * r, 1);
  }
}

}  // namespace semnr

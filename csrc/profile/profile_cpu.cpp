// PSNR, SSIM and CNR together: what each adds to a tile of SSIM is done while the tile's pixels are in the cache.
#include "profile_cpu.hpp"

#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../pixel/pixel_sums.hpp"
#include "../pool.hpp"

namespace semnr {
namespace {

struct Moments {
  double count = 0, mean = 0, square = 0;  // square: of deviations from the mean

  void merge(const Moments& o) {
    if (o.count == 0) return;
    const double total = count + o.count, share = o.count / total, apart = o.mean - mean;
    square += o.square + apart * apart * count * share;
    mean = count == 0 ? o.mean : mean + apart * share;
    count = total;
  }
};

Moments around(double pivot, double count, double sum, double square) {
  const double apart = sum / count, deviation = square - sum * apart;
  return {count, pivot + apart, deviation < 0 ? 0 : deviation};
}

struct Tally {
  Partial errors;
  double shared = 0;  // pixels in both regions
  Moments region[kProfileRegions], reference;
};

struct Work {
  const Image& x;
  const Image& y;
  const Mask (&regions)[kProfileRegions];
  std::vector<Tally> tally;
};

// Part of a tile, side by side in the first-level cache: the sums below then run over thousands of pixels at once.
constexpr std::int64_t kBlock = 2048;
constexpr int kLargestWindow = 33;  // a row of a border tile must fit a block
template <class T>
struct Block {
  alignas(64) T x[kBlock], y[kBlock], kept[kBlock], zero[kBlock];
  alignas(64) std::uint8_t inside[kProfileRegions][kBlock];
};

// v - from where the mask's byte is not 0, else 0: a NaN outside the region never reaches a sum.
inline Vec<double> apart_inside(Vec<double> v, Vec<double> from, const std::uint8_t* mask) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
  return (Vec<double>)_mm512_maskz_sub_pd(_mm_test_epi8_mask(bytes, bytes), (__m512d)v, (__m512d)from);
#else
  Vec<std::int64_t> all;
  for (int i = 0; i < kLanes<double>; ++i) all[i] = -std::int64_t(mask[i] != 0);
  return Vec<double>(Vec<std::int64_t>(v - from) & all);
#endif
}

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
template <class T>
void add_all(const Block<T>& block, std::int64_t n, Tally& tally) {
  constexpr int L = kLanes<double>;
  double pivot[kProfileRegions] = {};
  std::int64_t count[kProfileRegions] = {};
  for (int r = 0; r < kProfileRegions; ++r) {
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
      for (int r = 0; r < kProfileRegions; ++r) {
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
    const T* from = static_cast<const T*>(v.data) + t.n * v.stride[0] + (t.row + h) * v.stride[2] + t.column;
    std::copy_n(from, t.columns, to);
  };
  for (std::int64_t top = 0; top < t.rows; top += together) {
    const std::int64_t rows = std::min(together, t.rows - top);
    for (std::int64_t i = 0; i < rows; ++i) {
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
      for (int r = 0; r < kProfileRegions; ++r) add_region(block, r, n, found.region[r]);
    } else {
      add_all(block, n, found);
    }
  }
  work.tally[std::size_t(t.task)] = found;
}

}  // namespace

void profile_scores(const Image& x, const Image& y, const Mask (&regions)[kProfileRegions], Dtype dtype,
                    const Shape& shape, const SsimOptions& options, double* out) {
  if (options.size > kLargestWindow) throw std::invalid_argument("profile_scores: windows of up to 33 pixels");
  Work work{x, y, regions, std::vector<Tally>(std::size_t(ssim_tasks(shape, options)))};
  Beside beside{nullptr, &work};
  bool integer = false;
  with_type(dtype, [&](auto pixel) {
    using T = decltype(pixel);
    if constexpr (std::is_arithmetic_v<T>) {
      beside.run = &tally_tile<T>;
      integer = std::is_integral_v<T>;
    } else {
      throw std::invalid_argument("profile_scores: 16-bit floats are scored one metric at a time");
    }
  });
  std::vector<double> score(std::size_t(2 * shape.n));
  ssim_forward(x, y, {}, dtype, shape, options,
               {score.data(), score.data() + shape.n, nullptr, nullptr, nullptr, nullptr, nullptr}, &beside);
  const std::size_t tiles = work.tally.size() / std::size_t(shape.n);
  const double count = double(shape.h) * double(shape.w), none = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t n = 0; n < shape.n; ++n, out += kProfileRow) {
    Tally total;
    for (std::size_t i = 0; i < tiles; ++i) {
      const Tally& part = work.tally[std::size_t(n) * tiles + i];
      total.shared += part.shared;
      total.errors.square += part.errors.square;
      total.errors.absolute += part.errors.absolute;
      total.errors.exact_square += part.errors.exact_square;
      total.errors.exact_absolute += part.errors.exact_absolute;
      total.reference.merge(part.reference);
      for (int r = 0; r < kProfileRegions; ++r) total.region[r].merge(part.region[r]);
    }
    out[0] = (integer ? double(total.errors.exact_square) : total.errors.square) / count;
    out[1] = (integer ? double(total.errors.exact_absolute) : total.errors.absolute) / count;
    out[2] = score[std::size_t(n)];
    out[3] = total.shared;
    out[4] = total.reference.mean;
    out[5] = total.reference.square / total.reference.count;
    for (int r = 0; r < kProfileRegions; ++r) {
      const Moments& m = total.region[r];
      out[6 + 3 * r] = m.count;
      out[7 + 3 * r] = m.count > 0 ? m.mean : none;
      out[8 + 3 * r] = m.count > 0 ? m.square / m.count : none;
    }
  }
}

}  // namespace semnr

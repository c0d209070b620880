// Moments of three images in two regions of a cell: of 32 x 32 pixels, or a part of one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../simd.hpp"
#include "profile_cpu.hpp"

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

  // Pixels, mean and population variance, `step` apart; NaN where there are none.
  void put(double* out, std::int64_t step) const {
    constexpr double none = std::numeric_limits<double>::quiet_NaN();
    out[0] = count;
    out[step] = count > 0 ? mean : none;
    out[2 * step] = count > 0 ? square / count : none;
  }
};

constexpr int kProfileReference = 1;  // among the images; of it the means are asked, and no variance

// Moments of three images in two regions, side by side: merged together, with one division for all.
struct CellMoments {
  static constexpr int kPlaces = 8;  // a vector's worth; the last are empty
  static_assert(kProfileCellMoments <= kPlaces);
  alignas(64) double count[kPlaces] = {}, mean[kPlaces] = {}, square[kPlaces] = {};

  Moments of(int i) const { return {count[i], mean[i], square[i]}; }
  void set(int i, const Moments& m) { count[i] = m.count, mean[i] = m.mean, square[i] = m.square; }

  // As Moments::merge, without a branch: the mean of what is empty is 0.
  void merge(const CellMoments& o) {
    for (int i = 0; i < kPlaces; ++i) {
      const double total = count[i] + o.count[i], share = o.count[i] / std::max(total, 1.0);
      const double apart = o.mean[i] - mean[i];
      square[i] += o.square[i] + apart * apart * count[i] * share;
      mean[i] += apart * share;
      count[i] = total;
    }
  }
};

inline Moments around(double pivot, double count, double sum, double square) {
  const double apart = sum / count, deviation = square - sum * apart;
  return {count, pivot + apart, deviation < 0 ? 0 : deviation};
}

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

// How many of a vector's pixels the region holds, of whose bytes each is 0 or 1.
inline std::int64_t ones_of_vector(const std::uint8_t* in) {
  using Bytes = std::conditional_t<kLanes<double> == 8, std::uint64_t,
                                   std::conditional_t<kLanes<double> == 4, std::uint32_t, std::uint16_t>>;
  static_assert(sizeof(Bytes) == kLanes<double>);
  Bytes all;
  std::memcpy(&all, in, sizeof all);
  return __builtin_popcountll(all);
}

// Rows of pixels, `step` elements apart.
template <class T>
struct Lines {
  const T* first;
  std::int64_t step;
  const T* at(std::int64_t row) const { return first + row * step; }
};

template <class E, int N>
struct VectorOf {
  typedef E type __attribute__((vector_size(N * sizeof(E))));
};

// Squares of 32 columns of a cell's rows: pairs of products of 8-bit pixels, whole ones of 16-bit pixels.
inline Vec<std::uint32_t> add_squares(Vec<std::uint32_t> sum, Vec<std::uint16_t> v) {
#if defined(__AVX512BW__)
  return sum + (Vec<std::uint32_t>)_mm512_madd_epi16((__m512i)v, (__m512i)v);
#elif defined(__AVX2__)
  return sum + (Vec<std::uint32_t>)_mm256_madd_epi16((__m256i)v, (__m256i)v);
#elif defined(__x86_64__)
  return sum + (Vec<std::uint32_t>)_mm_madd_epi16((__m128i)v, (__m128i)v);
#else
  const Vec<std::uint16_t> square = v * v;  // at most 255²
  const Vec<std::uint32_t> two = (Vec<std::uint32_t>)square;
  return sum + (two & 0xffff) + (two >> 16);
#endif
}
inline Vec<std::uint64_t> add_squares(Vec<std::uint64_t> sum, Vec<std::uint32_t> v) {
  const Vec<std::uint64_t> two = (Vec<std::uint64_t>)(v * v);  // each below 2^32
  return sum + (two & 0xffffffff) + (two >> 32);
}

template <class V>
inline std::uint64_t lanes_sum(const V& v) {
  using E = std::remove_cv_t<std::remove_reference_t<decltype(v[0])>>;
  E each[sizeof(V) / sizeof(E)];
  std::memcpy(each, &v, sizeof v);
  std::uint64_t all = 0;
  for (const E one : each) all += one;
  return all;
}

// Exact: a cell's sums fit in 64 bits, as do their products (2^10 pixels of 16 bits).
template <class T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
void cell_moments(const Lines<T> (&pixels)[kProfileImages], const Lines<std::uint8_t> (&inside)[kProfileRegions],
                  std::int64_t rows, std::int64_t columns, CellMoments& into) {
  using Twice = std::conditional_t<sizeof(T) == 1, std::uint16_t, std::uint32_t>;
  using Square = std::conditional_t<sizeof(T) == 1, std::uint32_t, std::uint64_t>;
  constexpr int W = kLanes<Twice>;
  using Narrow = typename VectorOf<T, W>::type;
  using Bytes = typename VectorOf<std::uint8_t, W>::type;
  std::uint64_t count[kProfileRegions] = {}, sum[kProfileCellMoments] = {}, square[kProfileCellMoments] = {};
  std::int64_t c = 0;
  for (; c + W <= columns; c += W) {
    Vec<Twice> counts[kProfileRegions] = {}, sums[kProfileCellMoments] = {};
    Vec<Square> squares[kProfileCellMoments] = {};
    for (std::int64_t h = 0; h < rows; ++h) {
      Narrow chosen[kProfileRegions];
#pragma GCC unroll 2
      for (int r = 0; r < kProfileRegions; ++r) {
        Bytes in;
        std::memcpy(&in, inside[r].at(h) + c, sizeof in);
        counts[r] += __builtin_convertvector(in, Vec<Twice>);
        chosen[r] = -__builtin_convertvector(in, Narrow);
      }
#pragma GCC unroll 3
      for (int k = 0; k < kProfileImages; ++k) {
        Narrow v;
        std::memcpy(&v, pixels[k].at(h) + c, sizeof v);
#pragma GCC unroll 2
        for (int r = 0; r < kProfileRegions; ++r) {
          const Vec<Twice> kept = __builtin_convertvector(v & chosen[r], Vec<Twice>);
          sums[k * kProfileRegions + r] += kept;
          if (k != kProfileReference)
            squares[k * kProfileRegions + r] = add_squares(squares[k * kProfileRegions + r], kept);
        }
      }
    }
    for (int r = 0; r < kProfileRegions; ++r) count[r] += lanes_sum(counts[r]);
    for (int i = 0; i < kProfileCellMoments; ++i) {
      sum[i] += lanes_sum(sums[i]);
      square[i] += lanes_sum(squares[i]);
    }
  }
  for (; c < columns; ++c) {
    for (std::int64_t h = 0; h < rows; ++h) {
      for (int r = 0; r < kProfileRegions; ++r) {
        const std::uint64_t in = inside[r].at(h)[c];
        count[r] += in;
        for (int k = 0; k < kProfileImages; ++k) {
          const std::uint64_t v = in * pixels[k].at(h)[c];
          sum[k * kProfileRegions + r] += v;
          if (k != kProfileReference) square[k * kProfileRegions + r] += v * v;
        }
      }
    }
  }
  for (int i = 0; i < kProfileCellMoments; ++i) {
    const std::uint64_t n = count[i % kProfileRegions];
    if (n == 0) continue;
    const std::uint64_t deviation = i / kProfileRegions == kProfileReference ? 0 : n * square[i] - sum[i] * sum[i];
    into.set(i, {double(n), double(sum[i]) / double(n), double(deviation) / double(n)});
  }
}

// Float64, around the first pixel of the region.
template <class T, std::enable_if_t<!std::is_integral_v<T>, int> = 0>
void cell_moments(const Lines<T> (&pixels)[kProfileImages], const Lines<std::uint8_t> (&inside)[kProfileRegions],
                  std::int64_t rows, std::int64_t columns, CellMoments& into) {
  constexpr int L = kLanes<double>;
  double pivot[kProfileCellMoments] = {};
  for (int r = 0; r < kProfileRegions; ++r) {
    for (std::int64_t h = 0; h < rows; ++h) {
      const std::uint8_t* const in = inside[r].at(h);
      const std::int64_t c = std::find(in, in + columns, std::uint8_t(1)) - in;
      if (c == columns) continue;
      for (int k = 0; k < kProfileImages; ++k) pivot[k * kProfileRegions + r] = double(pixels[k].at(h)[c]);
      break;
    }
  }
  std::int64_t count[kProfileRegions] = {};
  Vec<double> sum[kProfileCellMoments] = {}, square[kProfileCellMoments] = {};
  double rest[kProfileCellMoments] = {}, rest_square[kProfileCellMoments] = {};
  for (std::int64_t h = 0; h < rows; ++h) {
    std::int64_t c = 0;
    for (; c + L <= columns; c += L) {
#pragma GCC unroll 2
      for (int r = 0; r < kProfileRegions; ++r) {
        const std::uint8_t* const in = inside[r].at(h) + c;
        const std::int64_t here = ones_of_vector(in);
        if (here == 0) continue;  // regions are disjoint, and most vectors lie in one
        count[r] += here;
#pragma GCC unroll 3
        for (int k = 0; k < kProfileImages; ++k) {
          const int i = k * kProfileRegions + r;
          const Vec<double> z = apart_inside(widened(pixels[k].at(h) + c), splat(pivot[i]), in);
          sum[i] += z;
          if (k != kProfileReference) square[i] += z * z;
        }
      }
    }
    for (; c < columns; ++c) {
      for (int r = 0; r < kProfileRegions; ++r) {
        if (inside[r].at(h)[c] == 0) continue;
        ++count[r];
        for (int k = 0; k < kProfileImages; ++k) {
          const int i = k * kProfileRegions + r;
          const double z = double(pixels[k].at(h)[c]) - pivot[i];
          rest[i] += z;
          if (k != kProfileReference) rest_square[i] += z * z;
        }
      }
    }
  }
  for (int i = 0; i < kProfileCellMoments; ++i) {
    const double here = double(count[i % kProfileRegions]);
    if (here == 0) continue;
    into.set(i, around(pivot[i], here, semnr::sum<double>(sum[i]) + rest[i],
                       semnr::sum<double>(square[i]) + rest_square[i]));
  }
}

}  // namespace
}  // namespace semnr

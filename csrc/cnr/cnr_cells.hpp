// Cells: the pieces into which the edges of all windows cut an image, each with
// the moments of its pixels.
//
// Every window is a run of cells along each axis, so windows that overlap share
// the work. Moments are taken around a pixel of the region and merged by Chan's
// formula, all terms of which are positive: nothing is ever subtracted, a
// constant region has variance exactly 0 and a pedestal costs no digit.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "../counts.hpp"
#include "../image.hpp"
#include "../simd.hpp"

namespace semnr {

constexpr std::int64_t kCellRows = 128;     // 8- and 16-bit sums of a column stay exact
constexpr std::int64_t kCellColumns = 512;  // a cell's columns of sums stay in the first cache
// Integer cells are exact in 64 bits: n Σv² and (Σv)² are below 2¹⁶ · 2¹⁶ ·
// 2³².
static_assert(kCellRows * kCellColumns <= 65536);

struct Span {
  std::int64_t start, stop;
};

// One axis: window k is the cells [k * step, k * step + length).
struct Axis {
  std::int64_t windows, step, length;
  std::vector<Span> cells;

  Axis(std::int64_t size, std::int64_t window, std::int64_t stride, std::int64_t longest) {
    windows = (size - window) / stride + 1;
    const bool apart = windows == 1 || window <= stride;
    const std::int64_t whole = apart ? 0 : window / stride, rest = apart ? window : window % stride;
    std::vector<Span> period;  // the cells of one stride: [0, rest), then [rest, stride)
    const auto cut = [&](std::int64_t from, std::int64_t to) {
      const std::int64_t parts = pieces(to - from, longest);
      for (std::int64_t i = 0; i < parts; ++i) {
        period.push_back({from + (to - from) * i / parts, from + (to - from) * (i + 1) / parts});
      }
    };
    cut(0, rest);
    const std::int64_t first = std::int64_t(period.size());
    if (!apart) cut(rest, stride);
    step = std::int64_t(period.size());
    length = whole * step + first;
    cells.resize(std::size_t((windows - 1) * step + length));
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const Span& part = period[i % period.size()];
      const std::int64_t at = std::int64_t(i / period.size()) * stride;
      cells[i] = {at + part.start, at + part.stop};
    }
  }
};

// Count, mean and sum of squared deviations; lines of cells or windows hold the
// three one after another.
inline void merge(double& n, double& mean, double& square, double other_n, double other_mean, double other_square) {
  const double total = n + other_n, share = other_n / (total > 1 ? total : 1), apart = other_mean - mean;
  square += other_square + apart * apart * n * share;
  mean += apart * share;
  n = total;
}

// What a kernel reads rows as: 16-bit floats are converted on the way.
template <class T>
using Loaded = std::conditional_t<std::is_same_v<T, Half> || std::is_same_v<T, BFloat>, float, T>;

template <class T>
const T* address(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return static_cast<const T*>(v.data) + n * v.stride[0] + c * v.stride[1] + h * v.stride[2] + w * v.stride[3];
}

// `count` pixels side by side: where they lie, or gathered into `line`.
template <class T>
const Loaded<T>* side_by_side(const T* from, std::int64_t step, std::int64_t count, Loaded<T>* line) {
  if constexpr (std::is_same_v<T, Loaded<T>>) {
    if (step == 1) return from;
    for (std::int64_t i = 0; i < count; ++i) line[i] = from[i * step];
  } else {
    for (std::int64_t i = 0; i < count; ++i) line[i] = real<float>(from[i * step]);
  }
  return line;
}

// Sums of each column of a cell. Integers: exact. Floats: around a pixel of the
// cell, in float64.
template <class T>
struct Columns {
  using Sum = std::conditional_t<std::is_same_v<T, std::uint8_t>, std::uint16_t,
                                 std::conditional_t<std::is_same_v<T, std::uint16_t>, std::uint32_t, double>>;
  using Square = std::conditional_t<std::is_same_v<T, std::uint8_t>, std::uint32_t,
                                    std::conditional_t<std::is_same_v<T, std::uint16_t>, std::uint64_t, double>>;
  static constexpr bool kExact = std::is_integral_v<T>;

  alignas(64) std::uint8_t count[kCellColumns];
  alignas(64) Sum sum[kCellColumns];
  alignas(64) Square square[kCellColumns];
  alignas(64) double pivot[kExact ? 1 : kCellColumns];
  alignas(64) std::int64_t choice[kExact ? 1 : kCellColumns];

  void clear(std::int64_t n) {
    std::fill_n(count, n, std::uint8_t(0));
    std::fill_n(sum, n, Sum(0));
    std::fill_n(square, n, Square(0));
  }

  // `inside` becomes all ones or zeros of the other operand's width: a choice
  // without a branch, and a NaN outside the region never reaches the sums.
  void add(const T* __restrict p, const std::uint8_t* __restrict inside, std::int64_t n) {
    std::uint8_t* __restrict counts = count;
    for (std::int64_t i = 0; i < n; ++i) counts[i] = std::uint8_t(counts[i] + (inside[i] != 0));
    if constexpr (kExact) {
      Sum* __restrict sums = sum;
      Square* __restrict squares = square;
      using Product = std::conditional_t<std::is_same_v<T, std::uint8_t>, std::uint16_t, std::uint32_t>;
      for (std::int64_t i = 0; i < n; ++i) {
        const T v = T(p[i] & T(-(inside[i] != 0)));
        sums[i] = Sum(sums[i] + v);
        squares[i] += Product(Product(v) * Product(v));
      }
    } else {
      using Bits = Vec<std::int64_t>;
      constexpr int L = kLanes<double>;
      typedef T Narrow __attribute__((vector_size(L * sizeof(T))));
      std::int64_t* __restrict all = choice;
      for (std::int64_t i = 0; i < n; ++i) all[i] = -std::int64_t(inside[i] != 0);
      std::int64_t i = 0;
      for (; i + L <= n; i += L) {
        Narrow values;
        std::memcpy(&values, p + i, sizeof values);
        const Vec<double> apart = __builtin_convertvector(values, Vec<double>) - load(pivot + i);
        const Vec<double> z = Vec<double>(Bits(apart) & load(choice + i));
        store<double>(sum + i, load(sum + i) + z);
        store<double>(square + i, load(square + i) + z * z);
      }
      for (; i < n; ++i) {
        const double z = inside[i] != 0 ? double(p[i]) - pivot[i] : 0.0;
        sum[i] += z;
        square[i] += z * z;
      }
    }
  }
};

template <class S>
inline auto total(const S* p, std::int64_t n) {
  if constexpr (std::is_same_v<S, double>) {
    constexpr int L = kLanes<double>;
    Vec<double> lanes = {};
    double rest = 0;
    std::int64_t i = 0;
    for (; i + L <= n; i += L) lanes += load(p + i);
    for (; i < n; ++i) rest += p[i];
    return sum<double>(lanes) + rest;
  } else {
    std::uint64_t all = 0;
    for (std::int64_t i = 0; i < n; ++i) all += p[i];
    return all;
  }
}

// The columns [from, from + n) as one cell, its mean relative to `origin`.
template <class T>
inline std::array<double, 3> cell(const Columns<T>& of, std::int64_t from, std::int64_t n, double origin) {
  const std::uint64_t count = total(of.count + from, n);
  if (count == 0) return {0, 0, 0};
  const auto sum = total(of.sum + from, n);
  const auto square = total(of.square + from, n);
  if constexpr (Columns<T>::kExact) {
    const std::uint64_t deviation = count * square - sum * sum;
    const std::int64_t apart = std::int64_t(sum) - std::int64_t(count) * std::int64_t(origin);
    return {double(count), double(apart) / double(count), double(deviation) / double(count)};
  } else {
    const double apart = sum / double(count), deviation = square - sum * apart;
    return {double(count), (of.pivot[from] - origin) + apart, deviation < 0 ? 0 : deviation};
  }
}

}  // namespace semnr

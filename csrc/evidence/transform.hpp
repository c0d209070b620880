// Discrete Fourier transforms of real planes on one thread, in two steps, so that what is done to a spectrum is done
// while its columns are in the cache.
//
//   spectrum [row][block][part][L columns]      columns 0 .. columns / 2 in blocks of a vector's lanes (L)
//
// Rows go through 2 L at a time: two real rows are the parts of one complex row. Columns go through L at a time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "../fsim/fourier.hpp"
#include "../fsim/lanes.hpp"

namespace semnr {

template <class R>
class PlaneTransform {
 public:
  static constexpr std::int64_t L = kLanes<R>;

  PlaneTransform(std::int64_t height, std::int64_t width)
      : rows(height),
        columns(width),
        half(width / 2 + 1),
        blocks((half + L - 1) / L),
        pitch((width + L - 1) / L * L + 16),
        padded_(pitch - 16),
        along_(width),
        down_(height) {}

  const std::int64_t rows, columns, half, blocks;
  const std::int64_t pitch;  // of the rows that `rows_back` gives: an odd number of cache lines for even sizes

  // Values of a spectrum, with room for a whole group of rows at its end.
  std::int64_t spectrum() const { return (rows + 2 * L) * blocks * kPoint<R>; }
  R* row(R* spectrum, std::int64_t y) const { return spectrum + y * blocks * kPoint<R>; }
  const R* row(const R* spectrum, std::int64_t y) const { return spectrum + y * blocks * kPoint<R>; }

  // Working memory, in values, of any of the functions below.
  std::int64_t work() const {
    const std::int64_t one = 2 * padded_ * kPoint<R> + along_.work(), other = 2 * rows * kPoint<R> + down_.work();
    return std::max(one + 2 * L * pitch, other);
  }

  // The transform along rows. put(y, to) writes row y's `width` values; what lies beyond `height` rows is zero.
  template <class Put>
  void rows_there(std::int64_t height, std::int64_t width, Put put, R* spectrum, R* work) const {
    R *const lines = work, *const points = lines + 2 * L * pitch, *const out = points + padded_ * kPoint<R>;
    R* const more = out + padded_ * kPoint<R>;
    for (std::int64_t y = 0; y < height; y += 2 * L) {
      for (std::int64_t i = 0; i < 2 * L; ++i) {
        R* const line = lines + i * pitch;
        if (y + i < height) put(y + i, line);
        std::fill(line + (y + i < height ? width : 0), line + padded_, R(0));
      }
      for (std::int64_t k = 0; k < padded_; k += L) {
        Vec<R> even[L], odd[L];
        for (std::int64_t i = 0; i < L; ++i) {
          even[i] = load(lines + i * pitch + k);
          odd[i] = load(lines + (i + L) * pitch + k);
        }
        transpose<R>(even);
        transpose<R>(odd);
        for (std::int64_t i = 0; i < L; ++i) store_point<R>(points + (k + i) * kPoint<R>, {even[i], odd[i]});
      }
      along_.run(out, more, Points<R>{points});
      part(out, row(spectrum, y));
    }
    const std::int64_t first = (height + 2 * L - 1) / (2 * L) * (2 * L);
    if (first < rows) std::fill(row(spectrum, first), spectrum + this->spectrum(), R(0));
  }

  // Columns of one block, transformed, to `rows` points at the start of `work`, where the caller may change them. They
  // may go back into the same spectrum.
  R* column_there(const R* spectrum, std::int64_t block, R* work) const {
    const R* const from = spectrum + block * kPoint<R>;
    const std::int64_t step = blocks * kPoint<R>;
    down_.run(work, work + 2 * rows * kPoint<R>, [=](std::int64_t y) { return load_point(from + y * step); });
    return work;
  }

  // The way back of the points that input(y) gives, into a block of `spectrum`; nothing is scaled. input must not read
  // the second half of `work`: column_there's points are at its start.
  template <class Input>
  void column_back(Input input, std::int64_t block, R* spectrum, R* work) const {
    R *const out = work + rows * kPoint<R>, *const to = spectrum + block * kPoint<R>;
    down_.run(out, work + 2 * rows * kPoint<R>, [=](std::int64_t y) { return swapped(input(y)); });
    for (std::int64_t y = 0; y < rows; ++y) {
      store_point(to + y * blocks * kPoint<R>, swapped(load_point(out + y * kPoint<R>)));
    }
  }

  // L rows of each of two spectra that lie transformed back along their columns, from the rows `a` and `b` on, as real
  // rows: 2 L lines of `pitch` values, a's first.
  void rows_back(const R* a, const R* b, R* lines, R* work) const {
    R *const points = work, *const out = points + padded_ * kPoint<R>, *const more = out + padded_ * kPoint<R>;
    for (std::int64_t block = 0; block < blocks; ++block) {
      Vec<R> part[4][L];
      for (std::int64_t i = 0; i < L; ++i) {
        const std::int64_t at = (i * blocks + block) * kPoint<R>;
        part[0][i] = load(a + at);
        part[1][i] = load(a + at + L);
        part[2][i] = load(b + at);
        part[3][i] = load(b + at + L);
      }
      for (auto& p : part) transpose<R>(p);
      for (std::int64_t i = 0; i < std::min(L, half - block * L); ++i) {
        const std::int64_t k = block * L + i;
        const Vec<R> ar = part[0][i], ai = part[1][i], br = part[2][i], bi = part[3][i];
        // a + i b at k and at columns - k, parts exchanged for the way back
        store_point<R>(points + k * kPoint<R>, {ai + br, ar - bi});
        if (k > 0 && 2 * k < columns) store_point<R>(points + (columns - k) * kPoint<R>, {br - ai, ar + bi});
      }
    }
    along_.run(out, more, Points<R>{points});
    for (std::int64_t k = 0; k < padded_; k += L) {
      Vec<R> even[L], odd[L];
      for (std::int64_t i = 0; i < L; ++i) {
        const Complex<R> point = swapped(load_point(out + std::min(k + i, columns - 1) * kPoint<R>));
        even[i] = point.re;
        odd[i] = point.im;
      }
      transpose<R>(even);
      transpose<R>(odd);
      for (std::int64_t i = 0; i < L; ++i) {
        store<R>(lines + i * pitch + k, even[i]);
        store<R>(lines + (i + L) * pitch + k, odd[i]);
      }
    }
  }
  std::int64_t lines() const { return 2 * L * pitch; }

 private:
  // Complex rows to the spectra of the real rows in their parts.
  void part(const R* points, R* to) const {
    for (std::int64_t block = 0; block < blocks; ++block) {
      Vec<R> part[4][L] = {};
      for (std::int64_t i = 0; i < std::min(L, half - block * L); ++i) {
        const std::int64_t k = block * L + i, mirror = k == 0 ? 0 : columns - k;
        const Complex<R> here = load_point(points + k * kPoint<R>), there = load_point(points + mirror * kPoint<R>);
        part[0][i] = (here.re + there.re) * R(0.5);
        part[1][i] = (here.im - there.im) * R(0.5);
        part[2][i] = (here.im + there.im) * R(0.5);
        part[3][i] = (there.re - here.re) * R(0.5);
      }
      for (auto& p : part) transpose<R>(p);
      for (std::int64_t i = 0; i < L; ++i) {
        R* const at = to + (i * blocks + block) * kPoint<R>;
        store_point<R>(at, {part[0][i], part[1][i]});
        store_point<R>(at + L * blocks * kPoint<R>, {part[2][i], part[3][i]});
      }
    }
  }

  const std::int64_t padded_;
  const Fourier<R> along_, down_;
};

// Transforms of the last few sizes: their tables take longer to make than a transform.
template <class R>
std::shared_ptr<const PlaneTransform<R>> transform_of(std::int64_t rows, std::int64_t columns);

}  // namespace semnr

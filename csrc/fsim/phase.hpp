// The steps of phase congruency that its value and its gradient share: image to spectrum, spectrum to responses.
//
// Images go through in strips and groups of as many columns or rows as a vector has lanes (L). A real image's spectrum
// is kept for the columns 0 .. w / 2 alone. A filter is real, but not symmetric: column w - v of a filtered spectrum is
// the conjugate, taken at -u, of what the filter's value at (-u, -v) makes of column v. So each column is filtered and
// transformed twice, by the values at (u, v), the front, and at (-u, -v), the back.
//
//   spectrum [strip][u][part][L columns]
//   mixed    [scale][group][side][column][part][L rows]    transformed over u, not yet over v
//   planes   [group][v][L rows]                            energy, amplitude: "lane layout"
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../counts.hpp"
#include "../pool.hpp"
#include "fourier.hpp"
#include "fsim_cpu.hpp"
#include "lanes.hpp"
#include "select.hpp"

namespace semnr {

// Sizes and places in the tables and the working memory of one image.
template <class R>
struct Layout {
  static constexpr std::int64_t L = kLanes<R>;
  std::int64_t h, w, half, strips, groups, scales, orientations;

  Layout(const LogGabor& kind, std::int64_t height, std::int64_t width)
      : h(height),
        w(width),
        half(width / 2 + 1),
        strips(pieces(half, L)),
        groups(pieces(height, L)),
        scales(kind.scales),
        orientations(kind.orientations) {}

  // radial [scale][strip][0 .. h / 2][L], angular [orientation][side][strip][u][L]
  std::int64_t radial(std::int64_t scale, std::int64_t strip) const {
    return (scale * strips + strip) * (h / 2 + 1) * L;
  }
  std::int64_t angular(std::int64_t orientation, int side, std::int64_t strip) const {
    return radial(scales, 0) + ((orientation * 2 + side) * strips + strip) * h * L;
  }
  std::int64_t tables() const { return angular(orientations, 0, 0); }

  std::int64_t strip() const { return h * kPoint<R>; }
  std::int64_t spectrum() const { return strips * strip(); }
  std::int64_t side() const { return strips * L * kPoint<R>; }
  std::int64_t mixed(std::int64_t scale, std::int64_t group, int side_) const {
    return ((scale * groups + group) * 2 + side_) * side();
  }
  std::int64_t plane() const { return groups * w * L; }

  // Columns v .. v + L - 1 of a group of rows, from lane layout (L vectors) to rows of w values.
  void to_rows(Vec<R> (&block)[L], std::int64_t group, std::int64_t v, R* out) const {
    transpose<R>(block);
    for (std::int64_t i = 0; i < std::min(L, h - group * L); ++i) {
      R* const to = out + (group * L + i) * w + v;
      if (v + L <= w) {
        store<R>(to, block[i]);
      } else {
        alignas(kVectorBytes) R lanes[L];
        store<R>(lanes, block[i]);
        std::copy_n(lanes, w - v, to);
      }
    }
  }

  // The way back; 0 beyond the image.
  void to_lanes(const R* rows, std::int64_t group, std::int64_t v, Vec<R> (&block)[L]) const {
    for (std::int64_t i = 0; i < L; ++i) {
      alignas(kVectorBytes) R lanes[L] = {};
      if (group * L + i < h) std::copy_n(rows + (group * L + i) * w + v, std::min(L, w - v), lanes);
      block[i] = load<R>(lanes);
    }
    transpose<R>(block);
  }

  // Columns v of which w - v is another one.
  bool has_back(std::int64_t v) const { return v > 0 && v <= (w - 1) / 2; }
};

// The lower median of a plane in lane layout. Rows beyond the image answer with 0, the smallest values there can be:
// they only move the median's place.
template <class R>
R median_square(const Layout<R>& at, const R* squares, R* room, int threads) {
  const std::int64_t beyond = (at.groups * Layout<R>::L - at.h) * at.w;
  return kth_smallest(squares, at.plane(), beyond + (at.h * at.w - 1) / 2, room, threads);
}

// Its steps are compiled once, in steps_cpu.cpp.
template <class R>
class Phase {
 public:
  static constexpr std::int64_t L = kLanes<R>;

  explicit Phase(const FilterTables& f)
      : at(f.kind, f.h, f.w), table_(static_cast<const R*>(f.tables)), rows_(f.w), columns_(f.h) {}

  const Layout<R> at;

  // Of h rows of w values, `pitch` apart (readable to the next multiple of L), less `mean`.
  void to_spectrum(const R* image, std::int64_t pitch, R mean, R* out, int threads) const;

  // The filtered spectra of one orientation's first `scales` scales, transformed over u.
  void columns(const R* spectrum, std::int64_t orientation, std::int64_t scales, R* mixed, int threads) const;

  // Working memory of `responses`.
  std::int64_t response_values(std::int64_t scales) const { return scales * at.w * kPoint<R> + rows_.work(); }

  // Of one group of rows, [scale][v][part][L]; part 0 is the odd (imaginary) one, part 1 the even one.
  void responses(const R* mixed, std::int64_t group, std::int64_t scales, R* out) const;

 protected:
  // Two groups of rows are the real and the imaginary part of one transform over v.
  void two_groups(const R* image, std::int64_t pitch, R mean, std::int64_t group, R* out) const;

  void put_rows(Vec<R> (&block)[kLanes<R>], std::int64_t group, int part, R* strip) const;

  // A strip of columns, lanes side by side, to blocks whose lanes are rows; missing rows are 0.
  void put_groups(const R* strip, R* out, std::int64_t group_stride) const;

  const R* table_;
  const Fourier<R> rows_, columns_;  // over v: rows of w; over u: columns of h
};

extern template class Phase<float>;
extern template class Phase<double>;

}  // namespace semnr

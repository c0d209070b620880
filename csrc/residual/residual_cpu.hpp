// The residual of a denoiser held against the noise of its input; semnr_kernels/residual/README.md has the formulas.
#pragma once
#include <cstdint>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

constexpr std::int64_t kResidualMarks = 16;  // places kept of a tile
constexpr std::int64_t kResidualMark = 5;    // of a place: row, column, shape, signed z, 1 where it was invented
constexpr std::int64_t kResidualBands = 8;   // of |fy| and of fx
constexpr std::int64_t kResidualRow = 3 + kResidualBands * kResidualBands;  // variance, z of the edges, places, power

// The part of a side that a window answers for, and what it sees.
struct Cut {
  std::int64_t start, stop, first, last;
};

// What depends on the sizes and the shapes alone.
struct ResidualPlan {
  std::vector<Cut> down, right;
  std::int64_t rows, columns;                                // of a window's transform
  std::vector<float> surroundings_down, surroundings_right;  // response of the Gaussian that is taken off
  std::vector<float> smooth, slope;  // taps of a Gaussian and of its derivative, from the middle on
  std::int64_t radius;               // of the largest template
  std::vector<float> bumps;          // (shapes, radius + 1, radius + 1): the templates' lower right quarters
  std::vector<double> size;          // of the shapes, px
  std::vector<std::int64_t> reach;   // of their templates
  std::vector<int> level;            // 0: a shape that takes the levels of the small ones, 1: of the large ones
  std::vector<std::int64_t> middle;  // the two shapes that stand for them
  std::int64_t step;                 // every step-th row and column is looked at for what is usual
  std::vector<std::int64_t> bounds;  // of the samples in order of edge strength: where levels begin, and their number
  double within, share, quantile, calmest;  // see semnr_kernels/residual/reference.py
  std::int64_t block;                       // px: of the spread of the energy at edges
  std::int64_t around;                      // px: surroundings that a place is compared with
};

struct ResidualInput {
  Planes x, d;                // noisy, denoised
  const std::uint8_t* valid;  // (n, h, w), or nullptr: all
  const double* law;          // (n, 3): gain, offset, floor of the variance
  const float* white;         // (n, columns / 2 + 1): |A|² of the whitening filter
  const double* gain;         // (n, shapes): z of a bump of height 1
  const double* limit;        // (n,): |z| from which a place is marked
};

// rows: (n, kResidualRow); marks: (n, kResidualMarks, kResidualMark); map: (n, h, w) or nullptr.
void residual_scan(const ResidualInput& in, const ResidualPlan& plan, int threads, double* rows, double* marks,
                   float* map);

}  // namespace semnr

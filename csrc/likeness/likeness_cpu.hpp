// How a denoised image and a reference lie against a noisy one; semnr_kernels/likeness/README.md has the formulas.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

// mean, span and roughness of the noisy image; mean, standard deviation, span, roughness of the denoised one, its
// correlation and contrast, whether it alone lies on JPEG's grid, its few grey levels and its border, where it alone
// has them; span, correlation, contrast, shift down and right of the reference, whether the images say so beyond doubt
constexpr int kLikenessRow = 3 + 9 + 6;

// A difference of two Gaussians over frequencies, as products of tables along the two axes.
struct LikenessBand {
  std::vector<float> down[2], right[2];  // fine, coarse
};

// Blocks of 8 px: (row, column) of each.
using LikenessBlocks = std::vector<std::array<std::int64_t, 2>>;

// What depends on the size alone.
struct LikenessPlan {
  std::int64_t rows, columns;                  // of the cosine transform of every second line, columns by twos
  LikenessBand cosine;                         // at its frequencies, times the transform's own factors
  LikenessBand band;                           // at the frequencies of the images pooled by two
  std::vector<float> taper_down, taper_right;  // of the pooled images
  std::vector<LikenessBlocks> blocks;          // on the grid, then on those that lie between
  double seen;                                 // correlation of the two looks from which a frame has structure at all
  double jpeg;                                 // share of the fine detail that blocks on JPEG's grid hold
  std::int64_t few;                            // grey levels
  std::int64_t near;                           // px around the peak at every second pixel
  std::shared_ptr<const void> tables;          // what `likeness_prepare` makes of these
};

void likeness_prepare(LikenessPlan& plan);

struct LikenessInput {
  Planes x, d, r;            // noisy, denoised, reference
  bool denoised, reference;  // which of them are there
};

// rows: (n, kLikenessRow); NaN where not evaluated.
void likeness_rows(const LikenessInput& in, const LikenessPlan& plan, int threads, double* rows);

}  // namespace semnr

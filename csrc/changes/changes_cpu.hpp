// What a denoiser changed beside noise; semnr_kernels/changes/README.md has the formulas.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

constexpr int kChangesRings = 12;  // of the transfer function; one group of frequencies lies inside, one outside them
// gain, offset with their errors; shift; its Hessian (yy, yx, xx) and spread; then with errors: transfer in the high
// band, in the rings, in the texture; by rings, over the noise: |D|², |X|², Re⟨D, X⟩
constexpr int kChangesFigures = 4 + 2 + 3 + 3 + 2 + 2 * kChangesRings + 2;
constexpr int kChangesRow = kChangesFigures + 3 * kChangesRings;

// What depends on the size alone.
struct ChangesPlan {
  std::vector<float> taper_down, taper_right;
  std::vector<std::uint8_t> groups;     // (rows, columns / 2 + 1): 0 inside the rings, 1 .. 12, 13 outside
  double band[2], high[2], texture[2];  // σ in px of the Gaussians whose difference is the band
  double inflation;                     // of variances, by the taper
  double least_z;                       // of structure over its own noise, for a ratio over it
  std::vector<float> smooth, slope;     // taps of a Gaussian and of its derivative, from the middle on
  std::int64_t calm;                    // px: how far from what is steep texture begins
  std::shared_ptr<const void> tables;   // what `changes_prepare` makes of these
};

void changes_prepare(ChangesPlan& plan);

struct ChangesInput {
  Planes against, d, r;   // against: the noisy image, or the reference where there is none
  bool noisy, reference;  // which of them are there
  const double* span;     // (n,): what the offset is a share of
  // (n, rows) and (n, columns / 2 + 1), whose product is 1 over the noise of a frequency of X; 0: left out, or unknown
  const float *weight_down, *weight_right;
  bool lines_down;  // scan lines are columns
};

// rows: (n, kChangesRow); lines: (n, 3, number of scan lines): mean of each, of against, d and r.
void changes_rows(const ChangesInput& in, const ChangesPlan& plan, int threads, double* rows, double* lines);

}  // namespace semnr

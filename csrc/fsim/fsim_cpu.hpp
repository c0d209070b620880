// FSIM on a CPU: what the binding calls. Outputs are contiguous, in the arithmetic's type R (float32 or float64) unless
// said otherwise; an address of nullptr: not wanted.
#pragma once
#include <cstdint>
#include <vector>

#include "../image.hpp"
#include "fsim_math.hpp"

namespace semnr {

// The filters of images of h x w, laid out for the vectors of this build.
struct FilterTables {
  LogGabor kind;
  std::int64_t h, w;
  bool doubled;  // R is float64
  void* tables;  // filter_bytes(...) of them, aligned to 64
};

std::int64_t filter_bytes(const LogGabor& kind, std::int64_t h, std::int64_t w, bool doubled);

// Fills the tables. Returns Σ (even Σ_s F_so)² / Σ F_0o² of each orientation, on which its noise threshold rests.
std::vector<double> make_filters(const FilterTables& f, int threads);

// Images of one size and type, (N, C, H, W) each, C = 1 or 3.
struct FsimImages {
  std::vector<Image> images;
  Dtype dtype;
  Shape shape;
  double scale;         // to 0-255
  std::int64_t factor;  // averages squares of so many pixels,
  bool authors;         // centred as MATLAB's conv2(..., "same") centres them, zeros
                        // beyond the border
};

// Planes of all images' n images, one after the other, h x w each.
struct FsimFeatures {
  void *phase, *gradient;
  void* chroma;     // two planes: I and Q; or nullptr
  void* amplitude;  // summed over scales and orientations, as the gradient wants it; or nullptr
};

// gains: threshold for a median amplitude of 1, one an orientation.
void fsim_features(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains, int threads,
                   const FsimFeatures& out);

// Derivatives by the images of Σ by_phase · phase + by_gradient · gradient; images of one channel, factor 1. Always in
// float64: the gradient of a phase grows without bound where the response vanishes.
struct FsimDerivatives {
  const double *phase, *amplitude, *by_phase, *by_gradient;
  double* out;
};

void fsim_features_backward(const FsimImages& in, const FilterTables& filters, const std::vector<double>& gains,
                            int threads, const FsimDerivatives& derivatives);

// What two images' features are compared by. Planes of n images, or of one for all; h · w = pixels.
struct FsimSide {
  const void *phase, *gradient;
  const void* chroma;  // nullptr on both sides or on neither
  bool single;         // one image for all
};
struct FsimPair {
  FsimSide x, y;
  const void* share;  // of valid pixels, as the planes; nullptr: all are
  bool single_share, doubled;
  std::int64_t n, pixels;
};

// rows: n scores. maps: similarity, weight and the factors of phase congruency,
// gradient and chroma, n x pixels, or nullptr.
void fsim_compare(const FsimPair& pair, int threads, double* rows, void* const (&maps)[5]);

// Derivatives of Σ by · rows by the planes of x and of y (phase, gradient, chroma each), n of them; nullptr: not
// wanted.
void fsim_compare_backward(const FsimPair& pair, int threads, const double* by, void* const (&out)[6]);

}  // namespace semnr

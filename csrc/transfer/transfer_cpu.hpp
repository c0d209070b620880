// Evidence transfer: how much of a band's structure a denoiser let through; semnr_kernels/transfer/README.md.
#pragma once
#include <cstdint>
#include <vector>

#include "../evidence/rows.hpp"

namespace semnr {

constexpr int kTransferRow = 5;  // T, its standard error, z of the structure, energy, drop of the MSE

struct TransferPlan {
  std::vector<float> fine, coarse;  // taps of the two Gaussians whose difference is the band, from the middle on
  std::int64_t block;               // px: side of the blocks that the standard error is taken over
  double least_z;                   // below it the blocks do not tell: the spectra are asked
  bool noisy_reference;             // r is a second noisy frame
  bool with_drop;                   // also the drop of the MSE
};

struct TransferInput {
  Planes x, d, r;             // noisy, denoised, reference
  const std::uint8_t* valid;  // (n, h, w), or nullptr: all
};

// rows: (n, kTransferRow)
void transfer_rows(const TransferInput& in, const TransferPlan& plan, int threads, double* rows);

}  // namespace semnr

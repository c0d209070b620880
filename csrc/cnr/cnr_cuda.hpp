#pragma once
#include "../cuda/stream.hpp"
#include "../image.hpp"

namespace semnr {

// The edges of all windows cut an axis into cells; window k is the cells [k · step, k · step + length). A stride has
// two parts, [0, rest) and [rest, stride); each is cut into cells of `longest` pixels, the first part into `first` of
// them. Where windows do not overlap the second part is a gap: step == first.
struct CnrAxis {
  std::int64_t windows, stride, rest, longest, first, step, length;
};

// Rows of windows [row, row + rows) of the planes [plane, plane + planes); planes count images × channels.
struct CnrBand {
  std::int64_t plane, planes, row, rows;
};

constexpr int kCnrThreads = 256;
constexpr int kCnrRegions = 2;

// Pixels, mean and population variance of up to two regions in each window of a band.
//
// pack: pixels that a thread takes at once; it divides every cell's row. straight: they and the masks lie side by side
// and aligned in memory, one load each.
// packs: a block's width. direct: windows are merged from their cells, `together` threads (a power of 2) a window; else
// through rows of windows, where a cell is merged six times however many windows hold it.
// Scratch: cells, and unless direct `across`, regions × planes × 3 × rows of cells × (cells or windows along a row)
// numbers of 8 bytes. out: regions × 3 × N × C × rows × columns.
struct CnrPlan {
  CnrAxis down, across;
  CnrBand band;
  std::int64_t pack, packs;
  bool straight, direct;
  int together;
  int blocks;
};

void cnr_moments_cuda(const Image& x, Dtype dtype, const Shape& shape, const Image* regions, int count,
                      const CnrPlan& plan, std::uint64_t* cells, std::uint64_t* across, double* out, Stream stream);

// The last stage alone, from a table of rows × wide cells, those of the band first: what `plan` says of loads is not
// read.
void cnr_windows_cuda(Dtype dtype, const Shape& shape, int regions, const CnrPlan& plan, std::int64_t rows,
                      std::int64_t wide, const std::uint64_t* cells, std::uint64_t* across, double* out, Stream stream);

}  // namespace semnr

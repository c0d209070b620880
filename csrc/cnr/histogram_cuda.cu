// Launches of the histogram over given edges.
#include <stdexcept>

#include "histogram_kernel.cuh"

namespace semnr {

void histogram_cuda(const double* values, std::int64_t n, const double* edges, int bins, int blocks,
                    std::uint32_t* partial, std::int64_t* counts, Stream stream) {
  if (bins < 1 || bins > kHistogramBins) throw std::invalid_argument("histogram_cuda: 1 to 1024 bins");
  const std::int64_t parts = pieces(n, kHistogramPart);
  const int grid = int(parts < blocks ? parts : blocks);
  SEMNR_LAUNCH(histogram_parts, grid, kHistogramThreads, std::size_t(bins) * 128, stream, values, n, edges, bins,
               partial);
  SEMNR_LAUNCH(histogram_fold, (bins + 31) / 32, kHistogramThreads, kHistogramThreads * sizeof(std::int64_t), stream,
               partial, parts, bins, counts);
}

}  // namespace semnr

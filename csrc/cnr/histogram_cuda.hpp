#pragma once
#include <cstdint>

#include "../cuda/stream.hpp"

namespace semnr {

constexpr int kHistogramThreads = 128;
constexpr int kHistogramPart = 255 * kHistogramThreads;  // values: one byte counts what a thread adds to a bin
constexpr int kHistogramBins = 1024;                     // 128 bytes of shared memory each

// counts[i]: how many of the n values lie in edges[i] <= v < edges[i + 1]; values beyond the ends, and NaN, count in
// the first or the last bin. edges: bins + 1 ascending, about evenly spaced. partial: parts × bins.
void histogram_cuda(const double* values, std::int64_t n, const double* edges, int bins, int blocks,
                    std::uint32_t* partial, std::int64_t* counts, Stream stream);

}  // namespace semnr

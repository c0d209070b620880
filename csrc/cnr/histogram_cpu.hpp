#pragma once
#include <cstdint>

namespace semnr {

// counts[i]: how many of the n values lie in edges[i] <= v < edges[i + 1]; values beyond the ends, and NaN, count in
// the first or the last bin. edges: bins + 1 ascending, about evenly spaced.
void histogram(const double* values, std::int64_t n, const double* edges, std::int64_t bins, int threads,
               std::int64_t* counts);

}  // namespace semnr

// Order statistics of values >= 0, by NumPy's and torch's names for them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../fsim/select.hpp"

namespace semnr {

// The k-th smallest of values >= 0, 0 <= k < count; `room` for as many values as there are.
inline float kth(const float* values, std::int64_t count, std::int64_t k, float* room) {
  return count <= kFewRanked ? kth_by_bits(values, count, k) : kth_smallest<float>(values, count, k, room, 1);
}

// The k-th smallest and the one after it.
struct Neighbours {
  float first, second;
};

inline Neighbours neighbours(const float* values, std::int64_t count, std::int64_t k, float* room) {
  constexpr std::int64_t L = kLanes<float>;
  const float first = kth(values, count, k, room), none = std::numeric_limits<float>::infinity();
  Vec<std::int32_t> held = {};
  Vec<float> least = splat(none);
  std::int64_t i = 0;
  for (; i + L <= count; i += L) {
    const Vec<float> v = load(values + i);
    const auto beyond = v > first;
    held += beyond;  // -1 where it holds
    least = beyond & (v < least) ? v : least;
  }
  std::int64_t up_to = i + std::int64_t(sum<std::int32_t>(held));
  float next = none;
  for (std::int64_t lane = 0; lane < L; ++lane) next = std::min(next, least[lane]);
  for (; i < count; ++i) {
    up_to += values[i] <= first;
    if (values[i] > first) next = std::min(next, values[i]);
  }
  return {first, up_to > k + 1 || next == none ? first : next};
}

// np.median: the mean of the two in the middle of an even number.
inline double median(const float* values, std::int64_t count, float* room) {
  if (count % 2 != 0) return double(kth(values, count, count / 2, room));
  const Neighbours found = neighbours(values, count, count / 2 - 1, room);
  return 0.5 * (double(found.first) + double(found.second));
}

// np.quantile, linear between neighbours.
inline double quantile(const float* values, std::int64_t count, double share, float* room) {
  const double at = share * double(count - 1);
  const std::int64_t k = std::min(std::int64_t(at), count - 1);
  const double part = at - double(k);
  if (part == 0 || k + 1 == count) return double(kth(values, count, k, room));
  const Neighbours found = neighbours(values, count, k, room);
  return double(found.first) + part * (double(found.second) - double(found.first));
}

}  // namespace semnr

// The k-th smallest of many values, exactly, in little more than one reading of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "lanes.hpp"

namespace semnr {

struct Counts {
  std::int64_t below, equal, kept;
};

// Counts the values below and equal to `low`, writes those of (low, high] to `out` (room for all).
template <class R>
Counts sift(const R* values, std::int64_t count, R low, R high, R* out) {
  constexpr int L = kLanes<R>;
  Counts found = {0, 0, 0};
  const Vec<R> from = splat<R>(low), to = splat<R>(high);
  std::int64_t i = 0;
  for (; i + L <= count; i += L) {
    const Vec<R> v = load(values + i);
    found.below += __builtin_popcount(lanes_of<R>(v < from));
    found.equal += __builtin_popcount(lanes_of<R>(v == from));
    std::uint32_t inside = lanes_of<R>(v > from) & lanes_of<R>(v <= to);
    if constexpr (kPacks<R>) {  // writes a whole vector, never beyond out + i +
                                // L
      store<R>(out + found.kept, packed<R>(v, inside));
      found.kept += __builtin_popcount(inside);
      continue;
    }
    for (; inside != 0; inside &= inside - 1) out[found.kept++] = values[i + __builtin_ctz(inside)];
  }
  for (; i < count; ++i) {
    const R v = values[i];
    if (v > low && v <= high) out[found.kept++] = v;
    found.below += v < low;
    found.equal += v == low;
  }
  return found;
}

// 0 <= k < count, values >= 0; NaN where one of them is. `room` for as many values as there are.
//
// A sample brackets the value wanted; one reading counts what lies below the bracket and keeps what lies in it, and so
// on with what was kept. Where the bracket missed or kept too much, what there is gets partially sorted.
template <class R>
R kth_smallest(const R* values, std::int64_t count, std::int64_t k, R* room, int threads) {
  constexpr std::int64_t kSample = 256, kMargin = 32, kFew = 1024, kBlock = 1 << 16;
  std::uint32_t random = 1;
  std::vector<R> sample;
  while (count > kFew) {
    sample.clear();
    for (std::int64_t i = 0; i < kSample; ++i) {
      random = random * 1664525u + 1013904223u;
      const R v = values[std::int64_t((std::uint64_t(random) * std::uint64_t(count)) >> 32)];
      if (std::isnan(v)) return v;
      sample.push_back(v);
    }
    const std::int64_t middle = k * kSample / count;
    const auto ranked = [&](std::int64_t rank) {
      std::nth_element(sample.begin(), sample.begin() + rank, sample.end());
      return sample[std::size_t(rank)];
    };
    const R low = middle < kMargin ? R(0) : ranked(middle - kMargin);
    const R high = middle + kMargin < kSample ? ranked(middle + kMargin) : std::numeric_limits<R>::infinity();
    const std::int64_t blocks = pieces(count, kBlock);
    std::vector<Counts> found(static_cast<std::size_t>(blocks));
    parallel(threads, blocks, [&](std::int64_t b) {
      found[std::size_t(b)] =
          sift(values + b * kBlock, std::min(kBlock, count - b * kBlock), low, high, room + b * kBlock);
    });
    Counts total = {0, 0, 0};
    for (std::int64_t b = 0; b < blocks; ++b) {
      const Counts& f = found[std::size_t(b)];
      std::copy_n(room + b * kBlock, f.kept, room + total.kept);
      total = {total.below + f.below, total.equal + f.equal, total.kept + f.kept};
    }
    const std::int64_t beyond = k - total.below - total.equal;
    if (k >= total.below && beyond < 0) return low;
    if (k < total.below || beyond >= total.kept || 2 * total.kept > count) break;
    values = room;
    count = total.kept;
    k = beyond;
    room += count;  // twice what is kept fits
  }
  sample.assign(values, values + count);
  for (const R v : sample) {
    if (std::isnan(v)) return v;
  }
  std::nth_element(sample.begin(), sample.begin() + k, sample.end());
  return sample[std::size_t(k)];
}

}  // namespace semnr

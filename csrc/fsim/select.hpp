// The k-th smallest of many values, exactly, in little more than one reading of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "lanes.hpp"

namespace semnr {

constexpr std::int64_t kFewRanked = 3000;

// Bits `from` .. `to` of the k-th smallest, which begins with `found`, each by a count; what lies below it goes to
// `below`.
inline std::int32_t rank_bits(const float* values, std::int64_t count, std::int64_t k, int from, int to,
                              std::int32_t found, std::int64_t& below) {
  using Whole = Vec<std::int32_t>;
  constexpr std::int64_t L = kLanes<float>;
  for (int bit = from; bit >= to; --bit) {
    const std::int32_t trial = found | (std::int32_t(1) << bit);
    const Whole limit = trial - Whole{};
    Whole held = {};
    std::int64_t i = 0;
    for (; i + L <= count; i += L) {
      Whole v;
      std::memcpy(&v, values + i, sizeof v);
      held += v < limit;  // -1 where it holds
    }
    std::int64_t total = -std::int64_t(sum<std::int32_t>(held));
    for (const float *at = values + i, *const end = values + count; at != end; ++at) {
      std::int32_t v;
      std::memcpy(&v, at, sizeof v);
      total += v < trial;
    }
    if (total > k) continue;
    found = trial;
    below = total;
  }
  return found;
}

// The k-th smallest of at most kFewRanked values >= 0, bit by bit: the upper bits of all, the others of those alone
// that share these.
inline float kth_by_bits(const float* values, std::int64_t count, std::int64_t k) {
  constexpr std::int64_t L = kLanes<float>;
  constexpr int kUpper = 20;  // bits below the exponent and three of the fraction
  std::int64_t below = 0;
  std::int32_t found = rank_bits(values, count, k, 30, kUpper, 0, below);
  const std::int32_t last = found | ((std::int32_t(1) << kUpper) - 1);
  float kept[kFewRanked + L];
  std::int64_t alike = 0, i = 0, none = 0;
  if constexpr (kPacks<float>) {
    for (; i + L <= count; i += L) {
      Vec<std::int32_t> v;
      std::memcpy(&v, values + i, sizeof v);
      const std::uint32_t inside = lanes_of<float>((v >= found) & (v <= last));
      store<float>(kept + alike, packed<float>(load(values + i), inside));
      alike += __builtin_popcount(inside);
    }
  }
  for (const float *at = values + i, *const end = values + count; at != end; ++at) {
    std::int32_t v;
    std::memcpy(&v, at, sizeof v);
    kept[alike] = *at;
    alike += v >= found && v <= last;
  }
  found = rank_bits(kept, alike, k - below, kUpper - 1, 0, found, none);
  float value;
  std::memcpy(&value, &found, sizeof value);
  return value;
}

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

// The same of few values, which may change their places.
template <class R>
R kth_of_few(R* values, std::int64_t count, std::int64_t k) {
  if constexpr (std::is_same_v<R, float>) {
    return kth_by_bits(values, count, k);
  } else {
    std::nth_element(values, values + k, values + count);
    return values[k];
  }
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
    const auto ranked = [&](std::int64_t rank) { return kth_of_few(sample.data(), kSample, rank); };
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
  if (count <= kFew) return kth_of_few(sample.data(), count, k);
  std::nth_element(sample.begin(), sample.begin() + k, sample.end());
  return sample[std::size_t(k)];
}

}  // namespace semnr

// The fine detail of blocks of 8 px: the energy of the upper half of their cosine transform's frequencies.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../evidence/ranks.hpp"
#include "../evidence/transform.hpp"
#include "likeness_cpu.hpp"

namespace semnr {

class BlockDetail {
 public:
  static constexpr std::int64_t L = kLanes<float>, kSide = 8;

  BlockDetail() {
    for (int u = 0; u < kSide; ++u) {
      for (int y = 0; y < kSide / 2; ++y) {
        const double one = std::sqrt((u == 0 ? 1.0 : 2.0) / kSide);
        cosine_[u][y] = float(one * std::cos(kPi * (2 * y + 1) * u / (2.0 * kSide)));
      }
    }
  }

  // Median over the blocks; `room` for twice as many values as there are blocks, and a vector.
  double median_of(const Planes& p, std::int64_t k, const LikenessBlocks& blocks, float* room) const {
    const std::int64_t count = std::int64_t(blocks.size());
    for (std::int64_t i = 0; i < count; i += L) {
      alignas(kVectorBytes) float lanes[kSide * kSide][L];
      for (std::int64_t lane = 0; lane < L; ++lane) {
        const auto [row, column] = blocks[std::size_t(std::min(i + lane, count - 1))];
        for (std::int64_t y = 0; y < kSide; ++y) {
          const float* const from = p.row(k, row + y) + column;
          for (std::int64_t x = 0; x < kSide; ++x) lanes[y * kSide + x][lane] = from[x];
        }
      }
      store<float>(room + i, energy(lanes));
    }
    return median(room, count, room + count + L);
  }

 private:
  // Of L blocks side by side.
  Vec<float> energy(const float (*lanes)[L]) const {
    Vec<float> down[kSide][kSide], found = {};
    for (int x = 0; x < kSide; ++x) {
      Vec<float> column[kSide], out[kSide];
      for (int y = 0; y < kSide; ++y) column[y] = load(lanes[y * kSide + x]);
      along(column, 0, out);
      for (int u = 0; u < kSide; ++u) down[u][x] = out[u];
    }
    for (int u = 0; u < kSide; ++u) {
      Vec<float> out[kSide];
      along(down[u], kSide - 1 - u, out);
      for (int v = kSide - 1 - u; v < kSide; ++v) found += out[v] * out[v];
    }
    return found;
  }

  // Frequencies from `first` on of 8 values.
  [[gnu::always_inline]] void along(const Vec<float>* from, int first, Vec<float>* to) const {
    Vec<float> even[kSide / 2], odd[kSide / 2];
    for (int i = 0; i < kSide / 2; ++i) {
      even[i] = from[i] + from[kSide - 1 - i];
      odd[i] = from[i] - from[kSide - 1 - i];
    }
    for (int u = first; u < kSide; ++u) {
      const Vec<float>* const half = u % 2 == 0 ? even : odd;
      to[u] = cosine_[u][0] * half[0] + cosine_[u][1] * half[1] + cosine_[u][2] * half[2] + cosine_[u][3] * half[3];
    }
  }

  float cosine_[kSide][kSide / 2];
};

}  // namespace semnr

// SSIM forward: tiles of windows, each in one walk over its pixels. The plan is in ssim_rows.hpp.
#include "ssim_cpu.hpp"

#include <vector>

#include "../counts.hpp"
#include "../pool.hpp"
#include "ssim_math.hpp"
#include "ssim_tile.hpp"

namespace semnr {
namespace {

// What a tile adds up, over its windows: of each index what it lacks of 1, which is exactly 0 for identical windows.
struct Sums {
  double score = 0, contrast_structure = 0, luminance = 0, contrast = 0, structure = 0, weight = 0, count = 0;
  bool narrow = false;  // float32 was too narrow: see Job::narrow
  Apart apart;

  void add(const Sums& o) {
    score += o.score;
    contrast_structure += o.contrast_structure;
    luminance += o.luminance;
    contrast += o.contrast;
    structure += o.structure;
    weight += o.weight;
    count += o.count;
    apart.add(o.apart);
  }
};

// Windows of up to kStep rows: moments from the ring, scores out. The plain case.
template <class R, int K, bool Map>
void finish(const Job<R>& job, const Tile& tile, const Shift<R>& shift, const Ahead* soon, const R* const* rows,
            std::int64_t row, std::int64_t live, Vec<double>& score, Vec<double>& structure, Vec<R>& peak) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  const R offset_s = -(shift.x + shift.y), offset_d = shift.y - shift.x;
  for (std::int64_t c = 0; c < tile.columns; c += L) {
    for (int r = 0; r < kStep; ++r) soon[r].ask(c, L);
    V moment[4][kStep];
    down_rows<R, K, 2>(rows, c, job.taps.data(), job.size, moment);
    down_rows<R, K, 2>(rows, c + 2 * kRingPitch<R>, job.taps.data(), job.size, moment + 2);
    const std::int64_t left = tile.columns - c;
    V index[kStep], cs[kStep];
#pragma GCC unroll 4
    for (int r = 0; r < kStep; ++r) {
      const V mean_s = moment[0][r], mean_d = moment[1][r];
      const V var_s = not_negative<R>(moment[2][r] - mean_s * mean_s);
      const V var_d = not_negative<R>(moment[3][r] - mean_d * mean_d);
      const SsimTerms<V> t =
          ssim_terms<V, R>(mean_s, mean_d, var_s, var_d, offset_s, offset_d, job.spread, job.c1, job.c2);
      if constexpr (std::is_same_v<R, float>) {
        const V square = moment[2][r] + moment[3][r];
        peak = square > peak ? square : peak;
      }
      // one division for both quotients
      const V shared = R(1) / (t.luminance_bottom * t.structure_bottom);
      index[r] = (t.luminance_loss * t.structure_bottom + t.structure_loss * t.luminance_top) * shared;
      cs[r] = t.structure_loss * t.luminance_bottom * shared;
      if constexpr (Map) {
        if (r < live && job.map) {
          const std::int64_t at =
              ((tile.n * job.shape.c + tile.c) * job.rows + row + r) * job.columns + tile.column + c;
          job.map.put(at, R(1) - index[r], left);
        }
      }
    }
    for (std::int64_t r = live; r < kStep; ++r) index[r] = cs[r] = V{};
    // Pairs first, then float64: equal scores, as on flat images, add up without any rounding.
    V step_score = (index[0] + index[1]) + (index[2] + index[3]), step_cs = (cs[0] + cs[1]) + (cs[2] + cs[3]);
    if (left < L) {
      step_score = first<R>(step_score, left);
      step_cs = first<R>(step_cs, left);
    }
    score += widened_sum(step_score);
    structure += widened_sum(step_cs);
  }
}

// The same with components, masks and coverage, one window row at a time, in float64.
template <class R, int K>
void finish_all(const Job<R>& job, const Tile& tile, const Shift<R>& shift, const R* const* rows, std::int64_t row,
                std::int64_t live, Sums& sums) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  const R offset_s = -(shift.x + shift.y), offset_d = shift.y - shift.x;
  const std::int64_t half = (job.size - 1) / 2;
  for (std::int64_t c = 0; c < tile.columns; c += L) {
    V moment[6][kStep];
    for (int p = 0; p < 6; p += 2) {
      down_rows<R, K, 2>(rows, c + p * kRingPitch<R>, job.taps.data(), job.size, moment + p);
    }
    for (std::int64_t r = 0; r < live; ++r) {
      const V weight = moment[5][r], share = R(1) / (weight > V{} ? weight : splat<R>(1));
      const V mean_s = moment[0][r] * share, mean_d = moment[1][r] * share;
      const V var_s = not_negative<R>(moment[2][r] * share - mean_s * mean_s);
      const V var_d = not_negative<R>(moment[3][r] * share - mean_d * mean_d);
      const V both = moment[4][r] * share - mean_s * mean_d;
      const SsimTerms<V> t =
          ssim_terms<V, R>(mean_s, mean_d, var_s, var_d, offset_s, offset_d, job.spread, job.c1, job.c2);
      const V luminance = t.luminance_loss / t.luminance_bottom, cs = t.structure_loss / t.structure_bottom;
      const R quarter = job.spread * R(0.5);
      const V var_x = not_negative<R>((var_s + var_d + R(2) * both) * quarter);
      const V var_y = not_negative<R>((var_s + var_d - R(2) * both) * quarter);
      const V deviations = root<R>(var_x * var_y), cov = (var_s - var_d) * quarter;
      const V contrast = (R(2) * deviations + job.c2) / (var_x + var_y + job.c2);
      const V structure = (cov + R(0.5) * job.c2) / (deviations + R(0.5) * job.c2);
      const std::int64_t h = row + r - job.lead + half;
      const std::uint8_t* valid = job.valid.data == nullptr ? nullptr : job.valid.row(tile.n, h);
      for (std::int64_t i = 0; i < L && c + i < tile.columns; ++i) {
        const std::int64_t w = tile.column + c + i - job.lead + half;
        const bool pooled = valid == nullptr || valid[w * job.valid.stride[2]] != 0;
        const R index = luminance[i] + (cs[i] - luminance[i] * cs[i]);
        if (job.map) {
          job.map.set(((tile.n * job.shape.c + tile.c) * job.rows + row + r) * job.columns + tile.column + c + i,
                      pooled ? R(1) - index : R(NAN));
        }
        if (!pooled) continue;
        sums.score += index;
        sums.contrast_structure += cs[i];
        sums.luminance += luminance[i];
        sums.contrast += R(1) - contrast[i];
        sums.structure += R(1) - structure[i];
        sums.weight += weight[i];
        sums.count += 1;
      }
    }
  }
}

// P = 4: the plain case; 6: components and masks. own: the pixels to measure, none where it has no rows.
template <class R, int K, int P, bool Map>
Sums walk(const Job<R>& job, const Tile& tile, const PixelTile& own) {
  constexpr std::int64_t L = kLanes<R>;
  const std::int64_t columns = round_up(tile.columns, L), padded = round_up(columns + job.size - 1, L) + L;
  const std::int64_t pitch = line_pitch<R, K>(job.size), slot = P * kRingPitch<R>, slots = job.size - 1 + kStep;
  R* line =
      static_cast<R*>(scratch((P * pitch + slots * slot) * std::int64_t(sizeof(R)) + slots * std::int64_t(sizeof(R*))));
  R* ring = line + P * pitch;
  const R** rows = reinterpret_cast<const R**>(ring + slots * slot);
  const Shift<R> shift = job.shift(job, tile);

  Sums sums;
  R* into = ring;
  const auto feed = [&](std::int64_t i) {  // row i of the tile's pixels into the next slot of the ring
    make_planes<R, P>(job, tile, tile.row - job.lead + i, padded, shift, line, pitch);
    const Ahead soon = ahead(job, job.x, tile, i + 2 * kStep);
    along_row<R, K, P>(line, into, columns, job.taps.data(), job.size, [&](std::int64_t c) { soon.ask(c, L); });
    into = into + slot == ring + slots * slot ? ring : into + slot;
    const std::int64_t h = tile.row - job.lead + i;
    if (h >= own.row && h < own.row + own.rows) {
      job.measure(row_address(job.x, job.bytes, tile.n, tile.c, h), job.x.stride[3],
                  row_address(job.y, job.bytes, tile.n, tile.c, h), job.y.stride[3], own.column, own.columns, job.scale,
                  sums.apart);
    }
  };
  for (std::int64_t i = 0; i < job.size - 1; ++i) feed(i);
  // The last step reads rows that a short tile never fills: their sums are dropped, but garbage could be slow to add.
  for (std::int64_t i = tile.rows + job.size - 1; i < slots; ++i) {
    std::fill_n(ring + i * slot, slot, R(0));
  }

  Vec<double> score = {}, structure = {};
  Vec<R> peak = {};
  const R* oldest = ring;
  for (std::int64_t row = 0; row < tile.rows; row += kStep) {
    const std::int64_t live = std::min<std::int64_t>(kStep, tile.rows - row), next = row + job.size - 1;
    for (std::int64_t i = next; i < next + live; ++i) feed(i);
    // the oldest row lies where the next one would go; a short last step leaves gaps, of rows that it does not use
    const R* from = oldest;
    for (std::int64_t i = 0; i < slots; ++i) {
      rows[i] = from;
      from = from + slot == ring + slots * slot ? ring : from + slot;
    }
    oldest = ring + (oldest - ring + kStep * slot) % (slots * slot);
    if constexpr (P == 4) {
      Ahead soon[kStep];
      for (int r = 0; r < kStep; ++r) soon[r] = ahead(job, job.y, tile, next + kStep + r);
      finish<R, K, Map>(job, tile, shift, soon, rows, tile.row + row, live, score, structure, peak);
    } else {
      finish_all<R, K>(job, tile, shift, rows, tile.row + row, live, sums);
    }
  }
  if constexpr (P == 4) {
    sums.score = sum<double>(score);
    sums.contrast_structure = sum<double>(structure);
    sums.count = double(tile.rows * tile.columns);
    sums.narrow = job.narrow(peak);
  }
  return sums;
}

template <class R>
Sums walk_any(const Job<R>& job, const Tile& tile, const PixelTile& own) {
  const bool plain = job.valid.data == nullptr && !job.components;
  if (job.size == 11) {
    if (plain) return job.map ? walk<R, 11, 4, true>(job, tile, own) : walk<R, 11, 4, false>(job, tile, own);
    if constexpr (std::is_same_v<R, double>) return walk<R, 11, 6, true>(job, tile, own);
  }
  if constexpr (std::is_same_v<R, float>) {
    if (plain && job.size == 7) return walk<R, 7, 4, true>(job, tile, own);
  }
  if (plain) return walk<R, 0, 4, true>(job, tile, own);
  if constexpr (std::is_same_v<R, double>) return walk<R, 0, 6, true>(job, tile, own);
  throw std::logic_error("components and masks are computed in float64");
}

// A tile in the job's precision; in double where that is too narrow for it.
template <class R>
Sums walk_wide(const Job<R>& job, const Job<double>& wide, const Tile& tile, const PixelTile& own) {
  Sums sums = walk_any(job, tile, own);
  if (!sums.narrow) return sums;
  const Apart apart = sums.apart;  // which float32 is wide enough for
  sums = {};
  sums.apart = apart;
  for (std::int64_t column = 0; column < tile.columns; column += kTileColumns<double>) {
    Tile part = tile;
    part.column += column;
    part.columns = std::min(kTileColumns<double>, tile.columns - column);
    sums.add(walk_any(wide, part, {}));
  }
  return sums;
}

std::int64_t tiles_down(std::int64_t rows) { return pieces(rows, kTileRows); }

template <class R>
std::int64_t tiles_across(std::int64_t columns) {
  return pieces(columns, kTileColumns<R>);
}

template <class R>
void forward(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape, const SsimOptions& o,
             const SsimOutputs& out, const Beside* beside) {
  Job<R> job = job_of<R>(x, y, valid, dtype, shape, o);
  job.map = {static_cast<R*>(out.map), nullptr};
  job.components = out.luminance != nullptr;
  Job<double> wide = job_of<double>(x, y, valid, dtype, shape, o);
  wide.map = job.map.widened();

  const std::int64_t down = tiles_down(job.rows), across = tiles_across<R>(job.columns);
  const std::int64_t tiles = down * across, planes = shape.n * shape.c;
  std::vector<Sums> partial(std::size_t(planes * tiles));
  parallel(o.threads, planes * tiles, [&](std::int64_t task) {
    const std::int64_t plane = task / tiles, at = task % tiles;
    Tile tile{plane / shape.c, plane % shape.c, at / across * kTileRows, at % across * kTileColumns<R>, 0, 0};
    tile.rows = std::min(kTileRows, job.rows - tile.row);
    tile.columns = std::min(kTileColumns<R>, job.columns - tile.column);
    // the last tiles take the border that no window starts in
    const std::int64_t below = at / across == down - 1 ? shape.h - tile.row : tile.rows;
    const std::int64_t right = at % across == across - 1 ? shape.w - tile.column : tile.columns;
    const PixelTile own{task, tile.n, tile.c, tile.row, tile.column, below, right};
    partial[std::size_t(task)] = walk_wide(job, wide, tile, out.absolute != nullptr ? own : PixelTile{});
    if (beside != nullptr) beside->run(beside->context, own);
  });
  Apart all;
  for (std::int64_t plane = 0; plane < planes; ++plane) {
    Sums total;
    for (std::int64_t i = 0; i < tiles; ++i) total.add(partial[std::size_t(plane * tiles + i)]);
    out.score[plane] = 1 - total.score / total.count;
    out.contrast_structure[plane] = 1 - total.contrast_structure / total.count;
    if (out.luminance != nullptr) {
      out.luminance[plane] = 1 - total.luminance / total.count;
      out.contrast[plane] = 1 - total.contrast / total.count;
      out.structure[plane] = 1 - total.structure / total.count;
    }
    if (out.absolute != nullptr) {
      const double pixels = double(shape.h * shape.w), scale = double(job.scale);
      out.absolute[plane] = total.apart.sum / scale / pixels;
      out.squared[plane] = total.apart.square / (scale * scale) / pixels;
      all.add(total.apart);
    }
    if (out.coverage != nullptr && plane % shape.c == 0) out.coverage[plane / shape.c] = total.weight / total.count;
  }
  if (out.absolute != nullptr) {
    out.extent[0] = all.low;
    out.extent[1] = all.high;
  }
}

}  // namespace

std::int64_t ssim_tasks(const Shape& shape, const SsimOptions& options) {
  const std::int64_t less = options.reflect ? 0 : options.size - 1, columns = shape.w - less;
  const std::int64_t across = options.float64 ? tiles_across<double>(columns) : tiles_across<float>(columns);
  return shape.n * shape.c * tiles_down(shape.h - less) * across;
}

void ssim_forward(const Image& x, const Image& y, const Mask& valid, Dtype dtype, const Shape& shape,
                  const SsimOptions& options, const SsimOutputs& out, const Beside* beside) {
  if (ssim_computes_in_double(options, valid.data != nullptr, out.luminance != nullptr)) {
    forward<double>(x, y, valid, dtype, shape, options, out, beside);
  } else {
    forward<float>(x, y, valid, dtype, shape, options, out, beside);
  }
}

}  // namespace semnr

// Gradient of SSIM to both images: moments are recomputed from the pixels, never stored.
//
// With the terms of ssim_math.hpp and window weights w, the gradient to the pixel p of s = x + y is
//   Σ_q w(p - q) a(q) + 2 s(p) Σ_q w(p - q) P(q),   a = ∂/∂E[s], P = ∂/∂E[s²] at window q,
// and likewise b, Q for d = x - y: four planes of window derivatives, filtered by the same two passes.
// A tile of pixels makes the windows that reach into it, a few rows at a time, and filters them at once.
#include "../counts.hpp"
#include "../pool.hpp"
#include "ssim_math.hpp"
#include "ssim_tile.hpp"

namespace semnr {
namespace {

template <class R>
struct Gradients {
  const double* score;      // N x C: the loss's derivative by each window's index, and by its contrast·structure
  const double* structure;  //
  Plane<R> map;             // (N, C, h, w) more of the former, or none
  const double* absolute;   // N x C: by |x - y| of each pixel; null: none
  Plane<R> x;               // contiguous (N, C, H, W), or none
  Plane<R> y;
};

// Columns of pixels that a tile writes: its windows, size - 1 more, fill the tile.
template <class R>
std::int64_t pixel_columns(int size) {
  return kTileColumns<R> - round_up(size - 1, kLanes<R>);
}

// Derivatives at up to kStep rows of windows, into lines of four planes: a, b, P, Q.
template <class R, int K>
void derivatives(const Job<R>& job, const Gradients<R>& to, const Tile& windows, const Shift<R>& shift,
                 const R* const* rows, std::int64_t row, std::int64_t live, R* lines, std::int64_t pitch,
                 Vec<R>& peak) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  const R offset_s = -(shift.x + shift.y), offset_d = shift.y - shift.x, k = job.spread;
  const std::int64_t plane = windows.n * job.shape.c + windows.c;
  const R by_score = R(to.score[plane]), by_structure = R(to.structure[plane]);
  for (std::int64_t c = 0; c < windows.columns; c += L) {
    V moment[4][kStep];
    down_rows<R, K, 2>(rows, c, job.taps.data(), job.size, moment);
    down_rows<R, K, 2>(rows, c + 2 * kRingPitch<R>, job.taps.data(), job.size, moment + 2);
    const std::int64_t left = windows.columns - c;
    for (std::int64_t r = 0; r < live; ++r) {
      const V mean_s = moment[0][r], mean_d = moment[1][r];
      const V var_s = not_negative<R>(moment[2][r] - mean_s * mean_s);
      const V var_d = not_negative<R>(moment[3][r] - mean_d * mean_d);
      const SsimTerms<V> t = ssim_terms<V, R>(mean_s, mean_d, var_s, var_d, offset_s, offset_d, k, job.c1, job.c2);
      const V both = R(1) / (t.luminance_bottom * t.structure_bottom);
      const V over_luminance = t.structure_bottom * both, over_structure = t.luminance_bottom * both;
      const V luminance = t.luminance_top * over_luminance, structure = t.structure_top * over_structure;
      V upstream = splat<R>(by_score);
      if (to.map) {
        upstream += to.map.get((plane * job.rows + windows.row + row + r) * job.columns + windows.column + c, left);
      }
      if constexpr (std::is_same_v<R, float>) {
        const V square = moment[2][r] + moment[3][r];
        peak = square > peak ? square : peak;
      }
      const V at_luminance = upstream * structure * over_luminance;
      const V at_structure = (upstream * luminance + by_structure) * over_structure * k;
      V out[4];
      out[2] = at_structure * (R(1) - structure);
      out[3] = -at_structure * (R(1) + structure);
      out[0] = at_luminance * (R(1) - luminance) * (mean_s + offset_s) - R(2) * mean_s * out[2];
      out[1] = -at_luminance * (R(1) + luminance) * (mean_d + offset_d) - R(2) * mean_d * out[3];
      for (int p = 0; p < 4; ++p) {
        store<R>(lines + (r * 4 + p) * pitch + c, left < L ? first<R>(out[p], left) : out[p]);
      }
    }
  }
}

// Up to kStep rows of pixels: the filtered derivatives from their ring, gradients out.
template <class R, int K>
void combine(const Job<R>& job, const Gradients<R>& to, const Tile& pixels, const Shift<R>& shift, const R* const* rows,
             std::int64_t row, std::int64_t live, R* line, std::int64_t pitch) {
  using V = Vec<R>;
  constexpr int L = kLanes<R>;
  R* signs = line + 2 * kStep * pitch;  // after s and d
  const std::int64_t columns = round_up(pixels.columns, L);
  for (std::int64_t r = 0; r < live; ++r) {
    const std::int64_t h = pixels.row + row + r;
    job.load(row_address(job.x, job.bytes, pixels.n, pixels.c, h), job.x.stride[3],
             row_address(job.y, job.bytes, pixels.n, pixels.c, h), job.y.stride[3], job.shape.w, pixels.column,
             pixels.columns, columns, shift, line + 2 * r * pitch, line + (2 * r + 1) * pitch);
    if (to.absolute != nullptr) {
      job.sign(row_address(job.x, job.bytes, pixels.n, pixels.c, h), job.x.stride[3],
               row_address(job.y, job.bytes, pixels.n, pixels.c, h), job.y.stride[3], pixels.column, pixels.columns,
               R(to.absolute[pixels.n * job.shape.c + pixels.c]), signs + r * pitch);
    }
  }
  const std::int64_t at =
      ((pixels.n * job.shape.c + pixels.c) * job.shape.h + pixels.row + row) * job.shape.w + pixels.column;
  for (std::int64_t c = 0; c < columns; c += L) {
    V sum[4][kStep];
    down_rows<R, K, 2>(rows, c, job.taps.data(), job.size, sum);
    down_rows<R, K, 2>(rows, c + 2 * kRingPitch<R>, job.taps.data(), job.size, sum + 2);
    const std::int64_t left = pixels.columns - c;
    for (std::int64_t r = 0; r < live; ++r) {
      const V s = load(line + 2 * r * pitch + c), d = load(line + (2 * r + 1) * pitch + c);
      const V by_s = sum[0][r] + R(2) * s * sum[2][r], by_d = sum[1][r] + R(2) * d * sum[3][r];
      V g[2] = {(by_s + by_d) * job.scale, (by_s - by_d) * job.scale};
      if (to.absolute != nullptr) {
        const V by = load(signs + r * pitch + c);
        g[0] += by;
        g[1] -= by;
      }
      if (to.x) to.x.put(at + r * job.shape.w + c, g[0], left);
      if (to.y) to.y.put(at + r * job.shape.w + c, g[1], left);
    }
  }
}

// Whether R was wide enough; see Job::narrow.
template <class R, int K>
bool walk_back(const Job<R>& job, const Gradients<R>& to, const Tile& pixels) {
  constexpr std::int64_t L = kLanes<R>;
  const std::int64_t reach = job.size - 1, slots = reach + kStep, slot = 4 * kRingPitch<R>;
  // the windows that reach into the tile's pixels
  Tile windows = pixels;
  windows.row = std::max<std::int64_t>(0, pixels.row - reach);
  windows.column = std::max<std::int64_t>(0, pixels.column - reach);
  windows.rows = std::min(job.rows, pixels.row + pixels.rows) - windows.row;
  windows.columns = std::min(job.columns, pixels.column + pixels.columns) - windows.column;
  const std::int64_t indent = windows.column - (pixels.column - reach);  // zeros before the first window of a line

  const std::int64_t pitch = line_pitch<R, K>(job.size);
  const std::int64_t reals = (4 + 4 * kStep + 3 * kStep) * pitch + 2 * slots * slot;
  R* line = static_cast<R*>(scratch(reals * std::int64_t(sizeof(R)) + 2 * slots * std::int64_t(sizeof(R*))));
  R* lines = line + 4 * pitch;
  R* pixel_lines = lines + 4 * kStep * pitch;
  R* ring = pixel_lines + 3 * kStep * pitch;
  R* back = ring + slots * slot;
  const R** rows = reinterpret_cast<const R**>(back + slots * slot);
  std::fill_n(line, reals, R(0));  // margins stay zero, and nothing undefined is ever summed
  const Shift<R> shift = job.shift(job, windows);
  const std::int64_t padded = round_up(round_up(windows.columns, L) + reach, L) + L;

  Vec<R> peak = {};
  std::int64_t fed = 0, pushed = 0, made = 0;
  const auto feed = [&] {
    make_planes<R, 4>(job, windows, windows.row + fed, std::min(padded, pitch), shift, line, pitch);
    along_row<R, K, 4>(line, ring + fed % slots * slot, round_up(windows.columns, L), job.taps.data(), job.size,
                       [](std::int64_t) {});
    ++fed;
  };
  const auto push = [&](const R* from, bool last) {  // one row of derivatives, null: of zeros
    R* into = back + pushed % slots * slot;
    if (from == nullptr) {
      std::fill_n(into, slot, R(0));
    } else {
      along_row<R, K, 4>(from, into, round_up(pixels.columns, L), job.taps.data(), job.size, [](std::int64_t) {});
    }
    ++pushed;
    const std::int64_t ready = pushed - reach - made;
    if (ready == kStep || (last && ready > 0)) {
      for (std::int64_t i = 0; i < slots; ++i) rows[slots + i] = back + (made + i) % slots * slot;
      combine<R, K>(job, to, pixels, shift, rows + slots, made, ready, pixel_lines, pitch);
      made += ready;
    }
  };

  const std::int64_t before = windows.row - (pixels.row - reach), total = reach + pixels.rows;
  for (std::int64_t i = 0; i < before; ++i) push(nullptr, pushed + 1 == total);
  for (std::int64_t i = 0; i < reach; ++i) feed();
  for (std::int64_t row = 0; row < windows.rows; row += kStep) {
    const std::int64_t live = std::min<std::int64_t>(kStep, windows.rows - row);
    for (std::int64_t i = 0; i < live; ++i) feed();
    for (std::int64_t i = 0; i < slots; ++i) rows[i] = ring + (row + i) % slots * slot;
    derivatives<R, K>(job, to, windows, shift, rows, row, live, lines + indent, pitch, peak);
    for (std::int64_t i = 0; i < live; ++i) push(lines + 4 * i * pitch, pushed + 1 == total);
  }
  while (pushed < total) push(nullptr, pushed + 1 == total);
  return !job.narrow(peak);
}

template <class R>
bool walk_back_any(const Job<R>& job, const Gradients<R>& to, const Tile& pixels) {
  return job.size == 11 ? walk_back<R, 11>(job, to, pixels) : walk_back<R, 0>(job, to, pixels);
}

template <class R>
void backward(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimOptions& o,
              const Gradients<R>& to) {
  const Job<R> job = job_of<R>(x, y, Mask{}, dtype, shape, o);
  const Job<double> wide = job_of<double>(x, y, Mask{}, dtype, shape, o);
  const Gradients<double> widened{to.score,    to.structure,   to.map.widened(),
                                  to.absolute, to.x.widened(), to.y.widened()};
  const std::int64_t each = pixel_columns<R>(o.size), part = pixel_columns<double>(o.size);
  const std::int64_t down = pieces(shape.h, kTileRows), across = pieces(shape.w, each);
  parallel(o.threads, shape.n * shape.c * down * across, [&](std::int64_t task) {
    const std::int64_t plane = task / (down * across), at = task % (down * across);
    Tile tile{plane / shape.c, plane % shape.c, at / across * kTileRows, at % across * each, 0, 0};
    tile.rows = std::min(kTileRows, shape.h - tile.row);
    tile.columns = std::min(each, shape.w - tile.column);
    if (walk_back_any(job, to, tile)) return;
    for (std::int64_t end = tile.column + tile.columns; tile.column < end; tile.column += part) {
      tile.columns = std::min(part, end - tile.column);
      walk_back_any(wide, widened, tile);
    }
  });
}

}  // namespace

void ssim_backward(const Image& x, const Image& y, Dtype dtype, const Shape& shape, const SsimOptions& options,
                   const double* by_score, const double* by_structure, const void* by_map, const double* by_absolute,
                   void* out_x, void* out_y) {
  if (options.reflect) throw std::invalid_argument("ssim_backward: pad the images first");
  if (options.size > kSsimBackwardSize) throw std::invalid_argument("ssim_backward: window too large");
  const auto run = [&](auto real) {
    using R = decltype(real);
    const auto plane = [](const void* p) { return Plane<R>{static_cast<R*>(const_cast<void*>(p)), nullptr}; };
    backward<R>(x, y, dtype, shape, options,
                {by_score, by_structure, plane(by_map), by_absolute, plane(out_x), plane(out_y)});
  };
  if (options.float64) {
    run(double());
  } else {
    run(float());
  }
}

}  // namespace semnr

// Winograd's convolution: squares of the image are transformed, multiplied by the transformed weights, and transformed
// back, a few squares at a time, so that what lies between stays in the cache.
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4 x 4, 3 x 3) and F(2 x 2, 5 x 5):
// both interpolate at 0, 1, -1, 2, -2 and infinity.
#include "winograd_cpu.hpp"

#include <algorithm>

#include "../counts.hpp"
#include "../pool.hpp"
#include "../simd.hpp"

namespace semnr {
namespace {

constexpr int kSide = 6, kPoints = kSide * kSide;
constexpr std::int64_t kTiles = 48;   // squares of a task
constexpr std::int64_t kFewest = 64;  // output channels of one, at least
constexpr int L = kLanes<float>, kVectors = int(kWinogradPanel) / L;
constexpr int kRows = L == 16 ? 12 : L == 8 ? 6 : 3;  // squares of the innermost product: its sums fill the registers
constexpr int kPanels = L == 16 ? 2 : 1;              // panels of it, where there are so many
static_assert(kTiles % kRows == 0);

using V = Vec<float>;

template <class T>
inline const T* at(const Image& v, std::int64_t n, std::int64_t h, std::int64_t w) {
  return static_cast<const T*>(v.data) + n * v.stride[0] + h * v.stride[2] + w * v.stride[3];
}

inline V widened_floats(const float* p) { return load(p); }
inline void narrow(float* p, V v) { store(p, v); }

// A sum's share of a step along the channels: one of float32, two neighbours of bfloat16.
inline V unit(const float* p) { return load(p); }
inline V everywhere(const float* p) { return splat(*p); }
inline V with_product(float, V sum, V value, V weight) { return sum + value * weight; }

#if defined(__AVX512F__) && defined(__GNUC__)
#define SEMNR_BFLOAT_PRODUCTS 1
// AVX-512 BF16 by the assembler: the module is not built for it, and winograd() asks the CPU first.
inline V widened_floats(const BFloat* p) {
  return (V)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i*)p)),
                                    16);
}
inline void narrow(BFloat* p, V v) {
  __m256i half;
  asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(v));
  _mm256_storeu_si256((__m256i*)p, half);
}
inline V unit(const BFloat* p) { return (V)_mm512_loadu_si512(p); }
inline V everywhere(const BFloat* p) {
  float pair;
  std::memcpy(&pair, p, sizeof pair);
  return (V)_mm512_set1_ps(pair);
}
inline V with_product(BFloat, V sum, V value, V weight) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weight), "v"(value));
  return sum;
}
#endif

// Values at six points of the polynomial that six neighbours are the coefficients of, transposed: from v to v.
inline void forwards(V (&v)[kSide]) {
  const V a = v[4] - 4.f * v[2], b = v[3] - 4.f * v[1], c = v[4] - v[2], d = 2.f * (v[3] - v[1]);
  const V first = 4.f * v[0] - 5.f * v[2] + v[4], last = 4.f * v[1] - 5.f * v[3] + v[5];
  v[0] = first;
  v[1] = a + b;
  v[2] = a - b;
  v[3] = c + d;
  v[4] = c - d;
  v[5] = last;
}

// Outputs from the products at six points: 2 or 4.
template <int kOutputs>
inline void backwards(const V (&v)[kSide], V (&to)[kOutputs]) {
  const V a = v[1] + v[2], b = v[1] - v[2], c = v[3] + v[4], d = v[3] - v[4];
  to[0] = v[0] + a + c;
  if constexpr (kOutputs == 2) {
    to[1] = b + 2.f * d + v[5];
  } else {
    to[1] = b + 2.f * d;
    to[2] = a + 4.f * c;
    to[3] = b + 8.f * d + v[5];
  }
}

template <class T, int kOutputs>
struct Task {
  const Winograd& s;
  std::int64_t tall, wide, height, width;  // squares and outputs of an image
  T* squares;                              // (36, kTiles, c), a point `step_in` from the next
  float* products;                         // (36, kTiles, to - from), `step_out`
  std::int64_t step_in, step_out;
  std::int64_t from, to;  // output channels

  // Row and column of the first output of a square, and its image.
  void place(std::int64_t tile, std::int64_t& n, std::int64_t& row, std::int64_t& column) const {
    column = tile % wide * kOutputs;
    row = tile / wide % tall * kOutputs;
    n = tile / wide / tall;
  }

  void scatter(std::int64_t tile, T* to) const {
    std::int64_t n, row, column;
    place(tile, n, row, column);
    row -= s.down;
    column -= s.across;
    for (std::int64_t c = 0; c < s.shape.c; c += L) {
      V d[kSide][kSide];
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          const std::int64_t h = row + i, w = column + j;
          const bool inside = h >= 0 && h < s.shape.h && w >= 0 && w < s.shape.w;
          d[i][j] = inside ? widened_floats(at<T>(s.x, n, h, w) + c) : V{};
        }
        forwards(d[i]);
      }
      for (int j = 0; j < kSide; ++j) {
        V column_of[kSide] = {d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]};
        forwards(column_of);
        for (int i = 0; i < kSide; ++i) narrow(to + (i * kSide + j) * step_in + c, column_of[i]);
      }
    }
  }

  // Products of `kRows` squares and some panels of channels at one point.
  template <int kSome>
  void multiply(const T* values, const T* weights, float* made) const {
    constexpr int kStep = 4 / int(sizeof(T));  // channels a step
    V sums[kRows][kSome][kVectors] = {};
    const std::int64_t channels = s.shape.c;
    for (std::int64_t c = 0; c < channels; c += kStep) {
      V weight[kSome][kVectors];
      for (int p = 0; p < kSome; ++p) {
        for (int k = 0; k < kVectors; ++k) {
          weight[p][k] = unit(weights + (p * channels + c) * kWinogradPanel + k * L * kStep);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const V value = everywhere(values + r * channels + c);
        for (int p = 0; p < kSome; ++p) {
          for (int k = 0; k < kVectors; ++k) sums[r][p][k] = with_product(T{}, sums[r][p][k], value, weight[p][k]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kSome; ++p) {
        for (int k = 0; k < kVectors; ++k) {
          store(made + r * (to - from) + p * kWinogradPanel + k * L, sums[r][p][k]);
        }
      }
    }
  }

  void gather(std::int64_t tile, const float* points) const {
    std::int64_t n, row, column;
    place(tile, n, row, column);
    const std::int64_t rows = std::min<std::int64_t>(kOutputs, height - row),
                       columns = std::min<std::int64_t>(kOutputs, width - column);
    for (std::int64_t c = from; c < to; c += L) {
      V half[kSide][kOutputs];
      for (int i = 0; i < kSide; ++i) {
        V point[kSide];
        for (int j = 0; j < kSide; ++j) point[j] = load(points + (i * kSide + j) * step_out + c - from);
        backwards<kOutputs>(point, half[i]);
      }
      const V bias = load(s.bias + c);
      for (int j = 0; j < columns; ++j) {
        const V point[kSide] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]};
        V made[kOutputs];
        backwards<kOutputs>(point, made);
        for (int i = 0; i < rows; ++i) {
          const V value = made[i] + bias;
          narrow(const_cast<T*>(at<T>(s.y, n, row + i, column + j) + c),
                 s.rectified ? not_negative<float>(value) : value);
        }
      }
    }
  }

  void run(std::int64_t first, std::int64_t last) const {
    const std::int64_t count = last - first, full = pieces(count, kRows) * kRows, in = s.shape.c;
    for (std::int64_t tile = 0; tile < count; ++tile) scatter(first + tile, squares + tile * in);
    for (int point = 0; point < kPoints; ++point) {
      T* const values = squares + point * step_in;
      std::fill(values + count * in, values + full * in, T{});
      for (std::int64_t c = from; c < to;) {
        const T* const weights = static_cast<const T*>(s.weights) + (point * s.channels + c) * in;
        float* const made = products + point * step_out + c - from;
        const bool several = c + kPanels * kWinogradPanel <= to;
        for (std::int64_t tile = 0; tile < full; tile += kRows) {
          if (several) {
            multiply<kPanels>(values + tile * in, weights, made + tile * (to - from));
          } else {
            multiply<1>(values + tile * in, weights, made + tile * (to - from));
          }
        }
        c += (several ? kPanels : 1) * kWinogradPanel;
      }
    }
    for (std::int64_t tile = 0; tile < count; ++tile) gather(first + tile, products + tile * (to - from));
  }
};

template <class T, int kOutputs>
void of_outputs(const Winograd& s) {
  constexpr std::int64_t kLine =
      32;  // values, 64 or 128 bytes: without it all points fall into the same places of the first cache
  const std::int64_t height = s.shape.h + 2 * s.down - s.taps + 1, width = s.shape.w + 2 * s.across - s.taps + 1;
  const std::int64_t tall = pieces(height, kOutputs), wide = pieces(width, kOutputs), all = s.shape.n * tall * wide;
  const std::int64_t some = pieces(all, kTiles);
  // Few squares: threads share their output channels. What an output is does not depend on it.
  const std::int64_t most = std::max<std::int64_t>(1, s.channels / kFewest),
                     groups = std::min(most, pieces(2 * s.threads, some)),
                     each = pieces(s.channels, groups * kWinogradPanel) * kWinogradPanel;
  const std::int64_t step_in = kTiles * s.shape.c + kLine, step_out = kTiles * each + kLine;
  parallel(s.threads, some * groups, [&](std::int64_t task) {
    float* const products = static_cast<float*>(
        scratch(kPoints * (step_in * std::int64_t(sizeof(T)) + step_out * std::int64_t(sizeof(float)))));
    T* const squares = reinterpret_cast<T*>(products + kPoints * step_out);
    const std::int64_t first = task / groups * kTiles, from = task % groups * each,
                       to = std::min(from + each, s.channels);
    const Task<T, kOutputs> work{s, tall, wide, height, width, squares, products, step_in, step_out, from, to};
    if (from < to) work.run(first, std::min(first + kTiles, all));
  });
}

}  // namespace

void winograd(const Winograd& s) {
  if (s.shape.c % L != 0 || s.channels % kWinogradPanel != 0) {
    throw std::invalid_argument("winograd: the channels do not fill vectors");
  }
  if (s.x.stride[1] != 1 || s.y.stride[1] != 1) throw std::invalid_argument("winograd: channels-last maps only");
  if (s.taps != 3 && s.taps != 5) throw std::invalid_argument("winograd: 3 or 5 taps only");
  if (s.dtype == Dtype::f32) return s.taps == 3 ? of_outputs<float, 4>(s) : of_outputs<float, 2>(s);
#if defined(SEMNR_BFLOAT_PRODUCTS)
  if (s.dtype == Dtype::bf16 && winograd_takes_bfloat()) {
    return s.taps == 3 ? of_outputs<BFloat, 4>(s) : of_outputs<BFloat, 2>(s);
  }
#endif
  throw std::invalid_argument("winograd: float32, or bfloat16 where the module and the CPU multiply it");
}

bool winograd_takes_bfloat() {
#if defined(SEMNR_BFLOAT_PRODUCTS)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace semnr

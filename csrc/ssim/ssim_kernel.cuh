// SSIM of whole images: both read once, a pair of partial sums a block, folded in a fixed order. No atomics.
#pragma once
#include "ssim_strip.cuh"

namespace semnr {

template <int Size>
struct SsimForwardLayout : StripLayout<Size> {
  static constexpr int kPixels = sizeof(Strip);
  static constexpr int kMoments = kPixels + kBatch * StripLayout<Size>::kPixelPitch * 8;
  static constexpr int kBytes = kMoments + kBatch * StripLayout<Size>::kMomentPitch * 16;
};

// 1 - l·c·s and 1 - c·s, both exactly 0 for identical windows.
struct Losses {
  float index, structure;
};

template <int Size>
__device__ __forceinline__ Losses losses(const SsimJob<Size>& job, const Sums& m, float offset_s, float offset_d) {
  const float mean_s = m.low[0] * job.weight, mean_d = m.low[1] * job.weight;
  // over `weight`; NaN is lost in max, but the luminance keeps it
  const float var_s = max(fmaf(-mean_s, m.low[0], m.high[0]), 0.0f);
  const float var_d = max(fmaf(-mean_d, m.low[1], m.high[1]), 0.0f);
  const SsimTerms<float> t = ssim_terms(mean_s, mean_d, var_s, var_d, offset_s, offset_d, 0.5f, job.c1, job.c2);
  const float both = __fdividef(1.0f, t.luminance_bottom * t.structure_bottom);
  const float luminance = t.luminance_loss * (t.structure_bottom * both);
  const float structure = t.structure_loss * (t.luminance_bottom * both);
  return {fmaf(-luminance, structure, structure) + luminance, structure};
}

// Sums are multiples of this: the sums of columns, blocks and planes are then exact, in whatever order and by however
// many blocks they are made. A column starts at 1.5 * 2²², where float64 counts in such steps, and what is added is
// rounded down to a step whatever was there before (to nearest, a tie would ask whether the sum is even).
constexpr double kSsimQuantum = 1.0 / (1 << 30), kSsimStart = 6291456.0;

// Sums of one thread's column.
struct ColumnSums {
  double index = kSsimStart, structure = kSsimStart;
  __device__ __forceinline__ void add(float by_index, float by_structure) {
    index = __dadd_rd(index, double(by_index));
    structure = __dadd_rd(structure, double(by_structure));
  }
};

template <int Size>
constexpr int kSkip = (kBatch - (Size - 1) % kBatch) % kBatch;  // rows above, so that a batch completes a whole unit

// The first block of strip `strip` of all planes' strips.
__device__ __forceinline__ std::int64_t first_block(const SsimBatch& batch, std::int64_t strip) {
  const std::int64_t strips = std::int64_t(batch.planes) * batch.strips;
  return (strip * batch.blocks + strips - 1) / strips;
}

// Eight rows of moments down one column, each of which completes a window.
template <int Size>
__device__ __forceinline__ void down_column(const SsimJob<Size>& job, const Strip& strip, const unsigned char* moments,
                                            Ring<Size>& ring, ColumnSums& sums) {
  const float s = strip.s, d = strip.d;
  float index[kBatch], structure[kBatch];
#pragma unroll
  for (int r = 0; r < kBatch; ++r) {
    const Sums done = ring.add(job.taps, sums_at(moments + r * SsimForwardLayout<Size>::kMomentPitch * 16));
    const Losses found = losses(job, done, s, d);
    index[r] = found.index;
    structure[r] = found.structure;
  }
#pragma unroll
  for (int by = kBatch / 2; by > 0; by /= 2) {
#pragma unroll
    for (int r = 0; r < by; ++r) {
      index[r] += index[r + by];
      structure[r] += structure[r + by];
    }
  }
  sums.add(index[0], structure[0]);
}

// The same where some rows complete no window, or a map is wanted. first: the first row's window.
template <int Size>
__device__ __forceinline__ void down_column(const SsimJob<Size>& job, const Strip& strip, const unsigned char* moments,
                                            int first, float* map, Ring<Size>& ring, ColumnSums& sums) {
  const int across = strip.width - job.batch.less, down = strip.height - job.batch.less;
  std::int64_t at = (std::int64_t(strip.plane) * down + strip.top + job.batch.lead + first) * across + strip.left +
                    job.batch.lead + int(threadIdx.x);
#pragma unroll 1
  for (int r = 0; r < kBatch; ++r) {
    const Sums done = ring.add(job.taps, sums_at(moments + r * SsimForwardLayout<Size>::kMomentPitch * 16));
    if (first + r >= strip.skip && first + r < strip.rows) {
      const Losses found = losses(job, done, strip.s, strip.d);
      sums.add(found.index, found.structure);
      if (map != nullptr && int(threadIdx.x) < strip.columns) map[at] = 1.0f - found.index;
    }
    at += across;
  }
}

// The strip of this block, but for its mean.
template <int Size>
__device__ __forceinline__ Strip strip_of(const SsimBatch& batch, bool map) {
  Strip s;
  const std::int64_t all = std::int64_t(batch.planes) * batch.strips,
                     of = std::int64_t(blockIdx.x) * all / batch.blocks;
  take_plane(batch, int(of / batch.strips), s);
  const int column = int(of % batch.strips) * batch.columns;
  const std::int64_t first = first_block(batch, of), parts = first_block(batch, of + 1) - first;
  const std::int64_t part = int(blockIdx.x) - first, units = (s.height - batch.less + kBatch - 1) / kBatch;
  const int row = int(part * units / parts) * kBatch;
  s.begin = int(part);
  s.end = int(parts);
  s.skip = kSkip<Size>;
  s.rows = s.skip + min(int((part + 1) * units / parts) * kBatch, s.height - batch.less) - row;
  s.columns = min(batch.columns, s.width - batch.less - column);
  s.top = row - batch.lead - s.skip;
  s.left = column - batch.lead;
  s.last = s.rows + Size - 1;
  s.last_whole = map ? -1 : s.last - kBatch;
  return s;
}

// What a kernel does beside SSIM with the pixels that a walk reads: here nothing. See csrc/profile.
struct Alone {
  static constexpr bool kOneLoop = false;  // batches of whole and of other windows by one piece of code
  template <class Reader>
  __device__ __forceinline__ void ask(const Reader&, int) {}  // rows first to first + 7 were asked for
  template <class Reader>
  __device__ __forceinline__ void take(const Reader&, int) {}  // they are in the reader's registers
  __device__ __forceinline__ void leave() {}                   // all were taken
};

// The pixels of a block's walk that are its own, so that each pixel of the image is one block's: those at which its
// windows begin; the last of a row or a column of blocks owns what is left of the image too. For windows inside it.
template <int Size>
class OwnPixels {
 public:
  __device__ __forceinline__ explicit OwnPixels(const Strip& strip) : strip_(strip) {}

  // Beside the rows that are skipped: rows, columns of the threads' eights, and `end`, that of its part of the tail.
  struct Share {
    int rows, columns, end;
  };
  __device__ __forceinline__ Share share() const {
    const int down = strip_.rows + Size - 1, across = strip_.columns + Size - 1, wide = 8 << strip_.shift;
    const bool rightmost = strip_.left + across == strip_.width;
    return {strip_.top + down == strip_.height ? down : strip_.rows, min(wide, rightmost ? across : strip_.columns),
            rightmost ? across : 0};
  }
  __device__ __forceinline__ bool row(const Share& share, int row) const {
    return row >= strip_.skip && row < share.rows;
  }
  template <class Reader>
  __device__ __forceinline__ bool tail(const Share& share, const Reader& reader, int first) const {
    return reader.in_tail() && row(share, first + reader.tail_row()) && reader.tail_column() < share.end;
  }

 private:
  const Strip& strip_;
};

// A block's walk down its strip. partial[block] = sums over its windows of 1 - l·c·s and of 1 - c·s. map: (planes, h,
// w) or null. make(strip): what goes on beside.
template <class T, int Size, bool Packed, class Make>
__device__ __forceinline__ void ssim_walk(const SsimJob<Size>& job, double* partial, float* map, unsigned char* shared,
                                          Make&& make) {
  using Layout = SsimForwardLayout<Size>;
  constexpr int kFirst = Size - 1 + kSkip<Size>;  // the row that completes the first window
  Strip& strip = *reinterpret_cast<Strip*>(shared);
  if (threadIdx.x == 0) strip = strip_of<Size>(job.batch, map != nullptr);
  __syncthreads();
  Reader<T, Size, Packed, true> reader(strip);
  unsigned char* const from =
      shared + Layout::kPixels + (reader.row() * Layout::kPixelPitch + pixel_place(8 * reader.group())) * 8;
  unsigned char* const to =
      shared + Layout::kMoments + (reader.row() * Layout::kMomentPitch + moment_place(8 * reader.group())) * 16;
  const unsigned char* const column = shared + Layout::kMoments + moment_place(int(threadIdx.x)) * 16;
  Ring<Size> ring;
  ring.clear();
  ColumnSums sums;
  auto beside = make(strip);
  reader.template ask<true>(0);
  beside.ask(reader, 0);
  centre_column<T>(strip, strip.columns + Size - 1, job.scale);
  __syncthreads();
  // Whole: each of the eight rows completes a window, and no map is wanted.
  const auto batch = [&](int first, auto whole) {
    reader.put(job.scale, shared + Layout::kPixels, Layout::kPixelPitch, from);
    beside.take(reader, first);
    __syncthreads();
    if (first + kBatch < strip.last) {
      reader.ask(first + kBatch);
      beside.ask(reader, first + kBatch);
    }
    Sums row[8];
    along_row<Size>(job.taps, from, row);
#pragma unroll
    for (int o = 0; o < 8; ++o) put_sums(to + o * 16, row[o]);
    __syncthreads();
    constexpr int kWhole = decltype(whole)::value;  // 2: not known before
    if (kWhole == 2 ? first >= kFirst && first <= strip.last_whole : kWhole == 1) {
      down_column<Size>(job, strip, column, ring, sums);
    } else {
      down_column<Size>(job, strip, column, first - (Size - 1), map, ring, sums);
    }
  };
  if constexpr (decltype(beside)::kOneLoop) {
#pragma unroll 1
    for (int first = 0; first < strip.last; first += kBatch) batch(first, std::integral_constant<int, 2>());
  } else {
    // two loops, so that the one that matters has nothing else in it
    int first = 0;
    while (first < strip.last) {
#pragma unroll 1
      for (; first >= kFirst && first <= strip.last_whole; first += kBatch) batch(first, std::true_type());
#pragma unroll 1
      for (; first < strip.last && (first < kFirst || first > strip.last_whole); first += kBatch) {
        batch(first, std::false_type());
      }
    }
  }
  beside.leave();
  const bool live = int(threadIdx.x) < strip.columns;
  double* const all = reinterpret_cast<double*>(shared + Layout::kPixels);  // which nobody reads any more
  all[2 * threadIdx.x] = live ? sums.index - kSsimStart : 0;
  all[2 * threadIdx.x + 1] = live ? sums.structure - kSsimStart : 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    double a = 0, b = 0;
    for (int t = int(threadIdx.x); t < int(blockDim.x); t += 32) {
      a += all[2 * t];
      b += all[2 * t + 1];
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
      a += __shfl_xor_sync(0xffffffffu, a, by);
      b += __shfl_xor_sync(0xffffffffu, b, by);
    }
    if (threadIdx.x == 0) {
      partial[2 * blockIdx.x] = a;
      partial[2 * blockIdx.x + 1] = b;
    }
  }
}

// partial[block] = sums over the windows of a strip of 1 - l·c·s and of 1 - c·s. map: (planes, h, w) or null.
template <class T, int Size, bool Packed>
__global__ void __launch_bounds__(kSsimThreads, 2) ssim_forward(const SsimJob<Size> job, double* partial, float* map) {
  SEMNR_SHARED(shared);
  ssim_walk<T, Size, Packed>(job, partial, map, shared, [](const Strip&) { return Alone{}; });
}

}  // namespace semnr

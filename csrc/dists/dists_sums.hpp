// What the loops over maps and over images share: addresses, and partial sums put together in a fixed order.
#pragma once
#include <vector>

#include "../counts.hpp"
#include "dists_cpu.hpp"

namespace semnr {

constexpr std::int64_t kDistsRows = 16;  // of a task, a multiple of any cell

template <class T>
inline const T* at(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return static_cast<const T*>(v.data) + n * v.stride[0] + c * v.stride[1] + h * v.stride[2] + w * v.stride[3];
}

inline std::int64_t offset(const Image& v, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return n * v.stride[0] + c * v.stride[1] + h * v.stride[2] + w * v.stride[3];
}

// Partial sums of the tasks: (n, rows of cells or of tasks, columns of cells or 1, 6, c).
struct DistsGrid {
  std::int64_t cell, rows, columns, channels;
  std::vector<double> sums;

  DistsGrid(std::int64_t n, std::int64_t c, std::int64_t height, std::int64_t width, std::int64_t side)
      : cell(side),
        rows(pieces(height, side > 0 ? side : kDistsRows)),
        columns(side > 0 ? pieces(width, side) : 1),
        channels(c),
        sums(std::size_t(n * rows * columns * kDistsSums * c)) {}

  // `row` and `column` count from the first position that counts.
  double* part(std::int64_t n, std::int64_t row, std::int64_t column) {
    const std::int64_t down = row / (cell > 0 ? cell : kDistsRows), across = cell > 0 ? column / cell : 0;
    return sums.data() + ((n * rows + down) * columns + across) * kDistsSums * channels;
  }

  // Adds them up in a fixed order.
  void fold(std::int64_t n, double* totals, double* cells, std::int64_t cell_image, std::int64_t cell_row) const {
    const std::int64_t size = kDistsSums * channels;
    const double* from = sums.data() + n * rows * columns * size;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t k = 0; k < columns; ++k, from += size) {
        double* const cell_to = cells == nullptr ? nullptr : cells + n * cell_image + r * cell_row + k * size;
        for (std::int64_t i = 0; i < size; ++i) totals[n * size + i] += from[i];
        for (std::int64_t i = 0; cell_to != nullptr && i < size; ++i) cell_to[i] += from[i];
      }
    }
  }
};

}  // namespace semnr

#pragma once
#include "../image.hpp"

namespace semnr {

constexpr int kDistsSums = 6;  // weight, a, b, a², b², a b; a and b counted from `near`

// The end of a stage of the network: a rectangle of convolution outputs, channels side by side in memory.
//
// `pool` rows and columns begin at (row, column), 0 or 1; where that is 1 the position before belongs to the rectangle
// and enters the first pooling window, where it is 0 the image ends there. Negative values count as 0 (ReLU).
struct DistsStage {
  Image x, y;  // y.data null: no statistics
  Dtype x_dtype, y_dtype;
  Shape shape;  // images, channels, rows and columns of the rectangle
  std::int64_t row, column, rows, columns;
  std::int64_t from, to;  // the columns, of those, that the statistics count
  Image share;            // weight of each position, float64 (n, 1, rows, columns); data
                          // null: 1
  std::int64_t cell;      // side of the squares whose sums are wanted too; 0: none
  bool fresh;             // `near` is to be set, from the first position that counts
  double* near;           // (n, 2, c)
  double* sums;           // (n, 6, c), added to
  double* cells;          // (n, cell rows, cell columns, 6, c), added to; strides below
  std::int64_t cell_image, cell_row;
  Image pooled_x, pooled_y;  // of x_dtype, data null: not wanted
  Image kept;                // what x is after the ReLU, data null: not wanted
  Dtype kept_dtype;
  double eps;
  int threads;
};

void dists_stage(const DistsStage& stage);

// Sums as above of two images or maps in any layout and dtype, times `scale`.
struct DistsPlanes {
  Image x, y;
  Dtype x_dtype, y_dtype;
  Shape shape;
  Image share;
  double scale;
  std::int64_t cell;
  bool fresh;
  double* near;
  double* sums;
  double* cells;
  std::int64_t cell_image, cell_row;
  int threads;
};

void dists_planes(const DistsPlanes& planes);

}  // namespace semnr

// A as the rows that a set of kernels multiplies.
#pragma once

#include <algorithm>

#include "kernels/isa.h"
#include "kernels/matmul.h"

namespace mxcompile {

constexpr auto kFloat = static_cast<int64_t>(sizeof(float));

inline int64_t RoundUp(int64_t value, int64_t multiple) { return CeilDiv(value, multiple) * multiple; }

inline void ToFloat(Isa, const float* x, int64_t size, float* y) { std::copy_n(x, size, y); }
inline void ToFloat(Isa isa, const Half* x, int64_t size, float* y) {
  HalfConvert(isa).half_to_float(x, size, y);
}

// A as the product sees it: rows of `row_bytes` bytes, of A itself or of `owner`.
struct PreparedA {
  bool valid = false;  // false: out of memory
  bool held = true;    // false: the form does not hold an element
  Buffer owner;
  const uint8_t* rows = nullptr;
  int64_t row_bytes = 0;
  int64_t tile = 1;                 // rows that are interleaved
  int64_t batch_rows = 0;           // from one batch to the next: m, filled up to whole tiles
  float tensor_scale = 1;           // of all rows, of formats that have one (see tensor_scales.h)
  const float* elements = nullptr;  // not null: `rows` are not there, tasks quantize these
};

// Makes A ready for the set. T is float or Half.
template <typename T>
PreparedA PrepareA(const MatMulProblem& p, const MatMulKernels& kernels, const T* a, Parallel& parallel);

// The rows [row, row + rows) of a batch of float32 A, from the first of a tile on, by a form that quantizes.
inline void QuantizeRows(const MatMulProblem& p, const RowForm& form, const float* a, int64_t batch,
                         int64_t row, int64_t rows, int64_t tile, uint8_t* to) {
  for (int64_t r = 0; r < rows; r += tile) {
    const float* const x = a + (batch * p.m + row + r) * p.k;
    form.quantize(x, std::min(tile, rows - r), p.k, to + r * form.bytes(p.k), tile);
  }
}

}  // namespace mxcompile

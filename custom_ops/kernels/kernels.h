// What a kernel is: the function types, and the table that a format's row in formats.cc refers to.
//
// Kernels see raw pointers and sizes; the caller has checked everything. Sizes are elements unless they say
// bytes. Codes are packed as in codes.h; a row of k elements has CodeBytes(k, bits) bytes of codes and
// ceil(k / block) groups of scales, and before them the groups that belong to the whole row. A ragged last
// block is shorter.
#pragma once

#include <cstdint>

#include "kernels/codes.h"
#include "kernels/elements.h"

namespace mxcompile {

enum class Isa : int { kScalar = 0, kAvx2 = 1 };
constexpr int kIsaCount = 2;

// A row as kernels see it. A format with one block a row has block = k here, at least 1.
struct RowShape {
  int64_t k;
  int64_t block;
};

// A row of float32 to codes and scales. A block with NaN or Inf gets NaN scales and codes 0. `amax` is the
// largest magnitude in the finite blocks of the whole tensor; 0 for formats without `largest`.
using QuantizeRow = void (*)(const float* x, const RowShape& row, float amax, uint8_t* codes,
                             uint8_t* scales);
// The inverse for the elements [begin, end) of a row; `begin` is a multiple of the block or of kDecodeStep.
using DequantizeRow = void (*)(const uint8_t* codes, const uint8_t* scales, const RowShape& row,
                               int64_t begin, int64_t end, float* x);
// The largest magnitude in the finite blocks of a row.
using LargestInRow = float (*)(const float* x, const RowShape& row);

constexpr int64_t kDecodeStep = 128;  // a multiple of every block size

struct RowKernels {
  QuantizeRow quantize;
  DequantizeRow dequantize;
  LargestInRow largest = nullptr;  // null unless scales depend on the whole tensor
};

struct ConvertKernels {
  void (*half_to_float)(const Half* x, int64_t size, float* y);  // exact
  void (*float_to_half)(const float* x, int64_t size, Half* y);  // to nearest, ties to even
};

// Rows of B as they stand in memory: row r has its codes at codes + r * code_bytes, likewise scales.
struct BRows {
  const uint8_t* codes;
  const uint8_t* scales;
  int64_t code_bytes;
  int64_t scale_bytes;
};

// One product: c[i, j] = sum over k ascending of a[i, k] * b[j, k], one fused multiply-add each, from 0.
// That order makes every instruction set, thread count and tile give the same bits. (Sets of integers say
// themselves what they compute.)
struct GemmArgs {
  const uint8_t* a;  // m prepared rows, `a_stride` bytes apart
  int64_t a_stride;
  int64_t m;
  RowShape row;            // of B
  const RowKernels* rows;  // of B's format
  BRows b;                 // the panel's rows, for a set that does not pack
  int64_t b_rows;          // how many of them exist: at most `panel`
  const uint8_t* packed;   // one panel, for a set that packs
  float* scratch;          // `scratch_floats` of them, 64-byte aligned
  float* c;                // [m, panel], overwritten
};

// A row of A in another form than float32.
struct RowForm {
  int64_t (*bytes)(int64_t k);
  void (*prepare)(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared);
};

// A family of matrix products that share a layout of B. A packed layout belongs to the set: nobody else reads
// it. A set without `pack` reads B's rows as they stand.
struct MatMulKernels {
  int64_t panel;  // rows of B that are multiplied together
  int64_t (*packed_bytes)(const RowShape& row);
  // Packs `rows` <= panel rows; missing ones become zeros.
  void (*pack)(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed);
  int64_t (*scratch_floats)(const RowShape& row);
  void (*gemm)(const GemmArgs& args);
  const RowForm* a_form = nullptr;  // null: A comes as float32 rows, quantized and decoded again
};

// One row of the format table: a new format is a new row.
struct FormatSpec {
  static constexpr int kMaxBlockSizes = 4;
  const char* name;
  int bits;                             // of a code
  int64_t block_sizes[kMaxBlockSizes];  // 0: the whole row; -1: no more
  int64_t default_block;
  int64_t scales_per_block;                // bytes
  int64_t row_groups;                      // groups of scales before those of the blocks
  bool row_bound;                          // a row must be quantized in one piece
  const RowKernels* rows[kIsaCount];       // null where the build has none
  const MatMulKernels* matmul[kIsaCount];  // with float32 rows of A
  // With int8 rows of A, if both have one scale a row; null: `matmul` does that too.
  const MatMulKernels* with_int8[kIsaCount];
};

}  // namespace mxcompile

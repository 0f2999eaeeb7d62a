// What a kernel is: the function types, and the table that a format's row in formats.cc refers to.
//
// Kernels see raw pointers and sizes; the caller has checked everything. Sizes are elements unless they say
// bytes. Codes hold two elements a byte, low nibble first; a row of k elements has ceil(k / 2) bytes of codes
// and ceil(k / block) groups of scales. A ragged last block is shorter.
#pragma once

#include <cstdint>

#include "kernels/elements.h"

namespace mxcompile {

enum class Isa : int { kScalar = 0, kAvx2 = 1 };
constexpr int kIsaCount = 2;

static constexpr int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// A row of float32 to codes and scales. A block with NaN or Inf gets NaN scales and codes 0.
using QuantizeRow = void (*)(const float* x, int64_t k, int64_t block, uint8_t* codes, uint8_t* scales);
// The inverse; exact.
using DequantizeRow = void (*)(const uint8_t* codes, const uint8_t* scales, int64_t k, int64_t block,
                               float* x);

struct RowKernels {
  QuantizeRow quantize;
  DequantizeRow dequantize;
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
// That order makes every instruction set, thread count and tile give the same bits.
struct GemmArgs {
  const float* a;  // m rows, `a_stride` apart
  int64_t a_stride;
  int64_t m;
  int64_t k;
  int64_t block;
  const uint8_t* packed;  // one panel
  float* scratch;         // `scratch_floats` of them, 64-byte aligned
  float* c;               // [m, panel], overwritten
};

// A family of matrix products that share a packed layout of B. The layout belongs to the set: nobody else
// reads it. Every set so far takes A as float32 rows; one that wants another form of A gets a function here
// that prepares it.
struct MatMulKernels {
  int64_t panel;  // rows of B that are packed and multiplied together
  int64_t (*packed_bytes)(int64_t k, int64_t block);
  // Packs `rows` <= panel rows; missing ones become zeros.
  void (*pack)(const BRows& b, int64_t rows, int64_t k, int64_t block, uint8_t* packed);
  int64_t (*scratch_floats)(int64_t k);
  void (*gemm)(const GemmArgs& args);
};

// One row of the format table: a new format is a new row.
struct FormatSpec {
  const char* name;
  int64_t default_block;
  int64_t scales_per_block;                // bytes
  const RowKernels* rows[kIsaCount];       // null where the build has none
  const MatMulKernels* matmul[kIsaCount];  // null: cannot be b_format
};

}  // namespace mxcompile

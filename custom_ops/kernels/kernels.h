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

// From the plainest to the best; each level includes those before it. A level without a kernel of its own
// uses that of the next lower one which has it.
// (Those of another architecture are not there.)
enum class Isa : int { kScalar = 0, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kNeon, kNeonDot };
constexpr int kIsaCount = 7;

// The entry of a table by level that serves `isa`; null if there is none.
template <typename Kernels>
constexpr const Kernels* BestUpTo(const Kernels* const (&table)[kIsaCount], Isa isa) {
  int level = static_cast<int>(isa);
  while (level > 0 && table[level] == nullptr) --level;
  return table[level];
}

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
// That order makes every instruction set, thread count and tile give the same bits. (Sets with a form of A of
// their own say what they compute.)
struct GemmArgs {
  const uint8_t* a;  // m prepared rows, `a_stride` bytes apart if they are not interleaved
  int64_t a_stride;
  int64_t a_tile;  // rows interleaved in A
  int64_t m;
  RowShape row;            // of B
  const RowKernels* rows;  // of B's format
  BRows b;                 // the panel's rows, for a set that does not pack
  int64_t b_rows;          // how many of them exist: at most `panel`
  const uint8_t* packed;   // one panel, for a set that packs
  float* scratch;          // `scratch_floats` of them, 64-byte aligned
  float* c;                // [m, panel], overwritten
  int64_t c_stride;        // from one row of c to the next: `panel`, but see MatMulKernels::direct_k
};

// A row of A in another form than float32, from its codes and scales or from what they stand for.
struct RowForm {
  int64_t (*bytes)(int64_t k);
  // Rows that are interleaved, 4 bytes of each in turn, if A has m; null: none.
  int64_t (*tile)(int64_t m);
  // Writes a row in units of 4 bytes, `step` bytes apart: 4 if rows are not interleaved. Null: the next does.
  void (*prepare)(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step);
  // The same from elements; false: the form does not hold them (see MatMulKernels::otherwise).
  bool (*prepare_elements)(const float* x, int64_t k, uint8_t* prepared, int64_t step) = nullptr;
  // What quantizing by the format that the form is for, and then `prepare`, would write: up to a tile of rows
  // of float32, which follow each other, to a tile of `tile` rows. Null: those two do it.
  void (*quantize)(const float* x, int64_t rows, int64_t k, uint8_t* prepared, int64_t tile) = nullptr;
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
  // The cut into tasks: rows of A in a chunk at most, and what making a weight ready costs in multiply-adds.
  int64_t max_rows = 126;
  int64_t weight_work = 4;
  int64_t direct_k = 0;                      // up to this k, c may have any stride: then it can be Y itself
  const MatMulKernels* otherwise = nullptr;  // with the same layout of B, for A that a_form does not hold
  // c is still to be multiplied by the tensor scales of A and of B's rows: see nvfp4_blocks.h.
  bool tensor_scales_apart = false;
};

// The sets of a format with itself, both in blocks of the default size. m alone decides between few rows of A
// and many; the few may be added up in another order (docs/kernels.md).
constexpr int64_t kPairBlock = 32;

struct PairKernels {
  static constexpr int64_t kFewRows = 3;
  // Of constant B, with one layout of it.
  const MatMulKernels* few;   // up to kFewRows rows of A
  const MatMulKernels* many;  // more, for any m right
  // Of B from the graph: the bits of `many`, whatever m is.
  const MatMulKernels* graph_few = nullptr;   // up to its max_rows rows of A, from B as it comes; null: none
  const MatMulKernels* graph_many = nullptr;  // with a layout that is quicker to pack; null: `many`
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
  const RowKernels* rows[kIsaCount];       // null: see Isa; likewise below
  const MatMulKernels* matmul[kIsaCount];  // with float32 rows of A
  // With int8 rows of A, if both have one scale a row; none: `matmul` does that too.
  const MatMulKernels* with_int8[kIsaCount];
  // With rows of A of the same format, both in blocks of the default size; none: as below.
  const PairKernels* with_itself[kIsaCount];
  // With rows of A of any format that has this too: one whose elements bfloat16 holds; none: `matmul`.
  const MatMulKernels* in_bf16[kIsaCount];
};

}  // namespace mxcompile

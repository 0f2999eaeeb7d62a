// int8 rows times rows of 4-bit integers with the dot products of NEON. What is computed: int8_rows_form.h.
// Data layout: int8_integer_rows__neon.h.
//
// Register plan: 4 rows of A by 4 columns: 16 sums of int32, 2 vectors of B, 8 of A. Per column and 32
// weights: 2 sdot for each row of A; decoding 1 load, 4 operations, 2 stores and 3 for the sum of units.
// Bound: sdot for many rows, decoding for one.
#include "kernels/int8_integer_rows__neon.h"

namespace mxcompile {
namespace {

struct DotSums {
  static constexpr int kRows = 4;

  int32x4_t sums;

  static inline DotSums Zero() { return {vdupq_n_s32(0)}; }
  inline void Add(int8x16_t even, int8x16_t x_even, int8x16_t odd, int8x16_t x_odd) {
    sums = vdotq_s32(vdotq_s32(sums, even, x_even), odd, x_odd);
  }
  inline int32_t Total() const { return vaddvq_s32(sums); }
};

}  // namespace

const MatMulKernels int8_dint4_matmul__neondot = Set<DInt4, DotSums>();
const MatMulKernels int8_int4_matmul__neondot = Set<Int4, DotSums>();

}  // namespace mxcompile

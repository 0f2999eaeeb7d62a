// int8 rows times rows of 4-bit integers with NEON. What is computed: int8_rows_form.h. Data layout:
// int8_integer_rows__neon.h.
//
// Register plan: 2 rows of A by 4 columns: 8 sums of int32, 2 vectors of B, 4 of A, 2 of products. Two
// products of at most 128 * 126 fit int16. Per column and 32 weights: 4 smull and smlal and 2 sadalp for each
// row of A; decoding 1 load, 4 operations, 2 stores and 3 for the sum of units. Bound: the multipliers.
#include "kernels/int8_integer_rows__neon.h"

namespace mxcompile {
namespace {

struct PairSums {
  static constexpr int kRows = 2;

  int32x4_t sums;

  static inline PairSums Zero() { return {vdupq_n_s32(0)}; }
  inline void Add(int8x16_t even, int8x16_t x_even, int8x16_t odd, int8x16_t x_odd) {
    const int16x8_t low = vmull_s8(vget_low_s8(even), vget_low_s8(x_even));
    const int16x8_t high = vmull_high_s8(even, x_even);
    sums = vpadalq_s16(sums, vmlal_s8(low, vget_low_s8(odd), vget_low_s8(x_odd)));
    sums = vpadalq_s16(sums, vmlal_high_s8(high, odd, x_odd));
  }
  inline int32_t Total() const { return vaddvq_s32(sums); }
};

}  // namespace

const MatMulKernels int8_dint4_matmul__neon = Set<DInt4, PairSums>();
const MatMulKernels int8_int4_matmul__neon = Set<Int4, PairSums>();

}  // namespace mxcompile

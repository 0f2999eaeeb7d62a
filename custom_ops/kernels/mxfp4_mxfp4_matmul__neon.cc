// mxfp4 rows times mxfp4 rows with NEON. What is computed: mxfp4_blocks.h. Data layout: fp4_tiles__neon.h.
//
// Register plan: 2 rows of A by 16 rows of B: 16 halves of sums of int16, 4 decoded vectors, the table, a
// vector of A, which dup spreads; the 8 results go to memory and back once a block. Per 4 rows of B and 32
// weights: 4 loads, 8 operations to get at nibbles and 8 tbl, and for each row of A 16 smlal and 5 to finish.
// Bound: the multipliers.
#include "kernels/mxfp4_product__neon.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kAny = Set<MxProduct, WideningSums>();

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__neon = {&kAny, &kAny};

}  // namespace mxcompile

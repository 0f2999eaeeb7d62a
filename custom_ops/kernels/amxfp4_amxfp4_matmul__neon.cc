// Few amxfp4 rows times amxfp4 rows with NEON. What is computed: amxfp4_blocks.h. Data layout:
// fp4_tiles__neon.h.
//
// Register plan, 8 rows of B at a time: 16 halves of sums of int16, 2 tables, words, 2 decoded vectors, 2
// vectors of A. Per 4 rows of B and 32 weights: 4 loads, 8 operations to get at nibbles, 16 tbl, 64 smlal and
// 30 to finish. Bound: the multipliers, one or two a cycle.
#include "kernels/amxfp4_few_rows__neon.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kFew = FewRows<WideningSums>();

}  // namespace

const PairKernels amxfp4_amxfp4_matmul__neon = {&kFew, &f32_amxfp4_matmul__neon};

}  // namespace mxcompile

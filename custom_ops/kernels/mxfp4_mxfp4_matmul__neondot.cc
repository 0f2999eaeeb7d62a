// mxfp4 rows times mxfp4 rows with the dot products of NEON. What is computed: mxfp4_blocks.h. Data layout:
// fp4_tiles__neon.h.
//
// Register plan: 4 rows of A by 16 rows of B: 16 sums of int32, 4 decoded vectors, the table, a vector of A
// whose lanes sdot takes; the 16 results go to memory and back once a block. Per 4 rows of B and 32 weights:
// 4 loads, 8 operations to get at nibbles and 8 tbl, and for each row of A 8 sdot and 3 to finish. Bound:
// sdot for many rows, tbl and memory for one.
#include "kernels/dot_sums__neondot.h"
#include "kernels/mxfp4_product__neon.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kAny = Set<MxProduct, DotSums>();

}  // namespace

const PairKernels mxfp4_mxfp4_matmul__neondot = {&kAny, &kAny};

}  // namespace mxcompile

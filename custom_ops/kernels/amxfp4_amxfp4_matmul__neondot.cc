// Few amxfp4 rows times amxfp4 rows with the dot products of NEON. What is computed: amxfp4_blocks.h. Data
// layout: fp4_tiles__neon.h.
//
// Register plan, 16 rows of B at a time: 16 sums of int32, 4 results, 2 tables, words, 2 decoded vectors, 2
// vectors of A. Per 4 rows of B and 32 weights: 4 loads, 8 operations to get at nibbles, 16 tbl, 32 sdot and
// 22 to finish. Bound: tbl and sdot, two a cycle each on wide cores; memory with several of those.
#include "kernels/amxfp4_few_rows__neon.h"
#include "kernels/dot_sums__neondot.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kFew = FewRows<DotSums>();

}  // namespace

const PairKernels amxfp4_amxfp4_matmul__neondot = {&kFew, &f32_amxfp4_matmul__neon};

}  // namespace mxcompile

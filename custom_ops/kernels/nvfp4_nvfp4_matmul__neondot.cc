// nvfp4 rows times nvfp4 rows with the dot products of NEON. What is computed: nvfp4_blocks.h. Data layout:
// fp4_dot_tiles__neon.h, two blocks a record.
//
// Register plan: as mxfp4_mxfp4_matmul__neondot.cc has it. Per 4 rows of B and 32 weights: 4 loads, 8
// operations to get at nibbles, 8 tbl and 16 for the scales, and for each row of A 8 sdot and 6 to finish.
// Bound: sdot and the ends of the blocks for many rows, tbl and memory for one.
#include "kernels/dot_sums__neondot.h"
#include "kernels/nvfp4_product__neon.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kAny = WithTensorScalesApart(Set<NvProduct, DotSums>());

}  // namespace

const PairKernels nvfp4_nvfp4_matmul__neondot = {&kAny, &kAny};

}  // namespace mxcompile

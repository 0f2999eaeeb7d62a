// nvfp4 rows times nvfp4 rows with NEON. What is computed: nvfp4_blocks.h. Data layout:
// fp4_dot_tiles__neon.h, two blocks a record.
//
// Register plan: as mxfp4_mxfp4_matmul__neon.cc has it. Per 4 rows of B and 32 weights: 4 loads, 8 operations
// to get at nibbles, 8 tbl and 16 for the scales, and for each row of A 16 smlal and 10 to finish. Bound: the
// multipliers.
#include "kernels/nvfp4_product__neon.h"

namespace mxcompile {
namespace {

constexpr MatMulKernels kAny = WithTensorScalesApart(Set<NvProduct, WideningSums>());

}  // namespace

const PairKernels nvfp4_nvfp4_matmul__neon = {&kAny, &kAny};

}  // namespace mxcompile

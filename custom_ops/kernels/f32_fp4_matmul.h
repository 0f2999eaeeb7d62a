// Matrix products of float32 rows with E2M1 rows, one set an instruction set.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {

extern const MatMulKernels f32_amxfp4_matmul__scalar;
extern const MatMulKernels f32_mxfp4_matmul__scalar;
extern const MatMulKernels f32_amxfp4_matmul__avx2;
extern const MatMulKernels f32_mxfp4_matmul__avx2;

}  // namespace mxcompile

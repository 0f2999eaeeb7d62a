// Conversion between float16 and float32, one set an instruction set.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {

extern const ConvertKernels half_convert__scalar;
extern const ConvertKernels half_convert__avx2;
extern const ConvertKernels half_convert__neon;

}  // namespace mxcompile

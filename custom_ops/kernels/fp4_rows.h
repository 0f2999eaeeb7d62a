// Row kernels of the E2M1 formats, one set an instruction set.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {

extern const RowKernels amxfp4_rows__scalar;
extern const RowKernels mxfp4_rows__scalar;
extern const RowKernels amxfp4_rows__avx2;
extern const RowKernels mxfp4_rows__avx2;

}  // namespace mxcompile

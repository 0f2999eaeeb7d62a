// Row kernels, one set a format (or a few that differ in nothing) and instruction set.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {

#define MXC_DECLARE_ROWS(name)            \
  extern const RowKernels name##__scalar; \
  extern const RowKernels name##__avx2;

MXC_DECLARE_ROWS(amxfp4_rows)
MXC_DECLARE_ROWS(amxfp4_pot_rows)
MXC_DECLARE_ROWS(amxfp4_pot_r_rows)
MXC_DECLARE_ROWS(amxfp4_e4m3_rows)
MXC_DECLARE_ROWS(mxfp4_rows)
MXC_DECLARE_ROWS(mxfp4_even_rows)
MXC_DECLARE_ROWS(mxfp6_e3m2_rows)
MXC_DECLARE_ROWS(mxfp6_e2m3_rows)
MXC_DECLARE_ROWS(mxfp8_e4m3_rows)
MXC_DECLARE_ROWS(mxfp8_e5m2_rows)
MXC_DECLARE_ROWS(mxint8_rows)
MXC_DECLARE_ROWS(nvfp4_rows)
MXC_DECLARE_ROWS(amxint4_rows)
MXC_DECLARE_ROWS(dint4_rows)
MXC_DECLARE_ROWS(dint3_rows)
MXC_DECLARE_ROWS(int4_rows)
MXC_DECLARE_ROWS(int8_rows)

extern const RowKernels amxfp4_rows__avx512;
extern const RowKernels amxfp4_pot_rows__avx512;
extern const RowKernels amxfp4_pot_r_rows__avx512;
extern const RowKernels mxfp4_rows__avx512;
extern const RowKernels mxfp4_even_rows__avx512;

extern const RowKernels amxfp4_rows__neon;
extern const RowKernels amxfp4_pot_rows__neon;
extern const RowKernels amxfp4_pot_r_rows__neon;
extern const RowKernels amxfp4_e4m3_rows__neon;
extern const RowKernels mxfp4_rows__neon;
extern const RowKernels mxfp4_even_rows__neon;
extern const RowKernels nvfp4_rows__neon;
extern const RowKernels mxfp6_e3m2_rows__neon;
extern const RowKernels mxfp6_e2m3_rows__neon;
extern const RowKernels mxfp8_e4m3_rows__neon;
extern const RowKernels mxfp8_e5m2_rows__neon;
extern const RowKernels mxint8_rows__neon;
extern const RowKernels dint4_rows__neon;
extern const RowKernels int4_rows__neon;
extern const RowKernels int8_rows__neon;

#undef MXC_DECLARE_ROWS

}  // namespace mxcompile

// Sets of matrix products. f32_*: float32 rows of A times rows of a format; one set serves formats whose
// scales are decoded alike. f32_rows: any format, by its row kernel. int8_*: integers, exact sums.
#pragma once

#include "kernels/kernels.h"

namespace mxcompile {

#define MXC_DECLARE_MATMUL(name)             \
  extern const MatMulKernels name##__scalar; \
  extern const MatMulKernels name##__avx2;

extern const MatMulKernels f32_amxfp4_matmul__avx2;
extern const MatMulKernels f32_amxfp4_columns_matmul__avx2;  // blocks of 32 alone
extern const MatMulKernels f32_amxfp4_pot_matmul__avx2;
extern const MatMulKernels f32_amxfp4_e4m3_matmul__avx2;
extern const MatMulKernels f32_mxfp4_matmul__avx2;
extern const MatMulKernels f32_nvfp4_matmul__avx2;
extern const MatMulKernels f32_mxfp6_e3m2_matmul__avx2;
extern const MatMulKernels f32_mxfp6_e2m3_matmul__avx2;
extern const MatMulKernels f32_mxfp8_e4m3_matmul__avx2;
extern const MatMulKernels f32_mxfp8_e5m2_matmul__avx2;
extern const MatMulKernels f32_mxint8_matmul__avx2;
extern const MatMulKernels f32_amxfp4_matmul__avx512;
extern const MatMulKernels f32_amxfp4_pot_matmul__avx512;
extern const MatMulKernels f32_amxfp4_e4m3_matmul__avx512;
extern const MatMulKernels f32_mxfp4_matmul__avx512;
extern const MatMulKernels f32_nvfp4_matmul__avx512;
extern const MatMulKernels f32_mxfp6_e3m2_matmul__avx512;
extern const MatMulKernels f32_mxfp6_e2m3_matmul__avx512;
extern const MatMulKernels f32_mxfp8_e4m3_matmul__avx512;
extern const MatMulKernels f32_mxfp8_e5m2_matmul__avx512;
extern const MatMulKernels f32_mxint8_matmul__avx512;
MXC_DECLARE_MATMUL(f32_rows_matmul)
MXC_DECLARE_MATMUL(int8_dint4_matmul)
MXC_DECLARE_MATMUL(int8_dint3_matmul)
MXC_DECLARE_MATMUL(int8_int4_matmul)
MXC_DECLARE_MATMUL(int8_int8_matmul)
extern const MatMulKernels int8_dint4_matmul__avx512vnni;
extern const MatMulKernels int8_dint3_matmul__avx512vnni;
extern const MatMulKernels int8_int4_matmul__avx512vnni;
extern const MatMulKernels int8_int8_matmul__avx512vnni;
extern const MatMulKernels int8_dint4_matmul__neon;
extern const MatMulKernels int8_dint4_matmul__neondot;
extern const MatMulKernels int8_int4_matmul__neon;
extern const MatMulKernels int8_int4_matmul__neondot;

// The layouts of f32_amxfp4_columns_matmul__avx2 and f32_mxfp4_matmul__avx2, and one like it for nvfp4
// without tensor scales.
int64_t PackedAmxfp4Bytes__avx2(const RowShape& row);
int64_t PackedMxfp4Bytes__avx2(const RowShape& row);
int64_t PackedNvfp4Bytes__avx2(const RowShape& row);
void PackAmxfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed);
void PackMxfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed);
void PackNvfp4__avx2(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed);

// Of one format with itself.
extern const PairKernels amxfp4_amxfp4_matmul__scalar;
extern const PairKernels amxfp4_amxfp4_matmul__avx2;
extern const PairKernels amxfp4_amxfp4_matmul__avx512;
extern const PairKernels amxfp4_amxfp4_matmul__avx512vnni;
extern const PairKernels amxfp4_amxfp4_matmul__avx512bf16;
extern const PairKernels mxfp4_mxfp4_matmul__scalar;
extern const PairKernels mxfp4_mxfp4_matmul__avx2;
extern const PairKernels mxfp4_mxfp4_matmul__avx512vnni;
extern const PairKernels mxfp4_even_mxfp4_even_matmul__avx512vnni;
extern const MatMulKernels mxfp4_mxfp4_rows_matmul__avx512vnni;
extern const MatMulKernels mxfp4_even_mxfp4_even_rows_matmul__avx512vnni;
extern const PairKernels nvfp4_nvfp4_matmul__scalar;
extern const PairKernels nvfp4_nvfp4_matmul__avx2;
extern const PairKernels nvfp4_nvfp4_matmul__avx512vnni;
extern const MatMulKernels amxfp4_few_matmul__avx2;
extern const MatMulKernels amxfp4_few_matmul__avx512vnni;
extern const MatMulKernels f32_amxfp4_tiles_matmul__avx512;
extern const MatMulKernels bf16_amxfp4_matmul__avx512bf16;
extern const MatMulKernels bf16_amxfp4_rows_matmul__avx512bf16;
// Of a format with any other whose elements bfloat16 holds.
extern const MatMulKernels bf16_amxfp4_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_amxfp4_pot_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_amxfp4_e4m3_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxfp4_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxfp6_e3m2_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxfp6_e2m3_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxfp8_e4m3_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxfp8_e5m2_packed_matmul__avx512bf16;
extern const MatMulKernels bf16_mxint8_packed_matmul__avx512bf16;
extern const PairKernels amxfp4_amxfp4_matmul__neon;
extern const PairKernels amxfp4_amxfp4_matmul__neondot;
extern const PairKernels mxfp4_mxfp4_matmul__neon;
extern const PairKernels mxfp4_mxfp4_matmul__neondot;
extern const PairKernels nvfp4_nvfp4_matmul__neon;
extern const PairKernels nvfp4_nvfp4_matmul__neondot;
extern const MatMulKernels f32_rows_matmul__neon;
extern const MatMulKernels f32_amxfp4_matmul__neon;  // blocks of 32 alone

#undef MXC_DECLARE_MATMUL

}  // namespace mxcompile

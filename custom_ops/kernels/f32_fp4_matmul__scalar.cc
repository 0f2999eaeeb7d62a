// float32 rows times E2M1 rows, one element at a time: the reference.
//
// Data layout: a panel is 8 rows as they come, [8][codes of a row, then scales of a row]. A row is decoded
// once into scratch and multiplied with every row of A: k ascending, std::fma, exactly as kernels.h says.
#include <algorithm>

#include "kernels/f32_fp4_matmul.h"
#include "kernels/fp4_rows.h"
#include "kernels/fp4_scales.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

template <typename Scales>
int64_t RowBytes(int64_t k, int64_t block) {
  return CeilDiv(k, 2) + CeilDiv(k, block) * Scales::kCount;
}

template <typename Scales>
int64_t PackedBytes(int64_t k, int64_t block) {
  return kPanel * RowBytes<Scales>(k, block);
}

template <typename Scales>
void Pack(const BRows& b, int64_t rows, int64_t k, int64_t block, uint8_t* packed) {
  const int64_t row_bytes = RowBytes<Scales>(k, block);
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* row = packed + r * row_bytes;
    std::copy_n(b.codes + r * b.code_bytes, b.code_bytes, row);
    std::copy_n(b.scales + r * b.scale_bytes, b.scale_bytes, row + b.code_bytes);
  }
  std::fill_n(packed + rows * row_bytes, (kPanel - rows) * row_bytes, uint8_t{0});
}

int64_t ScratchFloats(int64_t k) { return k; }

template <typename Scales>
void Gemm(const GemmArgs& args) {
  const RowKernels& rows = Scales::kCount == 2 ? amxfp4_rows__scalar : mxfp4_rows__scalar;
  const int64_t row_bytes = RowBytes<Scales>(args.k, args.block);
  for (int64_t j = 0; j < kPanel; ++j) {
    const uint8_t* codes = args.packed + j * row_bytes;
    rows.dequantize(codes, codes + CeilDiv(args.k, 2), args.k, args.block, args.scratch);
    for (int64_t i = 0; i < args.m; ++i) {
      const float* a = args.a + i * args.a_stride;
      float sum = 0.0f;
      for (int64_t k = 0; k < args.k; ++k) sum = std::fma(a[k], args.scratch[k], sum);
      args.c[i * kPanel + j] = sum;
    }
  }
}

template <typename Scales>
constexpr MatMulKernels Set() {
  return {kPanel, PackedBytes<Scales>, Pack<Scales>, ScratchFloats, Gemm<Scales>};
}

}  // namespace

const MatMulKernels f32_amxfp4_matmul__scalar = Set<AmxScales>();
const MatMulKernels f32_mxfp4_matmul__scalar = Set<MxScales>();

}  // namespace mxcompile

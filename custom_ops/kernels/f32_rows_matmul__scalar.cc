// float32 rows times rows of any format, one element at a time: the reference.
//
// Data layout: B as it comes. A row is decoded once into scratch and multiplied with every row of A: k
// ascending, std::fma, exactly as kernels.h says.
#include <cmath>

#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

int64_t ScratchFloats(const RowShape& row) { return row.k; }

void Gemm(const GemmArgs& args) {
  for (int64_t j = 0; j < args.b_rows; ++j) {
    args.rows->dequantize(args.b.codes + j * args.b.code_bytes, args.b.scales + j * args.b.scale_bytes,
                          args.row, 0, args.row.k, args.scratch);
    for (int64_t i = 0; i < args.m; ++i) {
      const float* a = reinterpret_cast<const float*>(args.a + i * args.a_stride);
      float sum = 0.0f;
      for (int64_t k = 0; k < args.row.k; ++k) sum = std::fma(a[k], args.scratch[k], sum);
      args.c[i * kPanel + j] = sum;
    }
  }
}

}  // namespace

const MatMulKernels f32_rows_matmul__scalar = {kPanel, nullptr, nullptr, ScratchFloats, Gemm};

}  // namespace mxcompile

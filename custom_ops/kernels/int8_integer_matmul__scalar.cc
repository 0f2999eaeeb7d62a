// int8 rows times integer rows, one element at a time: the reference. What is computed: see int8_rows_form.h.
//
// Data layout: B as it comes; a row is decoded once to int16 units in scratch. Sums are int64.
#include "kernels/int8_rows_form.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 8;

int64_t ScratchFloats(const RowShape& row) { return CeilDiv(row.k, 2); }

template <typename Number>
void Gemm(const GemmArgs& args) {
  auto* units = reinterpret_cast<int16_t*>(args.scratch);
  for (int64_t j = 0; j < args.b_rows; ++j) {
    const uint8_t* codes = args.b.codes + j * args.b.code_bytes;
    const uint8_t* scales = args.b.scales + j * args.b.scale_bytes;
    const int z = args.row.k > 0 ? Number::Load(scales).z : 0;
    const float unit_scale = args.row.k > 0 ? UnitScale<Number>(scales) : 0.0f;
    for (int64_t k = 0; k < args.row.k; ++k)
      units[k] = static_cast<int16_t>(Number::Units(GetCode(codes, k, Number::kBits), z));
    for (int64_t i = 0; i < args.m; ++i) {
      const uint8_t* prepared = args.a + i * args.a_stride;
      const int16_t* a = UnitsOfRow(prepared);
      int64_t sum = 0;
      for (int64_t k = 0; k < args.row.k; ++k) sum += a[k] * units[k];
      args.c[i * kPanel + j] = ScaleOfRow(prepared) * unit_scale * static_cast<float>(sum);
    }
  }
}

template <typename Number>
constexpr MatMulKernels Set() {
  return {kPanel, nullptr, nullptr, ScratchFloats, Gemm<Number>, &kInt8Form};
}

}  // namespace

const MatMulKernels int8_dint4_matmul__scalar = Set<DInt4>();
const MatMulKernels int8_dint3_matmul__scalar = Set<DInt3>();
const MatMulKernels int8_int4_matmul__scalar = Set<Int4>();
const MatMulKernels int8_int8_matmul__scalar = Set<Int8>();

}  // namespace mxcompile

// float32 rows times rows of block-scaled elements with AVX512.
//
// Data layout: packed_panels__avx512.h.
//
// Up to three rows of A decode in registers: 4 sums a row (64 columns), 4 vectors of words, 4 or 8 factors, a
// table, a broadcast. Decoding takes four operations a vector or more, so that chained multiply-adds do not
// wait.
//
// More rows: 128 k of the panel are decoded once to [128][64] float32 (32 KB, L1), then multiplied in tiles
// of 6 rows x 64 columns: 24 sums, 4 vectors of B, a broadcast. 24 multiply-adds take 10 loads and 12 cycles.
// The sums of a tile are spilled to c between pieces of k: the same order of additions, hence the same bits.
// Bound: vfmadd, two a cycle.
#include "kernels/matmul_kernels.h"
#include "kernels/pack_panels__avx512.h"

namespace mxcompile {
namespace {

constexpr int64_t kTileRows = 6;

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kWidePanel; }

// c[kRows, 64] += a[kRows, size] * b[size, 64].
template <int kRows>
[[gnu::flatten]] void MultiplyTile(const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  __m512 sums[kRows][kQuarters];
  Unroll<kRows>([&](auto r) {
    Unroll<kQuarters>([&](auto q) { sums[r][q] = _mm512_loadu_ps(c + r * kWidePanel + kLanes * q); });
  });
  for (int64_t i = 0; i < size; ++i, b += kWidePanel) {
    __m512 columns[kQuarters];
    Unroll<kQuarters>([&](auto q) { columns[q] = _mm512_load_ps(b + kLanes * q); });
    Unroll<kRows>([&](auto r) {
      const __m512 x = _mm512_set1_ps(a[r * a_stride + i]);
      Unroll<kQuarters>([&](auto q) { sums[r][q] = _mm512_fmadd_ps(x, columns[q], sums[r][q]); });
    });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<kQuarters>([&](auto q) { _mm512_storeu_ps(c + r * kWidePanel + kLanes * q, sums[r][q]); });
  });
}

using Multiply = void (*)(const float*, int64_t, const float*, int64_t, float*);
constexpr Multiply kMultiply[kTileRows] = {MultiplyTile<1>, MultiplyTile<2>, MultiplyTile<3>,
                                           MultiplyTile<4>, MultiplyTile<5>, MultiplyTile<6>};

template <typename Layout>
void Gemm(const GemmArgs& args) {
  const auto* all = reinterpret_cast<const float*>(args.a);
  const int64_t stride = args.a_stride / static_cast<int64_t>(sizeof(float));
  if (args.m <= kDirectRows) return kMultiplyRows<Layout>[args.m - 1](args, all, stride, args.c);
  std::memset(args.c, 0, static_cast<size_t>(args.m * kWidePanel) * sizeof(float));
  for (int64_t start = 0; start < args.row.k; start += kDecodeStep) {
    const int64_t size = args.row.k - start < kDecodeStep ? args.row.k - start : kDecodeStep;
    DecodePiece<Layout>(args, start, start + size, args.scratch);
    for (int64_t row = 0; row < args.m; row += kTileRows) {
      const int64_t rows = args.m - row < kTileRows ? args.m - row : kTileRows;
      kMultiply[rows - 1](all + row * stride + start, stride, args.scratch, size, args.c + row * kWidePanel);
    }
  }
}

template <typename Scales, typename Words>
constexpr MatMulKernels Set() {
  using Layout = LayoutOf<Scales, Words>;
  return {kWidePanel, PackedBytes<Layout>, Pack<Layout>, ScratchFloats, Gemm<Layout>};
}

template <typename Element>
constexpr MatMulKernels MxSet() {
  return Set<ByteScales<PowerDecode<1>>, ByteWords<Element>>();
}

}  // namespace

const MatMulKernels f32_amxfp4_matmul__avx512 = Set<ByteScales<AmxDecode>, Fp4Words>();
const MatMulKernels f32_amxfp4_pot_matmul__avx512 = Set<ByteScales<PowerDecode<2>>, Fp4Words>();
const MatMulKernels f32_amxfp4_e4m3_matmul__avx512 = Set<ByteScales<AmxE4M3Decode>, Fp4Words>();
const MatMulKernels f32_mxfp4_matmul__avx512 = Set<ByteScales<PowerDecode<1>>, Fp4Words>();
const MatMulKernels f32_nvfp4_matmul__avx512 = Set<NvProducts, Fp4Words>();
const MatMulKernels f32_mxfp6_e3m2_matmul__avx512 = MxSet<E3M2>();
const MatMulKernels f32_mxfp6_e2m3_matmul__avx512 = MxSet<E2M3>();
const MatMulKernels f32_mxfp8_e4m3_matmul__avx512 = MxSet<E4M3>();
const MatMulKernels f32_mxfp8_e5m2_matmul__avx512 = MxSet<E5M2>();
const MatMulKernels f32_mxint8_matmul__avx512 = MxSet<MxInt8>();

}  // namespace mxcompile

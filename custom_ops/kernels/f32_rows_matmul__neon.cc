// float32 rows times rows of any format with NEON.
//
// Data layout: B as it comes, 16 rows a panel. A piece of 128 k is decoded by the format's row kernel, 4 rows
// at a time to [4][128], and transposed in registers, 4 x 4, to the [128][16] that f32_tile__neon.h
// multiplies. Columns that do not exist are zeros.
//
// Register plan: f32_tile__neon.h. Per 4 columns and k: what the row kernel takes for four elements, 4
// operations to transpose, and one fmla for each row of A. Bound: fmla, for few rows of A the row kernel.
#include "kernels/decode_rows.h"
#include "kernels/f32_tile__neon.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kRows = 4;  // decoded together

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * (kTilePanel + kRows); }

// [4][128] to columns of [128][16].
void Transpose(const float* rows, float* columns) {
  for (int64_t i = 0; i < kDecodeStep; i += 4, columns += 4 * kTilePanel) {
    const float32x4_t r0 = vld1q_f32(rows + i), r1 = vld1q_f32(rows + kDecodeStep + i),
                      r2 = vld1q_f32(rows + 2 * kDecodeStep + i), r3 = vld1q_f32(rows + 3 * kDecodeStep + i);
    const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1)),
                      odd01 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1)),
                      even23 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3)),
                      odd23 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    const float64x2_t turned[4] = {vtrn1q_f64(even01, even23), vtrn1q_f64(odd01, odd23),
                                   vtrn2q_f64(even01, even23), vtrn2q_f64(odd01, odd23)};
    for (int t = 0; t < 4; ++t) vst1q_f32(columns + t * kTilePanel, vreinterpretq_f32_f64(turned[t]));
  }
}

void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, float* rows, float* decoded) {
  for (int64_t first = 0; first < kTilePanel; first += kRows) {
    DecodeRows(args, first, kRows, start, end, rows);
    Transpose(rows, decoded + first);
  }
}

void Gemm(const GemmArgs& args) {
  float* const rows = args.scratch + kDecodeStep * kTilePanel;
  ForPieces(args, args.scratch,
            [&](int64_t start, int64_t end) { DecodePiece(args, start, end, rows, args.scratch); });
}

}  // namespace

const MatMulKernels f32_rows_matmul__neon = {kTilePanel, nullptr, nullptr, ScratchFloats, Gemm};

}  // namespace mxcompile

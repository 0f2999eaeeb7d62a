// float32 rows times rows of any format with AVX2 and FMA.
//
// Data layout: B as it comes, 32 rows a panel. A piece of 128 k is decoded by the format's row kernel, 8 rows
// at a time to [8][128], and transposed in registers, 8 x 8, to the [128][32] that f32_tile__avx2.h
// multiplies. Decoding a weight costs a few multiplications: it pays from a handful of rows of A on. Columns
// that do not exist are zeros.
#include "kernels/decode_rows.h"
#include "kernels/f32_tile__avx2.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kRows = 8;  // decoded together

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * (kPanel + kRows); }

// [8][128] to columns of [128][32].
void Transpose(const float* rows, float* columns) {
  for (int64_t i = 0; i < kDecodeStep; i += 8) {
    __m256 r[8], s[8];
    for (int j = 0; j < 8; ++j) r[j] = _mm256_load_ps(rows + j * kDecodeStep + i);
    for (int j = 0; j < 8; j += 2) {
      s[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
      s[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    for (int j = 0; j < 8; j += 4) {
      r[j] = _mm256_shuffle_ps(s[j], s[j + 2], 0x44);
      r[j + 1] = _mm256_shuffle_ps(s[j], s[j + 2], 0xEE);
      r[j + 2] = _mm256_shuffle_ps(s[j + 1], s[j + 3], 0x44);
      r[j + 3] = _mm256_shuffle_ps(s[j + 1], s[j + 3], 0xEE);
    }
    for (int j = 0; j < 4; ++j) {
      _mm256_store_ps(columns + (i + j) * kPanel, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
      _mm256_store_ps(columns + (i + j + 4) * kPanel, _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
    }
  }
}

void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, float* rows, float* decoded) {
  for (int64_t first = 0; first < kPanel; first += kRows) {
    DecodeRows(args, first, kRows, start, end, rows);
    Transpose(rows, decoded + first);
  }
}

void Gemm(const GemmArgs& args) {
  float* const rows = args.scratch + kDecodeStep * kPanel;
  ForPieces(args, args.scratch,
            [&](int64_t start, int64_t end) { DecodePiece(args, start, end, rows, args.scratch); });
}

}  // namespace

const MatMulKernels f32_rows_matmul__avx2 = {kPanel, nullptr, nullptr, ScratchFloats, Gemm};

}  // namespace mxcompile

// Multiplying float32 rows of A with a decoded panel of B in AVX2; unnamed namespace: see elements.h.
//
// Data layout: 128 k of the panel are decoded once to [128][32] float32 (16 KB, L1), then multiplied in tiles
// of 6 rows x 16 columns: 12 accumulators, 2 vectors of B, a broadcast of A; 12 independent chains cover the
// latency of two FMA units (4 cycles each). 1 to 3 leftover rows take 32 columns for the same reason. The
// sums of a tile are spilled to c between pieces of k: the same order of additions, hence the same bits.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kPanel = 32;

// c[kRows, 8 * kColumns] += a[kRows, size] * b[size, ...]; b has rows of 32, c those of kStride.
template <int64_t kStride, int kRows, int kColumns>
void MultiplyTile(const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  __m256 sums[kRows][kColumns];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kColumns; ++j) sums[r][j] = _mm256_loadu_ps(c + r * kStride + 8 * j);
  }
  for (int64_t i = 0; i < size; ++i, b += kPanel) {
    __m256 columns[kColumns];
    for (int j = 0; j < kColumns; ++j) columns[j] = _mm256_load_ps(b + 8 * j);
    for (int r = 0; r < kRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(a + r * a_stride + i);
      for (int j = 0; j < kColumns; ++j) sums[r][j] = _mm256_fmadd_ps(x, columns[j], sums[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kColumns; ++j) _mm256_storeu_ps(c + r * kStride + 8 * j, sums[r][j]);
  }
}

// 1 to 6 rows by the whole panel.
template <int64_t kStride>
void MultiplyRows(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  switch (rows) {
    case 1:
      return MultiplyTile<kStride, 1, 4>(a, a_stride, b, size, c);
    case 2:
      return MultiplyTile<kStride, 2, 4>(a, a_stride, b, size, c);
    case 3:
      return MultiplyTile<kStride, 3, 4>(a, a_stride, b, size, c);
    case 4:
      MultiplyTile<kStride, 4, 2>(a, a_stride, b, size, c);
      return MultiplyTile<kStride, 4, 2>(a, a_stride, b + 16, size, c + 16);
    case 5:
      MultiplyTile<kStride, 5, 2>(a, a_stride, b, size, c);
      return MultiplyTile<kStride, 5, 2>(a, a_stride, b + 16, size, c + 16);
    default:
      MultiplyTile<kStride, 6, 2>(a, a_stride, b, size, c);
      return MultiplyTile<kStride, 6, 2>(a, a_stride, b + 16, size, c + 16);
  }
}

// c = A . B^T: calls decode(start, end) for each piece of k, which has to leave it in `decoded`.
template <int64_t kStride = kPanel, typename Decode>
inline void ForPieces(const GemmArgs& args, const float* decoded, const Decode& decode) {
  constexpr int64_t kTileRows = 6;
  for (int64_t row = 0; row < args.m; ++row) {
    for (int64_t j = 0; j < kPanel; j += 8) _mm256_storeu_ps(args.c + row * kStride + j, _mm256_setzero_ps());
  }
  for (int64_t start = 0; start < args.row.k; start += kDecodeStep) {
    const int64_t size = args.row.k - start < kDecodeStep ? args.row.k - start : kDecodeStep;
    decode(start, start + size);
    for (int64_t row = 0; row < args.m; row += kTileRows) {
      const int64_t rows = args.m - row < kTileRows ? args.m - row : kTileRows;
      const float* a = reinterpret_cast<const float*>(args.a + row * args.a_stride);
      MultiplyRows<kStride>(rows, a + start, args.a_stride / static_cast<int64_t>(sizeof(float)), decoded,
                            size, args.c + row * kStride);
    }
  }
}

}  // namespace
}  // namespace mxcompile

// Products of float32 rows with a decoded panel with NEON; unnamed namespace: see elements.h.
//
// Data layout: a piece of 128 k of a panel is decoded to [128][16] float32 (8 KB, L1).
//
// Register plan: 4 rows of A by 16 columns: 16 sums, 4 vectors of B, 4 of A (4 k of a row), whose lanes fmla
// takes; the sums of a tile go to c between pieces of k: the same order of additions, hence the same bits.
#pragma once

#include "kernels/fp4_tiles__neon.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

// c[kCount, 16] += a[kCount, size] * b[size, 16].
template <int kCount>
[[gnu::flatten]] void MultiplyTile(const float* a, int64_t a_stride, const float* b, int64_t size, float* c) {
  float32x4_t sums[kCount][kTileVectors];
  Unroll<kCount>([&](auto r) {
    Unroll<kTileVectors>([&](auto v) { sums[r][v] = vld1q_f32(c + r * kTilePanel + 4 * v); });
  });
  const auto add = [&](const float* columns, auto x_of) {
    float32x4_t w[kTileVectors];
    Unroll<kTileVectors>([&](auto v) { w[v] = vld1q_f32(columns + 4 * v); });
    Unroll<kCount>(
        [&](auto r) { Unroll<kTileVectors>([&](auto v) { sums[r][v] = x_of(r, sums[r][v], w[v]); }); });
  };
  int64_t i = 0;
  for (; i + 4 <= size; i += 4, b += 4 * kTilePanel) {
    float32x4_t x[kCount];
    Unroll<kCount>([&](auto r) { x[r] = vld1q_f32(a + r * a_stride + i); });
    Unroll<4>([&](auto t) {
      add(b + t * kTilePanel,
          [&](auto r, float32x4_t sum, float32x4_t w) { return vfmaq_laneq_f32(sum, w, x[r], t); });
    });
  }
  for (; i < size; ++i, b += kTilePanel) {
    add(b, [&](auto r, float32x4_t sum, float32x4_t w) { return vfmaq_n_f32(sum, w, a[r * a_stride + i]); });
  }
  Unroll<kCount>([&](auto r) {
    Unroll<kTileVectors>([&](auto v) { vst1q_f32(c + r * kTilePanel + 4 * v, sums[r][v]); });
  });
}

// c = A . B^T: calls decode(start, end) for each piece of k, which has to leave it in `decoded`.
template <typename Decode>
inline void ForPieces(const GemmArgs& args, const float* decoded, const Decode& decode) {
  constexpr int kRows = 4;
  const int64_t stride = args.a_stride / static_cast<int64_t>(sizeof(float));
  std::memset(args.c, 0, static_cast<size_t>(args.m * kTilePanel) * sizeof(float));
  for (int64_t start = 0; start < args.row.k; start += kDecodeStep) {
    const int64_t size = args.row.k - start < kDecodeStep ? args.row.k - start : kDecodeStep;
    decode(start, start + size);
    const float* a = reinterpret_cast<const float*>(args.a) + start;
    int64_t row = 0;
    for (; row + kRows <= args.m; row += kRows)
      MultiplyTile<kRows>(a + row * stride, stride, decoded, size, args.c + row * kTilePanel);
    for (; row < args.m; ++row)
      MultiplyTile<1>(a + row * stride, stride, decoded, size, args.c + row * kTilePanel);
  }
}

}  // namespace
}  // namespace mxcompile

// mxfp4 rows times mxfp4 rows with NEON; what is computed: mxfp4_blocks.h. `Sums` adds up products of bytes:
// WideningSums or DotSums. Unnamed namespace: see elements.h.
//
// Data layout: fp4_tiles__neon.h. B is decoded in registers, for Sums::kRows rows of A at a time.
#pragma once

#include "kernels/fp4_tiles__neon.h"
#include "kernels/matmul_kernels.h"
#include "kernels/mxfp4_blocks.h"

namespace mxcompile {
namespace {

using MxLayout = Tiles<1>;

struct MxBlock {
  int8_t elements[kPairBlock];  // doubled, in the order of steps
  float scale;                  // a quarter of the block's
};

int64_t MxRowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * static_cast<int64_t>(sizeof(MxBlock)); }

void PrepareMx(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<MxBlock*>(prepared);
  const int8x16_t table = vld1q_s8(kDoubledSigned);
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, ++scales) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const Ordered elements = InSteps(BlockCodes(codes + start / 2, count));
    vst1q_s8(block->elements, vqtbl1q_s8(table, elements.first));
    vst1q_s8(block->elements + 16, vqtbl1q_s8(table, elements.last));
    block->scale = DecodeE8M0(*scales) * 0.25f;
  }
}

constexpr RowForm kMxForm = {MxRowBytes, nullptr, PrepareMx};

// The sums of a block of kRows rows with 16 rows of B, from their words on.
template <typename Sums, int kRows>
inline void MultiplyBlock(const MxBlock* const (&a)[kRows], const uint8_t* words,
                          Sums (&sums)[kRows][kTileVectors]) {
  const int8x16_t table = vld1q_s8(kDoubledSigned);
  Unroll<kRows>([&](auto r) { Unroll<kTileVectors>([&](auto v) { sums[r][v] = Sums::Zero(); }); });
  Unroll<kSteps>([&](auto step) {
    int8x16_t b[kTileVectors];
    Unroll<kTileVectors>([&](auto v) {
      const uint8x16_t both = vld1q_u8(words + step / 2 * kGroupBytes + 16 * v);
      b[v] = vqtbl1q_s8(table, StepCodes<step>(both));
    });
    Unroll<kRows>([&](auto r) {
      const int8x16_t x = vld1q_s8(a[r]->elements + step / 4 * 16);
      Unroll<kTileVectors>([&](auto v) { sums[r][v].template Add<step % 4>(b[v], x); });
    });
  });
}

template <typename Sums, int kRows>
[[gnu::flatten]] void MxTile(const GemmArgs& args, int64_t row) {
  const int64_t blocks = CeilDiv(args.row.k, kPairBlock);
  const uint8_t* record = args.packed;
  const MxBlock* a[kRows];
  float32x4_t y[kRows][kTileVectors];
  Unroll<kRows>([&](auto r) {
    a[r] = reinterpret_cast<const MxBlock*>(args.a + (row + r) * args.a_stride);
    Unroll<kTileVectors>([&](auto v) { y[r][v] = vdupq_n_f32(0.0f); });
  });
  for (int64_t i = 0; i < blocks; ++i, record += MxLayout::kRecord) {
    Sums sums[kRows][kTileVectors];
    MultiplyBlock(a, record + MxLayout::kScales, sums);
    Unroll<kTileVectors>([&](auto v) {
      const float32x4_t scales = ScalesE8M0(record + 4 * v);
      Unroll<kRows>([&](auto r) {
        const float32x4_t s = vmulq_f32(scales, vcvtq_f32_s32(sums[r][v].Total()));
        y[r][v] = vfmaq_n_f32(y[r][v], s, a[r]->scale);
      });
    });
    Unroll<kRows>([&](auto r) { ++a[r]; });
  }
  Unroll<kRows>([&](auto r) {
    Unroll<kTileVectors>([&](auto v) { vst1q_f32(args.c + (row + r) * kTilePanel + 4 * v, y[r][v]); });
  });
}

template <typename Sums>
void MxRows(const GemmArgs& args) {
  int64_t row = 0;
  for (; row + Sums::kRows <= args.m; row += Sums::kRows) MxTile<Sums, Sums::kRows>(args, row);
  for (; row < args.m; ++row) MxTile<Sums, 1>(args, row);
}

int64_t NoScratch(const RowShape&) { return 0; }

template <typename Sums>
constexpr MatMulKernels MxSet() {
  return {kTilePanel, MxLayout::PackedBytes, MxLayout::Pack, NoScratch, MxRows<Sums>, &kMxForm};
}

}  // namespace
}  // namespace mxcompile

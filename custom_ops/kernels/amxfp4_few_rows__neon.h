// One to three amxfp4 rows times amxfp4 rows with NEON; what is computed: amxfp4_blocks.h. `Sums` adds up
// products of bytes: WideningSums or DotSums. Unnamed namespace: see elements.h.
//
// Data layout: fp4_tiles__neon.h.
#pragma once

#include "kernels/amxfp4_blocks.h"
#include "kernels/fp4_tiles__neon.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

using AmxLayout = Tiles<2>;

// Doubled magnitudes of the codes above and below zero.
inline int8x16_t SideTable(bool above) {
  const int8x8_t magnitudes = vreinterpret_s8_u8(vld1_u8(kDoubled)), none = vdup_n_s8(0);
  return above ? vcombine_s8(magnitudes, none) : vcombine_s8(none, magnitudes);
}

void PrepareAmx(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t) {
  auto* block = reinterpret_cast<AmxBlock*>(prepared);
  const uint8x16_t above = vreinterpretq_u8_s8(SideTable(true)),
                   below = vreinterpretq_u8_s8(SideTable(false));
  for (int64_t start = 0; start < k; start += kPairBlock, ++block, scales += 2) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const Ordered elements = InSteps(BlockCodes(codes + start / 2, count));
    vst1q_u8(block->above, vqtbl1q_u8(above, elements.first));
    vst1q_u8(block->above + 16, vqtbl1q_u8(above, elements.last));
    vst1q_u8(block->below, vqtbl1q_u8(below, elements.first));
    vst1q_u8(block->below + 16, vqtbl1q_u8(below, elements.last));
    block->above_scale = AmxScale::Decode(scales[0]) * 0.25f;
    block->below_scale = AmxScale::Decode(scales[1]) * 0.25f;
  }
}

constexpr RowForm kAmxForm = {AmxBlocksBytes, nullptr, PrepareAmx};

inline float32x4_t Combine(int32x4_t with_above, int32x4_t with_below, float32x4_t above, float32x4_t below) {
  return vfmsq_f32(vmulq_f32(above, vcvtq_f32_s32(with_above)), below, vcvtq_f32_s32(with_below));
}

// y of 4 * kVectors rows of B after one more block; their words and scales begin here.
template <typename Sums, int kVectors>
inline void AddBlock(const AmxBlock& a, const uint8_t* words, const uint8_t* scales, float32x4_t* y) {
  const int8x16_t above_table = SideTable(true), below_table = SideTable(false);
  const auto* a_above = reinterpret_cast<const int8_t*>(a.above);
  const auto* a_below = reinterpret_cast<const int8_t*>(a.below);
  Sums sums[kVectors][2][2];  // by the signs of a and b
  Unroll<kVectors>(
      [&](auto v) { Unroll<4>([&](auto side) { sums[v][side / 2][side % 2] = Sums::Zero(); }); });
  Unroll<kSteps>([&](auto step) {
    const int8x16_t x_above = vld1q_s8(a_above + step / 4 * 16), x_below = vld1q_s8(a_below + step / 4 * 16);
    Unroll<kVectors>([&](auto v) {
      const uint8x16_t codes = StepCodes<step>(vld1q_u8(words + step / 2 * kGroupBytes + 16 * v));
      const int8x16_t above = vqtbl1q_s8(above_table, codes), below = vqtbl1q_s8(below_table, codes);
      sums[v][0][0].template Add<step % 4>(above, x_above);
      sums[v][0][1].template Add<step % 4>(below, x_above);
      sums[v][1][0].template Add<step % 4>(above, x_below);
      sums[v][1][1].template Add<step % 4>(below, x_below);
    });
  });
  Unroll<kVectors>([&](auto v) {
    const float32x4_t above = ScalesE5M2(scales + 4 * v), below = ScalesE5M2(scales + kTilePanel + 4 * v);
    const auto& s = sums[v];
    y[v] = vfmaq_n_f32(y[v], Combine(s[0][0].Total(), s[0][1].Total(), above, below), a.above_scale);
    y[v] =
        vfmsq_f32(y[v], Combine(s[1][0].Total(), s[1][1].Total(), above, below), vdupq_n_f32(a.below_scale));
  });
}

template <typename Sums>
[[gnu::flatten]] void AmxRow(const GemmArgs& args, int64_t row) {
  constexpr int kVectors = Sums::kRows;  // 16 sums in registers
  const auto* a = reinterpret_cast<const AmxBlock*>(args.a + row * args.a_stride);
  const int64_t blocks = CeilDiv(args.row.k, kPairBlock);
  const uint8_t* record = args.packed;
  float32x4_t y[kTileVectors];
  for (float32x4_t& each : y) each = vdupq_n_f32(0.0f);
  for (int64_t b = 0; b < blocks; ++b, ++a, record += AmxLayout::kRecord) {
    Unroll<kTileVectors / kVectors>([&](auto part) {
      constexpr int kFirst = part * kVectors;
      AddBlock<Sums, kVectors>(*a, record + AmxLayout::kScales + 16 * kFirst, record + 4 * kFirst,
                               y + kFirst);
    });
  }
  for (int v = 0; v < kTileVectors; ++v) vst1q_f32(args.c + row * kTilePanel + 4 * v, y[v]);
}

template <typename Sums>
void FewAmxRows(const GemmArgs& args) {
  for (int64_t row = 0; row < args.m; ++row) AmxRow<Sums>(args, row);
}

int64_t NoScratch(const RowShape&) { return 0; }

template <typename Sums>
constexpr MatMulKernels FewRows() {
  return {kTilePanel,
          AmxLayout::PackedBytes,
          AmxLayout::Pack,
          NoScratch,
          FewAmxRows<Sums>,
          &kAmxForm,
          PairKernels::kFewRows,
          0};
}

}  // namespace
}  // namespace mxcompile

// float32 rows times amxfp4 rows in blocks of 32 with NEON: many rows of A.
//
// Data layout: B as in fp4_tiles__neon.h. 128 k of a panel are decoded to [128][16] float32 (8 KB, L1): the
// nibble of a 32-bit lane becomes a doubled magnitude by tbl, whose other indices give 0, and a float32 by a
// conversion from steps of one half.
//
// Register plan: f32_tile__neon.h. Per 4 columns and k: 9 operations to decode, and one fmla for each row of
// A. Bound: fmla.
#include "kernels/amxfp4_blocks.h"
#include "kernels/f32_tile__neon.h"
#include "kernels/fp4_tiles__neon.h"
#include "kernels/matmul_kernels.h"

namespace mxcompile {
namespace {

using Layout = Tiles<2>;

// Four elements, in the lowest nibbles of the lanes.
inline float32x4_t Decode(uint32x4_t words, uint8x16_t table, float32x4_t above, float32x4_t minus_below) {
  const uint8x16_t index = vreinterpretq_u8_u32(vandq_u32(words, vdupq_n_u32(7)));
  const float32x4_t magnitudes = vcvtq_n_f32_u32(vreinterpretq_u32_u8(vqtbl1q_u8(table, index)), 1);
  const uint32x4_t negative = vtstq_u32(words, vdupq_n_u32(8));
  return vmulq_f32(magnitudes, vbslq_f32(negative, minus_below, above));
}

// The elements [start, end) of a panel to [k][16].
void DecodePiece(const uint8_t* packed, int64_t start, int64_t end, float* decoded) {
  const uint8x16_t table = vcombine_u8(vld1_u8(kDoubled), vdup_n_u8(0));
  for (int64_t k = start; k < end; k += 8) {
    const uint8_t* record = packed + k / kPairBlock * Layout::kRecord;
    const uint8_t* words = record + Layout::kScales + k % kPairBlock / 8 * kGroupBytes;
    const int64_t count = end - k < 8 ? end - k : 8;
    for (int64_t v = 0; v < kTileVectors; ++v) {
      const float32x4_t above = ScalesE5M2(record + 4 * v);
      const float32x4_t minus_below = vnegq_f32(ScalesE5M2(record + kTilePanel + 4 * v));
      uint32x4_t lanes = vreinterpretq_u32_u8(vld1q_u8(words + 16 * v));
      float* to = decoded + (k - start) * kTilePanel + 4 * v;
      for (int64_t i = 0; i < count; ++i, to += kTilePanel, lanes = vshrq_n_u32(lanes, 4))
        vst1q_f32(to, Decode(lanes, table, above, minus_below));
    }
  }
}

void Gemm(const GemmArgs& args) {
  ForPieces(args, args.scratch,
            [&](int64_t start, int64_t end) { DecodePiece(args.packed, start, end, args.scratch); });
}

int64_t ScratchFloats(const RowShape&) { return kDecodeStep * kTilePanel; }

}  // namespace

const MatMulKernels f32_amxfp4_matmul__neon = {kTilePanel, Layout::PackedBytes, Layout::Pack, ScratchFloats,
                                               Gemm};

}  // namespace mxcompile

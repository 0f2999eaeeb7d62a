// Quantizing E2M1 rows in blocks of 32 with AVX512, as fp4_encode__avx512.h says; decoding and other blocks
// are left to AVX2.
//
// Data layout: see kernels.h. Bound: reading x.
#include "kernels/fp4_encode__avx512.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

constexpr BlockOrder AsTheyCome() {
  BlockOrder order = {};
  for (int i = 0; i < kEncodeBlock; ++i) order.elements[i] = static_cast<uint16_t>(i);
  return order;
}

constexpr BlockOrder kOrder = AsTheyCome();

// 16 bytes of codes.
inline __m128i EncodeBlock(const float* x, __m512 factors) {
  const __m256i table = _mm512_cvtepi32_epi16(_mm512_srli_epi32(Thresholds(factors), 16));
  __m512i codes = Codes<kOrder>(x, _mm512_castsi256_si512(table));
  codes = _mm512_maskz_mov_epi16(_mm512_test_epi16_mask(codes, _mm512_set1_epi16(7)), codes);
  return _mm512_cvtepi32_epi8(_mm512_or_si512(codes, _mm512_srli_epi32(codes, 12)));
}

// `plain` encodes a block that this cannot serve.
template <typename Encode>
inline void EncodeBatch(const Blocks& blocks, QuantizeRow plain, uint8_t* codes, uint8_t* scales) {
  constexpr int64_t kSides = Encode::kSides, kCodes = kEncodeBlock / 2;
  const Scaled scaled = Scale<Encode>(blocks);
  const auto present = static_cast<__mmask16>((1u << blocks.count()) - 1);
  if constexpr (kSides == 1) {
    _mm512_mask_cvtepi32_storeu_epi8(scales, present, scaled.above.bytes);
  } else {
    _mm512_mask_cvtepi32_storeu_epi16(
        scales, present, _mm512_or_si512(scaled.above.bytes, _mm512_slli_epi32(scaled.below.bytes, 8)));
  }
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const __m128i block = EncodeBlock(blocks[b], FactorsOf(scaled, b));
    const auto bytes = static_cast<size_t>(CodeBytes(blocks.SizeOf(b), E2M1::kBits));
    if (bytes == kCodes) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + b * kCodes), block);
    } else {
      _mm_mask_storeu_epi8(codes + b * kCodes, static_cast<__mmask16>((1u << bytes) - 1), block);
    }
  }
  for (int64_t b = 0; scaled.special >> b != 0; ++b) {
    if ((scaled.special >> b & 1) == 0) continue;
    plain(blocks.InRow(b), {blocks.SizeOf(b), kEncodeBlock}, 0.0f, codes + b * kCodes, scales + b * kSides);
  }
}

template <typename Encode, const RowKernels& kPlain>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  if (row.block != kEncodeBlock) return kPlain.quantize(x, row, 0.0f, codes, scales);
  constexpr int64_t kBatch = kEncodeBatch * kEncodeBlock;
  for (int64_t start = 0; start < row.k; start += kBatch, codes += kBatch / 2) {
    EncodeBatch<Encode>(Blocks(x + start, row.k - start), kPlain.quantize, codes, scales);
    scales += kEncodeBatch * Encode::kSides;
  }
}

template <const RowKernels& kPlain>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  kPlain.dequantize(codes, scales, row, begin, end, x);
}

template <typename Encode, const RowKernels& kPlain>
constexpr RowKernels Rows() {
  return {Quantize<Encode, kPlain>, Dequantize<kPlain>};
}

}  // namespace

const RowKernels amxfp4_rows__avx512 = Rows<FloatEncode, amxfp4_rows__avx2>();
const RowKernels amxfp4_pot_rows__avx512 = Rows<PowerEncode<2, false>, amxfp4_pot_rows__avx2>();
const RowKernels amxfp4_pot_r_rows__avx512 = Rows<PowerEncode<2, true>, amxfp4_pot_r_rows__avx2>();
const RowKernels mxfp4_rows__avx512 = Rows<PowerEncode<1, false>, mxfp4_rows__avx2>();
const RowKernels mxfp4_even_rows__avx512 = Rows<PowerEncode<1, true>, mxfp4_even_rows__avx2>();

}  // namespace mxcompile

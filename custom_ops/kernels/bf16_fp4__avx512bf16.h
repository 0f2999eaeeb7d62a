// Elements of amxfp4, E2M1 with an E5M2 scale for each sign, as pairs of bfloat16; unnamed namespace: see
// elements.h.
//
// Decoding two elements of 16 rows takes six operations: one brings their nibbles down; vptestmw finds their
// signs; a blend takes the scale of that side; and three more as in bf16_decode__avx512.h. Scales that are
// not finite numbers, or below zero, go a longer way through float32.
#pragma once

#include "kernels/bf16_decode__avx512.h"
#include "kernels/bf16_tiles__avx512bf16.h"
#include "kernels/elements__avx2.h"

namespace mxcompile {

// As RowForm::quantize: to amxfp4, in the form of PrepareRow.
void QuantizePairs__avx512bf16(const float* x, int64_t rows, int64_t k, uint8_t* prepared, int64_t tile);

namespace {

// Two elements of 16 rows, from words with a code in the lowest nibble, whatever stands above.
inline __m512i DecodeSides(__m512i words, __mmask32 negative, __m512i above, __m512i below) {
  return DecodeNibbles<kE5M2Top>(words, _mm512_mask_blend_epi16(negative, above, below));
}

// The same for any scales, in float32, of the codes in the lowest nibbles of `upper` and `lower`: the values
// are exact in bfloat16, so their upper words are enough.
inline __m512i DecodeAny(__m512i upper, __m512i lower, __m512 above, __m512 below) {
  const __m512 elements = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f,
                                         -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  const auto decode = [&](__m512i codes) {
    const __mmask16 negative = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(8));
    const __m512 scale = _mm512_mask_blend_ps(negative, above, below);
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_permutexvar_ps(codes, elements), scale));
  };
  return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(decode(lower), 16), decode(upper));
}

// A's form, rows interleaved by `step`.
void PrepareRow(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step) {
  const __m512 magnitudes = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                           -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  for (int64_t start = 0; start < k; start += kPairBlock, scales += 2, prepared += 16 * step) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    const __m128 sides =
        _mm256_castps256_ps128(AmxDecode::Decode(_mm_cvtsi32_si128(scales[0] | scales[1] << 8)));
    const __m512 both = _mm512_mask_blend_ps(0xFF00, _mm512_broadcastss_ps(sides),
                                             _mm512_broadcastss_ps(_mm_movehdup_ps(sides)));
    const __m256i values =
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(_mm512_mul_ps(magnitudes, both)), 16));
    // A byte's low nibble, an even k, goes to the upper word; the table stands twice, so what else is in that
    // word does no harm.
    const __m512i bytes = _mm512_cvtepu8_epi32(BlockCodes(codes + start / 2, count));
    const __m512i index = _mm512_or_si512(_mm512_slli_epi32(bytes, 16), _mm512_srli_epi32(bytes, 4));
    const __m512i pairs = _mm512_permutexvar_epi16(index, _mm512_broadcast_i64x4(values));
    StoreUnits(pairs, prepared, step);
  }
}

}  // namespace
}  // namespace mxcompile

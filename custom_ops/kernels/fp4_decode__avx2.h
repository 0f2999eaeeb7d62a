// Decoding E2M1 in AVX2 registers; for files compiled with -mavx2 only, hence static.
#pragma once

#include <immintrin.h>

#include "kernels/elements.h"

namespace mxcompile {

static inline __m256 E2M1Table() { return _mm256_loadu_ps(kE2M1Magnitudes); }

// 8 elements from 8 codes in the low nibbles of 8 lanes, whatever stands above. vpermps looks at bits 2..0
// alone, and a nibble's sign bit shifted to the top is the mask of vblendvps: so nothing has to be masked.
static inline __m256 DecodeE2M1(__m256 table, __m256i codes, __m256 positive, __m256 minus_negative) {
  const __m256 magnitudes = _mm256_permutevar8x32_ps(table, codes);
  const __m256 signs = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
  return _mm256_mul_ps(magnitudes, _mm256_blendv_ps(positive, minus_negative, signs));
}

static inline __m256 Negate(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

// 8 bytes of E5M2, the top bytes of float16, to float32.
static inline __m256 DecodeE5M2x8(__m128i bytes) {
  return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 8));
}

// 8 bytes of E8M0 to float32: the byte is the exponent, except for 0 (a subnormal) and 255 (NaN).
static inline __m256 DecodeE8M0x8(__m128i bytes) {
  const __m256i exponent = _mm256_cvtepu8_epi32(bytes);
  const __m256i is_zero = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
  const __m256i is_nan = _mm256_cmpeq_epi32(exponent, _mm256_set1_epi32(kE8M0NaN));
  __m256i value = _mm256_slli_epi32(exponent, 23);
  value = _mm256_or_si256(value, _mm256_and_si256(is_zero, _mm256_set1_epi32(0x00400000)));
  value = _mm256_or_si256(value, _mm256_and_si256(is_nan, _mm256_set1_epi32(0x7FC00000)));
  return _mm256_castsi256_ps(value);
}

// How a format's scale bytes become the two factors of a block. Unnamed namespace: see elements.h.
namespace {

struct AmxDecode {
  static constexpr int64_t kCount = 2;
  static inline __m256 Decode(__m128i bytes) { return DecodeE5M2x8(bytes); }
};

struct MxDecode {
  static constexpr int64_t kCount = 1;
  static inline __m256 Decode(__m128i bytes) { return DecodeE8M0x8(bytes); }
};

}  // namespace

}  // namespace mxcompile

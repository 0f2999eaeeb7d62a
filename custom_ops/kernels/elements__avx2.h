// Elements and scales in AVX2 registers; for files compiled with -mavx2 only, hence static.
#pragma once

#include <immintrin.h>

#include "kernels/elements.h"

namespace mxcompile {

// What is read in order: asks for the memory 8 KB behind these bytes.
static inline void PrefetchAhead(const uint8_t* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(from + 8192 + line), _MM_HINT_T0);
}

static inline __m256i Bits(__m256 x) { return _mm256_castps_si256(x); }
static inline __m256 Negate(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }
static inline __m256 Magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

// Codes of the magnitudes nearest to v >= 0 as `Element::Encode` has them; anything for NaN.
template <typename Element>
static inline __m256i EncodeMagnitudes(__m256 v) {
  constexpr int kMantissa = Element::kMantissa, kBias = Element::kBias;
  // The two branches of Encode. The normal one never exceeds the right code of a subnormal, and the steps of
  // a subnormal, limited to the first normal, never that of a normal: so the larger one is right.
  const __m256i rounded = _mm256_add_epi32(Bits(v), _mm256_set1_epi32(1 << (22 - kMantissa)));
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(rounded, 23 - kMantissa),
                                          _mm256_set1_epi32((127 - kBias) << kMantissa));
  const __m256 limited = _mm256_min_ps(v, _mm256_set1_ps(Element::kMinNormal));
  const __m256i half_steps =
      _mm256_cvttps_epi32(_mm256_mul_ps(limited, _mm256_set1_ps(PowerOfTwo(kBias + kMantissa))));
  const __m256i steps = _mm256_srli_epi32(_mm256_add_epi32(half_steps, _mm256_set1_epi32(1)), 1);
  return _mm256_min_epi32(_mm256_max_epi32(normal, steps), _mm256_set1_epi32(Element::kMax));
}

template <>
inline __m256i EncodeMagnitudes<MxInt8>(__m256 v) {
  const __m256i halves = _mm256_cvttps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(128.0f)));
  const __m256i code = _mm256_srli_epi32(_mm256_add_epi32(halves, _mm256_set1_epi32(1)), 1);
  return _mm256_min_epi32(code, _mm256_set1_epi32(MxInt8::kMax));
}

// The signs of x put to the codes of their magnitudes; a code 0 stays 0.
template <typename Element>
static inline __m256i WithSigns(__m256i codes, __m256 x) {
  const __m256i some = _mm256_cmpgt_epi32(codes, _mm256_setzero_si256());
  const __m256i negative = _mm256_and_si256(_mm256_srai_epi32(Bits(x), 31), some);
  return _mm256_or_si256(codes, _mm256_and_si256(negative, _mm256_set1_epi32(Element::kSign)));
}

template <>
inline __m256i WithSigns<MxInt8>(__m256i codes, __m256 x) {
  const __m256i negative = _mm256_srai_epi32(Bits(x), 31);
  const __m256i flipped = _mm256_sub_epi32(_mm256_xor_si256(codes, negative), negative);
  return _mm256_and_si256(flipped, _mm256_set1_epi32(0xFF));
}

// Values of 8 codes in the low bits of 8 lanes, whatever stands above. Exponent and mantissa stand in a
// float16 as in the element, the bias apart: one exact product sets that right. (Not through a float32 in the
// same manner: that would be subnormal, which a session may flush to zero.)
template <typename Element>
static inline __m256 DecodeCodes(__m256i codes) {
  constexpr int kSign = Element::kSign;
  const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi32(kSign - 1));
  const __m256i sign = _mm256_and_si256(codes, _mm256_set1_epi32(kSign));
  const __m256i halves = _mm256_or_si256(_mm256_slli_epi32(magnitude, 10 - Element::kMantissa),
                                         _mm256_slli_epi32(sign, 16 - Element::kBits));
  const __m128i packed =
      _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(packed), _mm256_set1_ps(PowerOfTwo(15 - Element::kBias)));
  if constexpr (Element::kMax == E4M3::kMax && Element::kMantissa == E4M3::kMantissa) {
    const __m256i is_nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(kSign - 1));
    value = _mm256_or_ps(value, _mm256_castsi256_ps(is_nan));
  }
  return value;
}

template <>
inline __m256 DecodeCodes<MxInt8>(__m256i codes) {
  const __m256i signed_codes = _mm256_srai_epi32(_mm256_slli_epi32(codes, 24), 24);
  return _mm256_mul_ps(_mm256_cvtepi32_ps(signed_codes), _mm256_set1_ps(1.0f / 64));
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

static inline __m256 E2M1Table() { return _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f); }

// 8 E2M1 elements from 8 codes in the low nibbles of 8 lanes, whatever stands above. vpermps looks at
// bits 2..0 alone, and a nibble's sign bit shifted to the top is the mask of vblendvps: so nothing has to be
// masked.
static inline __m256 DecodeE2M1(__m256 table, __m256i codes, __m256 positive, __m256 minus_negative) {
  const __m256 magnitudes = _mm256_permutevar8x32_ps(table, codes);
  const __m256 signs = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
  return _mm256_mul_ps(magnitudes, _mm256_blendv_ps(positive, minus_negative, signs));
}

// How a format's scale bytes become the factors of a block: kCount bytes a block, 8 of them decoded at once.
// kOne is the byte of 1; finite factors are multiples of 2^kStep.
// Unnamed namespace: see elements.h.
namespace {

template <int kSides>
struct PowerDecode {
  static constexpr int64_t kCount = kSides;
  static constexpr uint8_t kOne = 127;
  static constexpr int kStep = -127;
  static inline __m256 Decode(__m128i bytes) { return DecodeE8M0x8(bytes); }
};

struct AmxDecode {  // E5M2: the top bytes of float16
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kOne = 0x3C;
  static constexpr int kStep = -16;
  static inline __m256 Decode(__m128i bytes) {
    return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 8));
  }
};

struct AmxE4M3Decode {
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kOne = 0x38;
  static constexpr int kStep = -9;
  static inline __m256 Decode(__m128i bytes) {
    const __m256i codes = _mm256_cvtepu8_epi32(bytes);
    const __m256i is_nan = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(0xFF));
    return _mm256_or_ps(DecodeCodes<E4M3Extended>(codes), _mm256_castsi256_ps(is_nan));
  }
};

}  // namespace

}  // namespace mxcompile

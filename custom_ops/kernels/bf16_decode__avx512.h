// Decoding to bfloat16 with AVX512, 32 elements at a time in 16-bit words; unnamed namespace: see elements.h.
//
// What a table gives for a code stands for the element times the largest scale. A saturating subtraction
// lowers its exponent by what the scale is smaller, which keeps zero. So the scale must be so large that no
// element becomes subnormal.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mxcompile {
namespace {

constexpr uint8_t kLargestFinite = 0x7B;  // E5M2
constexpr int kE5M2Top = 15;

// The bfloat16 of the E2M1 code index & 15 times 2^kTop * (1 + (3 - index >> 4) / 4), plus what the
// subtraction takes away on top of the exponent.
template <int kTop>
struct DecodeTable {
  alignas(64) uint16_t words[64];

  constexpr DecodeTable() : words() {
    constexpr int kMagnitudes[8] = {0, 1, 2, 3, 4, 6, 8, 12};  // doubled
    for (int i = 0; i < 64; ++i) {
      const int significand = kMagnitudes[i & 7] * (7 - (i >> 4));  // of value / 2^kTop * 8
      if (significand == 0) continue;
      int exponent = 127 + kTop - 3 + 7, bits = significand;
      for (; bits < 128; bits *= 2) --exponent;
      words[i] = static_cast<uint16_t>((i & 8) << 12 | ((exponent << 7) + (bits & 127) + (i & 0x30)));
    }
  }
};

template <int kTop>
constexpr DecodeTable<kTop> kTable;

// Scales of words that are finite E5M2 in the upper byte: how far the exponent is below the largest in bits 7
// and up, 3 - mantissa in bits 4 and 5. Subnormals become numbers with a leading one and a lower exponent,
// and zero more than there is to take away.
inline __m512i ScaleWords(__m512i halves) {
  __m512i below = _mm512_sub_epi16(_mm512_set1_epi16(kLargestFinite << 8), halves);
  const __mmask32 small = _mm512_cmplt_epu16_mask(halves, _mm512_set1_epi16(0x0400));
  if (small != 0) {
    const __m512i table = _mm512_castsi128_si512(_mm_setr_epi16(0, 0x7F00, 0x7B00, 0x7900, 0, 0, 0, 0));
    below = _mm512_mask_permutexvar_epi16(below, small, _mm512_srli_epi16(halves, 8), table);
  }
  const __m512i mantissa = _mm512_and_si512(_mm512_srli_epi16(below, 4), _mm512_set1_epi16(0x30));
  // (below >> 3 & ~127) | mantissa
  const __m512i words =
      _mm512_ternarylogic_epi32(_mm512_srli_epi16(below, 3), _mm512_set1_epi16(127), mantissa, 0xBA);
  if (small == 0) return words;
  return _mm512_mask_mov_epi16(words, _mm512_testn_epi16_mask(halves, halves), _mm512_set1_epi16(-64));
}

// Whether E5M2 scales are finite and not below zero.
inline bool AreFinite(__m512i bytes) {
  return _mm512_cmpgt_epu8_mask(bytes, _mm512_set1_epi8(kLargestFinite)) == 0;
}

// E2M1 codes in the low nibbles of words, whatever stands above, by scales as ScaleWords gives them.
template <int kTop>
inline __m512i DecodeNibbles(__m512i codes, __m512i scale) {
  const __m512i index = _mm512_ternarylogic_epi32(codes, scale, _mm512_set1_epi16(15), 0xE4);
  const __m512i value = _mm512_permutex2var_epi16(_mm512_load_si512(kTable<kTop>.words), index,
                                                  _mm512_load_si512(kTable<kTop>.words + 32));
  return _mm512_subs_epu16(value, scale);
}

constexpr int kE4M3Top = 8;

// The same for scales of three mantissa bits, by index bits 3 to 5, of magnitudes alone.
struct FineTable {
  alignas(64) uint16_t words[64];

  constexpr FineTable() : words() {
    constexpr int kMagnitudes[8] = {0, 1, 2, 3, 4, 6, 8, 12};  // doubled
    for (int i = 0; i < 64; ++i) {
      const int significand = kMagnitudes[i & 7] * (15 - (i >> 3));  // of value / 2^kE4M3Top * 16
      if (significand == 0) continue;
      int exponent = 127 + kE4M3Top - 4 + 7, bits = significand;
      for (; bits < 128; bits *= 2) --exponent;
      words[i] = static_cast<uint16_t>((exponent << 7) + (bits & 127) + (i & 0x38));
    }
  }
};

constexpr FineTable kFineTable;

// Scales of words that are E4M3: how far the exponent is below the largest in bits 7 and up, 7 - mantissa in
// bits 3 to 5.
inline __m512i FineScaleWords(__m512i bytes) {
  const __m512i below = _mm512_sub_epi16(_mm512_set1_epi16(0x7F), bytes);
  const __m512i mantissa = _mm512_and_si512(_mm512_slli_epi16(below, 3), _mm512_set1_epi16(0x38));
  // (below << 4 & ~127) | mantissa
  return _mm512_ternarylogic_epi32(_mm512_slli_epi16(below, 4), _mm512_set1_epi16(127), mantissa, 0xBA);
}

// DecodeNibbles with those.
inline __m512i DecodeFineNibbles(__m512i codes, __m512i scale) {
  const __m512i index = _mm512_ternarylogic_epi32(codes, scale, _mm512_set1_epi16(7), 0xE4);
  const __m512i value = _mm512_permutex2var_epi16(_mm512_load_si512(kFineTable.words), index,
                                                  _mm512_load_si512(kFineTable.words + 32));
  return _mm512_ternarylogic_epi32(_mm512_subs_epu16(value, scale), _mm512_slli_epi16(codes, 12),
                                   _mm512_set1_epi16(INT16_MIN), 0xF8);  // v | (c & top)
}

}  // namespace
}  // namespace mxcompile

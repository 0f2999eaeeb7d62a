// Packing and unpacking codes in AVX2 registers, in the order of codes.h; static: see elements__avx2.h.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "kernels/codes.h"

namespace mxcompile {

// 16 codes, one a byte, to 2 * kBits bytes (a multiple of whole bytes for every width).
template <int kBits>
static inline __m128i PackSixteen(__m128i codes) {
  if constexpr (kBits == 8) {
    return codes;
  } else if constexpr (kBits == 4) {
    const __m128i pairs = _mm_maddubs_epi16(codes, _mm_set1_epi16(0x1001));  // low + 16 * high
    return _mm_packus_epi16(pairs, pairs);
  } else if constexpr (kBits == 6) {
    const __m128i pairs = _mm_maddubs_epi16(codes, _mm_set1_epi16(0x4001));       // 12 bits in 16
    const __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(4096 << 16 | 1));  // 24 bits in 32
    return _mm_shuffle_epi8(fours, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  } else {
    static_assert(kBits == 3);
    const __m128i pairs = _mm_maddubs_epi16(codes, _mm_set1_epi16(0x0801));     // 6 bits in 16
    const __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(64 << 16 | 1));  // 12 bits in 32
    const __m128i eights = _mm_or_si128(fours, _mm_srli_epi64(fours, 20));      // 24 bits in 64
    return _mm_shuffle_epi8(eights, _mm_setr_epi8(0, 1, 2, 8, 9, 10, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  }
}

// Two vectors of 8 codes, one a 32-bit lane, to 16 bytes in order.
static inline __m128i SixteenBytes(__m256i first, __m256i second) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

// Holds 8 codes.
template <int kBits>
using CodeWord = std::conditional_t<(kBits > 4), uint64_t, uint32_t>;

// kBits bytes as the low bytes of a word. In two loads where there is none of that size: what goes through
// memory byte by byte stalls.
template <int kBits>
static inline CodeWord<kBits> LoadGroup(const uint8_t* codes) {
  if constexpr (kBits == 3 || kBits == 6) {
    constexpr int kFirst = kBits / 3 * 2;
    uint32_t first = 0;
    uint16_t last = 0;
    std::memcpy(&first, codes, kFirst);
    std::memcpy(&last, codes + kFirst, kBits - kFirst);
    return first | static_cast<CodeWord<kBits>>(last) << (8 * kFirst);
  } else {
    CodeWord<kBits> word = 0;
    std::memcpy(&word, codes, kBits);
    return word;
  }
}

// 8 codes in the low bits of 8 lanes, from `bytes` bytes, at most kBits; what is missing is 0. Above a code
// of less than 8 bits others may stand.
template <int kBits>
static inline __m256i EightCodes(const uint8_t* codes, size_t bytes = kBits) {
  CodeWord<kBits> word = 0;
  if (bytes == kBits) {
    word = LoadGroup<kBits>(codes);
  } else {
    std::memcpy(&word, codes, bytes);
  }
  if constexpr (kBits == 8) {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(word)));
  } else if constexpr (kBits == 6) {  // four codes of each three bytes
    const __m128i low = _mm_set1_epi32(static_cast<int32_t>(word));
    const __m128i high = _mm_set1_epi32(static_cast<int32_t>(word >> 24));
    return _mm256_srlv_epi32(_mm256_set_m128i(high, low), _mm256_setr_epi32(0, 6, 12, 18, 0, 6, 12, 18));
  } else {
    constexpr int k = kBits;
    const __m256i shifts = _mm256_setr_epi32(0, k, 2 * k, 3 * k, 4 * k, 5 * k, 6 * k, 7 * k);
    return _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int32_t>(word)), shifts);
  }
}

// The same with nothing above.
template <int kBits>
static inline __m256i CodesAlone(__m256i codes) {
  if constexpr (kBits == 8) return codes;
  return _mm256_and_si256(codes, _mm256_set1_epi32((1 << kBits) - 1));
}

}  // namespace mxcompile

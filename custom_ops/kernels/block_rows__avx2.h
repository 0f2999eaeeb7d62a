// The frame of row kernels with AVX2, for formats F whose blocks are encoded one at a time; static, see
// elements__avx2.h. F has
//   static constexpr int kBits;
//   struct Block;                                            // what its elements need
//   static bool Begin(const float* x, int64_t size, const RowShape&, float amax, int64_t index, uint8_t*
//   scales,
//                     Block*);                               // writes a block's scales; false: not finite
//   static __m256i Encode(const Block&, __m256 x);           // 8 codes, one a 32-bit lane
//   static Block Load(const uint8_t* scales, const RowShape&, int64_t index);
//   static __m256 Decode(const Block&, __m256i codes);      // as EightCodes gives them
// `scales` are always those of the whole row.
//
// Register plan: two vectors of 8 elements become 16 codes, which fill whole bytes in every width; the
// constants of Encode stay in registers. The elements behind the last 16 go through a padded copy.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/codes__avx2.h"
#include "kernels/elements__avx2.h"
#include "kernels/kernels.h"

namespace mxcompile {

// Calls use(vector) for the elements of a block; the last vector is filled up with copies of the first
// element.
template <typename Use>
static inline void ForVectors(const float* x, int64_t size, const Use& use) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) use(_mm256_loadu_ps(x + i));
  if (i == size) return;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i present = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(size - i)), lanes);
  const __m256 rest = _mm256_maskload_ps(x + i, present);
  use(_mm256_blendv_ps(_mm256_set1_ps(x[0]), rest, _mm256_castsi256_ps(present)));
}

static inline uint32_t LargestLane(__m256i x) {
  __m128i y = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_max_epu32(y, _mm_shuffle_epi32(y, 0x4E));
  y = _mm_max_epu32(y, _mm_shuffle_epi32(y, 0xB1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(y));
}

// The bits of a block's largest magnitude: floats of one sign are ordered like their bits, and infinity and
// NaN come out on top, from kExponentMask on.
static inline uint32_t LargestMagnitude(const float* x, int64_t size) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest = _mm256_setzero_si256();
  ForVectors(x, size,
             [&](__m256 v) { largest = _mm256_max_epu32(largest, _mm256_and_si256(Bits(v), magnitude)); });
  return LargestLane(largest);
}

static inline float LargestLane(__m256 x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

// The smallest and largest element of a block; false: not all of them are finite.
static inline bool Extremes(const float* x, int64_t size, float* lo, float* hi) {
  __m256 smallest = _mm256_set1_ps(x[0]), largest = smallest;
  __m256i magnitude = _mm256_setzero_si256();
  ForVectors(x, size, [&](__m256 v) {
    smallest = _mm256_min_ps(smallest, v);
    largest = _mm256_max_ps(largest, v);
    magnitude = _mm256_max_epu32(magnitude, Bits(Magnitude(v)));
  });
  *lo = -LargestLane(Negate(smallest));
  *hi = LargestLane(largest);
  return LargestLane(magnitude) < kExponentMask;
}

// A block's elements to codes.
template <typename F>
static inline void EncodeElements(const typename F::Block& block, const float* x, int64_t size,
                                  uint8_t* codes) {
  constexpr int64_t kUnit = 16;
  int64_t i = 0;
  const auto encode = [&](const float* from) {
    const __m256i first = F::Encode(block, _mm256_loadu_ps(from));
    return SixteenBytes(first, F::Encode(block, _mm256_loadu_ps(from + 8)));
  };
  for (; i + kUnit <= size; i += kUnit) {
    const __m128i packed = PackSixteen<F::kBits>(encode(x + i));
    std::memcpy(codes + i / 8 * F::kBits, &packed, 2 * F::kBits);
  }
  const int64_t rest = size - i;
  if (rest == 0) return;
  float padded[kUnit] = {};
  std::memcpy(padded, x + i, static_cast<size_t>(rest) * sizeof(float));
  // A zero's code need not be 0, but unused bits must be.
  const __m128i lanes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m128i present = _mm_cmpgt_epi8(_mm_set1_epi8(static_cast<char>(rest)), lanes);
  const __m128i packed = PackSixteen<F::kBits>(_mm_and_si128(encode(padded), present));
  std::memcpy(codes + i / 8 * F::kBits, &packed, static_cast<size_t>(CodeBytes(rest, F::kBits)));
}

template <typename F>
static void QuantizeBlocks(const float* x, const RowShape& row, float amax, uint8_t* codes, uint8_t* scales) {
  int64_t index = 0;
  for (int64_t start = 0; start < row.k; start += row.block, ++index) {
    const int64_t size = row.k - start < row.block ? row.k - start : row.block;
    uint8_t* block_codes = codes + start / 8 * F::kBits;
    typename F::Block block;
    if (F::Begin(x + start, size, row, amax, index, scales, &block)) {
      EncodeElements<F>(block, x + start, size, block_codes);
    } else {
      std::memset(block_codes, 0, static_cast<size_t>(CodeBytes(size, F::kBits)));
    }
  }
}

// `size` codes of a block to elements.
template <typename F>
static inline void DecodeElements(const typename F::Block& block, const uint8_t* codes, int64_t size,
                                  float* x) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8)
    _mm256_storeu_ps(x + i, F::Decode(block, EightCodes<F::kBits>(codes + i / 8 * F::kBits)));
  if (i == size) return;
  const auto bytes = static_cast<size_t>(CodeBytes(size - i, F::kBits));
  float rest[8];
  _mm256_storeu_ps(rest, F::Decode(block, EightCodes<F::kBits>(codes + i / 8 * F::kBits, bytes)));
  std::memcpy(x + i, rest, static_cast<size_t>(size - i) * sizeof(float));
}

template <typename F>
static void DequantizeBlocks(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin,
                             int64_t end, float* x) {
  int64_t index = begin / row.block, block_end = (index + 1) * row.block;
  for (int64_t i = begin; i < end; ++index, block_end += row.block) {
    const int64_t stop = block_end < end ? block_end : end;
    DecodeElements<F>(F::Load(scales, row, index), codes + i / 8 * F::kBits, stop - i, x + (i - begin));
    i = stop;
  }
}

}  // namespace mxcompile

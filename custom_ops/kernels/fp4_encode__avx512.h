// Quantizing blocks of 32 elements to E2M1 with AVX512, 16 of them at a time; unnamed namespace: see
// elements.h.
//
// (1) A pass finds the blocks' extremes, reduced in a tree to one lane a block; (2) those 16 or 32 sides
// become scale bytes and factors; (3) a pass over the elements, a block at a time, finds their codes.
//
// Step 3 does without a division. The quotient x / s, rounded to float32, reaches a threshold t (0.25
// 0.75 1.25 1.75 2.5 3.5 5) exactly if |x| reaches s * t: the next float32 below s * t is farther away than
// half a unit of the quotient, as the significand of s is below 2. And s * t has at most 6 significant bits,
// so the upper 16 bits of |x| decide: 32 elements fit one vector of words, and their codes are found by
// bisection in a table of the block's 7 or 14 thresholds.
//
// Per block: 4 loads, 6 operations of step 1, 3 of step 2, 4 for the tables and 14 of step 3; no division but
// two per 16 blocks.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/elements__avx2.h"
#include "kernels/kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kEncodeBlock = 32, kEncodeBatch = 16;

inline __m512i Words(const float* x) { return _mm512_loadu_si512(x); }

// Up to 16 blocks that follow each other. If the last one is ragged, a copy of it is filled up with zeros,
// which change neither scales nor codes.
class Blocks {
 public:
  // The first blocks of `size` elements, at least one.
  Blocks(const float* x, int64_t size)
      : x_(x),
        size_(size < kEncodeBatch * kEncodeBlock ? size : kEncodeBatch * kEncodeBlock),
        count_(CeilDiv(size_, kEncodeBlock)),
        ragged_(size_ / kEncodeBlock) {
    if (ragged_ == count_) return;
    const uint32_t present = (1u << SizeOf(ragged_)) - 1;
    const float* const rest = InRow(ragged_);
    _mm512_store_ps(filled_up_, _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), rest));
    _mm512_store_ps(filled_up_ + 16, _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), rest + 16));
  }

  inline int64_t count() const { return count_; }
  inline const float* operator[](int64_t block) const { return block == ragged_ ? filled_up_ : InRow(block); }
  // Where a block stands in the row, and its size there.
  inline const float* InRow(int64_t block) const { return x_ + block * kEncodeBlock; }
  inline int64_t SizeOf(int64_t block) const {
    return block == ragged_ ? size_ - block * kEncodeBlock : kEncodeBlock;
  }

 private:
  const float* x_;
  int64_t size_, count_, ragged_;
  alignas(64) float filled_up_[kEncodeBlock];
};

// What step 2 gives for 16 blocks: scale bytes, one a lane, and the factors of the thresholds.
struct Sides {
  __m512i bytes;
  __m512 factors;
};

// E5M2 of extreme / 6, 0 becoming 1. See EncodeMagnitudes in elements__avx2.h for the rounding.
struct FloatEncode {
  static constexpr int kSides = 2;
  static constexpr uint8_t kNaN = 0x7F;

  static inline Sides Scales(__m512 extremes) {
    __m512 s = _mm512_div_ps(extremes, _mm512_set1_ps(E2M1::kMaximum));
    s = _mm512_mask_mov_ps(s, _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_EQ_OQ), _mm512_set1_ps(1.0f));
    const __m512i rounded =
        _mm512_add_epi32(_mm512_castps_si512(s), _mm512_set1_epi32(1 << (22 - E5M2::kMantissa)));
    const __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(rounded, 23 - E5M2::kMantissa),
                                            _mm512_set1_epi32((127 - E5M2::kBias) << E5M2::kMantissa));
    const __m512 limited = _mm512_min_ps(s, _mm512_set1_ps(E5M2::kMinNormal));
    const __m512i half_steps = _mm512_cvttps_epi32(
        _mm512_mul_ps(limited, _mm512_set1_ps(PowerOfTwo(E5M2::kBias + E5M2::kMantissa))));
    const __m512i steps = _mm512_srli_epi32(_mm512_add_epi32(half_steps, _mm512_set1_epi32(1)), 1);
    const __m512i bytes = _mm512_min_epi32(_mm512_max_epi32(normal, steps), _mm512_set1_epi32(E5M2::kMax));
    const __m512 value = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_slli_epi32(bytes, 8)));
    // A scale of 0 gives 0: no element reaches infinity.
    const __m512 infinity = _mm512_castsi512_ps(_mm512_set1_epi32(kExponentMask));
    return {bytes, _mm512_mask_mov_ps(value, _mm512_testn_epi32_mask(bytes, bytes), infinity)};
  }

  // Blocks whose factors cannot be used.
  static inline __mmask16 TooSmall(const Sides&, __m512) { return 0; }
};

// E8M0, FLOOR or EVEN rule, one a block or one a side.
template <int kCount, bool kEven>
struct PowerEncode {
  static constexpr int kSides = kCount;
  static constexpr uint8_t kNaN = kE8M0NaN;
  static constexpr int kSmallest = 4;  // its thresholds are normal numbers

  static inline Sides Scales(__m512 extremes) {
    __m512i bits = _mm512_castps_si512(extremes);
    if constexpr (kEven) bits = _mm512_add_epi32(bits, _mm512_set1_epi32(1 << (22 - E2M1::kMantissa)));
    const __m512i bytes =
        _mm512_max_epi32(_mm512_sub_epi32(_mm512_srli_epi32(bits, 23), _mm512_set1_epi32(E2M1::kEmax)),
                         _mm512_setzero_si512());
    const __m512i exponents = _mm512_max_epi32(bytes, _mm512_set1_epi32(kSmallest));
    return {bytes, _mm512_castsi512_ps(_mm512_slli_epi32(exponents, 23))};
  }

  static inline __mmask16 TooSmall(const Sides& sides, __m512 extremes) {
    const __mmask16 some =
        _mm512_test_epi32_mask(_mm512_castps_si512(extremes), _mm512_castps_si512(extremes));
    return _mm512_mask_cmplt_epi32_mask(some, sides.bytes, _mm512_set1_epi32(kSmallest));
  }
};

// Step 1: the largest of each of four vectors, as integers, in the lanes 0 1 2 3 of every 128 bits.
template <typename Max>
inline __m512i ReduceFour(const __m512i (&v)[4], const Max& max) {
  const __m512i first = max(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const __m512i second = max(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  return max(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

template <typename Max>
inline __m512i ReduceLanes(const __m512i (&q)[4], const Max& max) {
  const __m512i first = max(_mm512_shuffle_i32x4(q[0], q[1], 0x88), _mm512_shuffle_i32x4(q[0], q[1], 0xDD));
  const __m512i second = max(_mm512_shuffle_i32x4(q[2], q[3], 0x88), _mm512_shuffle_i32x4(q[2], q[3], 0xDD));
  return max(_mm512_shuffle_i32x4(first, second, 0x88), _mm512_shuffle_i32x4(first, second, 0xDD));
}

// max(0, x) and max(0, -x) of 16 blocks, anything in lanes from `count` on. Found as integers: floats of one
// sign are ordered like their bits, and NaN and infinity come out on top.
struct Extremes {
  __m512 above, below;
};

[[gnu::flatten]] inline Extremes FindExtremes(const Blocks& blocks) {
  const auto signed_max = [](__m512i a, __m512i b) { return _mm512_max_epi32(a, b); };
  const auto unsigned_max = [](__m512i a, __m512i b) { return _mm512_max_epu32(a, b); };
  const __m512i zero = _mm512_setzero_si512();
  __m512i above[4], any[4];
  Unroll<4>([&](auto quarter) {
    above[quarter] = any[quarter] = zero;
    if (4 * quarter >= blocks.count()) return;
    __m512i positive[4], largest[4];
    Unroll<4>([&](auto i) {
      const float* x = blocks[4 * quarter + i < blocks.count() ? 4 * quarter + i : blocks.count() - 1];
      const __m512i first = Words(x), second = Words(x + 16);
      positive[i] = signed_max(first, second);
      largest[i] = unsigned_max(first, second);  // bits of negatives are the largest unsigned ones
    });
    above[quarter] = ReduceFour(positive, signed_max);
    any[quarter] = ReduceFour(largest, unsigned_max);
  });
  const __m512i flipped = _mm512_xor_si512(ReduceLanes(any, unsigned_max), _mm512_set1_epi32(INT32_MIN));
  return {_mm512_castsi512_ps(signed_max(ReduceLanes(above, signed_max), zero)),
          _mm512_castsi512_ps(signed_max(flipped, zero))};
}

inline __mmask16 NotFinite(__m512 extremes) {
  return _mm512_cmpge_epi32_mask(_mm512_castps_si512(extremes), _mm512_set1_epi32(kExponentMask));
}

// Steps 1 and 2. With one side a block, `below` is `above`.
struct Scaled {
  Sides above, below;
  uint32_t special;  // blocks that are not finite, or that the factors cannot serve, a bit each
};

template <typename Encode>
inline Scaled Scale(const Blocks& blocks) {
  constexpr bool kOne = Encode::kSides == 1;
  Extremes extremes = FindExtremes(blocks);
  const __mmask16 bad = NotFinite(extremes.above) | NotFinite(extremes.below);
  if constexpr (kOne) extremes.above = _mm512_max_ps(extremes.above, extremes.below);
  const Sides above = Encode::Scales(extremes.above);
  const Sides below = kOne ? above : Encode::Scales(extremes.below);
  const __mmask16 small = Encode::TooSmall(above, extremes.above) |
                          (kOne ? __mmask16{0} : Encode::TooSmall(below, extremes.below));
  return {above, below, (bad | small) & ((1u << blocks.count()) - 1)};
}

// The factors of block b: 8 times that of the side above zero, then of the other side.
inline __m512 FactorsOf(const Scaled& scaled, int64_t b) {
  const __m512i index =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(b)),
                       _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 16, 16, 16, 16, 16, 16, 16, 16));
  return _mm512_permutex2var_ps(scaled.above.factors, index, scaled.below.factors);
}

// The upper words of a block's thresholds, a lane each: [8] of the side above zero, the first one not used,
// [8] of the other side.
inline __m512i Thresholds(__m512 factors) {
  return _mm512_castps_si512(
      _mm512_mul_ps(factors, _mm512_setr_ps(0.0f, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 0.0f, 0.25f,
                                            0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f)));
}

// The order in which a block's elements are wanted.
struct BlockOrder {
  alignas(64) uint16_t elements[kEncodeBlock];
};

// Step 3: codes of a block, one a word, but 8 may stand for -0. The words 0 to 15 of `table` are the
// thresholds.
template <const BlockOrder& kOrder>
inline __m512i Codes(const float* x, __m512i table) {
  const __m512i order = _mm512_load_si512(kOrder.elements);
  const __m512i upper = _mm512_add_epi16(_mm512_add_epi16(order, order), _mm512_set1_epi16(1));
  const __m512i words = _mm512_permutex2var_epi16(Words(x), upper, Words(x + 16));
  const __mmask32 negative = _mm512_movepi16_mask(words);
  const __m512i magnitude = _mm512_and_si512(words, _mm512_set1_epi16(0x7FFF));
  const auto reaches = [&](__m512i index) {
    return _mm512_cmpge_epu16_mask(magnitude, _mm512_permutexvar_epi16(index, table));
  };
  const auto step = [&](__m512i index, int16_t size) {  // up or down by size
    const __mmask32 up = reaches(index);
    index = _mm512_sub_epi16(index, _mm512_set1_epi16(size));
    return _mm512_mask_add_epi16(index, up, index, _mm512_set1_epi16(static_cast<int16_t>(2 * size)));
  };
  __m512i index = _mm512_mask_mov_epi16(_mm512_set1_epi16(4), negative, _mm512_set1_epi16(12));
  index = step(step(index, 2), 1);
  // Where the last threshold is not reached the code is one less.
  return _mm512_mask_sub_epi16(index, static_cast<__mmask32>(~reaches(index)), index, _mm512_set1_epi16(1));
}

}  // namespace
}  // namespace mxcompile

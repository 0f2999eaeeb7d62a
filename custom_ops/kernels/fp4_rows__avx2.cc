// E2M1 rows with AVX2.
//
// Data layout: see kernels.h. Quantizing takes four blocks at a time: (1) a pass finds each block's extremes;
// (2) the 8 sides of the four blocks (positive, negative each) become scale bytes and divisors in one vector;
// (3) a pass over the elements, 32 at a time, gives 16 bytes of codes. Four blocks, because that fills the
// vector of step 2 and its long latency chain is paid once; 32 elements, because four vectors of integers
// pack down to one of bytes.
//
// Register plan of step 3: 4 vectors of elements and 4 of indices, 2 sides, 6 constants; no accumulators.
// What is left of a row goes through a copy padded with zeros, which change neither scales nor codes.
#include <immintrin.h>

#include <cstring>

#include "kernels/fp4_decode__avx2.h"
#include "kernels/fp4_rows.h"

namespace mxcompile {
namespace {

constexpr int64_t kBatch = 4;  // blocks
constexpr int64_t kUnit = 32;  // elements of step 3

struct SidePair {
  __m256 positive;
  __m256 negative;
};

inline __m256i Bits(__m256 x) { return _mm256_castps_si256(x); }

// All ones (-1) in lanes where x >= threshold.
inline __m256i AtLeast(__m256 x, float threshold) {
  return Bits(_mm256_cmp_ps(x, _mm256_set1_ps(threshold), _CMP_GE_OQ));
}

// amxfp4. `extremes` holds max(0, x) of four blocks, then max(0, -x) of the four; so do codes and sides.
struct AmxEncode {
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kNaN = kE5M2NaN;

  // Scale bytes, one a lane; `sides` receives what Scaled divides by.
  static __m256i Scales(__m256 extremes, float* sides) {
    __m256 s = _mm256_div_ps(extremes, _mm256_set1_ps(kE2M1Max));
    const __m256 is_zero = _mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_EQ_OQ);
    s = _mm256_blendv_ps(s, _mm256_set1_ps(1.0f), is_zero);
    // The two branches of EncodeE5M2. The normal one never exceeds the right code of a subnormal, and
    // counting four thresholds never exceeds the right code of a normal: so the larger one is right.
    const __m256i rounded = _mm256_add_epi32(Bits(s), _mm256_set1_epi32(1 << 20));
    const __m256i normal =
        _mm256_sub_epi32(_mm256_srli_epi32(rounded, 21), _mm256_set1_epi32((127 - 15) << 2));
    const __m256 steps = _mm256_mul_ps(s, _mm256_set1_ps(0x1p16f));
    const __m256i low = _mm256_add_epi32(AtLeast(steps, 0.5f), AtLeast(steps, 1.5f));
    const __m256i high = _mm256_add_epi32(AtLeast(steps, 2.5f), AtLeast(steps, 3.5f));
    const __m256i subnormal = _mm256_abs_epi32(_mm256_add_epi32(low, high));
    const __m256i code = _mm256_min_epi32(_mm256_max_epi32(normal, subnormal), _mm256_set1_epi32(kE5M2Max));

    const __m256i halves = _mm256_slli_epi32(code, 8);
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    const __m256 value = _mm256_cvtph_ps(packed);
    // A scale of 0 gives 0: dividing by infinity does.
    const __m256 vanished = _mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_EQ_OQ);
    _mm256_storeu_ps(
        sides, _mm256_blendv_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(kExponentMask)), vanished));
    return code;
  }

  static inline __m256 Scaled(__m256 x, __m256 magnitude, const SidePair& sides) {
    return _mm256_div_ps(magnitude, _mm256_blendv_ps(sides.positive, sides.negative, x));
  }
};

// mxfp4. Both sides are equal; the factor is 2^(127 - byte), exact as a float32, so multiplying equals
// dividing.
struct MxEncode {
  static constexpr int64_t kCount = 1;
  static constexpr uint8_t kNaN = kE8M0NaN;

  static __m256i Scales(__m256 extremes, float* sides) {
    const __m256 swapped = _mm256_permute2f128_ps(extremes, extremes, 0x01);
    const __m256i exponent = _mm256_srli_epi32(Bits(_mm256_max_ps(extremes, swapped)), 23);
    const __m256i code =
        _mm256_max_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(2)), _mm256_setzero_si256());
    const __m256i inverse = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(254), code), 23);
    _mm256_storeu_ps(sides, _mm256_castsi256_ps(inverse));
    return code;
  }

  static inline __m256 Scaled(__m256, __m256 magnitude, const SidePair& sides) {
    return _mm256_mul_ps(magnitude, sides.positive);
  }
};

// Step 1: max(0, x), four candidates in the low lane, and max(0, -x) in the high lane. Found as integers:
// floats of one sign are ordered like their bits, and NaN and infinity come out on top, where step 2 sees
// them.
inline __m256i Extremes(const float* x, int64_t block) {
  const __m256i zero = _mm256_setzero_si256(), sign = _mm256_set1_epi32(INT32_MIN);
  __m256i positive = zero, any = zero;
  for (int64_t i = 0; i < block; i += 8) {
    const __m256i v = Bits(_mm256_loadu_ps(x + i));
    positive = _mm256_max_epi32(positive, v);
    any = _mm256_max_epu32(any, v);  // bits of negatives are the largest unsigned ones
  }
  const __m256i negative = _mm256_max_epi32(_mm256_xor_si256(any, sign), zero);
  return _mm256_max_epi32(_mm256_permute2x128_si256(positive, negative, 0x20),
                          _mm256_permute2x128_si256(positive, negative, 0x31));
}

// The largest candidate of each of four blocks: a 4 x 4 transposition in both lanes that reduces on the way.
inline __m256 Reduce(const __m256i (&blocks)[kBatch]) {
  const __m256i first = _mm256_max_epi32(_mm256_unpacklo_epi32(blocks[0], blocks[1]),
                                         _mm256_unpackhi_epi32(blocks[0], blocks[1]));
  const __m256i second = _mm256_max_epi32(_mm256_unpacklo_epi32(blocks[2], blocks[3]),
                                          _mm256_unpackhi_epi32(blocks[2], blocks[3]));
  return _mm256_castsi256_ps(
      _mm256_max_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second)));
}

// Bit b is set if block b is not finite throughout.
inline int NotFinite(__m256 extremes) {
  const __m256i limit = _mm256_set1_epi32(static_cast<int32_t>(kExponentMask) - 1);
  const int sides = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(Bits(extremes), limit)));
  return (sides | sides >> kBatch) & 15;
}

// The scale bytes of four blocks in the order of memory.
template <int64_t kCount>
inline __m128i ScaleBytes(__m256i codes) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  const __m128i bytes = _mm_packus_epi16(words, words);  // 4 positive, 4 negative
  return kCount == 1 ? bytes : _mm_unpacklo_epi8(bytes, _mm_srli_si128(bytes, kBatch));
}

constexpr int kIndexBias =
    (127 << 1) - 2;  // of an index while it is made from a float's exponent and first bit

// Step 3 for 8 elements: the magnitude's index + kIndexBias, not yet saturated.
template <typename Encode>
inline __m256i BiasedIndex(__m256 x, const SidePair& sides) {
  const __m256 q = Encode::Scaled(x, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x), sides);
  // From 1 on, half a unit of the 1-bit mantissa rounds ties away, as in EncodeE5M2; below 1 two thresholds
  // count. Neither exceeds the right index on the other's ground, so the larger one is right.
  const __m256i normal = _mm256_srli_epi32(_mm256_add_epi32(Bits(q), _mm256_set1_epi32(1 << 21)), 22);
  const __m256i passed = _mm256_add_epi32(AtLeast(q, 0.25f), AtLeast(q, 0.75f));
  return _mm256_max_epi32(normal, _mm256_sub_epi32(_mm256_set1_epi32(kIndexBias), passed));
}

// Step 3 for 16 elements: indices with the elements' signs, -7 to 7, as words of lanes 0 0 1 1.
template <typename Encode>
inline __m256i SignedIndices(const float* x, const SidePair& sides) {
  const __m256 first = _mm256_loadu_ps(x), second = _mm256_loadu_ps(x + 8);
  __m256i index = _mm256_packs_epi32(BiasedIndex<Encode>(first, sides), BiasedIndex<Encode>(second, sides));
  index = _mm256_min_epi16(index, _mm256_set1_epi16(kIndexBias + 7));
  index = _mm256_sub_epi16(index, _mm256_set1_epi16(kIndexBias));
  // Saturation keeps the sign of a float's bits. An index of 0 loses its sign here, as it should.
  return _mm256_sign_epi16(index, _mm256_packs_epi32(Bits(first), Bits(second)));
}

// Step 3: 32 elements, 16 for each pair of sides, to 16 bytes.
template <typename Encode>
inline void EncodeUnit(const float* x, const SidePair& first, const SidePair& second, uint8_t* codes) {
  const __m256i words =
      _mm256_packs_epi16(SignedIndices<Encode>(x, first), SignedIndices<Encode>(x + 16, second));
  const __m256i bytes = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  // A code is the index, and bit 3 for a negative one.
  const __m256i signs = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(kE2M1Sign));
  const __m256i nibbles = _mm256_or_si256(_mm256_abs_epi8(bytes), signs);
  const __m256i pairs = _mm256_maddubs_epi16(nibbles, _mm256_set1_epi16(0x1001));  // low + 16 * high
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi16(pairs, pairs), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm256_castsi256_si128(packed));
}

// Up to four blocks, a whole number of units. The block size is a constant: a division by it would cost more
// than all the rest.
template <typename Encode, int64_t kBlock>
inline void EncodeBatch(const float* x, int64_t count, uint8_t* codes, uint8_t* scales) {
  __m256i candidates[kBatch];
  for (int64_t b = 0; b < kBatch; ++b) {
    candidates[b] = b < count ? Extremes(x + b * kBlock, kBlock) : _mm256_setzero_si256();
  }
  const __m256 extremes = Reduce(candidates);
  alignas(32) float sides[2 * kBatch];
  const __m128i scale_bytes = ScaleBytes<Encode::kCount>(Encode::Scales(extremes, sides));
  std::memcpy(scales, &scale_bytes, static_cast<size_t>(count * Encode::kCount));

  for (int64_t i = 0; i < count * kBlock; i += kUnit) {
    const float* first = sides + i / kBlock;
    const float* second = sides + (i + kUnit / 2) / kBlock;
    EncodeUnit<Encode>(x + i, {_mm256_broadcast_ss(first), _mm256_broadcast_ss(first + kBatch)},
                       {_mm256_broadcast_ss(second), _mm256_broadcast_ss(second + kBatch)}, codes + i / 2);
  }
  const int not_finite = NotFinite(extremes);
  if (not_finite == 0) return;
  for (int64_t b = 0; b < count; ++b) {
    if ((not_finite >> b & 1) == 0) continue;
    std::memset(scales + b * Encode::kCount, Encode::kNaN, Encode::kCount);
    std::memset(codes + b * kBlock / 2, 0, kBlock / 2);
  }
}

template <typename Encode, int64_t kBlock>
void QuantizeBlocks(const float* x, int64_t k, uint8_t* codes, uint8_t* scales) {
  constexpr int64_t kStep = kBlock < kUnit ? kUnit : kBlock;
  const int64_t whole = k / kStep * kStep;
  int64_t i = 0;
  for (; i + kBatch * kBlock <= whole; i += kBatch * kBlock) {
    EncodeBatch<Encode, kBlock>(x + i, kBatch, codes + i / 2, scales + i / kBlock * Encode::kCount);
  }
  if (i < whole) {
    EncodeBatch<Encode, kBlock>(x + i, (whole - i) / kBlock, codes + i / 2,
                                scales + i / kBlock * Encode::kCount);
  }
  const int64_t rest = k - whole;
  if (rest == 0) return;
  float padded[kStep] = {};
  uint8_t padded_codes[kStep / 2], padded_scales[kStep / kBlock * Encode::kCount];
  std::memcpy(padded, x + whole, static_cast<size_t>(rest) * sizeof(float));
  EncodeBatch<Encode, kBlock>(padded, kStep / kBlock, padded_codes, padded_scales);
  std::memcpy(codes + whole / 2, padded_codes, static_cast<size_t>(CeilDiv(rest, 2)));
  std::memcpy(scales + whole / kBlock * Encode::kCount, padded_scales,
              static_cast<size_t>(CeilDiv(rest, kBlock) * Encode::kCount));
}

template <typename Encode>
void Quantize(const float* x, int64_t k, int64_t block, uint8_t* codes, uint8_t* scales) {
  switch (block) {  // formats.cc allows no others
    case 16:
      return QuantizeBlocks<Encode, 16>(x, k, codes, scales);
    case 32:
      return QuantizeBlocks<Encode, 32>(x, k, codes, scales);
    default:
      return QuantizeBlocks<Encode, 64>(x, k, codes, scales);
  }
}

// The two factors of a block, in all lanes.
template <typename Decode>
inline void LoadSides(const uint8_t* scales, __m256* positive, __m256* minus_negative) {
  const int first = scales[0], last = scales[Decode::kCount - 1];
  const __m128i bytes = _mm_set1_epi16(static_cast<int16_t>(first | last << 8));
  const __m256 values = Decode::Decode(bytes);  // first, last, first, last, ...
  *positive = _mm256_moveldup_ps(values);
  *minus_negative = Negate(_mm256_movehdup_ps(values));
}

inline __m256i EightCodes(const uint8_t* codes, int64_t bytes) {
  uint32_t word = 0;
  std::memcpy(&word, codes, static_cast<size_t>(bytes));
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int32_t>(word)), shifts);
}

template <typename Decode>
void Dequantize(const uint8_t* codes, const uint8_t* scales, int64_t k, int64_t block, float* x) {
  const __m256 table = E2M1Table();
  for (int64_t start = 0; start < k; start += block, scales += Decode::kCount) {
    __m256 positive, minus_negative;
    LoadSides<Decode>(scales, &positive, &minus_negative);
    const int64_t end = k - start < block ? k : start + block;
    int64_t i = start;
    for (; i + 8 <= end; i += 8) {
      _mm256_storeu_ps(x + i, DecodeE2M1(table, EightCodes(codes + i / 2, 4), positive, minus_negative));
    }
    if (i == end) continue;
    float rest[8];
    const __m256i last = EightCodes(codes + i / 2, CeilDiv(end - i, 2));
    _mm256_storeu_ps(rest, DecodeE2M1(table, last, positive, minus_negative));
    std::memcpy(x + i, rest, static_cast<size_t>(end - i) * sizeof(float));
  }
}

}  // namespace

const RowKernels amxfp4_rows__avx2 = {Quantize<AmxEncode>, Dequantize<AmxDecode>};
const RowKernels mxfp4_rows__avx2 = {Quantize<MxEncode>, Dequantize<MxDecode>};

}  // namespace mxcompile

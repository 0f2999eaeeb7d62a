// E2M1 rows with AVX2.
//
// Data layout: see kernels.h. Quantizing takes four blocks at a time: (1) a pass finds each block's extremes;
// (2) the 8 sides of the four blocks (positive, negative each) become scale bytes and divisors in one vector;
// (3) a pass over the elements, 32 at a time, gives 16 bytes of codes. Four blocks, because that fills the
// vector of step 2 and its long latency chain is paid once; 32 elements, because four vectors of integers
// pack down to one of bytes.
//
// (Decoding is that of block_rows__avx2.h.)
//
// Register plan of step 3: 4 vectors of elements and 4 of indices, 2 sides, 6 constants; no accumulators.
// What is left of a row goes through a copy padded with zeros, which change neither scales nor codes.
#include <immintrin.h>

#include <cstring>

#include "kernels/block_rows__avx2.h"
#include "kernels/row_kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kBatch = 4;  // blocks
constexpr int64_t kUnit = 32;  // elements of step 3

struct SidePair {
  __m256 positive;
  __m256 negative;
};

// All ones (-1) in lanes where x >= threshold.
inline __m256i AtLeast(__m256 x, float threshold) {
  return Bits(_mm256_cmp_ps(x, _mm256_set1_ps(threshold), _CMP_GE_OQ));
}

// 8 codes, one a lane, to 8 bytes in order.
inline __m128i Bytes(__m256i codes) {
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  return _mm_packus_epi16(words, words);
}

// `extremes` holds max(0, x) of four blocks, then max(0, -x) of the four; so do codes and sides. `sides`
// receives what Scaled works with.

// Two 8-bit floats: extreme / 6, 0 becoming 1. `Decode` as for the inverse.
template <typename Type, typename Decode, uint8_t kNaNByte, bool kZeroIsOne>
struct FloatEncode {
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kNaN = kNaNByte;

  static __m256i Scales(__m256 extremes, float* sides) {
    __m256 s = _mm256_div_ps(extremes, _mm256_set1_ps(E2M1::kMaximum));
    const __m256 is_zero = _mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_EQ_OQ);
    s = _mm256_blendv_ps(s, _mm256_set1_ps(1.0f), is_zero);
    __m256i code = EncodeMagnitudes<Type>(s);
    if constexpr (kZeroIsOne) {
      const __m256i vanished = _mm256_cmpeq_epi32(code, _mm256_setzero_si256());
      code = _mm256_or_si256(code,
                             _mm256_and_si256(vanished, _mm256_set1_epi32(Type::kBias << Type::kMantissa)));
    }
    const __m256 value = Decode::Decode(Bytes(code));
    // A scale of 0 gives 0: dividing by infinity does.
    const __m256 vanished = _mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_EQ_OQ);
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(kExponentMask));
    _mm256_storeu_ps(sides, _mm256_blendv_ps(value, infinity, vanished));
    return code;
  }

  static inline __m256 Scaled(__m256 x, __m256 magnitude, const SidePair& sides) {
    return _mm256_div_ps(magnitude, _mm256_blendv_ps(sides.positive, sides.negative, x));
  }
};

// E8M0, FLOOR or EVEN rule, one a block or one a side. The factor is 2^(127 - byte), exact as a float32, so
// multiplying equals dividing.
template <int kSides, bool kEven>
struct PowerEncode {
  static constexpr int64_t kCount = kSides;
  static constexpr uint8_t kNaN = kE8M0NaN;

  static __m256i Scales(__m256 extremes, float* sides) {
    if constexpr (kSides == 1)
      extremes = _mm256_max_ps(extremes, _mm256_permute2f128_ps(extremes, extremes, 0x01));
    __m256i bits = Bits(extremes);
    if constexpr (kEven) bits = _mm256_add_epi32(bits, _mm256_set1_epi32(1 << (22 - E2M1::kMantissa)));
    const __m256i code =
        _mm256_max_epi32(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(E2M1::kEmax)),
                         _mm256_setzero_si256());
    const __m256i inverse = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(254), code), 23);
    _mm256_storeu_ps(sides, _mm256_castsi256_ps(inverse));
    return code;
  }

  static inline __m256 Scaled(__m256 x, __m256 magnitude, const SidePair& sides) {
    if constexpr (kSides == 1) return _mm256_mul_ps(magnitude, sides.positive);
    return _mm256_mul_ps(magnitude, _mm256_blendv_ps(sides.positive, sides.negative, x));
  }
};

// Step 1: max(0, x), four candidates in the low lane, and max(0, -x) in the high lane. Found as integers:
// floats of one sign are ordered like their bits, and NaN and infinity come out on top, where step 2 sees
// them.
inline __m256i Candidates(const float* x, int64_t block) {
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
  const __m128i bytes = Bytes(codes);  // 4 positive, 4 negative
  return kCount == 1 ? bytes : _mm_unpacklo_epi8(bytes, _mm_srli_si128(bytes, kBatch));
}

constexpr int kIndexBias =
    (127 << 1) - 2;  // of an index while it is made from a float's exponent and first bit

// Step 3 for 8 elements: the magnitude's index + kIndexBias, not yet saturated.
template <typename Encode>
inline __m256i BiasedIndex(__m256 x, const SidePair& sides) {
  const __m256 q = Encode::Scaled(x, Magnitude(x), sides);
  // From 1 on, half a unit of the 1-bit mantissa rounds ties away, as in EncodeMagnitudes; below 1 two
  // thresholds count. Neither exceeds the right index on the other's ground, so the larger one is right.
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
  const __m256i signs = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(E2M1::kSign));
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
    candidates[b] = b < count ? Candidates(x + b * kBlock, kBlock) : _mm256_setzero_si256();
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
void QuantizeRowOf(const float* x, int64_t k, uint8_t* codes, uint8_t* scales) {
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
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  const int64_t k = row.k;
  switch (row.block) {  // formats.cc allows no others
    case 16:
      return QuantizeRowOf<Encode, 16>(x, k, codes, scales);
    case 32:
      return QuantizeRowOf<Encode, 32>(x, k, codes, scales);
    default:
      return QuantizeRowOf<Encode, 64>(x, k, codes, scales);
  }
}

// Decoding, for the frame.
template <typename Scales>
struct Fp4 {
  static constexpr int kBits = E2M1::kBits;
  struct Block {
    __m256 positive, minus_negative;
  };

  static inline Block Load(const uint8_t* scales, const RowShape&, int64_t index) {
    const uint8_t* bytes = scales + index * Scales::kCount;
    const int first = bytes[0], last = bytes[Scales::kCount - 1];
    // first, last, first, last, ...
    const __m256 values = Scales::Decode(_mm_set1_epi16(static_cast<int16_t>(first | last << 8)));
    return {_mm256_moveldup_ps(values), Negate(_mm256_movehdup_ps(values))};
  }

  static inline __m256 Decode(const Block& block, __m256i codes) {
    return DecodeE2M1(E2M1Table(), codes, block.positive, block.minus_negative);
  }
};

template <typename Encode, typename Decode>
constexpr RowKernels Rows() {
  return {Quantize<Encode>, DequantizeBlocks<Fp4<Decode>>};
}

}  // namespace

const RowKernels amxfp4_rows__avx2 = Rows<FloatEncode<E5M2, AmxDecode, 0x7F, false>, AmxDecode>();
const RowKernels amxfp4_pot_rows__avx2 = Rows<PowerEncode<2, false>, PowerDecode<2>>();
const RowKernels amxfp4_pot_r_rows__avx2 = Rows<PowerEncode<2, true>, PowerDecode<2>>();
const RowKernels amxfp4_e4m3_rows__avx2 =
    Rows<FloatEncode<E4M3Extended, AmxE4M3Decode, 0xFF, true>, AmxE4M3Decode>();
const RowKernels mxfp4_rows__avx2 = Rows<PowerEncode<1, false>, PowerDecode<1>>();
const RowKernels mxfp4_even_rows__avx2 = Rows<PowerEncode<1, true>, PowerDecode<1>>();

}  // namespace mxcompile

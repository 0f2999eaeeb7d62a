// Decoding panels of block-scaled rows to bfloat16; unnamed namespace: see elements.h.
//
// Data layout: from packed_panels__avx512.h to [pairs][32 rows] words, half a panel at a time. An element of
// 4, 6 or 8 bits times its scale, a power of two or E5M2 or E4M3, has 8 significant bits at most, so bfloat16
// holds it unless it is too small.
//
// Elements of 4 bits: a shuffle and a shift bring 32 of them to the low nibbles of words; then as in
// bf16_decode__avx512.h, with two scales a block by sign first: 5 or 7 operations, 9 with E4M3 scales.
// Elements of 6 or 8 bits, 64 at a time: a shuffle sorts them by pairs; two vpermb or vpermi2b look up both
// bytes of the bfloat16, of 8 bits without the sign, which takes one or two more; two unpackings join the
// bytes; two subtractions apply the scales: 3.5 to 4.5 operations for 32. Records with scales for which that
// is not right, and panels with codes that are not plain go a longer way through float32: 12 to 24 operations
// for 32.
#pragma once

#include "kernels/bf16_decode__avx512.h"
#include "kernels/bf16_tiles__avx512bf16.h"
#include "kernels/pack_panels__avx512.h"

namespace mxcompile {
namespace {

constexpr int kHalfQuarters = kQuarters / 2;

// 16 scale bytes to both words of a lane each.
inline __m512i InBothWords(const uint8_t* bytes) {
  const __m512i lanes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  return _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
}

// How scale bytes become what is subtracted. Right from kLow to kHigh; for which elements a table stands
// relative to 2^kTop.
template <typename Decode, typename Element>
struct Subtrahends;

template <int kSides, typename Element>
struct Subtrahends<PowerDecode<kSides>, Element> {
  // E2M1 has a table with room for the mantissa of a scale.
  static constexpr int kTop = 127 - Element::kEmax - (Element::kBits == 4 ? 2 : 0);
  static constexpr int kLow = 1 - StepOf<Element>(), kHigh = 127 + kTop;
  static constexpr int16_t kMantissa = Element::kBits == 4 ? 0x30 : 0;

  static inline __m512i Load(const uint8_t* bytes) {
    const __m512i below = _mm512_sub_epi16(_mm512_set1_epi16(kHigh), InBothWords(bytes));
    return _mm512_or_si512(_mm512_slli_epi16(below, 7), _mm512_set1_epi16(kMantissa));
  }
  static inline __m512i Decode(__m512i codes, __m512i scale) { return DecodeNibbles<kTop>(codes, scale); }
};

template <>
struct Subtrahends<AmxDecode, E2M1> {
  static constexpr int kLow = 0, kHigh = kLargestFinite;

  static inline __m512i Load(const uint8_t* bytes) {
    return ScaleWords(_mm512_slli_epi16(InBothWords(bytes), 8));
  }
  static inline __m512i Decode(__m512i codes, __m512i scale) { return DecodeNibbles<kE5M2Top>(codes, scale); }
};

template <>
struct Subtrahends<AmxE4M3Decode, E2M1> {
  static constexpr int kLow = 1 << E4M3Extended::kMantissa, kHigh = E4M3Extended::kMax;

  static inline __m512i Load(const uint8_t* bytes) { return FineScaleWords(InBothWords(bytes)); }
  static inline __m512i Decode(__m512i codes, __m512i scale) { return DecodeFineNibbles(codes, scale); }
};

template <typename Layout>
using SubtrahendsOf = Subtrahends<typename Layout::Decoder, typename Layout::Element>;

// Both bytes of the bfloat16 of elements times 2^kTop, by their codes; of 8-bit elements without sign.
template <typename Element, int kTop>
struct ByteTables {
  static constexpr int kCodes = Element::kBits == 8 ? 128 : 64;
  alignas(64) uint8_t upper[kCodes], lower[kCodes];

  constexpr ByteTables() : upper(), lower() {
    for (int code = 0; code < kCodes; ++code) {
      const bool negative = Element::kBits == 6 && code >= 32;
      const uint16_t word = Word(negative ? code - 32 : code, negative);
      upper[code] = static_cast<uint8_t>(word >> 8);
      lower[code] = static_cast<uint8_t>(word & 0xFF);
    }
  }

 private:
  static constexpr uint16_t Word(int magnitude, bool negative) {
    int significand = magnitude, exponent = StepOf<Element>() + kTop + 127 + 7;
    if constexpr (!std::is_same_v<Element, MxInt8>) {
      const int power = magnitude >> Element::kMantissa;
      significand = (magnitude & ((1 << Element::kMantissa) - 1)) | (power != 0) << Element::kMantissa;
      if (power > 1) exponent += power - 1;
    }
    if (significand == 0) return 0;
    for (; significand < 128; significand *= 2) --exponent;
    return static_cast<uint16_t>(negative << 15 | exponent << 7 | (significand & 127));
  }
};

// Two pairs of 16 rows, before the subtraction, from words of four elements.
template <typename Element>
inline void LookUpPairs(__m512i codes, __m512i* first, __m512i* second) {
  static constexpr ByteTables<Element, Subtrahends<PowerDecode<1>, Element>::kTop> kTables;
  // The even k of a pair to the upper word; the first pairs of four rows to the lower half of 16 bytes.
  codes = _mm512_shuffle_epi8(codes, _mm512_set4_epi32(0x0E0F0A0B, 0x06070203, 0x0C0D0809, 0x04050001));
  __m512i upper, lower;
  if constexpr (Element::kBits == 6) {
    upper = _mm512_permutexvar_epi8(codes, _mm512_load_si512(kTables.upper));
    lower = _mm512_permutexvar_epi8(codes, _mm512_load_si512(kTables.lower));
  } else {
    constexpr bool kIntegers = std::is_same_v<Element, MxInt8>;
    const __m512i index = kIntegers ? _mm512_abs_epi8(codes) : codes;
    upper = _mm512_permutex2var_epi8(_mm512_load_si512(kTables.upper), index,
                                     _mm512_load_si512(kTables.upper + 64));
    lower = _mm512_permutex2var_epi8(_mm512_load_si512(kTables.lower), index,
                                     _mm512_load_si512(kTables.lower + 64));
    upper = _mm512_ternarylogic_epi32(upper, codes, _mm512_set1_epi8(INT8_MIN), 0xF8);  // u | (c & top)
  }
  *first = _mm512_unpacklo_epi8(lower, upper);
  *second = _mm512_unpackhi_epi8(lower, upper);
}

// What is subtracted from the elements of a block of 16 rows.
struct Subtracted {
  __m512i above, below;  // the same without two sides
};

// Those of the quarters of a record from `first` on.
template <typename Layout, int kCount>
inline void LoadSubtracted(const uint8_t* record, int first, Subtracted (&scales)[kCount]) {
  Unroll<kCount>([&](auto q) {
    const uint8_t* bytes = record + (first + q) * kLanes;
    scales[q].above = SubtrahendsOf<Layout>::Load(bytes);
    if constexpr (Layout::kTwoSides) scales[q].below = SubtrahendsOf<Layout>::Load(bytes + kWidePanel);
  });
}

// Calls use(i, pair) for the pairs of 16 rows of a group of words.
template <typename Layout, typename Use>
inline void DecodeWords(__m512i words, const Subtracted& scales, const Use& use) {
  if constexpr (Layout::kBits == 4) {
    Unroll<4>([&](auto pair) {
      const __m512i spread = _mm512_set1_epi32((pair << 16 | pair) * 0x101);  // its byte to every one
      const __m512i byte = _mm512_add_epi8(spread, _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0));
      const __m512i codes = _mm512_srlv_epi16(_mm512_shuffle_epi8(words, byte), _mm512_set1_epi32(4));
      __m512i scale = scales.above;
      if constexpr (Layout::kTwoSides) {
        const __mmask32 negative = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(8));
        scale = _mm512_mask_blend_epi16(negative, scale, scales.below);
      }
      use(pair, SubtrahendsOf<Layout>::Decode(codes, scale));
    });
  } else {
    __m512i first, second;
    LookUpPairs<typename Layout::Element>(words, &first, &second);
    use(std::integral_constant<int, 0>(), _mm512_subs_epu16(first, scales.above));
    use(std::integral_constant<int, 1>(), _mm512_subs_epu16(second, scales.above));
  }
}

// The same in float32, for any scales and codes: the values are exact in bfloat16, so their upper words are
// enough.
template <typename Layout, typename Use>
inline void DecodeWordsSlowly(__m512i words, const Factors& factors, const Use& use) {
  Unroll<Layout::kGroup / 2>([&](auto pair) {
    const __m512i upper = _mm512_castps_si512(DecodeLowest<Layout>(words, factors));
    words = _mm512_srli_epi32(words, Layout::kShift);
    const __m512i lower = _mm512_castps_si512(DecodeLowest<Layout>(words, factors));
    words = _mm512_srli_epi32(words, Layout::kShift);
    use(pair, _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(lower, 16), upper));
  });
}

// Whether a whole panel can be decoded by subtraction.
template <typename Layout>
inline bool IsFast(const PanelFacts& facts) {
  using Scales = SubtrahendsOf<Layout>;
  return facts.plain != 0 && facts.smallest >= Scales::kLow && facts.largest <= Scales::kHigh;
}

// Whether all scales of half a record are such that the subtraction is right.
template <typename Layout>
inline bool HasFastScales(const uint8_t* record, int half) {
  using Scales = SubtrahendsOf<Layout>;
  __mmask32 other = 0;
  for (int side = 0; side < Layout::kScaleBytes; ++side) {
    const __m256i bytes =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(record + side * kWidePanel + 32 * half));
    const __m256i above = _mm256_sub_epi8(bytes, _mm256_set1_epi8(static_cast<char>(Scales::kLow)));
    other |= _mm256_cmpgt_epu8_mask(above, _mm256_set1_epi8(static_cast<char>(Scales::kHigh - Scales::kLow)));
  }
  return other == 0;
}

// The groups of half a record, which begin at `words`, to pairs.
template <typename Layout>
[[gnu::flatten]] void DecodeRecord(const uint8_t* record, int half, int64_t groups, bool plain, int64_t ahead,
                                   uint8_t* to) {
  const int first = half * kHalfQuarters;
  const uint8_t* words = record + Layout::kScaleBytes * kWidePanel + 64 * first;
  const auto each = [&](const auto& decode) {
    for (int64_t i = 0; i < groups; ++i, words += kWordGroup, to += Layout::kGroup / 2 * kPairBytes) {
      Unroll<kHalfQuarters>([&](auto q) {
        _mm_prefetch(reinterpret_cast<const char*>(words + ahead + 64 * q), _MM_HINT_T0);
        decode(LoadWords(words, q), q,
               [&](auto pair, __m512i b) { _mm512_storeu_si512(to + pair * kPairBytes + 64 * q, b); });
      });
    }
  };
  if (plain && HasFastScales<Layout>(record, half)) {
    Subtracted scales[kHalfQuarters];
    LoadSubtracted<Layout>(record, first, scales);
    each([&](__m512i w, auto q, const auto& use) { DecodeWords<Layout>(w, scales[q], use); });
  } else {
    Factors factors[kHalfQuarters];
    Unroll<kHalfQuarters>([&](auto q) { factors[q] = LoadFactors<Layout>(record, first + q); });
    each([&](__m512i w, auto q, const auto& use) { DecodeWordsSlowly<Layout>(w, factors[q], use); });
  }
}

// The elements [start, end) of half a panel; `start` is the beginning of a block. What stands behind the row
// is 0 even if its scale is not finite. What will be decoded `ahead` elements later is wanted soon.
template <typename Layout>
void DecodeHalf(const GemmArgs& args, bool plain, int half, int64_t start, int64_t end, int64_t ahead,
                uint8_t* decoded) {
  const int64_t block = args.row.block, record_bytes = RecordBytes<Layout>(block);
  const uint8_t* record = args.packed + start / block * record_bytes;
  for (int64_t i = start; i < end; i += block, record += record_bytes) {
    const int64_t count = end - i < block ? end - i : block;
    DecodeRecord<Layout>(record, half, CeilDiv(count, Layout::kGroup), plain, ahead / block * record_bytes,
                         decoded + (i - start) / 2 * kPairBytes);
  }
  if ((end - start) % 2 == 0) return;
  uint8_t* last = decoded + (end - start) / 2 * kPairBytes;
  for (int q = 0; q < kHalfQuarters; ++q) {
    const __m512i upper = _mm512_and_si512(LoadLine(last + 64 * q), _mm512_set1_epi32(-65536));
    _mm512_storeu_si512(last + 64 * q, upper);
  }
}

}  // namespace
}  // namespace mxcompile

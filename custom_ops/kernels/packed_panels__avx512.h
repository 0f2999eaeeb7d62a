// Panels of block-scaled rows of any float format for AVX512, and their decoding to float32; unnamed
// namespace: see elements.h.
//
// Data layout: a panel is 64 rows of B, four vectors. Each block of a panel is a record: its scales, then
// groups of 8 elements of 4 bits or of 4 wider ones, [64 rows] of 32-bit words with k ascending from the
// lowest bits. So 16 rows' words are one vector, and one shift by 4 or 8 brings the next k into place.
// Elements of 6 bits take a byte here. Rows and elements that do not exist are zero bytes, with scales 1.
// What is known of all elements stands behind the records: see pack_panels__avx512.h.
//
// Decoding 16 elements of 4 bits takes a shift, a vpermps by the code with its sign, and a multiplication;
// with two scales a block a test and a blend more. Elements of 6 bits take a vpermi2ps and their sign, those
// of 8 bits go through float16.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/elements__avx2.h"
#include "kernels/kernels.h"
#include "kernels/nvfp4.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kWidePanel = 64, kLanes = 16;
constexpr int kQuarters = 4;
constexpr int64_t kWordGroup = kWidePanel * 4;  // bytes

// 16 scale bytes to float32.
template <typename Decode>
inline __m512 SixteenScales(const uint8_t* bytes) {
  const auto eight = [](const uint8_t* from) {
    return Decode::Decode(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  };
  return _mm512_insertf32x8(_mm512_castps256_ps512(eight(bytes)), eight(bytes + 8), 1);
}

// How the scales of a block stand in a record. As they come, [s][64 rows] bytes:
template <typename Decode>
struct ByteScales {
  static constexpr int64_t kScaleBytes = Decode::kCount;  // a row
  static constexpr bool kTwoSides = Decode::kCount == 2;
  static constexpr bool kBytes = true, kPowers = Decode::kOne == 127;
  static constexpr int kScaleStep = Decode::kStep;
  using Decoder = Decode;

  // The scales of rows that do not exist.
  static void FillScales(int64_t rows, uint8_t* record) {
    for (int64_t s = 0; s < kScaleBytes; ++s)
      std::memset(record + s * kWidePanel + rows, Decode::kOne, static_cast<size_t>(kWidePanel - rows));
  }
  static void PackScales(const uint8_t* row_scales, int64_t index, int64_t r, uint8_t* record) {
    for (int64_t s = 0; s < kScaleBytes; ++s)
      record[s * kWidePanel + r] = row_scales[index * kScaleBytes + s];
  }
  static inline __m512 LoadScales(const uint8_t* record, int side, int quarter) {
    return SixteenScales<Decode>(record + side * kWidePanel + quarter * kLanes);
  }
};

// nvfp4: the product of block and tensor scale, float32 [64 rows].
struct NvProducts {
  static constexpr int64_t kScaleBytes = 4;
  static constexpr bool kTwoSides = false, kBytes = false, kPowers = false;
  static constexpr int kScaleStep = -149;

  static void FillScales(int64_t, uint8_t*) {}
  static void PackScales(const uint8_t* row_scales, int64_t index, int64_t r, uint8_t* record) {
    const uint8_t byte = row_scales[NvScales::kRowBytes + index];
    StoreFloat(NvScales::Decode(byte, LoadFloat(row_scales)), record + kScaleBytes * r);
  }
  static inline __m512 LoadScales(const uint8_t* record, int, int quarter) {
    return _mm512_loadu_ps(reinterpret_cast<const float*>(record) + quarter * kLanes);
  }
};

// Magnitudes of the codes of a 6-bit float.
template <typename Element>
struct Magnitudes {
  alignas(64) float values[32];

  constexpr Magnitudes() : values() {
    for (int code = 0; code < 32; ++code) {
      const int exponent = code >> Element::kMantissa, mantissa = code & ((1 << Element::kMantissa) - 1);
      const int significand = exponent == 0 ? mantissa : mantissa | 1 << Element::kMantissa;
      const int step = (exponent == 0 ? 1 : exponent) - Element::kBias - Element::kMantissa;
      values[code] = static_cast<float>(significand) * PowerOfTwo(step);
    }
  }
};

// Elements in the low bits of 16 lanes, whatever stands above.
template <typename Element>
inline __m512 Values(__m512i codes) {
  static constexpr Magnitudes<Element> kTable;
  static_assert(Element::kBits == 6, "elements of 8 bits have their own way");
  const __m512 magnitudes =
      _mm512_permutex2var_ps(_mm512_load_ps(kTable.values), codes, _mm512_load_ps(kTable.values + kLanes));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitudes),
                                                       _mm512_slli_epi32(codes, 26),
                                                       _mm512_set1_epi32(INT32_MIN), 0xF8));  // m | (s & top)
}

template <>
inline __m512 Values<E5M2>(__m512i codes) {
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_slli_epi32(codes, 8)));
}

template <>
inline __m512 Values<E4M3>(__m512i codes) {  // see DecodeCodes in elements__avx2.h
  const __m512i magnitude = _mm512_and_si512(codes, _mm512_set1_epi32(0x7F));
  const __m512i halves = _mm512_ternarylogic_epi32(
      _mm512_slli_epi32(magnitude, 7), _mm512_slli_epi32(codes, 8), _mm512_set1_epi32(0x8000), 0xF8);
  const __m512 value = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves)),
                                     _mm512_set1_ps(PowerOfTwo(15 - E4M3::kBias)));
  const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7F));
  return _mm512_mask_mov_ps(value, is_nan, _mm512_castsi512_ps(_mm512_set1_epi32(kQuietNaN)));
}

template <>
inline __m512 Values<MxInt8>(__m512i codes) {
  const __m512i signed_codes = _mm512_srai_epi32(_mm512_slli_epi32(codes, 24), 24);
  return _mm512_mul_ps(_mm512_cvtepi32_ps(signed_codes), _mm512_set1_ps(1.0f / 64));
}

// The exponent of what all elements are multiples of.
template <typename Element>
constexpr int StepOf() {
  if constexpr (std::is_same_v<Element, MxInt8>)
    return -6;
  else
    return 1 - Element::kBias - Element::kMantissa;
}

// How elements stand in words.
struct Fp4Words {
  using Element = E2M1;
  static constexpr int kBits = 4, kShift = 4, kMagnitude = 7;
  static constexpr int kStep = StepOf<E2M1>();
  static constexpr int64_t kGroup = 8;

  static inline uint32_t Word(uint32_t codes) { return codes; }
  static inline __m512 Elements(__m512i words) {
    return _mm512_permutexvar_ps(words, _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                                       -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f));
  }
};

template <typename Type>
struct ByteWords {
  using Element = Type;
  static constexpr bool kIntegers = std::is_same_v<Element, MxInt8>;
  static constexpr int kBits = Element::kBits, kShift = 8,
                       kMagnitude = (kIntegers ? 256 : 1 << (kBits - 1)) - 1;
  static constexpr int kStep = StepOf<Element>();
  static constexpr int64_t kGroup = 4;

  static inline uint32_t Word(uint32_t codes) {
    if constexpr (kBits == 8) return codes;
    return (codes & 0x3F) | (codes & 0xFC0) << 2 | (codes & 0x3F000) << 4 | (codes & 0xFC0000) << 6;
  }
  static inline __m512 Elements(__m512i words) { return Values<Element>(words); }
};

template <typename Scales, typename Words>
struct LayoutOf : Scales, Words {};

// The factors of a block for 16 rows.
struct Factors {
  __m512 above, below;  // the same without two sides
};

template <typename Layout>
inline Factors LoadFactors(const uint8_t* record, int quarter) {
  const __m512 above = Layout::LoadScales(record, 0, quarter);
  if constexpr (!Layout::kTwoSides) return {above, above};
  return {above, Layout::LoadScales(record, 1, quarter)};
}

// The lowest elements of 16 words as float32.
template <typename Layout>
inline __m512 DecodeLowest(__m512i words, const Factors& factors) {
  if constexpr (!Layout::kTwoSides) return _mm512_mul_ps(Layout::Elements(words), factors.above);
  const __mmask16 negative = _mm512_test_epi32_mask(words, _mm512_set1_epi32(8));
  const __m512 factor = _mm512_mask_blend_ps(negative, factors.above, factors.below);
  return _mm512_mul_ps(Layout::Elements(words), factor);
}

template <typename Layout>
int64_t RecordBytes(int64_t block) {
  return Layout::kScaleBytes * kWidePanel + CeilDiv(block, Layout::kGroup) * kWordGroup;
}

// Calls use(i, count, words, factors) for each group of the elements [start, end): count elements from i on,
// the words of 64 rows and their factors. `start` is the beginning of a block. The count of a full group is a
// constant.
template <typename Layout, typename Use>
inline void ForGroups(const GemmArgs& args, int64_t start, int64_t end, const Use& use) {
  const int64_t record_bytes = RecordBytes<Layout>(args.row.block);
  const uint8_t* record = args.packed + start / args.row.block * record_bytes;
  for (int64_t first = start; first < end; first += args.row.block, record += record_bytes) {
    Factors factors[kQuarters];
    Unroll<kQuarters>([&](auto q) { factors[q] = LoadFactors<Layout>(record, q); });
    const uint8_t* words = record + Layout::kScaleBytes * kWidePanel;
    const int64_t last = end - first < args.row.block ? end : first + args.row.block;
    int64_t i = first;
    for (; i + Layout::kGroup <= last; i += Layout::kGroup, words += kWordGroup)
      use(i, std::integral_constant<int64_t, Layout::kGroup>(), words, factors);
    if (i < last) use(i, last - i, words, factors);
  }
}

inline __m512i LoadWords(const uint8_t* words, int quarter) {
  return _mm512_loadu_si512(words + 64 * quarter);
}

// Elements [start, end) of the panel to [k][64] float32.
template <typename Layout>
[[gnu::flatten]] void DecodePiece(const GemmArgs& args, int64_t start, int64_t end, float* decoded) {
  ForGroups<Layout>(args, start, end,
                    [&](int64_t k, auto count, const uint8_t* words, const Factors(&factors)[kQuarters]) {
                      Unroll<kQuarters>([&](auto q) {
                        __m512i w = LoadWords(words, q);
                        float* to = decoded + (k - start) * kWidePanel + kLanes * q;
                        for (int64_t t = 0; t < count; ++t, to += kWidePanel) {
                          _mm512_store_ps(to, DecodeLowest<Layout>(w, factors[q]));
                          w = _mm512_srli_epi32(w, Layout::kShift);
                        }
                      });
                    });
}

// kRows rows of A, float32, `a_stride` apart, times the panel.
template <typename Layout, int kRows>
[[gnu::flatten]] void MultiplyRows(const GemmArgs& args, const float* a, int64_t a_stride, float* c) {
  __m512 sums[kRows][kQuarters];
  Unroll<kRows>([&](auto r) { Unroll<kQuarters>([&](auto q) { sums[r][q] = _mm512_setzero_ps(); }); });
  ForGroups<Layout>(
      args, 0, args.row.k,
      [&](int64_t k, auto count, const uint8_t* words, const Factors(&factors)[kQuarters]) {
        __m512i w[kQuarters];
        Unroll<kQuarters>([&](auto q) { w[q] = LoadWords(words, q); });
        for (int64_t t = 0; t < count; ++t) {
          __m512 b[kQuarters];
          Unroll<kQuarters>([&](auto q) {
            b[q] = DecodeLowest<Layout>(w[q], factors[q]);
            w[q] = _mm512_srli_epi32(w[q], Layout::kShift);
          });
          Unroll<kRows>([&](auto r) {
            const __m512 x = _mm512_set1_ps(a[r * a_stride + k + t]);
            Unroll<kQuarters>([&](auto q) { sums[r][q] = _mm512_fmadd_ps(x, b[q], sums[r][q]); });
          });
        }
      });
  Unroll<kRows>([&](auto r) {
    Unroll<kQuarters>([&](auto q) { _mm512_storeu_ps(c + r * kWidePanel + kLanes * q, sums[r][q]); });
  });
}

template <typename Layout>
using Rows = void (*)(const GemmArgs&, const float*, int64_t, float*);

constexpr int64_t kDirectRows = 3;
template <typename Layout>
constexpr Rows<Layout> kMultiplyRows[kDirectRows] = {MultiplyRows<Layout, 1>, MultiplyRows<Layout, 2>,
                                                     MultiplyRows<Layout, 3>};

}  // namespace
}  // namespace mxcompile

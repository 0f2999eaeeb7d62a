// Packing rows into panels, and what is known of a panel's elements; unnamed namespace: see elements.h.
//
// Data layout: packed_panels__avx512.h; PanelFacts behind the records. So that these say more, an E8M0 scale
// of nothing but zeros becomes 1. Elements of 8 bits and E8M0 scales take two or three operations for 64.
#pragma once

#include "kernels/packed_panels__avx512.h"
#include "kernels/packed_words.h"

namespace mxcompile {
namespace {

constexpr int64_t kFactBytes = 64;

// What is known of a panel.
struct PanelFacts {
  uint8_t smallest, largest;  // scale bytes
  int32_t step;               // elements that are finite are multiples of 2^step
  int32_t plain;              // 0: codes may be infinity, NaN or 8-bit -0, or of MxInt8 -2
};

template <typename Layout>
int64_t PackedBytes(const RowShape& row) {
  const int64_t k = row.k, block = row.block, rest = k % block;
  return k / block * RecordBytes<Layout>(block) + (rest != 0 ? RecordBytes<Layout>(rest) : 0) + kFactBytes;
}

template <typename Layout>
PanelFacts FactsOf(const GemmArgs& args) {
  PanelFacts facts;
  std::memcpy(&facts, args.packed + PackedBytes<Layout>(args.row) - kFactBytes, sizeof(facts));
  return facts;
}

// Whether an element of [start, end) of a row, not 0, has the scale of that side.
template <typename Layout>
bool NeedsScale(const uint8_t* codes, int64_t start, int64_t end, int side) {
  for (int64_t i = start; i < end; ++i) {
    const int code = GetCode(codes, i, Layout::kBits);
    if ((code & Layout::kMagnitude) != 0 && (!Layout::kTwoSides || code >> 3 == side)) return true;
  }
  return false;
}

// The scales of a block that are so small or large that few elements are right with them, 255 (NaN) apart.
inline __mmask64 UnusualPowers(__m512i scales) {
  constexpr uint8_t kLow = 32, kHigh = 222;
  const __m512i above = _mm512_sub_epi8(scales, _mm512_set1_epi8(kLow));
  return _mm512_cmpgt_epu8_mask(above, _mm512_set1_epi8(static_cast<char>(kHigh - kLow))) &
         _mm512_cmpneq_epi8_mask(scales, _mm512_set1_epi8(-1));
}

// Makes those scales 1 that nothing but zeros has.
template <typename Layout>
void SettlePowers(const BRows& b, int64_t rows, int64_t start, int64_t end, uint8_t* record) {
  for (int side = 0; side < Layout::kScaleBytes; ++side, record += kWidePanel) {
    for (__mmask64 left = UnusualPowers(_mm512_loadu_si512(record)); left != 0; left &= left - 1) {
      const int64_t r = __builtin_ctzll(left);
      if (r < rows && !NeedsScale<Layout>(b.codes + r * b.code_bytes, start, end, side)) record[r] = 127;
    }
  }
}

// Whether no code in the words of a group is one of those.
template <typename Element>
inline bool ArePlain(const uint8_t* words) {
  const __m512i top = _mm512_set1_epi8(INT8_MIN);
  uint64_t others = 0;
  for (int q = 0; q < kQuarters; ++q) {
    const __m512i codes = LoadWords(words, q);
    others |= _mm512_cmpeq_epi8_mask(codes, top);
    if constexpr (!std::is_same_v<Element, MxInt8>)
      others |= _mm512_cmpgt_epu8_mask(_mm512_andnot_si512(top, codes), _mm512_set1_epi8(Element::kMax));
  }
  return others == 0;
}

// The smallest and the largest of bytes, lane by lane.
struct ByteRange {
  __m512i smallest = _mm512_set1_epi8(-1), largest = _mm512_setzero_si512();

  inline void Add(__m512i bytes) {
    smallest = _mm512_min_epu8(smallest, bytes);
    largest = _mm512_max_epu8(largest, bytes);
  }
  void Put(PanelFacts* facts) const {
    alignas(64) uint8_t low[64], high[64];
    _mm512_store_si512(low, smallest);
    _mm512_store_si512(high, largest);
    facts->smallest = low[0];
    facts->largest = high[0];
    for (int i = 1; i < 64; ++i) {
      facts->smallest = low[i] < facts->smallest ? low[i] : facts->smallest;
      facts->largest = high[i] > facts->largest ? high[i] : facts->largest;
    }
  }
};

// The words of the elements [start, end) of `rows` rows; whether they are plain.
template <typename Layout>
bool PackWords(const BRows& b, int64_t rows, int64_t start, int64_t end, uint8_t* words) {
  bool plain = true;
  for (int64_t i = start; i < end; i += Layout::kGroup, words += kWordGroup) {
    const int64_t count = end - i < Layout::kGroup ? end - i : Layout::kGroup;
    const auto bytes = static_cast<size_t>(CodeBytes(count, Layout::kBits));
    for (int64_t r = 0; r < rows; ++r) PackWord<Layout>(b.codes + r * b.code_bytes, i, bytes, words + 4 * r);
    if constexpr (Layout::kBits == 8) plain &= ArePlain<typename Layout::Element>(words);
  }
  return plain;
}

template <typename Layout>
void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  const int64_t k = row.k, block = row.block, size = PackedBytes<Layout>(row);
  if (rows < kWidePanel || k % Layout::kGroup != 0 || row.block % Layout::kGroup != 0)
    std::memset(packed, 0, static_cast<size_t>(size));
  ByteRange range;
  PanelFacts facts = {0, 0, Layout::kScaleStep + Layout::kStep, 1};
  for (int64_t start = 0; start < k; start += block) {
    uint8_t* record = packed + start / block * RecordBytes<Layout>(block);
    const int64_t end = k - start < block ? k : start + block;
    Layout::FillScales(rows, record);
    for (int64_t r = 0; r < rows; ++r)
      Layout::PackScales(b.scales + r * b.scale_bytes, start / block, r, record);
    if constexpr (Layout::kPowers) SettlePowers<Layout>(b, rows, start, end, record);
    if constexpr (Layout::kBytes) {
      for (int64_t s = 0; s < Layout::kScaleBytes; ++s)
        range.Add(_mm512_loadu_si512(record + s * kWidePanel));
    }
    facts.plain &= PackWords<Layout>(b, rows, start, end, record + Layout::kScaleBytes * kWidePanel);
  }
  if constexpr (Layout::kBytes) range.Put(&facts);
  if constexpr (Layout::kPowers) facts.step = facts.smallest - 127 + Layout::kStep;
  std::memcpy(packed + size - kFactBytes, &facts, sizeof(facts));
}

}  // namespace
}  // namespace mxcompile

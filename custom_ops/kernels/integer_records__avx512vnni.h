// Packing rows of integers for AVX512 VNNI; unnamed namespace: see elements.h.
//
// Data layout: 4-bit codes as in fp4_tiles__avx512.h without scales, 3-bit ones as if they had 4 bits. 8-bit
// codes less 128 as [blocks][8 units][32 rows] words of four, in the order of a vector's nibbles. Missing
// rows and elements are 0.
#pragma once

#include "kernels/fp4_tiles__avx512.h"
#include "kernels/integers.h"

namespace mxcompile {
namespace {

using Layout = Tiles<0>;

constexpr int64_t kDecoded = kPairBlock * kTilePanel;  // bytes of a decoded block
constexpr int64_t kBlockUnits = kPairBlock / 4;

// 32 codes of 8 bits less `offset` in the order of a vector's nibbles; what stands behind `count` of them
// becomes 0.
inline __m256i OrderedBytes(const uint8_t* codes, int64_t count, uint8_t offset) {
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 5, 0, 4, 3, 7, 2, 6, 9, 13, 8, 12, 11, 15, 10, 14));
  const auto present = static_cast<__mmask32>((uint64_t{1} << count) - 1);
  const __m256i offsets = _mm256_maskz_set1_epi8(present, static_cast<int8_t>(offset));
  return _mm256_shuffle_epi8(_mm256_sub_epi8(_mm256_maskz_loadu_epi8(present, codes), offsets), order);
}

// The elements of a block that starts at `start`.
inline int64_t CountFrom(int64_t k, int64_t start) { return k - start < kPairBlock ? k - start : kPairBlock; }

// 3-bit codes: a block at a time to nibbles.
template <typename Number>
void PackNarrow(const BRows& b, int64_t rows, int64_t k, uint8_t* to) {
  constexpr int64_t kRowBytes = kPairBlock / 2;
  for (int64_t start = 0; start < k; start += kPairBlock, to += Layout::kRecord) {
    uint8_t nibbles[kTilePanel * kRowBytes] = {};
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < CountFrom(k, start); ++i) {
        const int code = GetCode(b.codes + r * b.code_bytes, start + i, Number::kBits);
        PutCode(nibbles + r * kRowBytes, i, 4, code);
      }
    }
    for (int64_t group = 0; group < 2; ++group) {
      const int64_t first = group * kTileGroup;
      PackGroup({nibbles + first * kRowBytes, nullptr, kRowBytes, 0}, rows - first, 0, kPairBlock,
                to + group * kGroupCodes);
    }
  }
}

// 8-bit codes, less 128.
void PackBytes(const BRows& b, int64_t rows, int64_t k, uint8_t* to) {
  std::memset(to, 0, static_cast<size_t>(CeilDiv(k, kPairBlock) * kDecoded));
  for (int64_t start = 0; start < k; start += kPairBlock, to += kDecoded) {
    for (int64_t r = 0; r < rows; ++r) {
      alignas(32) uint8_t units[kPairBlock];
      _mm256_store_si256(reinterpret_cast<__m256i*>(units),
                         OrderedBytes(b.codes + r * b.code_bytes + start, CountFrom(k, start), 128));
      for (int64_t i = 0; i < kBlockUnits; ++i) std::memcpy(to + 128 * i + 4 * r, units + 4 * i, 4);
    }
  }
}

template <typename Number>
void PackRecords(const BRows& b, int64_t rows, const RowShape& row, uint8_t* to) {
  if constexpr (Number::kBits == 8) {
    PackBytes(b, rows, row.k, to);
  } else if constexpr (Number::kBits == 4) {
    Layout::Pack(b, rows, row, to);
  } else {
    PackNarrow<Number>(b, rows, row.k, to);
  }
}

}  // namespace
}  // namespace mxcompile

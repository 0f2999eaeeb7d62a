// Panels of E2M1 rows for AVX512, and packing them; unnamed namespace: see elements.h.
//
// Data layout: a panel is 32 rows, two groups of 16. Each block of 32 elements is a record: one or two times
// 32 bytes of scales, then for each group four vectors of 64 bytes of codes. A 32-bit lane of vector j holds
// eight elements of one row, k = 8j + 0 ... 7, as nibbles in the order 1 3 5 7 0 2 4 6 from the lowest bits.
// So
// - shifted right by 0, 4, 8, 12 bits, the low nibbles of a lane's two words are elements 0 1, 2 3, 4 5, 6 7,
//   the first of them in the upper word: what vdpbf16ps adds first;
// - the low nibbles of its bytes are elements 1 5 0 4, the high ones 3 7 2 6: four factors of vpdpbusd.
// Missing rows, and elements behind the row, are zero bytes.
//
// One scale a block: byte row. Two: byte side * 32 + (row / 8 % 2) * 16 + (row / 16) * 8 + row % 8, so that
// unpacking the bytes to words gives a group in one half register each.
//
// Packing takes 16 rows: 16 loads of 16 bytes, 8 unpacks, 8 operations a vector to reorder nibbles.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kTilePanel = 32, kTileGroup = 16;
constexpr int64_t kGroupCodes = 256;

inline __m512i LoadLine(const void* from) { return _mm512_loadu_si512(from); }

// Nibbles 0 1 ... 7 of each lane in the order 1 3 5 7 0 2 4 6.
inline __m512i OrderNibbles(__m512i lanes) {
  const __m512i low = _mm512_set1_epi8(0x0F), join = _mm512_set1_epi16(0x1001);
  const __m512i even = _mm512_maddubs_epi16(_mm512_and_si512(lanes, low), join);
  const __m512i odd = _mm512_maddubs_epi16(_mm512_and_si512(_mm512_srli_epi16(lanes, 4), low), join);
  const __m512i both = _mm512_or_si512(odd, _mm512_slli_epi16(even, 8));  // bytes odd, even, odd, even
  return _mm512_shuffle_epi8(both, _mm512_set4_epi32(0x0F0D0E0C, 0x0B090A08, 0x07050604, 0x03010200));
}

// The codes of `count` elements, at most a block; what stands behind them becomes 0.
inline __m128i BlockCodes(const uint8_t* codes, int64_t count) {
  if (count == kPairBlock) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  const uint32_t whole = (1u << count / 2) - 1, all = (1u << (count + 1) / 2) - 1;
  const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>(all), codes);
  return _mm_mask_mov_epi8(bytes, static_cast<__mmask16>(all ^ whole),
                           _mm_and_si128(bytes, _mm_set1_epi8(0x0F)));
}

// Four 32-bit words of 16 rows: word j of row(r) to lane r of vector j.
template <typename Row>
inline void Transpose(const Row& row, __m512i (&vectors)[4]) {
  __m512i quads[4];  // rows q, q + 4, q + 8, q + 12
  Unroll<4>([&](auto q) {
    __m512i z = _mm512_castsi128_si512(row(q));
    z = _mm512_inserti32x4(z, row(q + 4), 1);
    z = _mm512_inserti32x4(z, row(q + 8), 2);
    quads[q] = _mm512_inserti32x4(z, row(q + 12), 3);
  });
  const __m512i low01 = _mm512_unpacklo_epi32(quads[0], quads[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(quads[2], quads[3]);
  const __m512i high01 = _mm512_unpackhi_epi32(quads[0], quads[1]);
  const __m512i high23 = _mm512_unpackhi_epi32(quads[2], quads[3]);
  vectors[0] = _mm512_unpacklo_epi64(low01, low23);
  vectors[1] = _mm512_unpackhi_epi64(low01, low23);
  vectors[2] = _mm512_unpacklo_epi64(high01, high23);
  vectors[3] = _mm512_unpackhi_epi64(high01, high23);
}

// 16 rows of one block to four vectors.
inline void PackGroup(const BRows& b, int64_t rows, int64_t offset, int64_t count, uint8_t* to) {
  __m512i vectors[4];
  const auto row = [&](int64_t r) {
    return r < rows ? BlockCodes(b.codes + r * b.code_bytes + offset, count) : _mm_setzero_si128();
  };
  Transpose(row, vectors);
  for (int j = 0; j < 4; ++j) _mm512_storeu_si512(to + 64 * j, OrderNibbles(vectors[j]));
}

// The 32 elements from `start` on, of k, of both groups.
inline void PackCodes(const BRows& b, int64_t rows, int64_t k, int64_t start, uint8_t* to) {
  const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
  for (int64_t group = 0; group < 2; ++group) {
    const int64_t first = group * kTileGroup;
    const BRows part{b.codes + first * b.code_bytes, nullptr, b.code_bytes, 0};
    PackGroup(part, rows - first, start / 2, count, to + group * kGroupCodes);
  }
}

// The records of a format with kSides scale bytes a block.
template <int kSides>
struct Tiles {
  static constexpr int64_t kScales = kSides * kTilePanel;
  static constexpr int64_t kRecord = kScales + 2 * kGroupCodes;

  static int64_t PackedBytes(const RowShape& row) { return CeilDiv(row.k, kPairBlock) * kRecord; }

  // The scales of a block of `rows` rows, `stride` bytes apart.
  static void PackScales(const uint8_t* scales, int64_t rows, int64_t stride, uint8_t* to) {
    if constexpr (kSides == 1) {
      std::memset(to, 0, kTilePanel);
      for (int64_t r = 0; r < rows; ++r) to[r] = scales[r * stride];
    } else if constexpr (kSides == 2) {
      uint16_t pairs[kTilePanel] = {};
      for (int64_t r = 0; r < rows; ++r) std::memcpy(pairs + r, scales + r * stride, sizeof(pairs[r]));
      // Words of rows 0-7, 8-15, 16-23, 24-31: their low bytes become lanes 0 and 1, the high ones 2 and 3.
      const __m512i words = LoadLine(pairs);
      const __m256i above = _mm512_cvtepi16_epi8(words),
                    below = _mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 8));
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(above), below, 1);
      const __m512i order = _mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi64(order, both));
    }
  }

  static void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed);
};

template <int kSides>
void Tiles<kSides>::Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
  for (int64_t start = 0; start < row.k; start += kPairBlock, packed += kRecord) {
    PackScales(b.scales + start / kPairBlock * kSides, rows, b.scale_bytes, packed);
    PackCodes(b, rows, row.k, start, packed + kScales);
  }
}

// Where sums stand between pieces of k: rows of c, `stride` apart; those of the first piece begin at 0.
struct SumRows {
  float* c;
  int64_t stride;
  bool first;

  inline __m512 Load(int64_t row, int64_t group) const {
    return first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + row * stride + group * kTileGroup);
  }
  inline void Store(int64_t row, int64_t group, __m512 sums) const {
    _mm512_storeu_ps(c + row * stride + group * kTileGroup, sums);
  }
  void Clear(int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) std::memset(c + r * stride, 0, kTilePanel * sizeof(float));
  }
  SumRows From(int64_t row) const { return {c + row * stride, stride, first}; }
};

}  // namespace
}  // namespace mxcompile

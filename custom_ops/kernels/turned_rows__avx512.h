// Rows of B as they come, 16 of them brought side by side in registers; unnamed namespace: see elements.h.
//
// 32 bytes of 16 rows become eight vectors of 32-bit words, one row in each lane: 16 loads, 8 of them into
// the upper half of a register, 16 unpacks and 8 shuffles; 2 blocks of 4-bit codes, or the scales of many.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kTurnRows = 16;
constexpr int64_t kTurnBytes = 32;
constexpr int kTurned = 8;  // vectors

// Rows of `stride` bytes that follow each other.
struct ByteRows {
  const uint8_t* first;
  int64_t stride, rows;
};

// The bytes [offset, offset + kTurnBytes) of 16 rows from `row` on to vectors: word j of a row to a lane of
// vector j. Behind the end of a row is 0. If not kAll, rows that do not exist are the last one again.
template <bool kAll>
[[gnu::noinline]] void Turn(const ByteRows& bytes, int64_t row, int64_t offset, __m512i (&to)[kTurned]) {
  const int64_t size = bytes.stride - offset;
  const auto present = static_cast<__mmask32>(size >= kTurnBytes ? ~0u : (1u << size) - 1);
  const auto eight_words = [&](int64_t r) {
    const uint8_t* from = bytes.first + (kAll ? row + r : std::min(row + r, bytes.rows - 1)) * bytes.stride;
    if (size < kTurnBytes) return _mm256_maskz_loadu_epi8(present, from + offset);
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + offset));
  };
  const auto rows = [&](int64_t r) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(eight_words(r)), eight_words(r + 4), 1);
  };
  __m512i half[2][4];  // of 8 rows: words j and j + 4
  Unroll<2>([&](auto h) {
    const __m512i q[4] = {rows(8 * h), rows(8 * h + 1), rows(8 * h + 2), rows(8 * h + 3)};
    const __m512i low01 = _mm512_unpacklo_epi32(q[0], q[1]), low23 = _mm512_unpacklo_epi32(q[2], q[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(q[0], q[1]), high23 = _mm512_unpackhi_epi32(q[2], q[3]);
    half[h][0] = _mm512_unpacklo_epi64(low01, low23);
    half[h][1] = _mm512_unpackhi_epi64(low01, low23);
    half[h][2] = _mm512_unpacklo_epi64(high01, high23);
    half[h][3] = _mm512_unpackhi_epi64(high01, high23);
  });
  Unroll<4>([&](auto j) {
    to[j] = _mm512_shuffle_i32x4(half[0][j], half[1][j], 0x88);
    to[j + 4] = _mm512_shuffle_i32x4(half[0][j], half[1][j], 0xDD);
  });
}

// The same for rows of few bytes, which are found in fewer loads.
template <bool kAll>
[[gnu::noinline]] void TurnScales(const ByteRows& bytes, int64_t row, int64_t offset,
                                  __m512i (&to)[kTurned]) {
  const uint8_t* from = bytes.first + row * bytes.stride;
  if (kAll && bytes.stride == 2) {
    to[0] = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  } else if (kAll && bytes.stride == 4) {
    to[0] = _mm512_loadu_si512(from);
  } else if (kAll && bytes.stride == 8) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 64);
    to[0] = _mm512_permutex2var_epi32(low, even, high);
    to[1] = _mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
  } else {
    Turn<kAll>(bytes, row, offset, to);
  }
}

// Calls multiply(groups, all, row) so that it does `rows` rows, 16 * groups of them from each `row` on, all
// of which exist or not. Where they do, the last ones may have their turn twice.
template <int kGroups, typename Multiply>
inline void ForGroups(int64_t rows, const Multiply& multiply) {
  constexpr int kFew = kGroups < 2 ? kGroups : 2;
  if (rows < kGroups * kTurnRows) {
    for (int64_t row = 0; row < rows; row += kFew * kTurnRows)
      multiply(std::integral_constant<int, kFew>(), std::false_type(), row);
    return;
  }
  const int64_t last = rows - kGroups * kTurnRows;
  for (int64_t row = 0; row < rows; row += kGroups * kTurnRows)
    multiply(std::integral_constant<int, kGroups>(), std::true_type(), std::min(row, last));
}

}  // namespace
}  // namespace mxcompile

// Rows of A brought into a tile, 4 bytes of each in turn; unnamed namespace: see elements.h.
//
// Rows are made one after the other, a piece of each in memory that stays in L1, and change places four rows
// and 16 units at a time: 4 loads, 8 unpacks and 16 stores of 16 bytes for what would be 64 stores of 4.
#pragma once

#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kMostRows = 16;  // of a tile

// `units` units of rows `stride` bytes apart to a tile of `tile` rows. `stride` is a multiple of 64 bytes,
// all of which can be read.
[[gnu::flatten]] inline void Interleave(const uint8_t* from, int64_t stride, int64_t rows, int64_t units,
                                        uint8_t* to, int64_t tile) {
  for (int64_t row = 0; row < rows; row += 4) {
    const auto present = static_cast<__mmask8>(rows - row < 4 ? (1u << (rows - row)) - 1 : 15u);
    const auto line = [&](int64_t r, int64_t unit) {
      return _mm512_loadu_si512(from + (row + r < rows ? row + r : row) * stride + 4 * unit);
    };
    for (int64_t unit = 0; unit < units; unit += 16) {
      const __m512i low01 = _mm512_unpacklo_epi32(line(0, unit), line(1, unit));
      const __m512i low23 = _mm512_unpacklo_epi32(line(2, unit), line(3, unit));
      const __m512i high01 = _mm512_unpackhi_epi32(line(0, unit), line(1, unit));
      const __m512i high23 = _mm512_unpackhi_epi32(line(2, unit), line(3, unit));
      const __m512i turned[4] = {_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
                                 _mm512_unpacklo_epi64(high01, high23),
                                 _mm512_unpackhi_epi64(high01, high23)};
      uint8_t* const first = to + 4 * (unit * tile + row);
      const int64_t left = units - unit;
      Unroll<16>([&](auto i) {
        if (i >= left) return;
        __m128i four = _mm512_extracti32x4_epi32(turned[i % 4], i / 4);
        if (present == 15) {
          _mm_storeu_si128(reinterpret_cast<__m128i*>(first + 4 * i * tile), four);
        } else {
          // GCC would store by a masked vextracti32x4, which faults on what it does not store.
          KeepInOrder(four);
          _mm_mask_storeu_epi32(first + 4 * i * tile, present, four);
        }
      });
    }
  }
}

}  // namespace
}  // namespace mxcompile

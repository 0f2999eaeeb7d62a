// The layout of constant amxfp4 weights with AVX2; unnamed namespace: see elements.h.
//
// A panel is 64 rows of B, a block of it a record: 8 times 16 bytes of scales, those above zero of 8 rows and
// then those below zero, and 32 columns, one for each k, of 32 bytes. A byte of a column holds the codes of
// two rows: row r in the low nibble, row r + 32 in the high one. So what belongs to one element of A stands
// together, and columns can be taken in any order. Within 128 bits four rows stand together, in the order in
// which they come out when bytes are interleaved twice: 0 to 3, 8 to 11, 16 to 19, 24 to 27; the other rows
// up to 31 stand behind them. Rows and elements that do not exist are zero bytes.
#pragma once

#include "kernels/elements__avx2.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kColumnRows = 64;
constexpr int64_t kColumnBytes = kColumnRows / 2;
constexpr int64_t kColumnScales = 2 * kColumnRows;
constexpr int64_t kColumnRecord = kColumnScales + kPairBlock * kColumnBytes;

// The scales of 8 rows above and below zero.
struct ColumnScales {
  explicit ColumnScales(const uint8_t* bytes) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), zero = _mm_setzero_si128();
    // E5M2: the top bytes of float16.
    above = _mm256_cvtph_ps(_mm_unpacklo_epi8(zero, both));
    below = _mm256_cvtph_ps(_mm_unpackhi_epi8(zero, both));
  }
  __m256 above, below;
};

}  // namespace
}  // namespace mxcompile

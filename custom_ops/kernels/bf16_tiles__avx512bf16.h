// Tiles of products in bfloat16 with AVX512 BF16; unnamed namespace: see elements.h.
//
// vdpbf16ps is two fused multiply-adds of float32, the upper words first, with subnormals taken and given as
// zero: the bits of std::fma where neither an operand nor a sum is subnormal.
//
// Data layout: a row of A is pairs of bfloat16, the even k in the upper word; up to 12 rows are interleaved,
// so that a tile reads one stream. 32 rows of B are [pairs][32 rows] in scratch that fits into L1.
//
// Register plan: 12 x 2 sums (12 rows, 32 columns), 2 vectors of B, a broadcast of A. 24 vdpbf16ps take 14
// loads and 12 cycles, which also cover the latency of 6. Bound: vdpbf16ps, two a cycle.
#pragma once

#include "kernels/fp4_tiles__avx512.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kMaxTile = 12;
constexpr int64_t kPairBytes = 128;  // of 32 rows of B

// What a row of A takes: whole blocks of pairs.
inline int64_t PairRowBytes(int64_t k) { return CeilDiv(k, kPairBlock) * 64; }

// Puts 16 pairs `step` bytes apart.
inline void StoreUnits(__m512i pairs, uint8_t* to, int64_t step) {
  if (step == 4) return _mm512_storeu_si512(to, pairs);
  alignas(64) int32_t units[16];
  _mm512_store_si512(units, pairs);
  for (int i = 0; i < 16; ++i) std::memcpy(to + i * step, units + i, sizeof(units[i]));
}

// Pair of k of a row of a tile.
inline __m512i PairOf(const uint8_t* a, int64_t row) {
  int32_t pair;
  std::memcpy(&pair, a + 4 * row, sizeof(pair));
  return _mm512_set1_epi32(pair);
}

inline __m512 AddProducts(__m512 sums, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// c[kRows, 32] += a[kRows, pairs] * b[pairs, 32]; the next pair of a row is `step` bytes further. What stands
// at `next` is wanted next.
template <int kRows>
[[gnu::flatten]] void MultiplyTile(const uint8_t* a, const uint8_t* next, int64_t step, const uint8_t* b,
                                   int64_t pairs, const SumRows& c) {
  __m512 sums[kRows][2];
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { sums[r][g] = c.Load(r, g); }); });
  for (int64_t i = 0; i < pairs; ++i, a += step, next += step, b += kPairBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T0);
    const __m512i first = LoadLine(b), second = LoadLine(b + 64);
    Unroll<kRows>([&](auto r) {
      const __m512i x = PairOf(a, r);
      sums[r][0] = AddProducts(sums[r][0], x, first);
      sums[r][1] = AddProducts(sums[r][1], x, second);
    });
  }
  Unroll<kRows>([&](auto r) { Unroll<2>([&](auto g) { c.Store(r, g, sums[r][g]); }); });
}

using Multiply = void (*)(const uint8_t*, const uint8_t*, int64_t, const uint8_t*, int64_t, const SumRows&);
constexpr Multiply kMultiply[kMaxTile] = {
    MultiplyTile<1>, MultiplyTile<2>, MultiplyTile<3>, MultiplyTile<4>,  MultiplyTile<5>,  MultiplyTile<6>,
    MultiplyTile<7>, MultiplyTile<8>, MultiplyTile<9>, MultiplyTile<10>, MultiplyTile<11>, MultiplyTile<12>};

// The rows of one tile from scratch. A tile that is higher than kMaxTile goes in two.
inline void MultiplyRowsOfTile(const uint8_t* a, const uint8_t* next, int64_t rows, int64_t step,
                               const uint8_t* decoded, int64_t pairs, const SumRows& c) {
  const int64_t first = rows <= kMaxTile ? rows : rows / 2;
  kMultiply[first - 1](a, next, step, decoded, pairs, c);
  if (first < rows) kMultiply[rows - first - 1](a + 4 * first, next, step, decoded, pairs, c.From(first));
}

// Tiles of nearly equal height.
inline int64_t EvenTiles(int64_t m) { return CeilDiv(m, CeilDiv(m, kMaxTile)); }

}  // namespace
}  // namespace mxcompile

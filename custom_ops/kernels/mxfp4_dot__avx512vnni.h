// Products of mxfp4 blocks by vpdpbusd: A's form, and how a block's sum joins the result. Unnamed namespace:
// see elements.h. What is computed: mxfp4_blocks.h.
//
// A is rows of 32-bit units, interleaved: for each block 8 units of 4 elements (int8) and 3 of BlockEnd; at
// the end of the row its flag.
//
// vpdpbusd multiplies bytes without sign by bytes with sign, so elements of B come as e + 12, by one vpermb,
// and a sum begins with -12 times the sum of A's elements. While all exponents are within the tame range (the
// flags say so), the product a / 4 * b is a float32 whose bits are a sum: one vpaddd, which does not compete
// with vpdpbusd; and multiplying s by that product gives the bits of the definition.
#pragma once

#include "kernels/fp4_tiles__avx512.h"
#include "kernels/mxfp4_blocks.h"

namespace mxcompile {
namespace {

// Exponents in this range have products with factors of 1/4 that are normal numbers.
constexpr int kTameFirst = 66, kTameLast = 190;
constexpr uint8_t kScaleOfZeros = 127;

// What follows the elements of a block of A.
struct BlockEnd {
  int32_t start;     // of the sum
  float scale;       // a / 4
  int32_t exponent;  // to be added to the bits of b
};
constexpr int64_t kElementUnits = kPairBlock / 4;
constexpr int64_t kEndUnits = sizeof(BlockEnd) / 4;
constexpr int64_t kBlockUnits = kElementUnits + kEndUnits;

inline bool Tame(uint8_t byte) { return byte >= kTameFirst && byte <= kTameLast; }

// The bytes that are not tame.
inline __mmask64 Wild(__m512i bytes) {
  const __m512i above_first = _mm512_sub_epi8(bytes, _mm512_set1_epi8(kTameFirst));
  return _mm512_cmpgt_epu8_mask(above_first, _mm512_set1_epi8(kTameLast - kTameFirst));
}

inline int64_t RowBytes(int64_t k) { return 4 * (CeilDiv(k, kPairBlock) * kBlockUnits + 1); }

// The order of a block's elements in A: where in a vector's lanes those of B stand.
struct ElementOrder {
  alignas(32) int8_t numbers[kPairBlock];
};

// Elements of a block. `order`: numbers of the even elements, 0 to 15, and of the odd ones, 16 to 31.
inline __m256i Elements(const uint8_t* codes, int64_t count, __m256i order) {
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kDoubledSigned)));
  const __m128i nibble = _mm_set1_epi8(0x0F), both = BlockCodes(codes, count);
  const __m128i even = _mm_and_si128(both, nibble), odd = _mm_and_si128(_mm_srli_epi16(both, 4), nibble);
  return _mm256_shuffle_epi8(table, _mm256_permutexvar_epi8(order, _mm256_set_m128i(odd, even)));
}

// In each lane the sum of 16 bytes: the first or the last.
inline __m256i SumsOfHalves(__m256i bytes) {
  __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), bytes);
  sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4E));
  return _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xB1));
}

inline int32_t SumOfBytes(__m256i bytes) {
  const __m256i halves = SumsOfHalves(bytes);
  return _mm256_extract_epi32(halves, 0) + _mm256_extract_epi32(halves, 4);
}

// Up to 32 codes of a block, with their scale; whether that is tame. A block of zeros adds nothing whatever
// its scale is, so its smallest one makes no row wild.
template <const ElementOrder& kOrder>
bool PrepareBlock(const uint8_t* codes, uint8_t scale, int64_t count, uint8_t* prepared, int64_t step) {
  struct {
    alignas(32) int8_t elements[kPairBlock];
    BlockEnd end;
  } block;
  const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(kOrder.numbers));
  const __m256i elements = Elements(codes, count, order);
  if (scale == 0 && _mm256_testz_si256(elements, elements) != 0) scale = kScaleOfZeros;
  _mm256_store_si256(reinterpret_cast<__m256i*>(block.elements), elements);
  block.end = {-12 * SumOfBytes(elements), DecodeE8M0(scale) * 0.25f, (scale - 127 - 2) * (1 << 23)};
  for (int64_t i = 0; i < kBlockUnits; ++i, prepared += step)
    std::memcpy(prepared, reinterpret_cast<const uint8_t*>(&block) + 4 * i, 4);
  return Tame(scale);
}

template <const ElementOrder& kOrder>
void Prepare(const uint8_t* codes, const uint8_t* scales, int64_t k, uint8_t* prepared, int64_t step) {
  int32_t tame = 1;
  for (int64_t start = 0; start < k; start += kPairBlock, ++scales, prepared += kBlockUnits * step) {
    const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
    if (!PrepareBlock<kOrder>(codes + start / 2, *scales, count, prepared, step)) tame = 0;
  }
  std::memcpy(prepared, &tame, sizeof(tame));
}

// Whether m rows of A are.
inline bool AreTame(const GemmArgs& args) {
  const int64_t flag = CeilDiv(args.row.k, kPairBlock) * kBlockUnits;
  bool tame = true;
  for (int64_t r = 0; r < args.m && tame; ++r) {
    const int64_t lane = r % args.a_tile;
    tame = args.a[(r - lane) * args.a_stride + 4 * (flag * args.a_tile + lane)] != 0;
  }
  return tame;
}

// Doubled elements of B plus 12, four times.
inline __m512i SumTable() {
  alignas(16) int8_t table[16];
  for (int i = 0; i < 16; ++i) table[i] = static_cast<int8_t>(kDoubledSigned[i] + 12);
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

inline __m512i Unit(const uint8_t* a, int64_t unit) {
  int32_t value;
  std::memcpy(&value, a + 4 * unit, sizeof(value));
  return _mm512_set1_epi32(value);
}

// The float32 of 16 scale bytes, one in each lane.
template <bool kTame>
inline __m512 Scales(__m512i exponents) {
  __m512i value = _mm512_slli_epi32(exponents, 23);
  if constexpr (!kTame) {
    const __mmask16 is_zero = _mm512_testn_epi32_mask(exponents, exponents);
    const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(exponents, _mm512_set1_epi32(kE8M0NaN));
    value = _mm512_mask_mov_epi32(value, is_zero, _mm512_set1_epi32(0x00400000));
    value = _mm512_mask_mov_epi32(value, is_nan, _mm512_set1_epi32(kQuietNaN));
  }
  return _mm512_castsi512_ps(value);
}

// y after a block with this sum. `end` is where the units of the row's BlockEnd begin, `tile` units apart.
template <bool kTame>
inline __m512 Finish(__m512i sum, const uint8_t* end, int64_t tile, __m512 scales, __m512 y) {
  const __m512 s = _mm512_cvtepi32_ps(sum);
  if constexpr (kTame) {
    const __m512i product = _mm512_add_epi32(_mm512_castps_si512(scales), Unit(end, 2 * tile));
    return _mm512_fmadd_ps(s, _mm512_castsi512_ps(product), y);
  }
  return _mm512_fmadd_ps(_mm512_castsi512_ps(Unit(end, tile)), _mm512_mul_ps(scales, s), y);
}

}  // namespace
}  // namespace mxcompile

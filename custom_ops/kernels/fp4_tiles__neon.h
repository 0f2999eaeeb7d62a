// Panels of E2M1 rows for NEON, packing them, and the two ways to add up products of bytes; unnamed
// namespace: see elements.h.
//
// Data layout: a panel is 16 rows. Each block of 32 elements is a record: one or two times 16 bytes of
// scales, then for each 8 elements 16 words, one a row, k ascending from the lowest nibble: four vectors of
// four rows. The low nibbles of a word's bytes are the even elements, the high ones the odd ones: a step is
// four elements of a row, in a 32-bit lane. A's elements stand in the order of steps, 4 even ones, 4 odd
// ones. Missing rows, and elements behind the row, are zero bytes.
//
// Packing transposes 4 x 4 words: 4 loads, 8 operations and 4 stores for four rows of a block.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "kernels/kernels.h"
#include "kernels/unroll.h"

namespace mxcompile {
namespace {

constexpr int64_t kTilePanel = 16;
constexpr int kTileVectors = 4;  // of four rows
constexpr int kSteps = 8;        // of a block
constexpr int64_t kGroupBytes = 4 * kTilePanel;

// The codes of `count` elements, at most a block; what stands behind them becomes 0.
inline uint8x16_t BlockCodes(const uint8_t* codes, int64_t count) {
  if (count == kPairBlock) return vld1q_u8(codes);
  uint8_t bytes[16] = {};
  std::memcpy(bytes, codes, static_cast<size_t>(CodeBytes(count, 4)));
  return vld1q_u8(bytes);
}

// The codes of a block of A, one a byte, in the order of steps.
struct Ordered {
  uint8x16_t first, last;
};

inline Ordered InSteps(uint8x16_t bytes) {
  const uint32x4_t even = vreinterpretq_u32_u8(vandq_u8(bytes, vdupq_n_u8(15)));
  const uint32x4_t odd = vreinterpretq_u32_u8(vshrq_n_u8(bytes, 4));
  return {vreinterpretq_u8_u32(vzip1q_u32(even, odd)), vreinterpretq_u8_u32(vzip2q_u32(even, odd))};
}

// Codes of a step from the words of four rows.
template <int kStep>
inline uint8x16_t StepCodes(uint8x16_t words) {
  if constexpr (kStep % 2 == 0) return vandq_u8(words, vdupq_n_u8(15));
  return vshrq_n_u8(words, 4);
}

// Four rows of a block to their place in the record.
inline void PackWords(const uint8x16_t (&rows)[4], uint8_t* to) {
  uint32x4_t r[4];
  for (int i = 0; i < 4; ++i) r[i] = vreinterpretq_u32_u8(rows[i]);
  const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1])),
                   b = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1])),
                   c = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3])),
                   d = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
  const uint64x2_t groups[4] = {vtrn1q_u64(a, c), vtrn1q_u64(b, d), vtrn2q_u64(a, c), vtrn2q_u64(b, d)};
  for (int g = 0; g < 4; ++g) vst1q_u8(to + g * kGroupBytes, vreinterpretq_u8_u64(groups[g]));
}

// The codes of up to 32 elements of the panel's rows from `start` on, to their place in a record.
inline void PackCodes(const BRows& b, int64_t rows, int64_t k, int64_t start, uint8_t* to) {
  const int64_t count = k - start < kPairBlock ? k - start : kPairBlock;
  for (int64_t first = 0; first < kTilePanel; first += 4) {
    uint8x16_t four[4];
    for (int64_t i = 0; i < 4; ++i) {
      const uint8_t* codes = b.codes + (first + i) * b.code_bytes + start / 2;
      four[i] = first + i < rows ? BlockCodes(codes, count) : vdupq_n_u8(0);
    }
    PackWords(four, to + 4 * first);
  }
}

// The records of a format with kSides scale bytes a block.
template <int kSides>
struct Tiles {
  static constexpr int64_t kScales = kSides * kTilePanel;
  static constexpr int64_t kRecord = kScales + kPairBlock / 8 * kGroupBytes;

  static int64_t PackedBytes(const RowShape& row) { return CeilDiv(row.k, kPairBlock) * kRecord; }

  static void Pack(const BRows& b, int64_t rows, const RowShape& row, uint8_t* packed) {
    for (int64_t start = 0; start < row.k; start += kPairBlock, packed += kRecord) {
      std::memset(packed, 0, kScales);
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* scales = b.scales + r * b.scale_bytes + start / kPairBlock * kSides;
        for (int64_t s = 0; s < kSides; ++s) packed[s * kTilePanel + r] = scales[s];
      }
      PackCodes(b, rows, row.k, start, packed + kScales);
    }
  }
};

// Float32 of the scale bytes of four rows. E5M2: the top bytes of float16.
inline float32x4_t ScalesE5M2(const uint8_t* bytes) {
  uint32_t four;
  std::memcpy(&four, bytes, sizeof(four));
  const uint16x8_t words = vshll_n_u8(vreinterpret_u8_u32(vdup_n_u32(four)), 8);
  return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(words)));
}

// E4M3 times 1 / kNvHalves (nvfp4_blocks.h): exponent and mantissa stand in a float16 as in E4M3, the bias
// apart.
inline float32x4_t ScalesE4M3(const uint8_t* bytes) {
  uint32_t four;
  std::memcpy(&four, bytes, sizeof(four));
  const int16x4_t words = vget_low_s16(vshll_n_s8(vreinterpret_s8_u32(vdup_n_u32(four)), 7));
  const uint16x4_t code = vreinterpret_u16_s16(words), magnitude = vand_u16(code, vdup_n_u16(0x3F80));
  const uint16x4_t is_nan = vceq_u16(magnitude, vdup_n_u16(0x3F80));
  const uint16x4_t half = vorr_u16(vand_u16(code, vdup_n_u16(0xBFFF)), vand_u16(is_nan, vdup_n_u16(0x7E00)));
  return vcvt_f32_f16(vreinterpret_f16_u16(half));
}

// E8M0: the byte is the exponent, except for 0 (a subnormal) and 255 (NaN).
inline float32x4_t ScalesE8M0(const uint8_t* bytes) {
  uint32_t four;
  std::memcpy(&four, bytes, sizeof(four));
  const uint32x4_t exponent = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
  const uint32x4_t is_zero = vceqzq_u32(exponent), is_nan = vceqq_u32(exponent, vdupq_n_u32(kE8M0NaN));
  uint32x4_t value = vshlq_n_u32(exponent, 23);
  value = vorrq_u32(value, vandq_u32(is_zero, vdupq_n_u32(0x00400000)));
  value = vorrq_u32(value, vandq_u32(is_nan, vdupq_n_u32(kQuietNaN)));
  return vreinterpretq_f32_u32(value);
}

// Sums of products of a block's steps, four rows a vector: with smlal, in int16 for each byte of a lane.
// Eight products of at most 144 fit.
struct WideningSums {
  static constexpr int kRows = 2;  // of A that a tile has registers for

  int16x8_t low, high;

  static inline WideningSums Zero() { return {vdupq_n_s16(0), vdupq_n_s16(0)}; }

  // Adds the products with lane kLane of `a`.
  template <int kLane>
  inline void Add(int8x16_t b, int8x16_t a) {
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(a), kLane));
    low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(x));
    high = vmlal_high_s8(high, b, x);
  }
  inline int32x4_t Total() const { return vpaddlq_s16(vpaddq_s16(low, high)); }
};

}  // namespace
}  // namespace mxcompile

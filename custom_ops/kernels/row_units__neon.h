// What row kernels share with NEON: 16 elements at a time; unnamed namespace: see elements.h.
//
// Extremes of a block are found as integers: floats of one sign are ordered like their bits, and NaN and
// infinity come out on top. What is left of a row goes through a copy padded with zeros, which change neither
// scales nor the codes of other elements.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kUnit = 16;
constexpr int64_t kMaxBlock = 64;

template <int kBits>
constexpr int64_t kUnitBytes = kUnit / 8 * kBits;

// The largest elements above and below zero, as bits of their magnitudes.
struct Extremes {
  uint32_t above, below;
};

inline Extremes ExtremesOf(const float* x, int64_t size) {
  int32x4_t above = vdupq_n_s32(0);
  uint32x4_t any = vdupq_n_u32(0);
  for (int64_t i = 0; i < size; i += 4) {
    const float32x4_t v = vld1q_f32(x + i);
    above = vmaxq_s32(above, vreinterpretq_s32_f32(v));
    any = vmaxq_u32(any, vreinterpretq_u32_f32(v));  // bits of negatives are the largest unsigned ones
  }
  const uint32_t last = vmaxvq_u32(any);
  return {static_cast<uint32_t>(vmaxvq_s32(above)), last >> 31 != 0 ? last & 0x7FFFFFFF : 0};
}

// The last elements of a row, and zeros.
struct Padded {
  Padded(const float* from, int64_t size) { std::memcpy(x, from, static_cast<size_t>(size) * sizeof(float)); }

  float x[kMaxBlock] = {};
};

// 16 words as bytes, no more than 255.
inline uint8x16_t Saturated(const uint16x4_t (&words)[4]) {
  return vcombine_u8(vqmovn_u16(vcombine_u16(words[0], words[1])),
                     vqmovn_u16(vcombine_u16(words[2], words[3])));
}

inline uint16x4_t UpperWords(float32x4_t x) { return vshrn_n_u32(vreinterpretq_u32_f32(x), 16); }

// Bytes of ones for the elements below zero, from their upper words.
inline uint8x16_t AreNegative(const uint16x4_t (&words)[4]) {
  const uint8x16_t upper = vcombine_u8(vshrn_n_u16(vcombine_u16(words[0], words[1]), 8),
                                       vshrn_n_u16(vcombine_u16(words[2], words[3]), 8));
  return vtstq_u8(upper, vdupq_n_u8(0x80));
}

// A unit's codes, a byte each, to memory: two in a byte, or four in 24 bits, which tbl brings together.
template <int kBits>
inline void StoreCodes(uint8x16_t codes, uint8_t* to) {
  static_assert(kBits == 4 || kBits == 6 || kBits == 8);
  if constexpr (kBits == 8) return vst1q_u8(to, codes);
  const uint16x8_t pairs = vreinterpretq_u16_u8(codes);
  if constexpr (kBits == 4) return vst1_u8(to, vmovn_u16(vsraq_n_u16(pairs, pairs, 4)));  // low + 16 * high
  const uint32x4_t lanes = vreinterpretq_u32_u8(codes);
  const auto part = [&](uint32x4_t shifted, uint32_t mask) { return vandq_u32(shifted, vdupq_n_u32(mask)); };
  const uint32x4_t low = vorrq_u32(part(lanes, 0x3F), part(vshrq_n_u32(lanes, 2), 0x3F << 6));
  const uint32x4_t high =
      vorrq_u32(part(vshrq_n_u32(lanes, 4), 0x3F << 12), part(vshrq_n_u32(lanes, 6), 0x3F << 18));
  alignas(16) constexpr uint8_t kTogether[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 16, 16, 16};
  uint8_t bytes[16];
  vst1q_u8(bytes, vqtbl1q_u8(vreinterpretq_u8_u32(vorrq_u32(low, high)), vld1q_u8(kTogether)));
  std::memcpy(to, bytes, 12);
}

// The inverse.
template <int kBits>
inline uint8x16_t LoadCodes(const uint8_t* from) {
  static_assert(kBits == 4 || kBits == 6 || kBits == 8);
  if constexpr (kBits == 8) return vld1q_u8(from);
  if constexpr (kBits == 4) {
    const uint8x8_t both = vld1_u8(from), low = vand_u8(both, vdup_n_u8(15)), high = vshr_n_u8(both, 4);
    return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
  }
  alignas(16) constexpr uint8_t kApart[16] = {0, 1, 2, 16, 3, 4, 5, 16, 6, 7, 8, 16, 9, 10, 11, 16};
  uint8_t bytes[16] = {};
  std::memcpy(bytes, from, 12);
  const uint32x4_t lanes = vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(bytes), vld1q_u8(kApart)));
  const auto part = [&](uint32x4_t shifted, uint32_t mask) { return vandq_u32(shifted, vdupq_n_u32(mask)); };
  const uint32x4_t low = vorrq_u32(part(lanes, 0x3F), part(vshlq_n_u32(lanes, 2), 0x3F << 8));
  const uint32x4_t high =
      vorrq_u32(part(vshlq_n_u32(lanes, 4), 0x3F << 16), part(vshlq_n_u32(lanes, 6), 0x3Fu << 24));
  return vreinterpretq_u8_u32(vorrq_u32(low, high));
}

}  // namespace
}  // namespace mxcompile

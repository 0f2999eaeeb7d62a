// What kernels for rows of block formats share with NEON: 16 elements at a time; unnamed namespace: see
// elements.h.
//
// Extremes of a block are found as integers: floats of one sign are ordered like their bits, and NaN and
// infinity come out on top. What is left of a row goes through a copy padded with zeros, which change neither
// scales nor codes.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "kernels/kernels.h"

namespace mxcompile {
namespace {

constexpr int64_t kUnit = 16;
constexpr int64_t kMaxBlock = 64;

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

}  // namespace
}  // namespace mxcompile

// OCP MX rows of 6 and 8 bits with NEON: one E8M0 scale a block, FLOOR rule.
//
// Data layout: see kernels.h and row_units__neon.h. The factor of a block is 2^(127 - byte), exact as a
// float32, so multiplying equals dividing.
//
// Register plan: 4 vectors of elements, 4 of codes, their signs, 6 constants. Per 16 elements: encoding 87
// operations (mxint8 63), 9 more for 6 bits; decoding 60 (mxint8 40), 8 more for 6 bits. Bound: those.
#include "kernels/codes.h"
#include "kernels/elements.h"
#include "kernels/row_kernels.h"
#include "kernels/row_units__neon.h"

namespace mxcompile {
namespace {

// Codes of magnitudes: the two branches of Encode. The normal one never exceeds the right code of a
// subnormal, and the steps of a subnormal, limited to the first normal, never that of a normal: so the larger
// one is right.
template <typename Element>
inline int32x4_t Magnitudes(float32x4_t v) {
  constexpr int kMantissa = Element::kMantissa, kBias = Element::kBias;
  const int32x4_t rounded = vaddq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(1 << (22 - kMantissa)));
  const int32x4_t normal =
      vsubq_s32(vshrq_n_s32(rounded, 23 - kMantissa), vdupq_n_s32((127 - kBias) << kMantissa));
  const float32x4_t limited = vminq_f32(v, vdupq_n_f32(Element::kMinNormal));
  const int32x4_t half_steps = vcvtq_s32_f32(vmulq_n_f32(limited, PowerOfTwo(kBias + kMantissa)));
  return vmaxq_s32(normal, vshrq_n_s32(vaddq_s32(half_steps, vdupq_n_s32(1)), 1));
}

template <>
inline int32x4_t Magnitudes<MxInt8>(float32x4_t v) {
  return vshrq_n_s32(vaddq_s32(vcvtq_s32_f32(vmulq_n_f32(v, 128.0f)), vdupq_n_s32(1)), 1);
}

// Codes of elements below zero from those of their magnitudes; a code 0 stays 0.
template <typename Element>
inline uint8x16_t Negatives(uint8x16_t codes) {
  return vorrq_u8(codes, vandq_u8(vtstq_u8(codes, codes), vdupq_n_u8(Element::kSign)));
}

template <>
inline uint8x16_t Negatives<MxInt8>(uint8x16_t codes) {
  return vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(codes)));
}

template <typename Element>
inline void EncodeUnit(const float* x, float factor, uint8_t* codes) {
  uint16x4_t magnitudes[4], signs[4];
  for (int i = 0; i < 4; ++i) {
    const float32x4_t v = vld1q_f32(x + 4 * i);
    magnitudes[i] = vqmovun_s32(Magnitudes<Element>(vmulq_n_f32(vabsq_f32(v), factor)));
    signs[i] = UpperWords(v);
  }
  const uint8x16_t above = vminq_u8(Saturated(magnitudes), vdupq_n_u8(Element::kMax));
  StoreCodes<Element::kBits>(vbslq_u8(AreNegative(signs), Negatives<Element>(above), above), codes);
}

// A block of a whole number of units.
template <typename Element>
inline void EncodeBlock(const float* x, int64_t size, uint8_t* codes, uint8_t* scale) {
  const Extremes extremes = ExtremesOf(x, size);
  const uint32_t largest = extremes.above > extremes.below ? extremes.above : extremes.below;
  if (largest >= kExponentMask) {
    *scale = kE8M0NaN;
    std::memset(codes, 0, static_cast<size_t>(size / kUnit * kUnitBytes<Element::kBits>));
    return;
  }
  const uint32_t exponent = largest >> 23, byte = exponent < Element::kEmax ? 0 : exponent - Element::kEmax;
  *scale = static_cast<uint8_t>(byte);
  const float factor = byte == 254 ? 0x1p-127f : FloatOf((254 - byte) << 23);
  for (int64_t i = 0; i < size; i += kUnit, codes += kUnitBytes<Element::kBits>)
    EncodeUnit<Element>(x + i, factor, codes);
}

template <typename Element>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  const int64_t whole = row.k / row.block * row.block, rest = row.k - whole;
  for (int64_t i = 0; i < whole; i += row.block)
    EncodeBlock<Element>(x + i, row.block, codes + i / 8 * Element::kBits, scales++);
  if (rest == 0) return;
  const Padded padded(x + whole, rest);
  uint8_t padded_codes[kMaxBlock];
  EncodeBlock<Element>(padded.x, CeilDiv(rest, kUnit) * kUnit, padded_codes, scales);
  std::memcpy(codes + whole / 8 * Element::kBits, padded_codes,
              static_cast<size_t>(CodeBytes(rest, Element::kBits)));
}

// Values of 8 codes. Exponent and mantissa stand in a float16 as in the element, the bias apart: one exact
// product sets that right.
template <typename Element>
inline float32x4x2_t Values(uint8x8_t codes) {
  constexpr int kSign = Element::kSign;
  const uint8x8_t magnitude = vand_u8(codes, vdup_n_u8(kSign - 1)), sign = vand_u8(codes, vdup_n_u8(kSign));
  const float16x8_t halves =
      vreinterpretq_f16_u16(vorrq_u16(vshlq_n_u16(vmovl_u8(magnitude), 10 - Element::kMantissa),
                                      vshlq_n_u16(vmovl_u8(sign), 16 - Element::kBits)));
  const float rebias = PowerOfTwo(15 - Element::kBias);
  float32x4x2_t values = {{vmulq_n_f32(vcvt_f32_f16(vget_low_f16(halves)), rebias),
                           vmulq_n_f32(vcvt_high_f32_f16(halves), rebias)}};
  if constexpr (Element::kMax == E4M3::kMax && Element::kMantissa == E4M3::kMantissa) {
    const int16x8_t is_nan = vmovl_s8(vreinterpret_s8_u8(vceq_u8(magnitude, vdup_n_u8(kSign - 1))));
    const int32x4_t masks[2] = {vmovl_s16(vget_low_s16(is_nan)), vmovl_high_s16(is_nan)};
    for (int i = 0; i < 2; ++i) {
      const int32x4_t bits = vorrq_s32(vreinterpretq_s32_f32(values.val[i]), masks[i]);
      values.val[i] = vreinterpretq_f32_s32(bits);
    }
  }
  return values;
}

template <>
inline float32x4x2_t Values<MxInt8>(uint8x8_t codes) {
  const int16x8_t words = vmovl_s8(vreinterpret_s8_u8(codes));
  return {{vcvtq_n_f32_s32(vmovl_s16(vget_low_s16(words)), 6), vcvtq_n_f32_s32(vmovl_high_s16(words), 6)}};
}

template <typename Element>
inline void DecodeUnit(const uint8_t* codes, float scale, float* x) {
  const uint8x16_t all = LoadCodes<Element::kBits>(codes);
  const float32x4x2_t values[2] = {Values<Element>(vget_low_u8(all)), Values<Element>(vget_high_u8(all))};
  for (int i = 0; i < 4; ++i) vst1q_f32(x + 4 * i, vmulq_n_f32(values[i / 2].val[i % 2], scale));
}

template <typename Element>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  for (int64_t i = begin; i < end; i += kUnit, x += kUnit) {
    const uint8_t* const unit = codes + i / 8 * Element::kBits;
    const float scale = DecodeE8M0(scales[i / row.block]);
    if (end - i >= kUnit) {
      DecodeUnit<Element>(unit, scale, x);
      continue;
    }
    uint8_t padded_codes[kUnit] = {};
    float padded[kUnit];
    std::memcpy(padded_codes, unit, static_cast<size_t>(CodeBytes(end - i, Element::kBits)));
    DecodeUnit<Element>(padded_codes, scale, padded);
    std::memcpy(x, padded, static_cast<size_t>(end - i) * sizeof(float));
  }
}

template <typename Element>
constexpr RowKernels Rows() {
  return {Quantize<Element>, Dequantize<Element>};
}

}  // namespace

const RowKernels mxfp6_e3m2_rows__neon = Rows<E3M2>();
const RowKernels mxfp6_e2m3_rows__neon = Rows<E2M3>();
const RowKernels mxfp8_e4m3_rows__neon = Rows<E4M3>();
const RowKernels mxfp8_e5m2_rows__neon = Rows<E5M2>();
const RowKernels mxint8_rows__neon = Rows<MxInt8>();

}  // namespace mxcompile

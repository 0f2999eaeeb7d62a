// E2M1 rows with NEON.
//
// Data layout: see kernels.h. Quantizing takes a block at a time: (1) a pass finds its extremes, as integers:
// floats of one sign are ordered like their bits, and NaN and infinity come out on top; (2) the scale bytes,
// by the scalar code; (3) a pass over the elements, 16 at a time, to 8 bytes. Decoding looks up the four
// bytes of each float32 in four tables that are made for the block, and stores them interleaved. nvfp4's rows
// begin with a tensor scale; see nvfp4.h.
//
// Register plan of step 3: 4 vectors of elements and 4 of indices, 2 sides, 5 constants; of decoding: 4
// tables. Per 32 elements: 26 + 130 operations and the two scales; decoding 8 tbl, 2 st4 and 20 more. Bound:
// the divisions (vectors of 4: 8), or of powers of two the operations. What is left of a row goes through a
// copy padded with zeros, which change neither scales nor codes.
#include <algorithm>

#include "kernels/block_scales.h"
#include "kernels/codes.h"
#include "kernels/nvfp4.h"
#include "kernels/row_kernels.h"
#include "kernels/row_units__neon.h"

namespace mxcompile {
namespace {

// Indices of the magnitudes nearest to q >= 0, ties to even or away from zero, not yet saturated: from 1 on,
// half a unit of the 1-bit mantissa is added to the bits; below 1 two thresholds count. Neither exceeds the
// right index on the other's ground, so the larger one is right.
template <bool kToEven>
inline int32x4_t Nearest(float32x4_t q) {
  constexpr int kBias = (127 << 1) - 2;
  const int32x4_t bits = vreinterpretq_s32_f32(q);
  const float32x4_t quarter = vdupq_n_f32(0.25f);
  int32x4_t half = vdupq_n_s32(1 << 21);
  if constexpr (kToEven)
    half = vaddq_s32(vdupq_n_s32((1 << 21) - 1), vandq_s32(vshrq_n_s32(bits, 22), vdupq_n_s32(1)));
  const int32x4_t normal = vsubq_s32(vshrq_n_s32(vaddq_s32(bits, half), 22), vdupq_n_s32(kBias));
  const uint32x4_t above_quarter = kToEven ? vcgtq_f32(q, quarter) : vcgeq_f32(q, quarter);
  const uint32x4_t passed = vaddq_u32(above_quarter, vcgeq_f32(q, vdupq_n_f32(0.75f)));
  return vmaxq_s32(normal, vnegq_s32(vreinterpretq_s32_u32(passed)));
}

// What elements are multiplied with or divided by, for each sign.
struct Sides {
  float32x4_t above, others;
};

// Two scales that are 8-bit floats.
template <typename Scale>
struct FloatEncode {
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kNaN = Scale::kNaN;

  // A scale of 0 gives 0: dividing by infinity does.
  static inline float32x4_t Side(uint8_t byte) {
    const float value = Scale::Decode(byte);
    return vdupq_n_f32(value == 0.0f ? std::numeric_limits<float>::infinity() : value);
  }
  static Sides Scales(const Extremes& extremes, uint8_t* scales) {
    scales[0] = Scale::Encode(FloatOf(extremes.above));
    scales[1] = Scale::Encode(FloatOf(extremes.below));
    return {Side(scales[0]), Side(scales[1])};
  }
  static inline int32x4_t Indices(float32x4_t x, const Sides& sides) {
    const uint32x4_t is_above = vcgtzq_f32(x);
    return Nearest<false>(vdivq_f32(vabsq_f32(x), vbslq_f32(is_above, sides.above, sides.others)));
  }
};

// One or two powers of two, whose inverses are exact.
template <int kSides, bool kEven>
struct PowerEncode {
  static constexpr int64_t kCount = kSides;
  static constexpr uint8_t kNaN = kE8M0NaN;

  static inline float32x4_t Side(uint8_t byte) {
    return vreinterpretq_f32_u32(vdupq_n_u32((254u - byte) << 23));
  }
  static Sides Scales(const Extremes& extremes, uint8_t* scales) {
    using Scale = PowerScale<E2M1, kEven>;
    const float above = FloatOf(extremes.above), below = FloatOf(extremes.below);
    scales[0] = Scale::Encode(kSides == 2 || above > below ? above : below);
    if (kSides == 2) scales[1] = Scale::Encode(below);
    return {Side(scales[0]), Side(scales[kSides - 1])};
  }
  static inline int32x4_t Indices(float32x4_t x, const Sides& sides) {
    if constexpr (kSides == 1) return Nearest<false>(vmulq_f32(vabsq_f32(x), sides.above));
    return Nearest<false>(vmulq_f32(vabsq_f32(x), vbslq_f32(vcgtzq_f32(x), sides.above, sides.others)));
  }
};

// One E4M3 scale on top of a tensor scale.
struct NvEncode {
  static constexpr int64_t kCount = 1;
  static constexpr uint8_t kNaN = NvScales::kNaN;

  float tensor_scale;

  Sides Scales(const Extremes& extremes, uint8_t* scales) const {
    scales[0] = NvScales::Encode(FloatOf(std::max(extremes.above, extremes.below)), tensor_scale);
    const float32x4_t side = vdupq_n_f32(NvScales::Decode(scales[0], tensor_scale));
    return {side, side};
  }
  // 0 / 0, in a tiny tensor, is NaN; vmaxnm gives the number then.
  static inline int32x4_t Indices(float32x4_t x, const Sides& sides) {
    return Nearest<true>(vmaxnmq_f32(vdivq_f32(vabsq_f32(x), sides.above), vdupq_n_f32(0.0f)));
  }
};

// 16 elements to 8 bytes.
template <typename Encode>
inline void EncodeUnit(const float* x, const Sides& sides, uint8_t* codes) {
  float32x4_t v[4];
  uint16x4_t index[4], signs[4];
  for (int i = 0; i < 4; ++i) {
    v[i] = vld1q_f32(x + 4 * i);
    index[i] = vqmovun_s32(Encode::Indices(v[i], sides));
    signs[i] = UpperWords(v[i]);
  }
  const uint8x16_t magnitude = vminq_u8(Saturated(index), vdupq_n_u8(7));
  // Bit 3 for a negative one that is not 0.
  const uint8x16_t negative = vandq_u8(AreNegative(signs), vtstq_u8(magnitude, magnitude));
  const uint8x16_t nibbles = vorrq_u8(magnitude, vandq_u8(negative, vdupq_n_u8(E2M1::kSign)));
  StoreCodes<E2M1::kBits>(nibbles, codes);
}

// A block of a whole number of units.
template <typename Encode>
inline void EncodeBlock(const Encode& encode, const float* x, int64_t size, uint8_t* codes, uint8_t* scales) {
  const Extremes extremes = ExtremesOf(x, size);
  if (extremes.above >= kExponentMask || extremes.below >= kExponentMask) {
    std::memset(scales, Encode::kNaN, Encode::kCount);
    std::memset(codes, 0, static_cast<size_t>(size / 2));
    return;
  }
  const Sides sides = encode.Scales(extremes, scales);
  for (int64_t i = 0; i < size; i += kUnit) EncodeUnit<Encode>(x + i, sides, codes + i / 2);
}

template <typename Encode>
void EncodeRow(const Encode& encode, const float* x, const RowShape& row, uint8_t* codes, uint8_t* scales) {
  const int64_t whole = row.k / row.block * row.block, rest = row.k - whole;
  for (int64_t i = 0; i < whole; i += row.block, scales += Encode::kCount)
    EncodeBlock(encode, x + i, row.block, codes + i / 2, scales);
  if (rest == 0) return;
  const Padded padded(x + whole, rest);
  uint8_t padded_codes[kMaxBlock / 2];
  EncodeBlock(encode, padded.x, CeilDiv(rest, kUnit) * kUnit, padded_codes, scales);
  std::memcpy(codes + whole / 2, padded_codes, static_cast<size_t>(CeilDiv(rest, 2)));
}

template <typename Encode>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  EncodeRow(Encode(), x, row, codes, scales);
}

void QuantizeNv(const float* x, const RowShape& row, float amax, uint8_t* codes, uint8_t* scales) {
  const float tensor_scale = NvScales::TensorScale(amax);
  StoreFloat(tensor_scale, scales);
  EncodeRow(NvEncode{tensor_scale}, x, row, codes, scales + NvScales::kRowBytes);
}

float LargestNv(const float* x, const RowShape& row) {
  const int64_t whole = row.k / row.block * row.block;
  uint32_t largest = 0;
  const auto take = [&](const float* block) {
    const Extremes extremes = ExtremesOf(block, row.block);
    const uint32_t found = std::max(extremes.above, extremes.below);
    if (found < kExponentMask) largest = std::max(largest, found);
  };
  for (int64_t i = 0; i < whole; i += row.block) take(x + i);
  if (whole < row.k) take(Padded(x + whole, row.k - whole).x);
  return FloatOf(largest);
}

// The bytes of the 16 values of a block's codes, by the scales of the sides above and below zero.
inline uint8x16x4_t ValuesOf(float above, float below) {
  constexpr float kElements[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                   -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  float values[16];
  for (int i = 0; i < 16; i += 4)
    vst1q_f32(values + i, vmulq_n_f32(vld1q_f32(kElements + i), i < 8 ? above : below));
  return vld4q_u8(reinterpret_cast<const uint8_t*>(values));
}

inline void DecodeUnit(const uint8x16x4_t& values, const uint8_t* codes, float* x) {
  const uint8x16_t index = LoadCodes<E2M1::kBits>(codes);
  uint8x16x4_t parts;
  for (int i = 0; i < 4; ++i) parts.val[i] = vqtbl1q_u8(values.val[i], index);
  vst4q_u8(reinterpret_cast<uint8_t*>(x), parts);
}

// values_of(block) gives the values of a block's codes.
template <typename ValuesOfBlock>
void DecodeRow(const uint8_t* codes, const RowShape& row, int64_t begin, int64_t end, float* x,
               const ValuesOfBlock& values_of) {
  for (int64_t i = begin, stop; i < end; i = stop) {
    const int64_t block = i / row.block, block_end = (block + 1) * row.block;
    stop = block_end < end ? block_end : end;
    const uint8x16x4_t values = values_of(block);
    int64_t j = i;
    for (; j + kUnit <= stop; j += kUnit) DecodeUnit(values, codes + j / 2, x + (j - begin));
    if (j == stop) continue;
    uint8_t padded_codes[kUnit / 2] = {};
    float padded[kUnit];
    std::memcpy(padded_codes, codes + j / 2, static_cast<size_t>(CeilDiv(stop - j, 2)));
    DecodeUnit(values, padded_codes, padded);
    std::memcpy(x + (j - begin), padded, static_cast<size_t>(stop - j) * sizeof(float));
  }
}

template <typename Scale, int kSides>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  DecodeRow(codes, row, begin, end, x, [scales](int64_t block) {
    const uint8_t* const sides = scales + block * kSides;
    return ValuesOf(Scale::Decode(sides[0]), Scale::Decode(sides[kSides - 1]));
  });
}

void DequantizeNv(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin,
                  int64_t end, float* x) {
  const float tensor_scale = LoadFloat(scales);
  DecodeRow(codes, row, begin, end, x, [scales, tensor_scale](int64_t block) {
    const float scale = NvScales::Decode(scales[NvScales::kRowBytes + block], tensor_scale);
    return ValuesOf(scale, scale);
  });
}

template <bool kEven, int kSides>
constexpr RowKernels Powers() {
  return {Quantize<PowerEncode<kSides, kEven>>, Dequantize<PowerScale<E2M1, kEven>, kSides>};
}

}  // namespace

const RowKernels amxfp4_rows__neon = {Quantize<FloatEncode<AmxScale>>, Dequantize<AmxScale, 2>};
const RowKernels amxfp4_e4m3_rows__neon = {Quantize<FloatEncode<AmxE4M3Scale>>, Dequantize<AmxE4M3Scale, 2>};
const RowKernels amxfp4_pot_rows__neon = Powers<false, 2>();
const RowKernels amxfp4_pot_r_rows__neon = Powers<true, 2>();
const RowKernels mxfp4_rows__neon = Powers<false, 1>();
const RowKernels mxfp4_even_rows__neon = Powers<true, 1>();
const RowKernels nvfp4_rows__neon = {QuantizeNv, DequantizeNv, LargestNv};

}  // namespace mxcompile

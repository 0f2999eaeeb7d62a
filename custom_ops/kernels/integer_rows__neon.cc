// Rows of integers of 4 and 8 bits with NEON.
//
// Data layout: see kernels.h and row_units__neon.h.
//
// Register plan: scale and zero point of a group in two registers, of the half steps 6 more; 4 vectors of
// elements. Per 16 elements: encoding 4 divisions and 37 operations, 32 more with half steps; decoding 30, 16
// more with half steps. Bound: encoding the divisions, decoding the operations.
#include <algorithm>

#include "kernels/codes.h"
#include "kernels/integers.h"
#include "kernels/row_kernels.h"
#include "kernels/row_units__neon.h"

namespace mxcompile {
namespace {

// Scale and zero point in all lanes.
struct Group {
  template <typename Scale>
  explicit Group(const Scale& scale) : s(vdupq_n_f32(scale.s)), z(vdupq_n_s32(scale.z)) {}

  float32x4_t s;
  int32x4_t z;
};

template <typename Number>
inline int32x4_t Encode(const Group& group, float32x4_t x) {
  const float32x4_t v = vdivq_f32(x, group.s);
  int32x4_t code = vqaddq_s32(vcvtnq_s32_f32(v), group.z);  // to nearest, ties to even
  code = vminq_s32(vmaxq_s32(code, vdupq_n_s32(0)), vdupq_n_s32(Number::kTop));
  if constexpr (Number::kHalfSteps) {
    const float32x4_t low = vdupq_n_f32(0.25f), high = vdupq_n_f32(0.75f);
    const uint32x4_t plus = vandq_u32(vcgtq_f32(v, low), vcleq_f32(v, high));
    const uint32x4_t minus = vandq_u32(vcgeq_f32(v, vnegq_f32(high)), vcltq_f32(v, vnegq_f32(low)));
    code = vbslq_s32(plus, vdupq_n_s32(Number::kPlusHalf), code);
    code = vbslq_s32(minus, vdupq_n_s32(Number::kMinusHalf), code);
  }
  return code;
}

// The codes of a unit, a byte each.
template <typename Number>
inline uint8x16_t EncodeUnit(const Group& group, const float* x) {
  uint16x4_t codes[4];
  for (int i = 0; i < 4; ++i) codes[i] = vqmovun_s32(Encode<Number>(group, vld1q_f32(x + 4 * i)));
  return Saturated(codes);
}

template <typename Number>
inline float32x4_t Decode(const Group& group, uint16x4_t words) {
  const int32x4_t codes = vreinterpretq_s32_u32(vmovl_u16(words));
  float32x4_t steps = vcvtq_f32_s32(vsubq_s32(codes, group.z));
  if constexpr (Number::kHalfSteps) {
    steps = vbslq_f32(vceqq_s32(codes, vdupq_n_s32(Number::kPlusHalf)), vdupq_n_f32(0.5f), steps);
    steps = vbslq_f32(vceqq_s32(codes, vdupq_n_s32(Number::kMinusHalf)), vdupq_n_f32(-0.5f), steps);
  }
  return vmulq_f32(steps, group.s);
}

template <typename Number>
inline void DecodeUnit(const Group& group, const uint8_t* from, float* x) {
  const uint8x16_t codes = LoadCodes<Number::kBits>(from);
  const uint16x8_t halves[2] = {vmovl_u8(vget_low_u8(codes)), vmovl_high_u8(codes)};
  for (int i = 0; i < 2; ++i) {
    vst1q_f32(x + 8 * i, Decode<Number>(group, vget_low_u16(halves[i])));
    vst1q_f32(x + 8 * i + 4, Decode<Number>(group, vget_high_u16(halves[i])));
  }
}

// A group, whole units and the rest of a row.
template <typename Number>
void QuantizeGroup(const float* x, int64_t size, uint8_t* codes, uint8_t* scale) {
  const int64_t whole = size / kUnit * kUnit, rest = size - whole;
  const Padded padded(x + whole, rest);
  const Extremes most = ExtremesOf(x, whole), last = ExtremesOf(padded.x, kUnit);
  const uint32_t above = std::max(most.above, last.above), below = std::max(most.below, last.below);
  if (std::max(above, below) >= kExponentMask) {
    Number::Store(Number::NotFinite(), scale);
    std::memset(codes, 0, static_cast<size_t>(CodeBytes(size, Number::kBits)));
    return;
  }
  const auto found = Number::ScaleOf(-FloatOf(below), FloatOf(above));
  Number::Store(found, scale);
  const Group group(found);
  for (int64_t i = 0; i < whole; i += kUnit, codes += kUnitBytes<Number::kBits>)
    StoreCodes<Number::kBits>(EncodeUnit<Number>(group, x + i), codes);
  if (rest == 0) return;
  // Zero has a code too, but what is not there has none.
  constexpr uint8_t kLanes[kUnit] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8x16_t present = vcltq_u8(vld1q_u8(kLanes), vdupq_n_u8(static_cast<uint8_t>(rest)));
  uint8_t padded_codes[kUnit];
  StoreCodes<Number::kBits>(vandq_u8(EncodeUnit<Number>(group, padded.x), present), padded_codes);
  std::memcpy(codes, padded_codes, static_cast<size_t>(CodeBytes(rest, Number::kBits)));
}

template <typename Number>
void Quantize(const float* x, const RowShape& row, float, uint8_t* codes, uint8_t* scales) {
  for (int64_t start = 0; start < row.k; start += row.block, scales += Number::kScaleBytes) {
    const int64_t size = std::min(row.block, row.k - start);
    QuantizeGroup<Number>(x + start, size, codes + start / 8 * Number::kBits, scales);
  }
}

template <typename Number>
void Dequantize(const uint8_t* codes, const uint8_t* scales, const RowShape& row, int64_t begin, int64_t end,
                float* x) {
  for (int64_t i = begin, stop; i < end; i = stop) {
    stop = std::min(end, (i / row.block + 1) * row.block);
    const Group group(Number::Load(scales + i / row.block * Number::kScaleBytes));
    for (; i + kUnit <= stop; i += kUnit)
      DecodeUnit<Number>(group, codes + i / 8 * Number::kBits, x + (i - begin));
    if (i == stop) continue;
    uint8_t padded_codes[kUnit] = {};
    float padded[kUnit];
    std::memcpy(padded_codes, codes + i / 8 * Number::kBits,
                static_cast<size_t>(CodeBytes(stop - i, Number::kBits)));
    DecodeUnit<Number>(group, padded_codes, padded);
    std::memcpy(x + (i - begin), padded, static_cast<size_t>(stop - i) * sizeof(float));
  }
}

template <typename Number>
constexpr RowKernels Rows() {
  return {Quantize<Number>, Dequantize<Number>};
}

}  // namespace

const RowKernels dint4_rows__neon = Rows<DInt4>();
const RowKernels int4_rows__neon = Rows<Int4>();
const RowKernels int8_rows__neon = Rows<Int8>();

}  // namespace mxcompile

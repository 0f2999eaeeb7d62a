// The elements and scales of 4-bit block formats, one value at a time: the definition in C++ that every other
// kernel must equal bit for bit.
//
// Every function is static: files compiled for a newer instruction set include this, and a shared inline
// function could be linked from there into code that must run everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace mxcompile {

static inline uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

constexpr uint32_t kExponentMask = 0x7F800000;

static inline bool IsFinite(float value) { return (BitsOf(value) & kExponentMask) != kExponentMask; }

// E2M1: code bit 3 is the sign, bits 2..0 index these magnitudes.
constexpr float kE2M1Magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
constexpr float kE2M1Max = 6.0f;
constexpr uint8_t kE2M1Sign = 8;
// Midpoints between neighbours; a value on a midpoint goes up (ties away from zero).
constexpr float kE2M1Thresholds[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};

// Index of the E2M1 magnitude nearest to v >= 0, ties away from zero, saturating at 6.
static inline uint8_t E2M1Index(float v) {
  uint8_t index = 0;
  for (float threshold : kE2M1Thresholds) index = static_cast<uint8_t>(index + (v >= threshold));
  return index;
}

constexpr uint8_t kE5M2Max = 0x7B;  // 57344
constexpr uint8_t kE5M2NaN = 0x7F;

// E5M2 byte nearest to s > 0, finite: ties away from zero, subnormals of step 2^-16, saturating at 57344.
static inline uint8_t EncodeE5M2(float s) {
  if (s < 0x1p-14f) {
    const float steps = s * 0x1p16f;  // exact, below 4
    return static_cast<uint8_t>((steps >= 0.5f) + (steps >= 1.5f) + (steps >= 2.5f) + (steps >= 3.5f));
  }
  // Adding half a unit to the 2-bit mantissa rounds ties away; a carry runs into the exponent as it should.
  const uint32_t code = ((BitsOf(s) + (1u << 20)) >> 21) - ((127u - 15u) << 2);
  return static_cast<uint8_t>(code < kE5M2Max ? code : kE5M2Max);
}

// Value of an E5M2 byte as in IEEE 754: 0x7C infinity, 0x7D to 0x7F NaN, bit 7 the sign.
static inline float DecodeE5M2(uint8_t byte) {
  const uint32_t sign = static_cast<uint32_t>(byte & 0x80) << 24;
  const uint32_t exponent = (byte >> 2) & 31, mantissa = byte & 3;
  if (exponent == 31)
    return FloatOf(sign | kExponentMask | (mantissa << 21) | (mantissa != 0 ? 1u << 22 : 0u));
  if (exponent == 0) return FloatOf(sign | BitsOf(static_cast<float>(mantissa) * 0x1p-16f));
  return FloatOf(sign | ((exponent + 127 - 15) << 23) | (mantissa << 21));
}

constexpr uint8_t kE8M0NaN = 0xFF;

// Value of an E8M0 byte: 2^(byte - 127); byte 0 is a float32 subnormal, 0xFF is NaN.
static inline float DecodeE8M0(uint8_t byte) {
  if (byte == kE8M0NaN) return std::numeric_limits<float>::quiet_NaN();
  return byte == 0 ? 0x1p-127f : FloatOf(static_cast<uint32_t>(byte) << 23);
}

// IEEE binary16 as bits; the value lives in float32.
struct Half {
  uint16_t bits;
};

static inline float FloatOf(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  const uint32_t exponent = (half.bits >> 10) & 31, mantissa = half.bits & 1023;
  if (exponent == 31)
    return FloatOf(sign | kExponentMask | (mantissa << 13) | (mantissa != 0 ? 1u << 22 : 0u));
  if (exponent == 0) return FloatOf(sign | BitsOf(static_cast<float>(mantissa) * 0x1p-24f));
  return FloatOf(sign | ((exponent + 127 - 15) << 23) | (mantissa << 13));
}

// Rounds to nearest, ties to even, overflows to infinity, keeps NaN (quiet): what vcvtps2ph does.
static inline Half HalfOf(float value) {
  const uint32_t bits = BitsOf(value), magnitude = bits & 0x7FFFFFFF;
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const auto with_sign = [sign](uint32_t half) { return Half{static_cast<uint16_t>(sign | half)}; };
  if (magnitude > kExponentMask) return with_sign(0x7E00 | ((magnitude >> 13) & 1023));
  if (magnitude >= 0x47800000) return with_sign(0x7C00);  // 65536 and above
  if (magnitude < 0x38800000) {                           // below 2^-14: subnormal, steps of 2^-24
    // Adding 2^-1 lets float32 itself round to a multiple of 2^-24, ties to even.
    return with_sign(BitsOf(FloatOf(magnitude) + 0.5f) - BitsOf(0.5f));
  }
  const uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return with_sign((rounded >> 13) - ((127u - 15u) << 10));
}

}  // namespace mxcompile

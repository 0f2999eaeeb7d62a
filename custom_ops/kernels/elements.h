// The elements and scales of block formats, one value at a time: the definition in C++ that every other
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

// A float32 in bytes, little-endian as every machine that this is built for.
static inline void StoreFloat(float value, uint8_t* bytes) { std::memcpy(bytes, &value, sizeof(value)); }

static inline float LoadFloat(const uint8_t* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

constexpr uint32_t kExponentMask = 0x7F800000;

constexpr uint32_t kQuietNaN = 0x7FC00000;

static inline bool IsFinite(float value) { return (BitsOf(value) & kExponentMask) != kExponentMask; }

static inline bool AllFinite(const float* x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    if (!IsFinite(x[i])) return false;
  }
  return true;
}

static constexpr float PowerOfTwo(int exponent) {
  float power = 1.0f;
  for (; exponent > 0; --exponent) power *= 2.0f;
  for (; exponent < 0; ++exponent) power *= 0.5f;
  return power;
}

// Element types are classes; the unnamed namespace gives every file its own (see above).
namespace {

// A small binary float: the sign bit on top, then exponent and mantissa. `kLast` is the code of its largest
// finite value; the codes after it are NaN, the first of them infinity if `kInfinity`.
template <int kWidth, int kMantissaBits, int kExponentBias, int kLast, bool kInfinity = false>
struct MiniFloat {
  static constexpr int kBits = kWidth, kMantissa = kMantissaBits, kBias = kExponentBias, kMax = kLast;
  static constexpr int kSign = 1 << (kWidth - 1);
  static constexpr int kEmax = (kLast >> kMantissa) - kBias;  // exponent of the largest value
  static constexpr float kMinNormal = PowerOfTwo(1 - kBias);
  static constexpr float kMaximum =
      static_cast<float>((kLast & ((1 << kMantissa) - 1)) | 1 << kMantissa) * PowerOfTwo(kEmax - kMantissa);

  // Code of the magnitude nearest to v >= 0, ties away from zero, saturating.
  static int Encode(float v) {
    if (v < kMinNormal) {
      const int half_steps = static_cast<int>(v * PowerOfTwo(kBias + kMantissa));  // the product is exact
      return (half_steps + 1) / 2;
    }
    // Adding half a unit to the mantissa rounds ties away; a carry runs into the exponent as it should.
    return Rebias(BitsOf(v) + (1u << (22 - kMantissa)));
  }

  // The same with ties to even.
  static int EncodeToEven(float v) {
    if (v < kMinNormal) return static_cast<int>(std::nearbyint(v * PowerOfTwo(kBias - 1 + kMantissa)));
    const uint32_t bits = BitsOf(v);
    return Rebias(bits + (1u << (22 - kMantissa)) - 1 + ((bits >> (23 - kMantissa)) & 1));
  }

  // The code of a negative value, from that of its magnitude.
  static int Negative(int code) { return code | kSign; }

  // Value of any code of `kWidth` bits.
  static float Decode(int code) {
    const uint32_t sign = (code & kSign) != 0 ? 0x80000000u : 0, magnitude = code & (kSign - 1);
    if (magnitude > kLast) {
      const bool infinite = kInfinity && magnitude == kLast + 1;
      return FloatOf(sign | kExponentMask | (infinite ? 0 : 1u << 22));
    }
    if (magnitude >> kMantissa == 0) {
      return FloatOf(sign | BitsOf(static_cast<float>(magnitude) * PowerOfTwo(1 - kBias - kMantissa)));
    }
    return FloatOf(sign | (magnitude + ((127 - kBias) << kMantissa)) << (23 - kMantissa));
  }

 private:
  static int Rebias(uint32_t rounded) {
    const int code = static_cast<int>(rounded >> (23 - kMantissa)) - ((127 - kBias) << kMantissa);
    return code < kLast ? code : kLast;
  }
};

// Source: OCP Microscaling Formats v1.0 section 5.3, OFP8 v1.0 table 1.
using E2M1 = MiniFloat<4, 1, 1, 7>;
using E3M2 = MiniFloat<6, 2, 3, 31>;
using E2M3 = MiniFloat<6, 3, 1, 31>;
using E4M3 = MiniFloat<8, 3, 7, 0x7E>;          // 448
using E4M3Extended = MiniFloat<8, 3, 7, 0x7F>;  // 480: the last code is a number
using E5M2 = MiniFloat<8, 2, 15, 0x7B, true>;   // 57344

// Two's complement in units of 1/64; -128 stands for -2 but is never made.
struct MxInt8 {
  static constexpr int kBits = 8, kMax = 127, kEmax = 0;

  static int Encode(float v) {
    const int code = (static_cast<int>(v * 128.0f) + 1) / 2;
    return code < kMax ? code : kMax;
  }
  static int Negative(int code) { return -code & 0xFF; }
  static float Decode(int code) { return static_cast<float>(static_cast<int8_t>(code)) / 64.0f; }
};

}  // namespace

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

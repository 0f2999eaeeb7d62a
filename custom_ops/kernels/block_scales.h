// How the extreme of a block becomes a scale byte and what the byte is worth, for the scalar kernels.
#pragma once

#include <cstdint>

#include "kernels/elements.h"

namespace mxcompile {
namespace {

// E8M0. FLOOR: floor(log2(extreme)) - emax, clamped at 2^-127 (OCP MX v1.0 section 6.3). EVEN: one more where
// the significand would round up to the next power of two.
template <typename Element, bool kEven>
struct PowerScale {
  static constexpr uint8_t kNaN = kE8M0NaN;

  static uint8_t Encode(float extreme) {
    uint32_t bits = BitsOf(extreme);
    if constexpr (kEven) bits += 1u << (22 - Element::kMantissa);
    const uint32_t exponent = bits >> 23;
    return static_cast<uint8_t>(exponent < Element::kEmax ? 0 : exponent - Element::kEmax);
  }
  static float Decode(uint8_t byte) { return DecodeE8M0(byte); }
};

// extreme / maximum, 0 becoming 1, as a `Type`, ties away from zero. `kNaNByte` is NaN, whatever else it
// might be. `kZeroIsOne`: what rounds to 0 becomes 1 too. Source: [AMX] section 4 and the authors' emulator.
template <typename Element, typename Type, uint8_t kNaNByte, bool kZeroIsOne>
struct FloatScale {
  static constexpr uint8_t kNaN = kNaNByte;

  static uint8_t Encode(float extreme) {
    const float scale = extreme / Element::kMaximum;
    const int code = Type::Encode(scale == 0.0f ? 1.0f : scale);
    return static_cast<uint8_t>(kZeroIsOne && code == 0 ? Type::Encode(1.0f) : code);
  }
  static float Decode(uint8_t byte) {
    return byte == kNaN ? std::numeric_limits<float>::quiet_NaN() : Type::Decode(byte);
  }
};

using AmxScale = FloatScale<E2M1, E5M2, 0x7F, false>;
using AmxE4M3Scale = FloatScale<E2M1, E4M3Extended, 0xFF, true>;

}  // namespace
}  // namespace mxcompile

// The two scale rules of the E2M1 formats, for the scalar kernels. A block's scales reduce to one value for
// each sign: element = magnitude * (sign ? -negative : positive).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/elements.h"

namespace mxcompile {

struct Sides {
  float positive;
  float negative;
};

// amxfp4: two E5M2 bytes a block, positive and negative. Source: [AMX] section 4 and the authors' emulator.
struct AmxScales {
  static constexpr int64_t kCount = 2;
  static constexpr uint8_t kNaN = kE5M2NaN;

  static void Encode(const float* x, int64_t size, uint8_t* scales) {
    float largest = 0.0f, smallest = 0.0f;
    for (int64_t i = 0; i < size; ++i) {
      largest = std::max(largest, x[i]);
      smallest = std::min(smallest, x[i]);
    }
    scales[0] = EncodeSide(largest);
    scales[1] = EncodeSide(-smallest);
  }

  static Sides Decode(const uint8_t* scales) { return {DecodeE5M2(scales[0]), DecodeE5M2(scales[1])}; }

 private:
  static uint8_t EncodeSide(float extreme) {
    const float scale = extreme / kE2M1Max;
    return EncodeE5M2(scale == 0.0f ? 1.0f : scale);
  }
};

// mxfp4: one E8M0 byte a block, OCP MX v1.0's FLOOR rule: floor(log2(amax)) - 2, clamped at 2^-127.
struct MxScales {
  static constexpr int64_t kCount = 1;
  static constexpr uint8_t kNaN = kE8M0NaN;

  static void Encode(const float* x, int64_t size, uint8_t* scales) {
    float largest = 0.0f;
    for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::fabs(x[i]));
    const uint32_t exponent = BitsOf(largest) >> 23;
    scales[0] = static_cast<uint8_t>(exponent < 2 ? 0 : exponent - 2);
  }

  static Sides Decode(const uint8_t* scales) {
    const float scale = DecodeE8M0(scales[0]);
    return {scale, scale};
  }
};

}  // namespace mxcompile

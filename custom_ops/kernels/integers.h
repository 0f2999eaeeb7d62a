// Integers with a float32 scale and a zero point, for every instruction set; unnamed namespace: see
// elements.h.
//
// Codes 0 to p stand for (code - z) * s. With half steps (dINT) two more codes are +s/2 and -s/2.
// Source: [DINT] section 3.2, equations 5 and 6; codes of the half steps, ties and layout: this project.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/elements.h"

namespace mxcompile {
namespace {

template <int kWidth, bool kWithHalfSteps>
struct Integer {
  static constexpr int kBits = kWidth;
  static constexpr bool kHalfSteps = kWithHalfSteps;
  static constexpr int kTop = (1 << kWidth) - (kWithHalfSteps ? 3 : 1);
  static constexpr int kPlusHalf = kTop + 1, kMinusHalf = kTop + 2;
  static constexpr int64_t kScaleBytes = 5;  // s, then z

  struct Scale {
    float s;
    int z;
  };

  // Of a finite group whose smallest and largest elements are these.
  static Scale ScaleOf(float smallest, float largest) {
    constexpr auto p = static_cast<float>(kTop);
    const float lo = std::min(smallest, 0.0f), hi = std::max(largest, 0.0f), span = hi - lo;
    float s = IsFinite(span) ? span / p : hi / p - lo / p;
    if (s == 0.0f) s = 1.0f;
    return {s, static_cast<int>(std::clamp(std::nearbyint(-lo / s), 0.0f, p))};
  }

  static int Encode(const Scale& scale, float x) {
    const float v = x / scale.s;
    if (kHalfSteps && v > 0.25f && v <= 0.75f) return kPlusHalf;
    if (kHalfSteps && v >= -0.75f && v < -0.25f) return kMinusHalf;
    const float code = std::nearbyint(v) + static_cast<float>(scale.z);
    return static_cast<int>(std::clamp(code, 0.0f, static_cast<float>(kTop)));
  }

  static float Decode(const Scale& scale, int code) {
    if (kHalfSteps && code == kPlusHalf) return 0.5f * scale.s;
    if (kHalfSteps && code == kMinusHalf) return -0.5f * scale.s;
    return static_cast<float>(code - scale.z) * scale.s;
  }

  // The code's value in units of s, or of s / 2 with half steps: a whole number of at most 510.
  static int Units(int code, int z) {
    if (kHalfSteps && code == kPlusHalf) return 1;
    if (kHalfSteps && code == kMinusHalf) return -1;
    return (kHalfSteps ? 2 : 1) * (code - z);
  }

  static void Store(const Scale& scale, uint8_t* bytes) {
    StoreFloat(scale.s, bytes);
    bytes[4] = static_cast<uint8_t>(scale.z);
  }

  static Scale Load(const uint8_t* bytes) { return {LoadFloat(bytes), bytes[4]}; }

  // Of a group with NaN or Inf.
  static Scale NotFinite() { return {FloatOf(kQuietNaN), 0}; }
};

using DInt4 = Integer<4, true>;
using DInt3 = Integer<3, true>;
using Int4 = Integer<4, false>;
using Int8 = Integer<8, false>;

}  // namespace
}  // namespace mxcompile

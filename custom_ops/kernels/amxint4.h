// AMXINT4's scales, for every instruction set; unnamed namespace: see elements.h.
//
// A block's scale bytes: s and shift, float32 each. Codes are two's complement in a byte: a block whose range
// is symmetric has 17 levels. Source: [AMX] section 4 and the authors' emulator (int4_asym).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/elements.h"
#include "kernels/kernels.h"

namespace mxcompile {
namespace {

struct AmxInt4 {
  static constexpr int kBits = 8;
  static constexpr int64_t kScaleBytes = 8;
  static constexpr float kLevels = 15.0f;
  // Codes are -8 to 8, except where a block is so far from 0 that float32 has no bits left for its range.
  static constexpr float kLimit = 127.0f;

  struct Scale {
    float s, shift;
  };

  // Of a finite block with these extremes. In rows that have a ragged block the range includes 0.
  static Scale ScaleOf(float lo, float hi, const RowShape& row) {
    if (row.k % row.block != 0) {
      lo = std::min(lo, 0.0f);
      hi = std::max(hi, 0.0f);
    }
    const float span = hi - lo;
    float s = IsFinite(span) ? span / kLevels : hi / kLevels - lo / kLevels;
    if (s == 0.0f) s = 1.0f;
    return {s, -std::round(lo / s) - 8.0f};  // std::round: half away from zero
  }

  static void Store(const Scale& scale, uint8_t* bytes) {
    StoreFloat(scale.s, bytes);
    StoreFloat(scale.shift, bytes + 4);
  }

  static Scale Load(const uint8_t* bytes) { return {LoadFloat(bytes), LoadFloat(bytes + 4)}; }

  // Of a block with NaN or Inf.
  static Scale NotFinite() { return {FloatOf(kQuietNaN), 0.0f}; }
};

}  // namespace
}  // namespace mxcompile

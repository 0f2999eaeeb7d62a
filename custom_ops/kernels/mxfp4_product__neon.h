// What the products of mxfp4 rows with mxfp4 rows are with NEON, for fp4_dot_tiles__neon.h; what is computed:
// mxfp4_blocks.h. Unnamed namespace: see elements.h.
#pragma once

#include "kernels/fp4_dot_tiles__neon.h"

namespace mxcompile {
namespace {

struct MxProduct {
  static constexpr int kParts = 1;
  static constexpr int64_t kRowScales = 0;

  static float AScale(uint8_t byte) { return DecodeE8M0(byte) * 0.25f; }
  static inline float32x4_t BScales(const uint8_t* bytes) { return ScalesE8M0(bytes); }
  static inline float32x4_t Finish(float32x4_t sum, float a, float32x4_t b, float32x4_t y) {
    return vfmaq_n_f32(y, vmulq_f32(b, sum), a);
  }
};

}  // namespace
}  // namespace mxcompile

// What the products of nvfp4 rows with nvfp4 rows are with NEON, for fp4_dot_tiles__neon.h; what is computed:
// nvfp4_blocks.h. Unnamed namespace: see elements.h.
#pragma once

#include "kernels/fp4_dot_tiles__neon.h"
#include "kernels/nvfp4_blocks.h"

namespace mxcompile {
namespace {

struct NvProduct {
  static constexpr int kParts = kPairBlock / kNvBlock;
  static constexpr int64_t kRowScales = NvScales::kRowBytes;

  static float AScale(uint8_t byte) { return E4M3::Decode(byte) * (kNvHalves / 4); }
  static inline float32x4_t BScales(const uint8_t* bytes) { return ScalesE4M3(bytes); }
  static inline float32x4_t Finish(float32x4_t sum, float a, float32x4_t b, float32x4_t y) {
    return vfmaq_f32(y, vmulq_n_f32(b, a), sum);
  }
};

}  // namespace
}  // namespace mxcompile

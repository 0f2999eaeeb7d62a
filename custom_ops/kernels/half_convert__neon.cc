// float16 and float32 with NEON. Data layout: plain rows. Register plan: one vector of 4 in, one out; the
// conversion itself is the bottleneck.
#include <arm_neon.h>

#include "kernels/half_convert.h"

namespace mxcompile {
namespace {

void HalfToFloat(const Half* x, int64_t size, float* y) {
  int64_t i = 0;
  for (; i + 4 <= size; i += 4) {
    const uint16x4_t half = vld1_u16(reinterpret_cast<const uint16_t*>(x + i));
    vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(half)));
  }
  for (; i < size; ++i) y[i] = FloatOf(x[i]);
}

void FloatToHalf(const float* x, int64_t size, Half* y) {
  int64_t i = 0;
  for (; i + 4 <= size; i += 4) {
    const float16x4_t half = vcvt_f16_f32(vld1q_f32(x + i));
    vst1_u16(reinterpret_cast<uint16_t*>(y + i), vreinterpret_u16_f16(half));
  }
  for (; i < size; ++i) y[i] = HalfOf(x[i]);
}

}  // namespace

const ConvertKernels half_convert__neon = {HalfToFloat, FloatToHalf};

}  // namespace mxcompile

// float16 and float32, one element at a time: the reference. Data layout: plain rows.
#include "kernels/half_convert.h"

namespace mxcompile {
namespace {

void HalfToFloat(const Half* x, int64_t size, float* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = FloatOf(x[i]);
}

void FloatToHalf(const float* x, int64_t size, Half* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = HalfOf(x[i]);
}

}  // namespace

const ConvertKernels half_convert__scalar = {HalfToFloat, FloatToHalf};

}  // namespace mxcompile

// float16 and float32 with F16C. Data layout: plain rows. Register plan: one vector of 8 in, one out; the
// conversion itself is the bottleneck, so nothing is unrolled by hand.
#include <immintrin.h>

#include "kernels/half_convert.h"

namespace mxcompile {
namespace {

void HalfToFloat(const Half* x, int64_t size, float* y) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(half));
  }
  for (; i < size; ++i) y[i] = FloatOf(x[i]);
}

void FloatToHalf(const float* x, int64_t size, Half* y) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), half);
  }
  for (; i < size; ++i) y[i] = HalfOf(x[i]);
}

}  // namespace

const ConvertKernels half_convert__avx2 = {HalfToFloat, FloatToHalf};

}  // namespace mxcompile
